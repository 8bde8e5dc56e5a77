"""Noise whose density is learnt: D(x) = −log p_E(y − A x), where p_E is a trained flow.

Source: Whang, Lei & Dimakis 2021, Solving inverse problems with a flow-based noise model.
"""

from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from aipo.basics.arrays import Images, Measurements, PerImage, check_tensor
from aipo.basics.errors import InputError
from aipo.likelihoods.likelihood import Gaussian, Likelihood
from aipo.likelihoods.uneven import Coloured
from aipo.operators import Operator


class Density(Protocol):
    """A density of noise pictures, such as a flow or `aipo.load_prior(folder)`."""

    def log_prob(self, e: Tensor, /) -> Tensor:
        """log p_E(e), nats per measurement, (B,)."""
        ...

    def sample(self, count: int, /) -> Tensor:
        """Samples, (count, *measurement_shape)."""
        ...


class FlowNoise(Likelihood):
    """y = A x + e with e ~ p_E: structured noise, of which p_E was trained on samples.

    At the minimum of D the residual lies at a mode of p_E, which need not be near 0.

    Args:
        operator, y: see `Likelihood`.
        density: p_E, of noise in the measurement's shape.
        draws: samples of p_E, (count, *measurement_shape), which tell its mean, variance and spectrum, and
            which `simulate` uses. By default 256 are drawn.

    Raises:
        InputError: see `Likelihood`; or the samples have another shape than the measurements.
    """

    shared = ("density", "draws")

    def __init__(self, operator: Operator, y: Measurements, density: Density, draws: Tensor | None = None):
        super().__init__(operator, y)
        self.density = density
        # A few hundred samples give mean and variance of the noise; they are drawn once.
        self.draws = density.sample(256) if draws is None else draws
        check_tensor("draws", self.draws)
        if self.draws.shape[1:] != y.shape[1:]:
            raise InputError(
                f"the noise density draws {tuple(self.draws.shape[1:])}, but y has {tuple(y.shape[1:])}; "
                "train it on noise of the measurement's shape"
            )
        self._noise = _Noise(density, self.draws.to(y))

    def to(self, device: torch.device | str) -> Self:
        """The same on another device; if the density has weights, a copy of it moves there too."""
        other = super().to(device)
        density: Any = deepcopy(self.density) if other.y.device != self.y.device else self.density
        if hasattr(density, "to"):
            other.density = density.to(device)  # modules move themselves, hence the copy
        other._noise = _Noise(other.density, other.draws.to(other.y))
        return other

    @property
    def pixelwise(self) -> bool:
        return False  # the density is of whole measurements

    def __call__(self, x: Images) -> PerImage:
        return -self.density.log_prob(self.y - self.operator(x))

    def simulate(self, x: Images, generator: torch.Generator | None = None) -> Measurements:
        """The noise of each measurement is one of `draws`, chosen at random."""
        clean = self.operator(x)
        chosen = torch.randint(len(self.draws), (len(clean),), generator=generator)
        return clean + self.draws[chosen.to(self.draws.device)].to(clean)

    def moments(self, x: Images) -> tuple[Measurements, Measurements]:
        mean = self.operator(x) + self._noise.mean
        return mean, self._noise.variance.expand_as(mean)

    def misfit(self, x: Images) -> PerImage:
        """1 + 2(D − H)/m, where H is the entropy of the noise; for Gaussian noise Pearson's statistic again.

        What makes structured noise unlikely is its shape, about which variances know nothing.
        """
        return 1 + 2 * (self(x) - self._noise.entropy) / self.operator.measurements

    def nearest(self) -> tuple[Measurements, float | PerImage]:
        return self.y - self._noise.mean, float(self._noise.variance.mean()) ** 0.5

    def gaussian(self) -> Gaussian:
        """If A is a filter, coloured noise that has the average spectrum of the samples, whitened."""
        if len(self.operator.measurement_shape) != 3:
            return super().gaussian()
        return Coloured(self.operator, self.nearest()[0], self._noise.spectrum).gaussian()


@dataclass(frozen=True, eq=False)
class _Noise:
    """What samples tell about the noise; the same for every part of a batch.

    Args:
        density: what the samples were drawn from.
        draws: samples, (count, *measurement_shape), with the device and dtype of the measurements.
    """

    density: Density
    draws: Tensor

    @cached_property
    def mean(self) -> Tensor:
        return self.draws.mean(0)

    @cached_property
    def variance(self) -> Tensor:
        return self.draws.var(0).clamp_min(1e-12)

    @cached_property
    def entropy(self) -> Tensor:
        """The average of −log p_E over the samples, nats: what D is on average at the true picture."""
        with torch.no_grad():
            return -self.density.log_prob(self.draws).mean()

    @cached_property
    def spectrum(self) -> Tensor:
        """Average power at every frequency, (H, W) in `torch.fft.fft2` order; the samples are pictures."""
        centred = (self.draws - self.mean).flatten(0, 1).double()
        power = torch.fft.fft2(centred, norm="ortho").abs().square().mean(0)
        return power.clamp_min(1e-4 * power.mean())
