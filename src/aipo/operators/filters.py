"""Operators of cameras: blur, coarser pixels, and the loss of colour."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from aipo.basics.arrays import Images, Measurements
from aipo.basics.errors import InputError
from aipo.operators.operator import LinearOperator, Operator, Rearranged, image_shape, window_shape

# Rec. 601: the shares of red, green and blue in brightness.
BRIGHTNESS = (0.299, 0.587, 0.114)

# A grey picture is a colour one with three equal channels, so its mean over them tells nothing of colour.
EVEN = (1 / 3, 1 / 3, 1 / 3)


class Filter(LinearOperator):
    """Multiply every frequency of every channel by a number, periodic at the borders: y = F⁻¹(H · F x).

    Args:
        shape: (C, H, W).
        transfer: H of a real kernel, (H, W//2 + 1) in `torch.fft.rfft2` order.

    Raises:
        InputError: the transfer function has another shape, or is not finite, or is zero.
    """

    def __init__(self, shape: tuple[int, int, int], transfer: Tensor):
        self.shape = self.measurement_shape = image_shape(shape)
        _, height, width = self.shape
        fits = tuple(transfer.shape) == (height, width // 2 + 1)
        if not fits or not bool(torch.isfinite(transfer).all()) or not bool(transfer.any()):
            raise InputError(
                f"a transfer function of shape {tuple(transfer.shape)} does not fit {tuple(shape)}; it is "
                f"{(height, width // 2 + 1)}, finite, and not all zero"
            )
        self.transfer = transfer

    def forward(self, x: Images) -> Measurements:
        return self._filtered(x, self.transfer)

    def adjoint(self, y: Measurements) -> Images:
        return self._filtered(y, self.transfer.conj())

    def pseudoinverse(self, y: Measurements) -> Images:
        """Divide the frequencies that are kept by H; the others stay zero."""
        power = self.transfer.abs() ** 2
        kept = power > 1e-20 * power.max()
        return self._filtered(y, torch.where(kept, self.transfer.conj() / power.clamp_min(1e-300), 0))

    def transfer_matrices(self) -> Tensor:
        transfer = self.transfer.to(torch.complex128)
        return transfer[:, :, None, None] * torch.eye(self.shape[0]).to(transfer)

    def _filtered(self, v: Tensor, transfer: Tensor) -> Tensor:
        complex_dtype = torch.complex128 if v.dtype == torch.float64 else torch.complex64
        transfer = transfer.to(v.device, complex_dtype)
        return torch.fft.irfft2(torch.fft.rfft2(v) * transfer, s=self.shape[1:])


class Blur(Filter):
    """Convolution of every channel with one kernel, periodic at the borders.

    The measurement is a picture of the same shape. The frames of a real camera are not periodic, so compose
    the blur with a `Mask` that drops a border of half the kernel's width.

    Args:
        shape: (C, H, W).
        kernel: (h, w), odd sides, not larger than the picture; its centre is the origin.

    Raises:
        InputError: the kernel has even or too large sides, or is not finite, or is zero.
    """

    def __init__(self, shape: tuple[int, int, int], kernel: Tensor):
        _, height, width = image_shape(shape)
        sides = tuple(kernel.shape)
        fits = len(sides) == 2 and all(
            side % 2 == 1 and side <= most for side, most in zip(sides, (height, width), strict=True)
        )
        if not fits or not bool(torch.isfinite(kernel).all()) or not bool(kernel.any()):
            raise InputError(
                f"a blur kernel of shape {sides} does not fit {tuple(shape)}; it is (h, w) with odd sides "
                "not larger than the picture's, finite, and not all zero"
            )
        self.kernel = kernel.double()
        padded = F.pad(self.kernel, (0, width - sides[1], 0, height - sides[0]))
        centred = torch.roll(padded, (-(sides[0] // 2), -(sides[1] // 2)), (0, 1))
        super().__init__(shape, torch.fft.rfft2(centred))


def gaussian_kernel(sigma: float) -> Tensor:
    """A Gaussian kernel with a standard deviation of σ pixels, cut off at 3σ, with sum 1."""
    if not 0 < sigma < math.inf:
        raise InputError(f"sigma = {sigma} of a blur kernel must be positive")
    radius = max(1, math.ceil(3 * sigma))
    line = torch.exp(-0.5 * (torch.arange(-radius, radius + 1).double() / sigma) ** 2)
    kernel = line[:, None] * line
    return kernel / kernel.sum()


def motion_kernel(length: float, degrees: float = 0.0) -> Tensor:
    """A straight line of the given length in pixels, with sum 1; 0° is horizontal, positive turns upwards."""
    if not 1 <= length < math.inf:
        raise InputError(f"length = {length} of a motion blur must be at least 1 pixel")
    radius = math.ceil(length / 2)
    kernel = torch.zeros(2 * radius + 1, 2 * radius + 1, dtype=torch.float64)
    angle = math.radians(degrees)
    for step in np.linspace(-(length - 1) / 2, (length - 1) / 2, 8 * radius + 1):
        row, column = radius - step * math.sin(angle), radius + step * math.cos(angle)
        top, left = math.floor(row), math.floor(column)
        for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)):  # each point lies between four pixels
            share = (1 - abs(row - top - i)) * (1 - abs(column - left - j))
            if share > 0:
                kernel[top + i, left + j] += share
    return kernel / kernel.sum()


class Downsampling(LinearOperator):
    """Means of blocks of factor × factor pixels (superresolution).

    Raises:
        InputError: the factor does not divide the sides.
    """

    def __init__(self, shape: tuple[int, int, int], factor: int):
        self.shape = image_shape(shape)
        channels, height, width = self.shape
        if factor < 1 or height % factor or width % factor:
            raise InputError(f"factor = {factor} does not divide {height} × {width}; crop the picture first")
        self.factor = factor
        self.measurement_shape = (channels, height // factor, width // factor)

    def forward(self, x: Images) -> Measurements:
        return F.avg_pool2d(x, self.factor)

    def adjoint(self, y: Measurements) -> Images:
        return self.pseudoinverse(y) / self.factor**2

    def pseudoinverse(self, y: Measurements) -> Images:
        return y.repeat_interleave(self.factor, 2).repeat_interleave(self.factor, 3)


class Grey(LinearOperator):
    """Brightness of a colour picture, Σ_c w_c x_c (colourisation).

    Args:
        shape: (3, H, W).
        weights: those of red, green and blue: `BRIGHTNESS` if a colour picture lost its colour, `EVEN` if the
            picture itself is grey.
    """

    def __init__(self, shape: tuple[int, int, int], weights: tuple[float, float, float] = BRIGHTNESS):
        self.shape = image_shape(shape)
        if self.shape[0] != 3 or not any(weights):
            raise InputError(f"shape = {tuple(shape)}, weights = {weights}; grey is made of three channels")
        self.weights = weights
        self.measurement_shape = (1, *self.shape[1:])

    def forward(self, x: Images) -> Measurements:
        return (self._column(x) * x).sum(1, keepdim=True)

    def adjoint(self, y: Measurements) -> Images:
        return self._column(y) * y

    def pseudoinverse(self, y: Measurements) -> Images:
        return self.adjoint(y) / sum(weight**2 for weight in self.weights)

    def transfer_matrices(self) -> Tensor:
        height, width = self.shape[1:]
        return torch.tensor([self.weights], dtype=torch.complex128).expand(height, width // 2 + 1, 1, 3)

    def window(self, rows: slice, columns: slice) -> tuple[Operator, Rearranged]:
        return Grey(window_shape(self.shape, rows, columns), self.weights), lambda y: y[..., rows, columns]

    def _column(self, like: Tensor) -> Tensor:
        return torch.tensor(self.weights, dtype=like.dtype, device=like.device)[:, None, None]
