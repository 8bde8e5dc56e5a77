"""Gaussian noise that is not the same everywhere: of a different strength at each value, or coloured."""

import math

import torch
from torch import Tensor

from aipo.basics.arrays import Images, Measurements, PerImage, check_tensor, expand, per_image_sum
from aipo.basics.errors import InputError
from aipo.likelihoods.likelihood import Gaussian, Likelihood, Stein, standard_normal
from aipo.operators import Composition, Filter, Operator
from aipo.operators.operator import image_shape


class Heteroscedastic(Likelihood):
    """y = A x + e with independent N(0, σ_i²) noise, σ_i known for every measured value.

    D(x) = Σ (y_i − (A x)_i)² / (2σ_i²) + ½ Σ log(2πσ_i²). If A has full row rank, A⁺y minimises it.

    Args:
        operator, y: see `Likelihood`.
        sigma: σ_i > 0 in units of y, (B, *operator.measurement_shape) or (*operator.measurement_shape).

    Raises:
        InputError: see `Likelihood`; or σ has another shape, or is not positive and finite.
    """

    per_image = ("sigma",)

    def __init__(self, operator: Operator, y: Measurements, sigma: Tensor):
        super().__init__(operator, y)
        check_tensor("sigma", sigma)
        fits = sigma.shape in (y.shape, y.shape[1:])
        if not fits or not bool(((sigma > 0) & torch.isfinite(sigma)).all()):
            raise InputError(
                f"sigma has shape {tuple(sigma.shape)} for measurements {tuple(y.shape)}; give one positive "
                "number for each measured value"
            )
        self.sigma = sigma.to(y).expand_as(y)

    def __call__(self, x: Images) -> PerImage:
        squares = ((self.operator(x) - self.y) / self.sigma) ** 2
        return per_image_sum(0.5 * squares + torch.log(self.sigma)) + _constant(self.y)

    def simulate(self, x: Images, generator: torch.Generator | None = None) -> Measurements:
        clean = self.operator(x)
        return clean + self.sigma * standard_normal(clean, generator)

    def moments(self, x: Images) -> tuple[Measurements, Measurements]:
        return self.operator(x), self.sigma**2

    def nearest(self) -> tuple[Measurements, float | PerImage]:
        """The same measurements, with the σ whose precision 1/σ² is the average one of each image."""
        return self.y, (self.sigma**-2).flatten(1).mean(1) ** -0.5

    def precision(self, x: Images) -> Measurements:
        return self.sigma**-2

    def simplest(self) -> Likelihood:
        """If all values of an image have one σ, plain Gaussian noise."""
        first = self.sigma.flatten(1)[:, 0]
        if bool((self.sigma == expand(first, self.sigma)).all()):
            return Gaussian(self.operator, self.y, first).simplest()
        return self.rearranged()

    def stein(self, white: Measurements) -> Stein:
        return Stein(True, self.y, self.sigma * white, per_image_sum(self.sigma**2))


class Coloured(Likelihood):
    """y = A x + e with stationary, periodic Gaussian noise of a known power spectrum, on measured pictures.

    e = F⁻¹(√S · F n), where n is white noise of variance 1 and F is the orthonormal Fourier transform over
    the last two axes. D(x) = ½ Σ |F(y − A x)|²/S + ½ Σ log(2πS). If A has full row rank, A⁺y minimises it.

    Args:
        operator: A; the last two axes of its measurement are those of a picture.
        y: see `Likelihood`.
        spectrum: S > 0, the variance of the noise at each frequency, in units of y². (H, W) in
            `torch.fft.fft2` order, with S(−k) = S(k).

    Raises:
        InputError: see `Likelihood`; or the spectrum has another shape, is not positive and finite, or is not
            symmetric.
    """

    shared = ("spectrum",)

    def __init__(self, operator: Operator, y: Measurements, spectrum: Tensor):
        super().__init__(operator, y)
        check_tensor("spectrum", spectrum)
        fits = len(y.shape) >= 3 and spectrum.shape == y.shape[-2:]
        if not fits or not bool(((spectrum > 0) & torch.isfinite(spectrum)).all()):
            raise InputError(
                f"spectrum has shape {tuple(spectrum.shape)} for measurements {tuple(y.shape)}; give one "
                "positive number for each frequency of the last two axes"
            )
        if not torch.allclose(spectrum, spectrum.flip(0, 1).roll((1, 1), (0, 1))):
            raise InputError(
                "spectrum differs at opposite frequencies; noise of real numbers has S(−k) = S(k)"
            )
        self.spectrum = spectrum

    def __call__(self, x: Images) -> PerImage:
        spectrum = self.spectrum.to(self.y)
        residual = torch.fft.fft2(self.operator(x) - self.y, norm="ortho")
        squares = (residual.real**2 + residual.imag**2) / spectrum
        return per_image_sum(0.5 * squares + 0.5 * torch.log(spectrum)) + _constant(self.y)

    def simulate(self, x: Images, generator: torch.Generator | None = None) -> Measurements:
        clean = self.operator(x)
        return clean + self._colour(standard_normal(clean, generator))

    def moments(self, x: Images) -> tuple[Measurements, Measurements]:
        mean = self.operator(x)
        return mean, self.spectrum.mean().to(mean).expand_as(mean)

    def misfit(self, x: Images) -> PerImage:
        """Mean square of the whitened residual, (B,)."""
        residual = torch.fft.fft2(self.operator(x) - self.y, norm="ortho")
        return ((residual.real**2 + residual.imag**2) / self.spectrum.to(self.y)).flatten(1).mean(1)

    def nearest(self) -> tuple[Measurements, float | PerImage]:
        return self.y, float(self.spectrum.mean()) ** 0.5

    def simplest(self) -> Likelihood:
        """If all frequencies are equally strong, plain Gaussian noise."""
        if bool((self.spectrum == self.spectrum[0, 0]).all()):
            return Gaussian(self.operator, self.y, float(self.spectrum[0, 0]) ** 0.5).simplest()
        operator, moved = self.operator.unwrapped()
        if operator is self.operator or tuple(operator.measurement_shape) != tuple(self.y.shape[1:]):
            return self
        return Coloured(operator, moved(self.y), self.spectrum)

    def gaussian(self) -> Gaussian:
        """If A is a filter, white noise behind A and a whitening filter, which is the same density."""
        operator, shape = self.operator.linear, tuple(self.operator.measurement_shape)
        if self.operator.gram() is None or len(shape) != 3:
            return super().gaussian()
        whitening = Filter(image_shape(shape), self.spectrum[:, : shape[2] // 2 + 1] ** -0.5)
        both, moved = Composition(operator, whitening).unwrapped()
        return Gaussian(both, moved(whitening(self.y)), 1.0)

    @property
    def pixelwise(self) -> bool:
        return super().pixelwise and tuple(self.y.shape[-2:]) == tuple(self.operator.shape[1:])

    def window(self, rows: slice, columns: slice) -> "Coloured | None":
        """See `Likelihood.window`; the noise's spectrum is the expected one of windows of that size."""
        other = super().window(rows, columns)
        if other is not None:
            other.spectrum = of_windows(self.spectrum, (other.y.shape[-2], other.y.shape[-1]))
        return other

    def stein(self, white: Measurements) -> Stein:
        trace = self.spectrum.mean().to(self.y) * self.operator.measurements
        return Stein(True, self.y, self._colour(white), trace.expand(len(self)))

    def _colour(self, white: Tensor) -> Tensor:
        """White noise of variance 1 turned into noise with the spectrum."""
        frequencies = self.spectrum.to(white).sqrt() * torch.fft.fft2(white, norm="ortho")
        return torch.fft.ifft2(frequencies, norm="ortho").real


def _constant(y: Measurements) -> float:
    """m/2 · log 2π."""
    return 0.5 * math.log(2 * math.pi) * y[0].numel()


def of_windows(power: Tensor, size: tuple[int, int]) -> Tensor:
    """The expected power of windows (h, w) of noise with a power (..., H, W), in `fft2` order.

    It is the transform of the autocovariance R times the share of pairs of pixels that lie so far apart in a
    window; a distance d and its counterpart d − h are one on the window's torus. Matrices between channels
    stay positive definite, because the share's transform is positive.
    """
    covariance = torch.fft.ifft2(power.double()).real
    for axis, side in zip((-2, -1), size, strict=True):
        distance = torch.arange(side, device=power.device)
        share = (1 - distance / side).double()
        share = share[:, None] if axis == -2 else share
        near = covariance.index_select(axis, distance)
        far = covariance.index_select(axis, (distance - side) % covariance.shape[axis])
        covariance = share * near + (1 - share) * far
    return torch.fft.fft2(covariance).real.to(power)
