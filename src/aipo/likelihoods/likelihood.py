"""The base class of data energies D(x) = −log p(y | x), and the Gaussian one; nats per image, every constant.

To write your own, derive a class from `Likelihood` and define its four abstract methods. `per_image` names
the parameters that have one value for each image; they are tensors (B,) or (B, ...). `shared` names all
others. The constructor takes operator, y, the shared parameters and those per image, in this order. Part of a
batch is a copy with other `y` and `per_image`. Whatever else you compute from these must be a
`functools.cached_property`: the copy then computes it anew.
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
    """What Stein's estimate of the error of A x needs to know about the noise.

    Attributes:
        exact: true if the estimate is unbiased (SURE, for Gaussian noise), false if it is unbiased only to
            first order (PURE, for counts).
        y: measurements whose mean is A x, (B, ...).
        probe: a draw of noise with the same covariance as the noise of y, (B, ...).
        trace: the trace of this covariance, (B,).
    """

    exact: bool
    y: Measurements
    probe: Measurements
    trace: PerImage


class Likelihood(ABC):
    """The data energy D of a batch of measurements that one instrument made.

    Args:
        operator: A, or any differentiable f, with m measured values.
        y: measurements, (B, *operator.measurement_shape), in the precision and on the device of the prior.

    Raises:
        InputError: y is not a tensor, has another shape, is empty, is not of floating-point numbers, or is
            not finite.
    """

    shared: ClassVar[tuple[str, ...]] = ()
    per_image: ClassVar[tuple[str, ...]] = ()
    # Whether `nearest` says so little that a path finds its start better under the likelihood itself.
    rough: ClassVar[bool] = False

    def __init__(self, operator: Operator, y: Measurements):
        check_measurements(operator, y)
        self.operator = operator
        self.y = y

    def __len__(self) -> int:
        return len(self.y)

    @abstractmethod
    def __call__(self, x: Images) -> PerImage:
        """D(x) of pictures (B, C, H, W), nats per image, (B,)."""

    @abstractmethod
    def simulate(self, x: Images, generator: torch.Generator | None = None) -> Measurements:
        """Measurements of pictures (B, C, H, W) with fresh noise, (B, *measurement_shape)."""

    @abstractmethod
    def moments(self, x: Images) -> tuple[Measurements, Measurements]:
        """Mean and variance of every measured value given x, both (B, *measurement_shape)."""

    @abstractmethod
    def nearest(self) -> tuple[Measurements, float | PerImage]:
        """Measurements with Gaussian noise that say about the same about f(x).

        Returns:
            Measurements like y, and the standard deviation of their noise, one number or one per image (B,).
        """

    @property
    def noise_level(self) -> PerImage:
        """The standard deviation of the noise that `nearest` gives, (B,)."""
        y, sigma = self.nearest()
        return positive("sigma", sigma, y)

    def precision(self, x: Images) -> Measurements:
        """What each measured value knows about its own value of f(x): an inverse variance, like y."""
        return expand(self.noise_level**-2, self.y).expand_as(self.y)

    def gaussian(self) -> "Gaussian":
        """The Gaussian likelihood near this one, whose operator is linear.

        The path's closed-form start and the solver's metric are made from it. The objective never is.
        """
        y, sigma = self.nearest()
        return Gaussian(self.operator.linear, *self.operator.straighten(y, positive("sigma", sigma, y)))

    def misfit(self, x: Images) -> PerImage:
        """Mean of (y − mean)²/variance over the measured values, (B,); about 1 at the true picture.

        Source: Pearson 1900.
        """
        mean, variance = self.moments(x)
        return ((self.y - mean) ** 2 / variance).flatten(1).mean(1)

    def stein(self, white: Measurements) -> Stein | None:
        """What Stein's estimate needs; None if no such estimate is known for this noise.

        Args:
            white: noise of variance 1, like y, of which the probe is made.
        """
        return None

    def simplest(self) -> "Likelihood":
        """The same density in its simplest spelling, so that equal problems get equal answers."""
        return self

    def rearranged(self) -> Self:
        """The same measured values on the simplest operator that measures them.

        This is for noise that is independent between values, which then take their parameters with them.
        """
        operator, moved = simplest(self.operator)
        if operator is self.operator:
            return self
        values = [getattr(self, name) for name in self.per_image]
        other = self._with(moved(self.y), [moved(v) if v.shape == self.y.shape else v for v in values])
        other.operator = operator
        return other

    def select(self, indices: Tensor) -> Self:
        """The likelihood of the images with these indices, (K,); an image may come more than once."""
        return self._with(self.y[indices], [getattr(self, name)[indices] for name in self.per_image])

    def append(self, y: Measurements) -> Self:
        """The batch, followed by as many other measurements, which have the same instrument and noise.

        Raises:
            InputError: the other measurements have another shape than y.
        """
        if y.shape != self.y.shape:
            raise InputError(
                f"the batch has shape {tuple(self.y.shape)}; append as many again, got {tuple(y.shape)}"
            )
        twice = [torch.cat(2 * [getattr(self, name)]) for name in self.per_image]
        return self._with(torch.cat((self.y, y)), twice)

    def to(self, device: torch.device | str) -> Self:
        """The same measurements on another device. The prior must be there too; the operator follows them."""
        other = self._with(self.y.to(device), [getattr(self, name).to(device) for name in self.per_image])
        for name in self.shared:
            value = getattr(self, name)
            setattr(other, name, value.to(device) if isinstance(value, Tensor) else value)
        return other

    @property
    def pixelwise(self) -> bool:
        """Whether every measured value, and its noise, is of one pixel and what is near: see `window`."""
        return self.operator.window(slice(0, 1), slice(0, 1)) is not None

    def window(self, rows: slice, columns: slice) -> Self | None:
        """The measurements of a window of the picture, if they are `pixelwise`; None if there are none."""
        part = self.operator.window(rows, columns)
        assert part is not None
        operator, moved = part
        if operator is None:
            return None
        values = [getattr(self, name) for name in self.per_image]
        other = self._with(moved(self.y), [moved(v) if v.shape == self.y.shape else v for v in values])
        other.operator = operator
        return other

    def through(self, first: LinearOperator) -> Self:
        """The same measurements, as a likelihood of x where first(x) was measured.

        With `Grey` a prior for colour restores what was measured of a grey picture.

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

    D(x) = ‖y − A x‖² / (2σ²) + m/2 · log(2πσ²). If A is linear, A⁺y is the minimiser of least norm.

    Args:
        operator: A, with m measured values.
        y: measurements, (B, *operator.measurement_shape).
        sigma: σ > 0 in units of the measurement; one number or one per image (B,).

    Raises:
        InputError: see `Likelihood`; or σ is not positive and finite, or has another shape.
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
    """Simulate y = A x + e with e ~ N(0, σ²) and return its Gaussian likelihood.

    Args:
        operator: A.
        x: pictures, (B, C, H, W).
        sigma: σ > 0 in units of the measurement; one number or one per image (B,).
        generator: draws the noise on the CPU; by default PyTorch's own.

    Raises:
        InputError: x is not a tensor or does not fit the operator, or σ is not positive.
    """
    check_tensor("x", x)
    clean = operator(x)
    return Gaussian(operator, add_noise(clean, positive("sigma", sigma, clean), generator), sigma)


def add_noise(clean: Tensor, sigma: PerImage, generator: torch.Generator | None) -> Tensor:
    """The same with white Gaussian noise, whose standard deviation is sigma, (B,)."""
    return clean + expand(sigma, clean) * standard_normal(clean, generator)


def standard_normal(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """White noise of variance 1 that has the shape, dtype and device of another tensor."""
    return torch.randn(like.shape, generator=generator, dtype=like.dtype).to(like.device)


def positive(name: str, value: float | Tensor, like: Tensor) -> PerImage:
    """A parameter as one number per image, (B,), like the measurements.

    Raises:
        InputError: it is not positive and finite, or has another shape.
    """
    values = as_per_image(value, like)
    if values.shape != (len(like),) or not bool(((values > 0) & torch.isfinite(values)).all()):
        raise InputError(f"{name} must be positive, one number or one per image, got {value}")
    return values


def uniform(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Random float64 numbers in (0, 1), shaped like a tensor; a quantile function makes noise of them."""
    drawn = torch.rand(like.shape, generator=generator, dtype=torch.float64).to(like.device)
    return drawn.clamp(1e-300, 1 - 1e-16)
