"""Pictures as tensors: float32 (C, H, W) with values in [0, 1], C = 1 for grey and 3 for colour.

A file that cannot be read whole and unambiguously is refused with `InputError`; nothing else is raised.
`aipo.io.picture` keeps beside the values what a restoration needs to be written back in kind.
"""

import os
from collections.abc import Sequence
from typing import BinaryIO

import numpy as np
import torch
from skimage.transform import resize
from torch import Tensor

from aipo.basics.arrays import Images
from aipo.basics.errors import InputError
from aipo.io import png
from aipo.io.files import shown_name, unreadable, write_bytes
from aipo.io.picture import decoded
from aipo.io.stored import Stored


def read_image(source: str | os.PathLike | BinaryIO, name: str | None = None) -> Tensor:
    """Read the picture in a file or binary stream: float32 (C, H, W) in [0, 1]; errors call it `name`.

    - The content decides the format, never the suffix; it must be one of `aipo.io.picture.FORMATS`.
    - Grey and 1-bit pictures give C = 1, and all others give C = 3. A palette also gives C = 3, unless it is
      one of grey levels in a BMP or GIF.
    - 16-bit pictures keep their levels.
    - Integers of 32 bits are taken as 16-bit levels, and values outside 0..65535 are refused. Signed ones of
      8 and 16 bits are refused. Floating point values are taken as they are, and values that are not finite
      or outside [0, 1] are refused.
    - Transparent pixels are shown on white, as on a page. The EXIF orientation is applied.
    - CMYK is converted by its plain formula. Colour profiles and gamma are ignored.
    - The first picture of an animation or of several pages is read (the still picture of an animated PNG).

    Raises InputError if the source is not a readable file, is cut short or damaged (PNG checksums are all
    verified), has no pixels, or is larger than `aipo.io.files` allows.
    """
    stored = decoded(source, 1, name)
    levels, white = stored.samples, stored.white or 65535.0
    if stored.white is None and levels.dtype.itemsize < 4:
        problem = f"it has signed {8 * levels.dtype.itemsize}-bit samples, of which no level is white"
        raise unreadable(shown_name(source, name), problem, "save it with unsigned ones")
    if not (levels.min() >= 0 and levels.max() <= white):  # also where NaN
        found = f"its values range from {levels.min()} to {levels.max()}"
        raise unreadable(shown_name(source, name), found, f"scale them to between 0 and {white:g}")
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(_on_white(stored, white), 2, 0)))


def read_square(file: str, side: int | None) -> Images:
    """Read a picture (1, C, H, W); if a side is given, its largest centred square, resized to side × side."""
    return square(read_image(file), side)


def square(image: Tensor, side: int | None) -> Images:
    """A picture (C, H, W) as (1, C, H, W); if a side is given, as `read_square` gives it.

    Raises:
        InputError: the side is not positive.
    """
    if side is None:
        return image[None]
    if side < 1:
        raise InputError(f"size = {side}; give a positive number of pixels")
    shortest = min(image.shape[1:])
    top, left = (image.shape[1] - shortest) // 2, (image.shape[2] - shortest) // 2
    middle = image[:, top : top + shortest, left : left + shortest]
    resized = resize(middle.numpy(), (len(middle), side, side), anti_aliasing=True)
    return torch.from_numpy(resized)[None].clamp(0, 1)


def write_image(path: str | os.PathLike, image: Tensor) -> None:
    """Write (C, H, W), C in {1, 3}, clipped to [0, 1] and rounded to 8 bits, as the PNG file `path`.

    The file appears whole or not at all, and replaces an older file. Raises InputError for another shape or
    dtype, NaN or infinite values, a suffix other than .png, or a place that cannot be written.
    """
    shown = shown_name(path)
    _check_picture(image, f"Cannot write {shown}")
    if not torch.isfinite(image).all():
        raise InputError(f"Cannot write {shown}: the picture holds NaN or infinite values; remove them.")
    if not os.fsdecode(path).lower().endswith(".png"):
        raise InputError(f"Cannot write {shown}: pictures are written as PNG; let the name end in .png.")
    levels = (image.detach().cpu().float().clamp(0, 1) * 255).round().byte().permute(1, 2, 0)
    write_bytes(path, png.encode(Stored(levels.numpy(), 255.0)))


def hstack(images: Sequence[Tensor], gap: int = 2) -> Tensor:
    """Place pictures side by side, `gap` white columns apart: n of (C, H, W_i) -> (C, H, sum of widths).

    Grey pictures become colour if any picture is colour. The result is detached, on the CPU. Raises
    InputError for no pictures, different heights, another shape or dtype, or a negative gap.
    """
    if len(images) == 0 or gap < 0:
        raise InputError(f"Cannot place {len(images)} pictures {gap} columns apart; give some and gap >= 0.")
    for image in images:
        _check_picture(image, "Cannot place pictures side by side")
    heights = sorted({image.shape[1] for image in images})
    if len(heights) > 1:
        raise InputError(f"Cannot place pictures of heights {heights} side by side; give them one height.")
    channels = max(image.shape[0] for image in images)
    white = torch.ones(channels, heights[0], gap)
    pictures = [image.detach().cpu().expand(channels, -1, -1) for image in images]
    return torch.cat([part for picture in pictures for part in (white, picture)][1:], dim=2)


def _on_white(stored: Stored, white: float) -> np.ndarray:
    """(H, W, C) float32 in [0, 1], shown on a white page where it is transparent."""
    values = stored.samples.astype(np.float32) / np.float32(white)
    if stored.alpha is None:
        return values
    opaque = stored.opaque[..., None].astype(np.float32)
    return (values * opaque + (1 - opaque)).clip(0, 1)


def _check_picture(image: Tensor, action: str) -> None:
    """Refuse a tensor that is not a picture."""
    if not image.is_floating_point() or image.ndim != 3 or image.shape[0] not in (1, 3) or not image.numel():
        found = f"{image.dtype} of shape {tuple(image.shape)}"
        raise InputError(f"{action}: got {found}; give floating point values of shape (1 or 3, H, W).")
