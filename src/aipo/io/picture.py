"""A picture as the prior sees it, beside the file that it came from and to which its restoration returns."""

import os
from dataclasses import dataclass, replace
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from aipo.basics.errors import InputError
from aipo.io import png, raster, tiff
from aipo.io.files import damaged, printable, read_bytes, reason, shown_name, too_big, unreadable, write_bytes
from aipo.io.ranges import FARTHEST, Range, automatic_range, checked_range, range_remark
from aipo.io.samples import format_of
from aipo.io.stored import Stored

FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP", "GIF", "PPM")
SUFFIXES = {"PNG": ".png", "TIFF": ".tif"}


@dataclass(frozen=True)
class Picture:
    """One picture.

    Args:
        values: float32 (C, H, W), C = 1 for grey and 3 for colour, also for grey that is stored as colour;
            0 and 1 are the two levels of `range`, and noise may exceed them. Where nothing is known it holds
            the mean of what is.
        known: bool (1, H, W); false for NaN and infinite pixels and where the picture is fully transparent.
        range: the file's levels that are 0 and 1 in `values`.
        stored: the picture as the file has it.
        remarks: what the user should know, one sentence each.
    """

    values: Tensor
    known: Tensor
    range: tuple[float, float]
    stored: Stored
    remarks: tuple[str, ...]

    @property
    def alpha(self) -> Tensor:
        """How much of each pixel is shown, float32 (1, H, W) in [0, 1]."""
        return torch.from_numpy(self.stored.opaque).float()[None]

    @property
    def suffix(self) -> str:
        """The end of the name under which the picture is written: .png or .tif."""
        return SUFFIXES[self.stored.format]

    @property
    def unit(self) -> float:
        """How large in `values` is one unit of the file: its white, or 1 where numbers have no white."""
        return (self.stored.white or 1.0) / (self.range[1] - self.range[0])


def read_picture(
    source: str | os.PathLike | BinaryIO, range: Range = "auto", page: int = 1, name: str | None = None
) -> Picture:
    """Read a picture so that its restoration can be written back in kind.

    Args:
        range: the file's levels that become 0 and 1; "auto" takes black and white, and where more than 8
            bits use little of that, or go beyond it, the lowest and the highest level.
        page: of a file of several, from 1.
        name: for messages.

    Raises:
        InputError: the source cannot be read whole and unambiguously, or it shows nothing.
    """
    return _pictured(decoded(source, page, name), range, shown_name(source, name))


def read_like(source: str | os.PathLike | BinaryIO, picture: Picture) -> Tensor:
    """Another picture of the same scene on the scale of `picture.values`: float32 (C, H, W).

    Its range is the same share of its own white. Grey becomes colour if `picture` is colour.

    Raises:
        InputError: as for `read_picture`.
    """
    stored = decoded(source, 1, None)
    scale = (stored.white or 1.0) / (picture.stored.white or 1.0)
    low, high = (scale * end for end in picture.range)
    values = _pictured(stored, (low, high), shown_name(source)).values
    return values.expand(max(len(values), len(picture.values)), -1, -1)


def _pictured(stored: Stored, range: Range, shown: str) -> Picture:
    levels, lost = _levels(stored)
    seen = stored.opaque > 0
    known = np.isfinite(levels).all(0) & seen
    if not known.any():
        kind = "NaN or infinite" if seen.any() else "transparent"
        raise unreadable(shown, f"all of it is {kind}", "give a picture that shows something")
    low, high = automatic_range(levels[:, known], stored) if range == "auto" else checked_range(range)
    values = (levels - low) / (high - low)
    values[:, ~known] = values[:, known].mean(1, keepdims=True)
    remarks = [*stored.lost, *lost, *range_remark(levels[:, known], (low, high), stored)]
    holes = int((seen & ~known).sum())
    if holes:
        remarks.append(f"{holes} pixels are NaN or infinite; they are taken as lost and filled")
    return Picture(
        torch.from_numpy(np.clip(values, *FARTHEST)).float(),
        torch.from_numpy(known)[None],
        (low, high),
        stored,
        tuple(printable(remark) for remark in remarks),
    )


def write_picture(path: str | os.PathLike, picture: Picture, restored: Tensor) -> None:
    """Write what was restored, (C, H, W) like `picture.values`, with the levels and in the kind of its file.

    Fully transparent pixels stay as they were. What reached farther out of the range than the prior was
    shown is added again.

    Raises:
        InputError: another shape, NaN, a suffix that is not the picture's, or a place that cannot be written.
    """
    shown = shown_name(path)
    if not os.fsdecode(path).lower().endswith(picture.suffix):
        kind = picture.stored.format
        raise InputError(f"Cannot write {shown}: it is written as {kind}; end in {picture.suffix}.")
    write_bytes(path, encoded(picture, restored, shown))


def encoded(picture: Picture, restored: Tensor, shown: str) -> bytes:
    """The content of the file that `write_picture` writes.

    Args:
        picture, restored: as there.
        shown: how messages call it.
    """
    if restored.shape != picture.values.shape or not torch.isfinite(restored).all():
        found = f"{tuple(restored.shape)}, with NaN or infinite values or another shape than its file"
        raise InputError(f"Cannot write {shown}: the picture is {found}; give {tuple(picture.values.shape)}.")
    samples = _returned(picture, restored.detach().cpu().double().numpy())
    result = replace(picture.stored, samples=samples)
    return png.encode(result) if picture.stored.format == "PNG" else tiff.encode(result)


def restored_suffix(file: str | os.PathLike, page: int = 1) -> str:
    """The end of the name under which the restoration of this file is written; .png if it is unreadable."""
    try:
        data = read_bytes(file, shown_name(file))
        if data.startswith((b"Pf", b"PF")):  # floating point
            return SUFFIXES["TIFF"]
        dtype = tiff.samples_of(data, page) if data.startswith(tiff.MAGIC) else None
    except Exception:  # a damaged file is reported where it is read
        return SUFFIXES["PNG"]
    return SUFFIXES["PNG" if dtype is None or dtype.kind == "b" else format_of(dtype)]


def decoded(source: str | os.PathLike | BinaryIO, page: int, name: str | None) -> Stored:
    """A page of a file as it is stored. Damage makes decoders raise anything, so all is caught.

    Raises:
        InputError: the file cannot be read whole and unambiguously.
    """
    shown = shown_name(source, name)
    data = read_bytes(source, shown)
    if not data:
        raise damaged(shown, "empty (0 bytes)")
    kinds = ((png, png.MAGIC), (tiff, tiff.MAGIC))
    decoder = next((kind for kind, magic in kinds if data.startswith(magic)), raster)
    try:
        return decoder.decode(data, shown, page)
    except InputError:
        raise
    except UnidentifiedImageError as error:
        problem = f"it is no sound picture of a supported kind (it begins with {data[:8]!r})"
        raise unreadable(shown, problem, f"give one in a format of {', '.join(FORMATS)}") from error
    except Image.DecompressionBombError as error:
        raise too_big(shown, f"too many pixels ({reason(error)})") from error
    except Exception as error:
        raise damaged(shown, f"damaged: {reason(error)}") from error


def _levels(stored: Stored) -> tuple[np.ndarray, list[str]]:
    """(C, H, W) of float64, grey where all channels are equal; JPEG may have moved them by two levels."""
    levels = np.moveaxis(stored.samples.astype(np.float64), 2, 0)
    if len(levels) == 1:
        return levels, []
    with np.errstate(invalid="ignore"):
        differ = np.ptp(levels, axis=0)[stored.opaque > 0]
    if np.nanmax(differ, initial=0) <= (2 if stored.samples.dtype == np.uint8 else 0):
        return levels.mean(0, keepdims=True), ["it is grey stored as colour, and is restored as grey"]
    return levels, []


def _returned(picture: Picture, restored: np.ndarray) -> np.ndarray:
    """The samples to write, (H, W, C) of the file's dtype."""
    stored, (low, high) = picture.stored, picture.range
    seen = picture.values.double().numpy()
    inside = np.clip(restored, min(0, seen.min()), max(1, seen.max()))
    levels = low + (high - low) * inside
    original = np.moveaxis(stored.samples.astype(np.float64), 2, 0)
    far = picture.known.numpy() & ((seen <= FARTHEST[0]) | (seen >= FARTHEST[1]))
    shown = low + (high - low) * seen
    with np.errstate(invalid="ignore"):
        levels = np.where(far, levels + (original - shown), levels)
    levels = np.where(stored.opaque > 0, np.broadcast_to(levels, original.shape), original)
    samples = np.moveaxis(levels, 0, 2)
    if stored.samples.dtype.kind == "f":
        return samples.astype(stored.samples.dtype)
    limits = np.iinfo(stored.samples.dtype)
    return np.rint(samples).clip(limits.min, limits.max).astype(stored.samples.dtype)
