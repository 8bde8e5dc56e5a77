"""Stationary Gaussian noise that is correlated between places and between channels."""

import math
from functools import cached_property

import torch
from torch import Tensor

from aipo.basics.arrays import Images, Measurements, PerImage, check_tensor, per_image_sum
from aipo.basics.errors import InputError
from aipo.likelihoods.likelihood import Gaussian, Likelihood, Stein, standard_normal
from aipo.likelihoods.uneven import of_windows
from aipo.operators import Composition, LinearOperator, Operator
from aipo.operators.frequencies import mix_colours
from aipo.operators.operator import image_shape


class Correlated(Likelihood):
    """y = A x + e with stationary, periodic Gaussian noise of known power, on measured pictures.

    At each frequency k the Fourier transforms of the noise's channels have a covariance S(k), (C, C); those
    of different frequencies are independent. D(x) = ½ Σ r(k)* S(k)⁻¹ r(k) + ½ Σ log det 2πS(k) with
    r = F(y − A x), F being the orthonormal Fourier transform. `Coloured` has one S for all channels, each
    alone.

    Args:
        operator: A; its measurement is a picture (C, H, W).
        y: see `Likelihood`.
        power: S, real, symmetric and positive definite, in units of y². (C, C, H, W) in `torch.fft.fft2`
            order, with S(−k) = S(k).

    Raises:
        InputError: see `Likelihood`; or the power has another shape, or is not positive definite, finite and
            symmetric.
    """

    shared = ("power",)

    def __init__(self, operator: Operator, y: Measurements, power: Tensor):
        super().__init__(operator, y)
        check_tensor("power", power)
        shape = tuple(operator.measurement_shape)
        if len(shape) != 3 or tuple(power.shape) != (shape[0], *shape):
            raise InputError(
                f"power has shape {tuple(power.shape)} for measurements {tuple(y.shape)}; give a matrix "
                "between the channels for each frequency, (C, C, H, W)"
            )
        mirrored = power.flip(-2, -1).roll((1, 1), (-2, -1))
        symmetric = torch.allclose(power, power.transpose(0, 1)) and torch.allclose(power, mirrored)
        if not symmetric or not _definite(power):
            raise InputError(
                "power is not symmetric and positive definite at every frequency, the same at opposite ones; "
                "give covariances of noise of real numbers"
            )
        self.power = power

    def __call__(self, x: Images) -> PerImage:
        constant = 0.5 * (self._log_det + math.log(2 * math.pi) * self.y[0].numel())
        return 0.5 * self._whitened_square(self.operator(x) - self.y) + constant

    def simulate(self, x: Images, generator: torch.Generator | None = None) -> Measurements:
        clean = self.operator(x)
        return clean + self._colour(standard_normal(clean, generator))

    def moments(self, x: Images) -> tuple[Measurements, Measurements]:
        mean = self.operator(x)
        return mean, self._variances.to(mean)[:, None, None].expand_as(mean)

    def misfit(self, x: Images) -> PerImage:
        """Mean square of the whitened residual, (B,)."""
        return self._whitened_square(self.operator(x) - self.y) / self.y[0].numel()

    def nearest(self) -> tuple[Measurements, float | PerImage]:
        return self.y, float(self._variances.mean()) ** 0.5

    def gaussian(self) -> Gaussian:
        """If A is linear, white noise behind A and a whitening filter, which is the same density."""
        operator = self.operator.linear
        if operator is not self.operator or operator.gram() is None:
            return super().gaussian()
        whitening = _Mixing(image_shape(tuple(self.y.shape[1:])), self._whitening)
        return Gaussian(Composition(operator, whitening), whitening(self.y), 1.0)

    def window(self, rows: slice, columns: slice) -> "Correlated | None":
        """See `Likelihood.window`; the power is the expected one of windows of that size."""
        other = super().window(rows, columns)
        if other is not None:
            other.power = of_windows(self.power, (other.y.shape[-2], other.y.shape[-1]))
        return other

    def stein(self, white: Measurements) -> Stein:
        trace = self._variances.to(self.y).sum() * self.y.shape[-1] * self.y.shape[-2]
        return Stein(True, self.y, self._colour(white), trace.expand(len(self)))

    @cached_property
    def _variances(self) -> Tensor:
        """Of each channel, (C,)."""
        return torch.diagonal(self.power.double().mean((-2, -1)))

    @cached_property
    def _log_det(self) -> float:
        return float(torch.linalg.slogdet(self.power.double().permute(2, 3, 0, 1)).logabsdet.sum())

    @cached_property
    def _factor(self) -> Tensor:
        """Lower triangular L of S = L Lᵀ at half of the frequencies, (H, W//2 + 1, C, C)."""
        half = self.power.shape[-1] // 2 + 1
        return torch.linalg.cholesky(self.power[..., :half].double().permute(2, 3, 0, 1))

    @cached_property
    def _whitening(self) -> Tensor:
        return torch.linalg.inv(self._factor)

    def _whitened_square(self, residual: Tensor) -> PerImage:
        return per_image_sum(mix_colours(self._whitening.to(residual), residual) ** 2)

    def _colour(self, white: Tensor) -> Tensor:
        """White noise of variance 1 turned into noise of this power."""
        return mix_colours(self._factor.to(white), white)


class _Mixing(LinearOperator):
    """Multiply the channels of every frequency by a real matrix, (H, W//2 + 1, C, C)."""

    def __init__(self, shape: tuple[int, int, int], matrices: Tensor):
        self.shape = self.measurement_shape = shape
        self.matrices = matrices

    def forward(self, x: Images) -> Measurements:
        return mix_colours(self.matrices.to(x), x)

    def adjoint(self, y: Measurements) -> Images:
        return mix_colours(self.matrices.mT.to(y), y)

    def pseudoinverse(self, y: Measurements) -> Images:
        return mix_colours(torch.linalg.inv(self.matrices).to(y), y)

    def transfer_matrices(self) -> Tensor:
        return self.matrices.to(torch.complex128)


def _definite(power: Tensor) -> bool:
    if not bool(torch.isfinite(power).all()):
        return False
    return bool((torch.linalg.cholesky_ex(power.double().permute(2, 3, 0, 1)).info == 0).all())
