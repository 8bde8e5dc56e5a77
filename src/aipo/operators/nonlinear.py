"""Instruments that bend the values of a linear operator: tone curves, and magnitudes without their sign."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from aipo.basics.arrays import Images, Measurements, PerImage, expand
from aipo.basics.errors import InputError
from aipo.operators.operator import LinearOperator, Operator, Rearranged


class Curve(Operator):
    """f(x) = c(A x), an increasing function of every measured value.

    Args:
        linear: A.
        function: c, differentiable and increasing, elementwise.
        inverse: c⁻¹, defined for any measured number; where c⁻¹ would amplify noise without bound, it may
            return a number nearby.
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

    def window(self, rows: slice, columns: slice) -> tuple[Operator | None, Rearranged] | None:
        part = self._linear.window(rows, columns)
        if part is None:
            return None
        inner, moved = part
        return Curve(inner, self.function, self.inverse) if isinstance(inner, LinearOperator) else None, moved

    def straighten(self, y: Measurements, sigma: PerImage) -> tuple[Measurements, PerImage]:
        """c⁻¹(y), and the noise divided by the slope of the curve there."""
        with torch.enable_grad():
            u = self.inverse(y.detach()).requires_grad_()
            slope = torch.autograd.grad(self.function(u).sum(), u)[0]
        return u.detach(), sigma / slope.square().flatten(1).mean(1).sqrt()


def gamma_curve(linear: LinearOperator, gamma: float, least: float = 0.01) -> Curve:
    """u^γ, the curve of a display or a camera; below a small u it goes on as its tangent.

    Raises:
        InputError: γ or the smallest u is not positive.
    """
    if not 0 < gamma < math.inf or not 0 < least < 1:
        raise InputError(f"gamma = {gamma}, least = {least}; use a positive exponent, and least in (0, 1)")
    power = _Power(gamma, least)
    return Curve(linear, power.forward, power.inverse)


def haze(linear: LinearOperator, transmission: float, airlight: float = 1.0) -> Curve:
    """t·u + (1 − t)·a: a share t of every value comes through, and the air adds scattered light.

    Raises:
        InputError: the transmission is outside (0, 1].

    Source: Koschmieder 1924.
    """
    if not 0 < transmission <= 1 or not math.isfinite(airlight):
        raise InputError(f"transmission = {transmission}, airlight = {airlight}; a share lies in (0, 1]")
    veil = _Veil(transmission, (1 - transmission) * airlight)
    return Curve(linear, veil.forward, veil.inverse)


@dataclass(frozen=True)
class _Power:
    """u^γ; below `least` it goes on as its tangent there."""

    gamma: float
    least: float

    def forward(self, u: Tensor) -> Tensor:
        slope = self.gamma * self.least ** (self.gamma - 1)
        return u.clamp_min(self.least) ** self.gamma + slope * (u - self.least).clamp_max(0)

    def inverse(self, v: Tensor) -> Tensor:
        # The inverse of the tangent would amplify noise without bound.
        return v.clamp_min(self.least**self.gamma) ** (1 / self.gamma)


@dataclass(frozen=True)
class _Veil:
    """t·u plus the light that the air adds."""

    transmission: float
    added: float

    def forward(self, u: Tensor) -> Tensor:
        return self.transmission * u + self.added

    def inverse(self, v: Tensor) -> Tensor:
        return (v - self.added) / self.transmission


class Magnitude(Operator):
    """f(x) = √((A x)² + ε²), ε = 0.001: the size of every value without its sign (real phase retrieval).

    x and −x give the same measurement, but the values of pictures are positive, which tells them apart. The
    problem is not convex: from a wrong start the path can end in a wrong minimum. `aipo.best_of` follows
    several starts.

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
        """y with the signs of a grey picture; where a sign is unsure, the error may be as large as y."""
        grey = self._linear.forward(torch.full((1, *self.shape), 0.5).to(y))
        expected = grey.square().mean().sqrt()
        sure = torch.tanh(y * grey / expected.square().clamp_min(1e-12))
        doubt = ((1 - sure**2) * y**2).flatten(1).mean(1)
        return y * sure, (expand(sigma**2, doubt) + doubt).sqrt()
