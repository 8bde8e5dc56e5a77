"""Operators of scanners: spatial frequencies (magnetic resonance) and line integrals (tomography)."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from aipo.basics.arrays import Images, Measurements
from aipo.basics.errors import InputError
from aipo.operators.operator import LinearOperator, image_shape


class FourierMask(LinearOperator):
    """Some frequencies of every channel's orthonormal 2-D Fourier transform (one coil of an MRI scanner).

    The measurement is (C, k, 2): the real and imaginary parts of the k frequencies, in row-major order.

    Args:
        shape: (C, H, W).
        mask: boolean (H, W), true where measured, in `torch.fft.fft2` order (zero frequency first).

    Raises:
        InputError: the mask has another shape or type, or measures nothing.
    """

    def __init__(self, shape: tuple[int, int, int], mask: Tensor):
        self.shape = image_shape(shape)
        if mask.dtype != torch.bool or tuple(mask.shape) != self.shape[1:] or not bool(mask.any()):
            raise InputError(
                f"a Fourier mask is boolean of shape {self.shape[1:]} with a true entry, got {mask.dtype} of "
                f"shape {tuple(mask.shape)}"
            )
        self.mask = mask.clone()
        self._index = self.mask.flatten().nonzero().squeeze(1)
        self.measurement_shape = (self.shape[0], len(self._index), 2)

    def forward(self, x: Images) -> Measurements:
        spectrum = torch.fft.fft2(x, norm="ortho").flatten(2)
        return torch.view_as_real(spectrum[:, :, self._index.to(x.device)])

    def adjoint(self, y: Measurements) -> Images:
        values = torch.view_as_complex(y.contiguous())
        flat = values.new_zeros(*values.shape[:2], self.mask.numel())
        spectrum = flat.index_copy(2, self._index.to(y.device), values).unflatten(2, self.shape[1:])
        return torch.fft.ifft2(spectrum, norm="ortho").real

    def pseudoinverse(self, y: Measurements) -> Images:
        """A⁺ y. In a real picture, opposite frequencies are one number, so one alone counts for half."""
        opposite = self.mask.flip(0, 1).roll((1, 1), (0, 1))
        seen = (self.mask.double() + opposite.double()) / 2
        gain = torch.where(seen > 0, 1 / seen.clamp_min(0.5), 0).to(y)
        return torch.fft.ifft2(torch.fft.fft2(self.adjoint(y)) * gain).real


def cartesian_mask(size: tuple[int, int], share: float, centre: float = 0.08, seed: int = 0) -> Tensor:
    """The columns of frequencies that a Cartesian scan takes: the lowest and random others, boolean (H, W).

    Args:
        size: (H, W).
        share: share of the columns that are measured, in (0, 1].
        centre: share of the columns around frequency zero that are always measured, in [0, share].
    """
    height, width = size
    if not 0 <= centre <= share <= 1 or share == 0:
        raise InputError(f"share = {share}, centre = {centre}; use 0 <= centre <= share <= 1, share above 0")
    distance = np.abs(np.fft.fftfreq(width))
    rng = np.random.Generator(np.random.PCG64(seed))
    order = np.argsort(np.where(distance <= centre / 2, -1.0, rng.random(width)), kind="stable")
    columns = torch.zeros(width, dtype=torch.bool)
    columns[torch.from_numpy(order[: max(1, round(share * width))])] = True
    return columns.expand(height, width).clone()


class Radon(LinearOperator):
    """Line integrals through the picture at several angles (parallel-beam tomography).

    The picture is turned about its centre by bilinear interpolation and summed along its columns, in units of
    pixels. Values that leave the square are lost. The measurement is (C, angles, side), with the side of the
    picture.

    Args:
        shape: (C, H, W), square.
        degrees: angles, counter-clockwise.

    Raises:
        InputError: the picture is not square, or there is no angle.

    Source: `skimage.transform.radon` with circle=True computes the same; here the adjoint is exact.
    """

    def __init__(self, shape: tuple[int, int, int], degrees: Tensor):
        self.shape = image_shape(shape)
        channels, height, width = self.shape
        if height != width or degrees.ndim != 1 or len(degrees) == 0:
            raise InputError(
                f"tomography needs a square picture and a list of angles, got {self.shape} and angles of "
                f"shape {tuple(degrees.shape)}"
            )
        self.degrees = degrees.double()
        self.measurement_shape = (channels, len(degrees), width)
        self.grids = _turned(width, self.degrees)

    def forward(self, x: Images) -> Measurements:
        return torch.stack([self._sums(x, grid) for grid in self.grids.to(x)], 2)

    def adjoint(self, y: Measurements) -> Images:
        with torch.enable_grad():
            x = y.new_zeros(len(y), *self.shape).requires_grad_()
            # The map is linear, so its derivative anywhere is the adjoint.
            found = [
                torch.autograd.grad(self._sums(x, grid), x, values)[0]
                for grid, values in zip(self.grids.to(y), y.unbind(2), strict=True)
            ]
        return torch.stack(found).sum(0)

    @staticmethod
    def _sums(x: Images, grid: Tensor) -> Tensor:
        """(B, C, side) at one angle."""
        turned = F.grid_sample(x, grid.expand(len(x), *grid.shape), "bilinear", "zeros", align_corners=True)
        return turned.sum(2)


def _turned(side: int, degrees: Tensor) -> Tensor:
    """Where each pixel of the turned picture lies, for `grid_sample`, (angles, side, side, 2)."""
    centre = side // 2
    row, column = torch.meshgrid(*2 * [torch.arange(side, dtype=torch.float64) - centre], indexing="ij")
    cos, sin = (f(torch.deg2rad(degrees))[:, None, None] for f in (torch.cos, torch.sin))
    places = torch.stack((cos * column + sin * row, cos * row - sin * column), -1) + centre
    return 2 * places / max(1, side - 1) - 1
