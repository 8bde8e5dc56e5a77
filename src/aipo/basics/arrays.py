"""Conventions for tensors, and the few helpers that everything shares.

Images are float tensors of shape (B, C, H, W) with values in [0, 1]. Energies are nats per image,
shape (B,), with every constant kept. Measurements have shape (B, ...), one entry per measured value.
"""

import hashlib
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from aipo.basics.errors import InputError

Images: TypeAlias = Float[Tensor, "B C H W"]
Measurements: TypeAlias = Float[Tensor, "B *m"]
PerImage: TypeAlias = Float[Tensor, " B"]

# At most so many rows are multiplied independently: a batch of 64 images, and their copies for SURE.
MANY = 128

# So many rows, filled up with zeros, are multiplied together by matrices with a side of at most NARROW.
BLOCK, NARROW = 8, 256


def check_tensor(name: str, value: object) -> None:
    """Refuse anything but a tensor.

    Raises:
        InputError: the value is a NumPy array, a list, a number, or anything else.
    """
    if isinstance(value, np.ndarray):
        raise InputError(f"{name} is a NumPy array; use torch.from_numpy({name}).float()")
    if not isinstance(value, Tensor):
        raise InputError(f"{name} is of type {type(value).__name__}; give a tensor")


def check_dtype(name: str, value: Tensor, whose: str, dtype: torch.dtype) -> None:
    """Refuse a tensor whose precision is not that of the object it is used with.

    Raises:
        InputError: the dtype is another one.
    """
    if value.dtype != dtype:
        have, want = (str(each).removeprefix("torch.") for each in (value.dtype, dtype))
        cast = {torch.float32: "float", torch.float64: "double"}.get(dtype, want)
        raise InputError(f"{name} is {have}, {whose} {want}; use {name}.{cast}()")


def per_image_sum(values: Tensor) -> PerImage:
    """Sum over everything but the batch, (B, ...) -> (B,)."""
    return values.flatten(1).sum(1)


def dot(a: Tensor, b: Tensor) -> PerImage:
    """Inner product of each image's entries, (B, ...), (B, ...) -> (B,)."""
    return per_image_sum(a * b)


def rowwise(x: Tensor, matrix: Tensor) -> Tensor:
    """x @ matrix for rows x (B, n), where the result of each row does not depend on the other rows.

    A product of many rows rounds differently from a product of a few, and solvers amplify the difference: the
    answer for an image would depend on how many others are in its batch. A narrow matrix is therefore always
    multiplied by BLOCK rows, filled up with zeros. A large matrix, for which zeros would cost too much, is
    multiplied by one row at a time. Rows are copied, because the alignment of memory changes the order of
    sums. More rows than MANY are multiplied at once, which is several times faster; this happens only where
    matrices are prepared.
    """
    if len(x) > MANY:
        return x @ matrix
    if min(matrix.shape) > NARROW:
        return torch.cat([row.clone() @ matrix for row in x.split(1)])
    blocks = x.new_zeros(-(-len(x) // BLOCK) * BLOCK, x.shape[1])
    blocks[: len(x)] = x
    return torch.cat([rows @ matrix for rows in blocks.split(BLOCK)])[: len(x)]


def expand(values: PerImage, like: Tensor) -> Tensor:
    """One value per image, shaped to broadcast against `like`: (B,) -> (B, 1, ..., 1)."""
    return values.reshape(-1, *[1] * (like.ndim - 1))


def as_per_image(value: float | Tensor, like: Tensor) -> PerImage:
    """A number, or one number per image, as a (B,) tensor of the dtype and device of `like`."""
    tensor = torch.as_tensor(value, dtype=like.dtype, device=like.device)
    return tensor.expand(len(like)) if tensor.ndim == 0 else tensor


def content_seed(values: Tensor) -> int:
    """A seed from the values themselves, so that randomness follows the image, not its position."""
    data = values.detach().to("cpu", torch.float32).contiguous().numpy().tobytes()
    return int.from_bytes(hashlib.sha256(data).digest()[:7], "big")


class White:
    """White noise of variance 1. Each image has its own seed, so its noise does not depend on its batch."""

    def __init__(self, seeds: Sequence[int]):
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, like: Tensor) -> Tensor:
        """Noise of the shape of a tensor (B, ...), which has as many images as there are seeds."""
        noise = torch.empty(like.shape, dtype=like.dtype)
        for row, generator in zip(noise, self._generators, strict=True):
            row.normal_(generator=generator)
        return noise.to(like.device)
