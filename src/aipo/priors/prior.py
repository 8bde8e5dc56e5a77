"""Priors: densities of images as energies R(x) = −log p(x), in nats per image.

A prior is any object with `energy(x) -> (B,)`. Optional and used when present: `surrogate`, a Gaussian
with closed-form posterior (`aipo.gaussian`), and `energy(x, tau=τ)`, the energy of p ∗ N(0, τ² I), the
density of pictures with noise, which the smoothing path follows. A prior with `denoise`, `loudest` and
`views` (`aipo.path.denoising.Denoising`) removes white noise at once. `shape`, (C, H, W) with None for any
size, and the `parameters()` of a PyTorch module tell `aipo.priors.checks` which measurements do not fit.
"""

from typing import Protocol

from aipo.basics.arrays import Images, PerImage


class Prior(Protocol):
    """What the reconstruction asks of a prior."""

    def energy(self, x: Images) -> PerImage:
        """−log p(x), nats per image."""
        ...
