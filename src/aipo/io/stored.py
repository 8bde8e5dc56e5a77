"""A picture as its file stores it: levels, alpha, and what the file says about them."""

import struct
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from PIL import Image

from aipo.io.samples import format_of

ORIENTATION = 0x0112  # the EXIF and TIFF tag


@dataclass(frozen=True)
class Stored:
    """Levels of one upright picture, and all that is needed to write it back in kind.

    Args:
        samples: (H, W, C), C = 1 for grey and 3 for colour, of any real dtype; not premultiplied by alpha.
        white: the level of white; None for kinds of numbers that have none (signed, more than 16 bits).
        alpha: (H, W) of the samples' dtype, 0 where transparent and `white` where opaque; None if all is.
        icc: the colour profile of the samples.
        dpi: pixels per inch, across and down.
        exif: EXIF without a prefix, whose orientation has been applied and reset.
        lost: what the file has and this does not keep, one sentence each.
    """

    samples: np.ndarray
    white: float | None
    alpha: np.ndarray | None = None
    icc: bytes | None = None
    dpi: tuple[float, float] | None = None
    exif: bytes | None = None
    lost: tuple[str, ...] = ()

    @property
    def format(self) -> Literal["PNG", "TIFF"]:
        """The format that it is written back in."""
        return format_of(self.samples.dtype)

    @property
    def opaque(self) -> np.ndarray:
        """How much of each pixel is shown, (H, W) in [0, 1]."""
        if self.alpha is None:
            return np.ones(self.samples.shape[:2])
        return np.clip(np.nan_to_num(self.alpha.astype(np.float64)) / (self.white or 1.0), 0, 1)


def turned(stored: Stored, orientation: int) -> Stored:
    """The picture turned upright from its EXIF orientation (1 to 8; others mean upright)."""
    if not 2 <= orientation <= 8:
        return stored
    dpi = stored.dpi
    if orientation >= 5 and dpi is not None:
        dpi = dpi[1], dpi[0]
    alpha = None if stored.alpha is None else _turn(stored.alpha, orientation)
    return replace(stored, samples=_turn(stored.samples, orientation), alpha=alpha, dpi=dpi)


def _turn(array: np.ndarray, orientation: int) -> np.ndarray:
    if orientation >= 5:
        array = array.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return np.ascontiguousarray(array)


def orientation_of(exif: bytes | None) -> int:
    """The orientation that EXIF (with or without its prefix) states, or 1."""
    if exif is None:
        return 1
    try:
        found = Image.Exif()
        found.load(exif)
        return int(found.get(ORIENTATION, 1))
    except Exception:  # damaged EXIF makes Pillow raise anything; the picture itself is sound
        return 1


def upright_exif(exif: bytes | None) -> bytes | None:
    """EXIF without its prefix that says upright; None if it is damaged or there is none.

    The tag is reset in place, because a new layout would break the offsets within makers' own notes.
    """
    if exif is None:
        return None
    patched = bytearray(exif.removeprefix(b"Exif\0\0"))
    try:
        order = {b"II": "<", b"MM": ">"}[bytes(patched[:2])]
        (start,) = struct.unpack_from(order + "I", patched, 4)
        (count,) = struct.unpack_from(order + "H", patched, start)
        for entry in range(start + 2, start + 2 + 12 * count, 12):
            if struct.unpack_from(order + "H", patched, entry) == (ORIENTATION,):
                struct.pack_into(order + "H", patched, entry + 8, 1)
    except (KeyError, struct.error):
        return None
    return bytes(patched)
