"""Data energies D(x) = −log p(y | x), in nats per image with every constant.

A user's own likelihood is a small class with `operator`, `y`, `__call__` and `simulate`; the Gaussian one
also knows its noise level, which the automatic weight and the closed-form start need.
"""

import math

import torch
from torch import Tensor

from aipo.arrays import Images, Measurements, PerImage, as_per_image, expand, per_image_sum
from aipo.errors import InputError
from aipo.operators import LinearOperator


class Gaussian:
    """y = A x + e with independent N(0, σ²) noise on every measured value.

    D(x) = ‖y − A x‖² / (2σ²) + m/2 · log(2πσ²).

    Args:
        operator: A, a linear operator with m measured values.
        y: measurements, (B, *operator.measurement_shape).
        sigma: σ > 0 in units of the measurement; one number, or one per image (B,).

    Raises:
        InputError: y of another shape, not finite, or σ not positive.
    """

    def __init__(self, operator: LinearOperator, y: Measurements, sigma: float | Tensor):
        if tuple(y.shape[1:]) != tuple(operator.measurement_shape) or len(y) == 0:
            raise InputError(
                f"y has shape {tuple(y.shape)}, but {type(operator).__name__} measures (B, "
                f"{', '.join(map(str, operator.measurement_shape))}); measure with the same operator"
            )
        if not y.is_floating_point() or not bool(torch.isfinite(y).all()):
            raise InputError(
                f"y must be finite floating-point numbers, got {y.dtype} with NaN, infinity or integers"
            )
        self.operator = operator
        self.y = y
        self.sigma: PerImage = _checked_sigma(sigma, y)

    def __len__(self) -> int:
        return len(self.y)

    def __call__(self, x: Images) -> PerImage:
        """D(x), nats per image."""
        m = self.operator.measurements
        constant = m / 2 * torch.log(2 * math.pi * self.sigma**2)
        return self.residual_squared(x) / (2 * self.sigma**2) + constant

    def residual_squared(self, x: Images) -> PerImage:
        """‖y − A x‖², (B,)."""
        return per_image_sum((self.operator(x) - self.y) ** 2)

    def simulate(self, x: Images, generator: torch.Generator | None = None) -> Measurements:
        """A measurement of x with fresh noise."""
        return _add_noise(self.operator(x), self.sigma, generator)

    def select(self, indices: Tensor) -> "Gaussian":
        """The likelihood of some images of the batch."""
        return Gaussian(self.operator, self.y[indices], self.sigma[indices])

    def append(self, y: Measurements) -> "Gaussian":
        """The batch followed by other measurements (B, ...) of the same instrument and noise."""
        if y.shape != self.y.shape:
            raise InputError(
                f"the batch has shape {tuple(self.y.shape)}; append as many again, got {tuple(y.shape)}"
            )
        return Gaussian(self.operator, torch.cat((self.y, y)), torch.cat((self.sigma, self.sigma)))


def measure(
    operator: LinearOperator, x: Images, sigma: float | Tensor, generator: torch.Generator | None = None
) -> Gaussian:
    """Simulate y = A x + e and return its Gaussian likelihood."""
    clean = operator(x)
    return Gaussian(operator, _add_noise(clean, _checked_sigma(sigma, clean), generator), sigma)


def _checked_sigma(sigma: float | Tensor, like: Tensor) -> PerImage:
    values = as_per_image(sigma, like)
    if values.shape != (len(like),) or not bool(((values > 0) & torch.isfinite(values)).all()):
        raise InputError(f"sigma must be positive, one number or one per image, got {sigma}")
    return values


def _add_noise(clean: Tensor, sigma: PerImage, generator: torch.Generator | None) -> Tensor:
    noise = torch.randn(clean.shape, generator=generator, dtype=clean.dtype).to(clean.device)
    return clean + expand(sigma, clean) * noise
