"""What every data energy D(x) = −log p(y | x) is, and the Gaussian one: nats per image, with every constant.

A user's own likelihood is a subclass with the four abstract methods. Parameters that each image has its own
value of are tensors (B,) or (B, ...), named in `per_image`; others are named in `shared`; the constructor
takes operator, y, then the shared ones, then those per image, in that order. Part of a batch is a copy with
other `y` and `per_image`; what else depends on them is a `functools.cached_property`, found anew by the copy.
"""

import copy
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Self

import torch
from torch import Tensor

from aipo.basics.arrays import (
    Images,
    Measurements,
    PerImage,
    as_per_image,
    check_tensor,
    expand,
    per_image_sum,
)
from aipo.basics.errors import InputError
from aipo.likelihoods.checks import check_measurements
from aipo.operators import Composition, LinearOperator, Operator, simplest


@dataclass(frozen=True)
class Stein:
    """What an unbiased estimate of the error of A x needs to know of a measurement's noise.

    Attributes:
        exact: whether the estimate is unbiased (SURE, Gaussian noise), or only to first order (PURE, counts).
        y: measurements with mean A x, (B, ...).
        probe: noise of the covariance that y's has, (B, ...).
        trace: of that covariance, (B,).
    """

    exact: bool
    y: Measurements
    probe: Measurements
    trace: PerImage


class Likelihood(ABC):
    """D of a batch of measurements of one instrument.

    Args:
        operator: A, with m measured values.
        y: measurements, (B, *operator.measurement_shape).

    Raises:
        InputError: y is no tensor, of another shape, empty, not of floating-point numbers, or not finite.
    """

    shared: ClassVar[tuple[str, ...]] = ()
    per_image: ClassVar[tuple[str, ...]] = ()
    # Whether `nearest` tells so little that a path's start is better solved for under the likelihood itself.
    rough: ClassVar[bool] = False

    def __init__(self, operator: Operator, y: Measurements):
        check_measurements(operator, y)
        self.operator = operator
        self.y = y

    def __len__(self) -> int:
        return len(self.y)

    @abstractmethod
    def __call__(self, x: Images) -> PerImage:
        """D(x), nats per image."""

    @abstractmethod
    def simulate(self, x: Images, generator: torch.Generator | None = None) -> Measurements:
        """A measurement of x with fresh noise."""

    @abstractmethod
    def moments(self, x: Images) -> tuple[Measurements, Measurements]:
        """Mean and variance of every measured value, given x."""

    @abstractmethod
    def nearest(self) -> tuple[Measurements, float | PerImage]:
        """Measurements, and the standard deviation of Gaussian noise, that say about the same of f(x)."""

    @property
    def noise_level(self) -> PerImage:
        """The standard deviation that `nearest` tells, (B,)."""
        y, sigma = self.nearest()
        return positive("sigma", sigma, y)

    def precision(self, x: Images) -> Measurements:
        """Information of each measured value about its own f(x): an inverse variance, like y."""
        return expand(self.noise_level**-2, self.y).expand_as(self.y)

    def gaussian(self) -> "Gaussian":
        """Gaussian noise of about this size on measurements of a linear operator.

        It gives the path's closed-form start and the solver's metric, never the objective.
        """
        y, sigma = self.nearest()
        return Gaussian(self.operator.linear, *self.operator.straighten(y, positive("sigma", sigma, y)))

    def misfit(self, x: Images) -> PerImage:
        """Mean of (y − mean)²/variance over measured values: about 1 at the truth (Pearson 1900)."""
        mean, variance = self.moments(x)
        return ((self.y - mean) ** 2 / variance).flatten(1).mean(1)

    def stein(self, white: Measurements) -> Stein | None:
        """For Stein's identity and its kin, the probe made of white noise; None where none holds."""
        return None

    def simplest(self) -> "Likelihood":
        """The same density, spelled as simply as possible, so that equal problems get equal answers."""
        return self

    def rearranged(self) -> Self:
        """The same measured values on the simplest operator that measures them; noise independent on each."""
        operator, moved = simplest(self.operator)
        if operator is self.operator:
            return self
        values = [getattr(self, name) for name in self.per_image]
        other = self._with(moved(self.y), [moved(v) if v.shape == self.y.shape else v for v in values])
        other.operator = operator
        return other

    def select(self, indices: Tensor) -> Self:
        """The likelihood of some images of the batch."""
        return self._with(self.y[indices], [getattr(self, name)[indices] for name in self.per_image])

    def append(self, y: Measurements) -> Self:
        """The batch followed by other measurements (B, ...) of the same instrument and noise."""
        if y.shape != self.y.shape:
            raise InputError(
                f"the batch has shape {tuple(self.y.shape)}; append as many again, got {tuple(y.shape)}"
            )
        twice = [torch.cat(2 * [getattr(self, name)]) for name in self.per_image]
        return self._with(torch.cat((self.y, y)), twice)

    def to(self, device: torch.device | str) -> Self:
        """The same measurements on another device, where the prior must be too; the operator follows them."""
        other = self._with(self.y.to(device), [getattr(self, name).to(device) for name in self.per_image])
        for name in self.shared:
            value = getattr(self, name)
            setattr(other, name, value.to(device) if isinstance(value, Tensor) else value)
        return other

    def through(self, first: LinearOperator) -> Self:
        """The same measurements, made of first(x): such as those of a grey picture, for a prior for colour.

        Raises:
            InputError: first(x) has another shape than the pictures that were measured, or f is not linear.
        """
        linear = self.operator.linear
        if linear is not self.operator:
            raise InputError(
                f"{type(self.operator).__name__} is not linear; compose it with the other yourself"
            )
        other = self._with(self.y, [getattr(self, name) for name in self.per_image])
        other.operator = Composition(first, linear)
        return other

    def _with(self, y: Measurements, per_image: list[Tensor]) -> Self:
        # Not by the constructor: what was valid stays so, and an estimate's copies need no whole counts.
        other = copy.copy(self)
        for name in vars(self).keys() - {"operator", "y", *self.shared, *self.per_image}:
            if isinstance(getattr(type(self), name, None), cached_property):
                delattr(other, name)  # it was made of this batch, on this device
        other.y = y
        for name, value in zip(self.per_image, per_image, strict=True):
            setattr(other, name, value)
        return other


class Gaussian(Likelihood):
    """y = A x + e with independent N(0, σ²) noise on every measured value.

    D(x) = ‖y − A x‖² / (2σ²) + m/2 · log(2πσ²); its minimiser of least norm is A⁺y.

    Args:
        operator: A, a linear operator with m measured values.
        y: measurements, (B, *operator.measurement_shape).
        sigma: σ > 0 in units of the measurement; one number, or one per image (B,).

    Raises:
        InputError: y of another shape, not finite, or σ not positive.
    """

    per_image = ("sigma",)

    def __init__(self, operator: Operator, y: Measurements, sigma: float | Tensor):
        super().__init__(operator, y)
        self.sigma: PerImage = positive("sigma", sigma, y)

    def __call__(self, x: Images) -> PerImage:
        m = self.operator.measurements
        constant = m / 2 * torch.log(2 * math.pi * self.sigma**2)
        return self.residual_squared(x) / (2 * self.sigma**2) + constant

    def residual_squared(self, x: Images) -> PerImage:
        """‖y − A x‖², (B,)."""
        return per_image_sum((self.operator(x) - self.y) ** 2)

    def simulate(self, x: Images, generator: torch.Generator | None = None) -> Measurements:
        return add_noise(self.operator(x), self.sigma, generator)

    def moments(self, x: Images) -> tuple[Measurements, Measurements]:
        mean = self.operator(x)
        return mean, expand(self.sigma**2, mean).expand_as(mean)

    def misfit(self, x: Images) -> PerImage:
        return self.residual_squared(x) / (self.operator.measurements * self.sigma**2)

    def nearest(self) -> tuple[Measurements, float | PerImage]:
        return self.y, self.sigma

    def stein(self, white: Measurements) -> Stein:
        return Stein(
            True, self.y, expand(self.sigma, white) * white, self.operator.measurements * self.sigma**2
        )

    def simplest(self) -> "Gaussian":
        return self.rearranged()

    def gaussian(self) -> "Gaussian":
        return self if self.operator.linear is self.operator else super().gaussian()


def measure(
    operator: Operator, x: Images, sigma: float | Tensor, generator: torch.Generator | None = None
) -> Gaussian:
    """Simulate y = A x + e and return its Gaussian likelihood."""
    check_tensor("x", x)
    clean = operator(x)
    return Gaussian(operator, add_noise(clean, positive("sigma", sigma, clean), generator), sigma)


def add_noise(clean: Tensor, sigma: PerImage, generator: torch.Generator | None) -> Tensor:
    """White Gaussian noise of one strength per image."""
    return clean + expand(sigma, clean) * standard_normal(clean, generator)


def standard_normal(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """White noise of variance 1, shaped like a tensor."""
    return torch.randn(like.shape, generator=generator, dtype=like.dtype).to(like.device)


def positive(name: str, value: float | Tensor, like: Tensor) -> PerImage:
    """A parameter as one number per image, (B,).

    Raises:
        InputError: not positive and finite, or another shape.
    """
    values = as_per_image(value, like)
    if values.shape != (len(like),) or not bool(((values > 0) & torch.isfinite(values)).all()):
        raise InputError(f"{name} must be positive, one number or one per image, got {value}")
    return values


def uniform(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Numbers in (0, 1), shaped like a tensor, for noise by inversion."""
    drawn = torch.rand(like.shape, generator=generator, dtype=torch.float64).to(like.device)
    return drawn.clamp(1e-300, 1 - 1e-16)
