"""Reading and writing single picture files, safely.

A picture is a float32 tensor of shape (C, H, W) with values in [0, 1]; C is 1 for grey and 3 for colour.
A file that cannot be read whole and unambiguously is refused with `InputError`; nothing else is raised.
"""

import os
import re
import secrets
import stat
import struct
import warnings
import zlib
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image, ImageFile, ImageOps, TiffImagePlugin, UnidentifiedImageError
from skimage.transform import resize
from torch import Tensor

from aipo.basics.arrays import Images
from aipo.basics.errors import InputError

FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "PPM", "GIF")
MAX_PIXELS = 64_000_000
MAX_BYTES = 8 * MAX_PIXELS  # the largest honest file: uncompressed, four channels of 16 bits

_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
# The chunks that the pixels depend on. Text and profiles may be compressed, so they may be bombs themselves.
_PNG_CHUNKS = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"eXIf", b"IEND"}
_PNG_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # per pixel, by colour type
_ADAM7 = (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)
_JPEG_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]", re.DOTALL)  # not the escapes within scan data
# Factors that scale a PNG's transparent colour to the 8 bits of its pixels, by raw mode; Pillow leaves it.
_KEY_SCALES = {"L;2": 85.0, "L;4": 17.0, "RGB;16B": 1 / 256}


def read_image(source: str | os.PathLike | BinaryIO, name: str | None = None) -> Tensor:
    """Read the picture in a file or binary stream: float32 (C, H, W) in [0, 1]; errors call it `name`.

    - The content decides the format, never the suffix; it must be one of `FORMATS`.
    - Grey and 1-bit pictures give C = 1, and all others give C = 3. A palette also gives C = 3, unless it is
      one of grey levels in a BMP or GIF.
    - 16-bit grey keeps its levels. Other 16-bit pictures, with colour or alpha, are read at 8 bits (the upper
      byte of each value), because Pillow does no more.
    - 32-bit integers are taken as 16-bit levels, and values outside 0..65535 are refused. Floating point
      values are taken as they are, and values that are not finite or outside [0, 1] are refused.
    - Transparent pixels are shown on white, as on a page. The EXIF orientation is applied.
    - CMYK is converted by its plain formula. Colour profiles and gamma are ignored.
    - The first picture of an animation or of several pages is read (the still picture of an animated PNG).

    Raises InputError if the source is not a readable file, is cut short or damaged (PNG checksums are all
    verified), has no pixels, or has more than `MAX_PIXELS` pixels or `MAX_BYTES` bytes.
    """
    shown = _shown(source, name)
    data = _from_path(source, shown) if isinstance(source, str | os.PathLike) else _from_stream(source, shown)
    if len(data) > MAX_BYTES:
        raise _too_big(shown, f"more than {MAX_BYTES} bytes")
    return _decode(data, shown)


def read_square(file: str, side: int | None) -> Images:
    """Read a picture (1, C, H, W); if a side is given, its largest centred square, resized to side × side."""
    image = read_image(file)
    if side is None:
        return image[None]
    if side < 1:
        raise InputError(f"size = {side}; give a positive number of pixels")
    shortest = min(image.shape[1:])
    top, left = (image.shape[1] - shortest) // 2, (image.shape[2] - shortest) // 2
    square = image[:, top : top + shortest, left : left + shortest]
    resized = resize(square.numpy(), (len(square), side, side), anti_aliasing=True)
    return torch.from_numpy(resized)[None].clamp(0, 1)


def write_image(path: str | os.PathLike, image: Tensor) -> None:
    """Write (C, H, W), C in {1, 3}, clipped to [0, 1] and rounded to 8 bits, as the PNG file `path`.

    The file appears whole or not at all: it is written beside its place and then renamed, so it replaces
    an older file. Raises InputError for another shape or dtype, NaN or infinite values, a suffix other
    than .png, or a place that cannot be written.
    """
    shown = _shown(path, None)
    _check_picture(image, f"Cannot write {shown}")
    if not torch.isfinite(image).all():
        raise InputError(f"Cannot write {shown}: the picture holds NaN or infinite values; remove them.")
    if not os.fsdecode(path).lower().endswith(".png"):
        raise InputError(f"Cannot write {shown}: pictures are written as PNG; let the name end in .png.")
    levels = (image.detach().cpu().float().clamp(0, 1) * 255).round().byte().permute(1, 2, 0)
    png = BytesIO()
    Image.fromarray(levels.squeeze(2).numpy()).save(png, format="PNG")
    try:
        _replace(Path(os.fsdecode(path)), png.getvalue())
    except (OSError, ValueError) as error:
        raise InputError(f"Cannot write {shown}: {_reason(error)}; give a writable place.") from error


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


def _shown(source: object, name: str | None) -> str:
    """The source's name for messages. It is quoted, so that odd characters cannot break the line."""
    if name is None and isinstance(source, str | os.PathLike):
        name = os.fsdecode(source)
    return repr(str(getattr(source, "name", f"<{type(source).__name__}>") if name is None else name))


def _from_path(path: str | os.PathLike, shown: str) -> bytes:
    """The content of a regular file. A pipe or device may never end, so it is refused unopened."""
    try:
        info = Path(os.fsdecode(path)).stat()
        if stat.S_ISREG(info.st_mode) and info.st_size <= MAX_BYTES:
            with open(path, "rb") as file:
                return file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise _unreadable(shown, _reason(error), "give the path of a readable picture file") from error
    if stat.S_ISREG(info.st_mode):
        raise _too_big(shown, f"{info.st_size} bytes")
    kind = "a folder" if stat.S_ISDIR(info.st_mode) else "not a regular file"
    raise _unreadable(shown, f"it is {kind}", "give the path of one picture file")


def _from_stream(stream: BinaryIO, shown: str) -> bytes:
    """The rest of the stream, up to one byte more than is allowed."""
    try:
        data = stream.read(MAX_BYTES + 1)
    except Exception as error:  # any object may come in here, and its `read` may raise anything
        raise _unreadable(shown, _reason(error), "give a path or an open binary stream") from error
    if not isinstance(data, bytes):
        raise _unreadable(shown, f"it yields {type(data).__name__}, not bytes", "open it in binary mode")
    return data


def _replace(path: Path, data: bytes) -> None:
    """Put `data` at `path` in one step, through a file in the same folder. Raises OSError."""
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        with open(temporary, "xb") as file:  # not `tempfile`, whose files only their owner may read
            file.write(data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _checked_png(data: bytes, shown: str) -> bytes:
    """The PNG reduced to `_PNG_CHUNKS`, after a check of its size and of the checksum of every chunk.

    Pillow stops at the last pixel, so it accepts a file whose end is missing or damaged.
    """
    kept, start, kind = [_PNG_MAGIC], len(_PNG_MAGIC), b""
    while kind != b"IEND":
        if start + 12 > len(data):
            raise _damaged(shown, f"cut short: its {len(data)} bytes end before the PNG end chunk")
        length, kind = struct.unpack_from(">I4s", data, start)
        end = start + 12 + length
        if end > len(data):
            raise _damaged(shown, f"cut short: its chunk {kind!r} ends at byte {end} of {len(data)}")
        if zlib.crc32(memoryview(data)[start + 4 : end - 4]) != int.from_bytes(data[end - 4 : end]):
            raise _damaged(shown, f"damaged: the checksum of its chunk {kind!r} at byte {start} is wrong")
        if kind in _PNG_CHUNKS:
            kept.append(data[start:end])
        start = end
    _check_png_pixels(kept[1][8:-4], b"".join(c[8:-4] for c in kept if c[4:8] == b"IDAT"), shown)
    return b"".join(kept)


def _check_png_pixels(header: bytes, packed: bytes, shown: str) -> None:
    """Refuse too large a size, and pixels that end early, which Pillow shows black. May raise any error."""
    width, height, bits, colour, _, _, interlaced = struct.unpack(">IIBBBBB", header)
    _check_size((width, height), shown)
    expected = 0
    for x, y, dx, dy in _ADAM7 if interlaced else [(0, 0, 1, 1)]:
        columns, rows = -((x - width) // dx), -((y - height) // dy)
        if columns > 0 and rows > 0:
            expected += rows * (1 + (columns * bits * _PNG_SAMPLES.get(colour, 0) + 7) // 8)
    found = len(zlib.decompressobj().decompress(packed, expected))
    if found < expected:
        raise _damaged(shown, f"damaged: it has {found} of {expected} bytes of pixels")


def _jpeg_ends(data: bytes) -> bool:
    """Whether a walk from marker to marker meets the end marker (that of a thumbnail does not count)."""
    at = 2
    while marker := _JPEG_MARKER.search(data, at):
        at = marker.end()
        if marker[0] == b"\xff\xd9":
            return True
        at += int.from_bytes(data[at : at + 2])  # the segment's length, which counts these two bytes
    return False


def _check_size(size: tuple[int, int], shown: str) -> None:
    """Refuse a size (width, height) with no pixels or too many, before any memory is taken for them."""
    if size[0] * size[1] == 0:
        raise _unreadable(shown, f"it is {size[0]} x {size[1]} pixels", "give a picture that is not empty")
    if size[0] * size[1] > MAX_PIXELS:
        raise _too_big(shown, f"{size[0]} x {size[1]} pixels")


def _decode(data: bytes, shown: str) -> Tensor:
    """The upright picture, (C, H, W) in [0, 1]. Damage makes Pillow raise anything, so all is caught."""
    try:
        if not data:
            raise _damaged(shown, "empty (0 bytes)")
        if data.startswith(_PNG_MAGIC):
            data = _checked_png(data, shown)
        elif data.startswith(b"\xff\xd8\xff") and not _jpeg_ends(data):
            raise _damaged(shown, f"cut short: its {len(data)} bytes lack the JPEG end marker")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _pixels(Image.open(BytesIO(data), formats=FORMATS), shown)
    except InputError:
        raise
    except UnidentifiedImageError as error:
        problem = f"it is no sound picture of a supported kind (it begins with {data[:8]!r})"
        raise _unreadable(shown, problem, f"give one in a format of {', '.join(FORMATS)}") from error
    except Image.DecompressionBombError as error:
        raise _too_big(shown, f"too many pixels ({_reason(error)})") from error
    except Exception as error:
        raise _damaged(shown, f"damaged: {_reason(error)}") from error


def _pixels(image: ImageFile.ImageFile, shown: str) -> Tensor:
    """Decode an opened picture to (C, H, W) in [0, 1]; so far only its header has been read."""
    _check_size(image.size, shown)
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        _check_tiff(image, shown)
    rawmode = str(image.tile[0].args) if image.tile else ""
    key = image.info.get("transparency")
    if key is not None and rawmode in _KEY_SCALES:
        scaled = np.array(key) * _KEY_SCALES[rawmode]
        image.info["transparency"] = tuple(map(int, scaled)) if scaled.ndim else int(scaled)
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode[0] in "IF":
        return _wide_grey(image, shown)
    return _narrow(image, grey=image.mode in ("1", "L", "LA") or rawmode == "LA;16B")


def _check_tiff(image: TiffImagePlugin.TiffImageFile, shown: str) -> None:
    """Refuse the kinds of TIFF samples whose levels Pillow returns unscaled, shifted or inverted."""
    bits = max(image.tag_v2.get(258, (1,)))  # BitsPerSample
    inverted = image.tag_v2.get(262) == 0 and bits > 8  # PhotometricInterpretation
    signed = 2 in image.tag_v2.get(339, ()) and bits < 32  # SampleFormat
    if signed or inverted or bits == 12:
        kind = f"{'signed ' if signed else ''}{bits}-bit samples{' where white is zero' if inverted else ''}"
        raise _unreadable(shown, f"it has {kind}", "save it with unsigned 8- or 16-bit samples, black as 0")


def _wide_grey(image: Image.Image, shown: str) -> Tensor:
    """Grey of more than 8 bits, (1, H, W). Integers are levels of 65535; floating point is kept as it is."""
    values = np.array(image)
    white = 1 if values.dtype.kind == "f" else 65535
    if not (values.min() >= 0 and values.max() <= white):  # also where NaN
        found = f"its values range from {values.min()} to {values.max()}"
        raise _unreadable(shown, found, f"scale them to between 0 and {white}")
    values = values.astype(np.float32) / np.float32(white)
    if "transparency" in image.info:
        values[np.array(image) == image.info["transparency"]] = 1
    return torch.from_numpy(values)[None]


def _narrow(image: Image.Image, grey: bool) -> Tensor:
    """A picture of 8 bits or less, (1, H, W) if grey, else (3, H, W); transparent pixels are on white."""
    mode = ("L" if grey else "RGB") + ("A" if image.has_transparency_data else "")
    planes = torch.from_numpy(np.array(image.convert(mode)))
    planes = planes.reshape(image.height, image.width, -1).permute(2, 0, 1).contiguous().float() / 255
    if mode.endswith("A"):
        colour, alpha = planes[:-1], planes[-1:]
        return (colour * alpha + (1 - alpha)).clamp(0, 1)
    return planes


def _check_picture(image: Tensor, action: str) -> None:
    """Refuse a tensor that is not a picture."""
    if not image.is_floating_point() or image.ndim != 3 or image.shape[0] not in (1, 3) or not image.numel():
        found = f"{image.dtype} of shape {tuple(image.shape)}"
        raise InputError(f"{action}: got {found}; give floating point values of shape (1 or 3, H, W).")


def _reason(error: Exception) -> str:
    """The text of an exception, on one line and without the full stop that ends our own sentence."""
    text = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
    return " ".join(text.split())[:200].rstrip(".: ")


def _unreadable(shown: str, problem: str, remedy: str) -> InputError:
    return InputError(f"Cannot read the picture {shown}: {problem}; {remedy}.")


def _too_big(shown: str, size: str) -> InputError:
    limits = f"{MAX_PIXELS} pixels and {MAX_BYTES} bytes"
    return _unreadable(shown, f"it has {size}", f"shrink it to at most {limits}")


def _damaged(shown: str, problem: str) -> InputError:
    return _unreadable(shown, f"it is {problem}", "copy, download or save the file again")
