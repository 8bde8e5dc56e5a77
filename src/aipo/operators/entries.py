"""Operators that measure entries of the picture one by one: denoising and inpainting."""

from math import prod

import numpy as np
import torch
from torch import Tensor

from aipo.basics.arrays import Images, Measurements
from aipo.basics.errors import InputError
from aipo.operators.operator import LinearOperator, Operator, Rearranged, image_shape, window_shape


class Identity(LinearOperator):
    """A = I: the picture itself is measured (denoising)."""

    def __init__(self, shape: tuple[int, int, int]):
        self.shape = image_shape(shape)
        self.measurement_shape = self.shape

    def forward(self, x: Images) -> Measurements:
        return x

    def adjoint(self, y: Measurements) -> Images:
        return y

    def pseudoinverse(self, y: Measurements) -> Images:
        return y

    def kept(self) -> Tensor:
        return torch.ones(self.shape, dtype=torch.bool)

    def window(self, rows: slice, columns: slice) -> tuple[Operator, Rearranged]:
        return Identity(window_shape(self.shape, rows, columns)), lambda y: y[..., rows, columns]

    def transfer_matrices(self) -> Tensor:
        channels, height, width = self.shape
        one = torch.eye(channels, dtype=torch.complex128)
        return one.expand(height, width // 2 + 1, channels, channels)


class Mask(LinearOperator):
    """Only the entries where the mask is true are measured (inpainting).

    The measurement is the vector of the measured entries, in row-major order of (C, H, W).

    Args:
        mask: boolean, (C, H, W); (1, H, W) with `channels` broadcasts over the channels.
        channels: number of channels of the image; needed where the mask has one channel for all.

    Raises:
        InputError: the mask is not boolean, measures nothing, or has another rank.
    """

    def __init__(self, mask: Tensor, channels: int | None = None):
        if mask.dtype != torch.bool or mask.ndim != 3:
            raise InputError(
                f"a mask is boolean of shape (C, H, W), got {mask.dtype} of shape {tuple(mask.shape)}; "
                "pass for example picture > 0.5"
            )
        if channels is not None:
            if mask.shape[0] not in (1, channels):
                raise InputError(
                    f"a mask of shape {tuple(mask.shape)} does not fit {channels} channels; "
                    f"give it 1 or {channels}"
                )
            mask = mask.expand(channels, *mask.shape[1:])
        if not mask.any():
            raise InputError("the mask has no true entry, so nothing is measured; is it inverted?")
        self.mask = mask.clone()
        self.shape = image_shape(tuple(mask.shape))
        self._index = self.mask.flatten().nonzero().squeeze(1)
        self.measurement_shape = (len(self._index),)

    def forward(self, x: Images) -> Measurements:
        return x.flatten(1)[:, self._index.to(x.device)]

    def adjoint(self, y: Measurements) -> Images:
        flat = y.new_zeros(len(y), prod(self.shape))
        return flat.index_copy(1, self._index.to(y.device), y).unflatten(1, self.shape)

    def pseudoinverse(self, y: Measurements) -> Images:
        return self.adjoint(y)

    def kept(self) -> Tensor:
        return self.mask

    def window(self, rows: slice, columns: slice) -> tuple[Operator | None, Rearranged]:
        mask = self.mask[:, rows, columns]

        def of_window(y: Measurements) -> Measurements:
            return self.adjoint(y)[:, :, rows, columns].flatten(1)[:, mask.flatten()]

        return Mask(mask) if bool(mask.any()) else None, of_window


def random_mask(shape: tuple[int, int, int], share: float, seed: int = 0) -> Mask:
    """Measure each pixel independently with probability `share`, all channels of a pixel together.

    Raises:
        InputError: the share is outside (0, 1].
    """
    channels, height, width = image_shape(shape)
    if not 0 < share <= 1:
        raise InputError(f"share = {share}; the share of pixels that are measured lies in (0, 1]")
    drawn = np.random.Generator(np.random.PCG64(seed)).random((1, height, width)) < share
    return Mask(torch.from_numpy(drawn), channels)


def block_mask(
    shape: tuple[int, int, int], side: int, top: int | None = None, left: int | None = None
) -> Mask:
    """Measure everything except a square of the given side, which is centred unless it is placed.

    Raises:
        InputError: the square does not fit.
    """
    channels, height, width = image_shape(shape)
    top = (height - side) // 2 if top is None else top
    left = (width - side) // 2 if left is None else left
    if side < 1 or top < 0 or left < 0 or top + side > height or left + side > width:
        raise InputError(f"a square of side {side} at ({top}, {left}) does not fit into {height} × {width}")
    mask = torch.ones(1, height, width, dtype=torch.bool)
    mask[:, top : top + side, left : left + side] = False
    return Mask(mask, channels)


def mosaic(shape: tuple[int, int, int], pattern: str = "RGGB") -> Mask:
    """Measure one colour per pixel, as a Bayer filter does.

    Args:
        shape: (3, H, W).
        pattern: colours of each 2 × 2 block, row by row.

    Raises:
        InputError: there are not three channels, or the pattern is not four of the letters R, G, B.
    """
    channels, height, width = image_shape(shape)
    if channels != 3 or len(pattern) != 4 or set(pattern) - set("RGB"):
        raise InputError(
            f"shape = {tuple(shape)}, pattern = {pattern!r}; a mosaic needs (3, H, W) and four letters of RGB"
        )
    mask = torch.zeros(3, height, width, dtype=torch.bool)
    for index, colour in enumerate(pattern):
        mask["RGB".index(colour), index // 2 :: 2, index % 2 :: 2] = True
    return Mask(mask)
