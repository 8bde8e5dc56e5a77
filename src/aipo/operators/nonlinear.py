"""Instruments that bend what a linear operator measures: tone curves, and magnitudes without their sign."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from aipo.basics.arrays import Images, Measurements, PerImage, expand
from aipo.basics.errors import InputError
from aipo.operators.operator import LinearOperator, Operator


class Curve(Operator):
    """f(x) = c(A x), an increasing function of every measured value.

    Args:
        linear: A.
        function: c, differentiable and increasing, elementwise.
        inverse: c⁻¹, defined for any measured number; where noise would grow beyond measure, a number near.
    """

    def __init__(
        self,
        linear: LinearOperator,
        function: Callable[[Tensor], Tensor],
        inverse: Callable[[Tensor], Tensor],
    ):
        self._linear, self.function, self.inverse = linear, function, inverse
        self.shape, self.measurement_shape = linear.shape, linear.measurement_shape
        self.device = linear.device

    @property
    def linear(self) -> LinearOperator:
        return self._linear

    def forward(self, x: Images) -> Measurements:
        return self.function(self._linear.forward(x))

    def straighten(self, y: Measurements, sigma: PerImage) -> tuple[Measurements, PerImage]:
        """c⁻¹(y), with noise divided by the curve's slope there."""
        with torch.enable_grad():
            u = self.inverse(y.detach()).requires_grad_()
            slope = torch.autograd.grad(self.function(u).sum(), u)[0]
        return u.detach(), sigma / slope.square().flatten(1).mean(1).sqrt()


def gamma_curve(linear: LinearOperator, gamma: float, least: float = 0.01) -> Curve:
    """u^γ, as of a display or a camera; below a small u it goes on as its tangent.

    Raises:
        InputError: γ or the smallest u not positive.
    """
    if not 0 < gamma < math.inf or not 0 < least < 1:
        raise InputError(f"gamma = {gamma}, least = {least}; use a positive exponent, and least in (0, 1)")
    foot, slope = least**gamma, gamma * least ** (gamma - 1)

    def function(u: Tensor) -> Tensor:
        return u.clamp_min(least) ** gamma + slope * (u - least).clamp_max(0)

    def inverse(v: Tensor) -> Tensor:
        return v.clamp_min(foot) ** (1 / gamma)  # along the tangent noise would grow without bound

    return Curve(linear, function, inverse)


def haze(linear: LinearOperator, transmission: float, airlight: float = 1.0) -> Curve:
    """t·u + (1 − t)·a: of every value a share t comes through, the rest is light scattered by the air.

    Raises:
        InputError: a transmission outside (0, 1].

    Source: Koschmieder 1924.
    """
    if not 0 < transmission <= 1 or not math.isfinite(airlight):
        raise InputError(f"transmission = {transmission}, airlight = {airlight}; a share lies in (0, 1]")
    added = (1 - transmission) * airlight
    return Curve(linear, lambda u: transmission * u + added, lambda v: (v - added) / transmission)


class Magnitude(Operator):
    """f(x) = √((A x)² + ε²), ε = 0.001: the size of every value, its sign lost (real phase retrieval).

    x and −x give the same measurement; values of pictures, which are positive, tell them apart. Not convex:
    where the start is wrong the path can end in a wrong minimum, and `aipo.best_of` follows several.

    Args:
        linear: A.
    """

    rounding = 1e-3

    def __init__(self, linear: LinearOperator):
        self._linear = linear
        self.shape, self.measurement_shape = linear.shape, linear.measurement_shape
        self.device = linear.device

    @property
    def linear(self) -> LinearOperator:
        return self._linear

    def forward(self, x: Images) -> Measurements:
        return (self._linear.forward(x) ** 2 + self.rounding**2).sqrt()

    def straighten(self, y: Measurements, sigma: PerImage) -> tuple[Measurements, PerImage]:
        """The signs of a grey picture; where it has little to say a value is as uncertain as it is large."""
        grey = self._linear.forward(torch.full((1, *self.shape), 0.5).to(y))
        expected = grey.square().mean().sqrt()
        sure = torch.tanh(y * grey / expected.square().clamp_min(1e-12))
        doubt = ((1 - sure**2) * y**2).flatten(1).mean(1)
        return y * sure, (expand(sigma**2, doubt) + doubt).sqrt()
