"""Conventions for tensors, and the few helpers that everything shares.

Images are float tensors of shape (B, C, H, W) with values in [0, 1]. Energies are nats per image,
shape (B,), with every constant kept. Measurements have shape (B, ...), one entry per measured value.
"""

import hashlib
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

Images: TypeAlias = Float[Tensor, "B C H W"]
Measurements: TypeAlias = Float[Tensor, "B *m"]
PerImage: TypeAlias = Float[Tensor, " B"]

# Most rows that are multiplied one by one: a batch of 64 images, and their copies for SURE.
MANY = 128


def per_image_sum(values: Tensor) -> PerImage:
    """Sum over everything but the batch, (B, ...) -> (B,)."""
    return values.flatten(1).sum(1)


def dot(a: Tensor, b: Tensor) -> PerImage:
    """Inner product of each image's entries, (B, ...), (B, ...) -> (B,)."""
    return per_image_sum(a * b)


def rowwise(x: Tensor, matrix: Tensor) -> Tensor:
    """x @ matrix, each row (B, n) on its own.

    A product of many rows rounds otherwise than one of a few, and solvers amplify that: the answer for an
    image would depend on how many others are in its batch. Each row is copied, because sums are taken in
    another order where memory is aligned otherwise. More rows than MANY are multiplied at once, several times
    faster: such are matrices being prepared.
    """
    if len(x) > MANY:
        return x @ matrix
    return torch.cat([row.clone() @ matrix for row in x.split(1)])


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
