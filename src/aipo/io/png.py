"""PNG files of 1 to 16 bits, checked whole before they are decoded, and written with what belongs to them."""

import struct
import zlib

import imagecodecs
import numpy as np

from aipo.io.files import check_page, check_size, damaged
from aipo.io.samples import white_of
from aipo.io.stored import Stored, orientation_of, turned, upright_exif

MAGIC = b"\x89PNG\r\n\x1a\n"
# The chunks that the pixels depend on. Others may be compressed, so they may be bombs themselves.
_PIXEL_CHUNKS = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}
_KEPT_CHUNKS = _PIXEL_CHUNKS | {b"eXIf", b"iCCP", b"pHYs", b"acTL"}
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # per pixel, by colour type
_ADAM7 = (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)
_LARGEST_PROFILE = 1 << 22
_INCH = 0.0254  # metres


def decode(data: bytes, shown: str, page: int) -> Stored:
    """The picture of a PNG file; of an animation its still picture. May raise any error for damage."""
    chunks = _checked(data, shown)
    check_page(page, 1, shown)
    pixels = imagecodecs.png_decode(MAGIC + b"".join(_chunk(*c) for c in chunks if c[0] in _PIXEL_CHUNKS))
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    colours = pixels.shape[2] - 1 + pixels.shape[2] % 2
    alpha = pixels[..., -1] if pixels.shape[2] > colours else None
    said = dict(reversed(chunks))
    lost = []
    profile = _profile(said.get(b"iCCP"))
    if b"iCCP" in said and profile is None:
        lost.append("its colour profile is damaged or too large and is not kept")
    if b"acTL" in said:
        lost.append("it is an animation, of which only the still picture is kept")
    exif = said.get(b"eXIf")
    stored = Stored(
        pixels[..., :colours],
        white_of(pixels.dtype),
        alpha,
        icc=profile,
        dpi=_dpi(said.get(b"pHYs")),
        exif=upright_exif(exif),
        lost=tuple(lost),
    )
    return turned(stored, orientation_of(exif))


def encode(stored: Stored) -> bytes:
    """A PNG file of the samples, alpha, colour profile, resolution and EXIF."""
    planes = [stored.samples] if stored.alpha is None else [stored.samples, stored.alpha[..., None]]
    pixels = np.ascontiguousarray(np.concatenate(planes, axis=2))
    # Level 6 is zlib's own default: halfway between size and speed.
    png = imagecodecs.png_encode(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels, level=6)
    end = len(MAGIC) + 25  # of the header chunk, after which the others belong
    extra = _chunk(b"tEXt", b"Software\0aipo")
    if stored.icc is not None:
        extra += _chunk(b"iCCP", b"profile\0\0" + zlib.compress(stored.icc))
    if stored.dpi is not None:
        extra += _chunk(b"pHYs", struct.pack(">IIB", *(round(dpi / _INCH) for dpi in stored.dpi), 1))
    if stored.exif is not None:
        extra += _chunk(b"eXIf", stored.exif)
    return bytes(png[:end]) + extra + bytes(png[end:])


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _checked(data: bytes, shown: str) -> list[tuple[bytes, bytes]]:
    """The chunks to keep, by kind, after a check of the size and of the checksum of every chunk."""
    kept, start, kind = [], len(MAGIC), b""
    while kind != b"IEND":
        if start + 12 > len(data):
            raise damaged(shown, f"cut short: its {len(data)} bytes end before the PNG end chunk")
        length, kind = struct.unpack_from(">I4s", data, start)
        end = start + 12 + length
        if end > len(data):
            raise damaged(shown, f"cut short: its chunk {kind!r} ends at byte {end} of {len(data)}")
        if zlib.crc32(memoryview(data)[start + 4 : end - 4]) != int.from_bytes(data[end - 4 : end]):
            raise damaged(shown, f"damaged: the checksum of its chunk {kind!r} at byte {start} is wrong")
        if kind in _KEPT_CHUNKS:
            kept.append((kind, data[start + 8 : end - 4]))
        start = end
    _check_pixels(kept[0][1], b"".join(content for kind, content in kept if kind == b"IDAT"), shown)
    return kept


def _check_pixels(header: bytes, packed: bytes, shown: str) -> None:
    """Refuse too large a size, and pixels that end early. May raise any error."""
    width, height, bits, colour, _, _, interlaced = struct.unpack(">IIBBBBB", header)
    check_size((width, height), shown)
    expected = 0
    for x, y, dx, dy in _ADAM7 if interlaced else [(0, 0, 1, 1)]:
        columns, rows = -((x - width) // dx), -((y - height) // dy)
        if columns > 0 and rows > 0:
            expected += rows * (1 + (columns * bits * _SAMPLES.get(colour, 0) + 7) // 8)
    found = len(zlib.decompressobj().decompress(packed, expected))
    if found < expected:
        raise damaged(shown, f"damaged: it has {found} of {expected} bytes of pixels")


def _profile(chunk: bytes | None) -> bytes | None:
    """The colour profile of an iCCP chunk: a name, a zero, a zero for the method, and zlib's data."""
    try:
        packed = (chunk or b"").split(b"\0", 1)[1][1:]
        unpacker = zlib.decompressobj()
        profile = unpacker.decompress(packed, _LARGEST_PROFILE)
    except (IndexError, zlib.error):
        return None
    return profile if unpacker.eof else None


def _dpi(chunk: bytes | None) -> tuple[float, float] | None:
    if chunk is None or len(chunk) != 9:
        return None
    across, down, unit = struct.unpack(">IIB", chunk)
    return (across * _INCH, down * _INCH) if unit == 1 else None
