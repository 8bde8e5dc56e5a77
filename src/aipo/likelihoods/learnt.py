"""Noise whose density is learnt: D(x) = −log p_E(y − A x) with p_E a trained flow.

Source: Whang, Lei & Dimakis 2021, Solving inverse problems with a flow-based noise model.
"""

from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from aipo.basics.arrays import Images, Measurements, PerImage
from aipo.basics.errors import InputError
from aipo.likelihoods.likelihood import Gaussian, Likelihood
from aipo.likelihoods.uneven import Coloured
from aipo.operators import Identity, Operator


class Density(Protocol):
    """A density of noise pictures, such as a flow or `aipo.load_prior(folder)`."""

    def log_prob(self, e: Tensor) -> Tensor:
        """log p_E(e), nats per measurement, (B,)."""
        ...

    def sample(self, count: int) -> Tensor:
        """Draws, (count, *measurement_shape)."""
        ...


class FlowNoise(Likelihood):
    """y = A x + e with e ~ p_E: structured noise, of which samples were at hand to train p_E on.

    Its minimiser puts the residual at a mode of p_E, which need not be near 0.

    Args:
        density: of noise in the measurement's shape.
        draws: its samples, (count, *measurement_shape), for mean and variance; drawn where not given.

    Raises:
        InputError: a density whose samples have another shape than the measurements.
    """

    shared = ("density", "draws")

    def __init__(self, operator: Operator, y: Measurements, density: Density, draws: Tensor | None = None):
        super().__init__(operator, y)
        # A few hundred samples give mean and variance of the noise; they are drawn once.
        self.draws = density.sample(256) if draws is None else draws
        if self.draws.shape[1:] != y.shape[1:]:
            raise InputError(
                f"the noise density draws {tuple(self.draws.shape[1:])}, but y has {tuple(y.shape[1:])}; "
                "train it on noise of the measurement's shape"
            )
        self.density = density

    @cached_property
    def _moments(self) -> tuple[Tensor, Tensor]:
        """Mean and variance of the noise."""
        draws = self.draws.to(self.y)
        return draws.mean(0), draws.var(0).clamp_min(1e-12)

    @cached_property
    def _entropy(self) -> Tensor:
        """What D is on average where the residual is noise, nats."""
        with torch.no_grad():
            return -self.density.log_prob(self.draws.to(self.y)).mean()

    def __call__(self, x: Images) -> PerImage:
        return -self.density.log_prob(self.y - self.operator(x))

    def simulate(self, x: Images, generator: torch.Generator | None = None) -> Measurements:
        """Noise from the density's stock of samples, chosen at random."""
        clean = self.operator(x)
        chosen = torch.randint(len(self.draws), (len(clean),), generator=generator)
        return clean + self.draws[chosen].to(clean)

    def moments(self, x: Images) -> tuple[Measurements, Measurements]:
        shift, variance = self._moments
        mean = self.operator(x) + shift
        return mean, variance.expand_as(mean)

    def misfit(self, x: Images) -> PerImage:
        """1 + 2(D − H)/m with H the noise's entropy: of Gaussian noise again the mean square residual.

        What is unlikely of structured noise is its shape, of which variances know nothing.
        """
        return 1 + 2 * (self(x) - self._entropy) / self.operator.measurements

    def nearest(self) -> tuple[Measurements, float | PerImage]:
        shift, variance = self._moments
        return self.y - shift, float(variance.mean()) ** 0.5

    def gaussian(self) -> Gaussian:
        """Of whole pictures noise with the average spectrum of its samples."""
        if not isinstance(self.operator, Identity):
            return super().gaussian()
        centred = (self.draws.to(self.y) - self._moments[0]).flatten(0, 1).double()
        power = torch.fft.fft2(centred, norm="ortho").abs().square().mean(0)
        return Coloured(self.operator, self.nearest()[0], power.clamp_min(1e-4 * power.mean())).gaussian()
