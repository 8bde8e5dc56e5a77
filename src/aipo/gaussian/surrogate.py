"""What every Gaussian stand-in N(μ, Σ) for a prior offers, on images (B, C, H, W)."""

import math
from typing import Protocol

from torch import Tensor

from aipo.basics.arrays import Images, PerImage, dot

# No pixel of an 8-bit picture is known better than this: a standard deviation of about one level.
VARIANCE_FLOOR = 2e-5


class Surrogate(Protocol):
    """A Gaussian density of images.

    Optional, and used where present: `shape`, (C, H, W) of its images or (C, None, None) for any size, and
    `textured`, whether Σ knows how neighbouring pixels vary together at the finest scale.
    """

    def mean_like(self, x: Images) -> Images:
        """μ, broadcastable to x."""
        ...

    def coordinates(self, x: Images) -> Tensor:
        """An empty u for each picture of a batch."""
        ...

    def factor(self, u: Tensor) -> Images:
        """F u, with Σ = F Fᵀ."""
        ...

    def factor_adjoint(self, v: Images) -> Tensor:
        """Fᵀ v."""
        ...

    def precision(self, v: Images) -> Images:
        """Σ⁻¹ v."""
        ...


class Normalised(Surrogate, Protocol):
    """One whose density has a known constant."""

    def log_det(self) -> Tensor:
        """log det Σ, in float64."""
        ...


def energy(surrogate: Surrogate, x: Images) -> PerImage:
    """½ (x − μ)ᵀ Σ⁻¹ (x − μ), without the constant: a yardstick of how far x is from the data, (B,)."""
    centred = x - surrogate.mean_like(x)
    return 0.5 * dot(centred, surrogate.precision(centred))


def log_prob(surrogate: Normalised, x: Images) -> PerImage:
    """log N(x; μ, Σ), nats per image."""
    constant = 0.5 * surrogate.log_det() + 0.5 * math.log(2 * math.pi) * x[0].numel()
    return -energy(surrogate, x.double()) - constant
