"""Formats of 8 bits that Pillow reads: JPEG, WEBP, BMP, GIF and PPM (also grey of 16 bits and of floats)."""

import re
import warnings
from dataclasses import replace
from io import BytesIO

import numpy as np
from PIL import Image, ImageFile

from aipo.io.files import check_page, check_size, damaged, unreadable
from aipo.io.samples import white_of
from aipo.io.stored import ORIENTATION, Stored, turned, upright_exif

FORMATS = ("JPEG", "BMP", "WEBP", "PPM", "GIF")

_JPEG_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]", re.DOTALL)  # not the escapes within scan data


def decode(data: bytes, shown: str, page: int) -> Stored:
    """A page of a file, counted from 1. Damage makes Pillow raise any error."""
    if data.startswith(b"\xff\xd8\xff") and not _jpeg_ends(data):
        raise damaged(shown, f"cut short: its {len(data)} bytes lack the JPEG end marker")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = Image.open(BytesIO(data), formats=FORMATS)
        check_size(image.size, shown)
        pages = getattr(image, "n_frames", 1)
        check_page(page, pages, shown)
        if page > 1:
            image.seek(page - 1)
        stored = _stored(image, data, shown)
    if pages > 1:
        told = f"page {page} of {pages} is restored and the others are not kept; --page gives another"
        stored = _with_loss(stored, told)
    return turned(stored, image.getexif().get(ORIENTATION, 1))


def _stored(image: ImageFile.ImageFile, data: bytes, shown: str) -> Stored:
    wide = _wide(image, data, shown)
    inks = image.mode == "CMYK"
    if wide is not None:
        samples, alpha = wide, None
    else:
        grey = image.mode in ("1", "L", "LA")
        mode = ("L" if grey else "RGB") + ("A" if image.has_transparency_data else "")
        pixels = np.array(image.convert(mode)).reshape(image.height, image.width, -1)
        colours = 1 if grey else 3
        samples, alpha = pixels[..., :colours], pixels[..., -1] if mode.endswith("A") else None
    dpi, exif = image.info.get("dpi"), image.info.get("exif")
    icc = None if inks else image.info.get("icc_profile")
    stored = Stored(
        samples,
        white_of(samples.dtype),
        alpha,
        icc=icc or None,
        dpi=None if dpi is None or min(dpi) <= 0 else (float(dpi[0]), float(dpi[1])),
        exif=upright_exif(exif),
    )
    if inks:
        return _with_loss(stored, "its four inks were turned into red, green and blue by the plain formula")
    return stored


def _with_loss(stored: Stored, sentence: str) -> Stored:
    return replace(stored, lost=(*stored.lost, sentence))


def _wide(image: ImageFile.ImageFile, data: bytes, shown: str) -> np.ndarray | None:
    """Samples of more than 8 bits, (H, W, C) of uint16 or float32; None if there are no such."""
    if image.mode == "F":
        return np.array(image)[..., None]
    tile = image.tile[0] if image.tile else None
    args = (tile.args or ()) if tile is not None and image.format == "PPM" else ()
    white = args[1] if len(args) > 1 else 0
    if image.mode in ("I", "I;16"):  # Pillow has scaled them to 65535
        return np.array(image).astype(np.uint16)[..., None]
    if image.mode == "RGB" and isinstance(white, int) and white > 255:  # Pillow would give the upper 8 bits
        assert tile is not None
        count = 3 * image.width * image.height
        if data[:2] != b"P6" or len(data) < tile.offset + 2 * count:
            raise unreadable(shown, "its 16-bit colours are text or cut short", "save it as PNG or TIFF")
        samples = np.frombuffer(data, ">u2", count, tile.offset).reshape(image.height, image.width, 3)
        return np.minimum(np.rint(samples * (65535 / white)), 65535).astype(np.uint16)
    return None


def _jpeg_ends(data: bytes) -> bool:
    """Whether a walk from marker to marker meets the end marker (that of a thumbnail does not count)."""
    at = 2
    while marker := _JPEG_MARKER.search(data, at):
        at = marker.end()
        if marker[0] == b"\xff\xd9":
            return True
        at += int.from_bytes(data[at : at + 2])  # the segment's length, which counts these two bytes
    return False
