"""PNG: every variant is read exactly; what is written keeps depth, alpha, profile, resolution and EXIF."""

import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageCms

from aipo.basics.errors import InputError
from aipo.io import png
from aipo.io.picture import decoded
from aipo.io.stored import Stored

RNG = np.random.default_rng(5)
HEIGHT, WIDTH = 9, 11
KINDS = [(0, bits) for bits in (1, 2, 4, 8, 16)] + [(3, bits) for bits in (1, 2, 4, 8)]
KINDS += [(colour, bits) for colour in (2, 4, 6) for bits in (8, 16)]
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
PASSES = (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def packed(values: np.ndarray, bits: int, filtered: int) -> bytes:
    """Rows of (H, W, C) as PNG packs them, with filter 0 (none), 1 (left) or 2 (above)."""
    height = len(values)
    if bits == 16:
        rows = values.astype(">u2").reshape(height, -1).view(np.uint8)
    else:
        each = (values.reshape(height, -1, 1) >> np.arange(bits)[::-1]) & 1
        rows = np.packbits(each.reshape(height, -1).astype(np.uint8), axis=1)
    step = max(1, bits * values.shape[2] // 8)
    before = np.zeros_like(rows)
    if filtered == 1:
        before[:, step:] = rows[:, :-step]
    if filtered == 2:
        before[1:] = rows[:-1]
    return b"".join(
        bytes([filtered]) + (row - other).tobytes() for row, other in zip(rows, before, strict=True)
    )


def made(values: np.ndarray, colour: int, bits: int, filtered: int, interlaced: bool, extra: bytes) -> bytes:
    """A PNG, encoded here so that it does not depend on the library that decodes."""
    grids = PASSES if interlaced else ((0, 0, 1, 1),)
    parts = [values[y::dy, x::dx] for x, y, dx, dy in grids]
    rows = b"".join(packed(part, bits, filtered) for part in parts if part.size)
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, bits, colour, 0, 0, interlaced)
    half = zlib.compress(rows)
    pixels = chunk(b"IDAT", half[: len(half) // 2]) + chunk(b"IDAT", half[len(half) // 2 :])
    return png.MAGIC + chunk(b"IHDR", header) + extra + pixels + chunk(b"IEND", b"")


@pytest.mark.parametrize("transparent", [False, True])
@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("filtered", [0, 1, 2])
@pytest.mark.parametrize(("colour", "bits"), KINDS)
def test_every_kind_is_read_exactly(
    colour: int, bits: int, filtered: int, interlaced: bool, transparent: bool
) -> None:
    values = RNG.integers(0, 2**bits, (HEIGHT, WIDTH, CHANNELS[colour]))
    palette = RNG.integers(0, 256, (2**bits, 3), dtype=np.uint8) if colour == 3 else None
    extra = b"" if palette is None else chunk(b"PLTE", palette.tobytes())
    white = 65535 if bits == 16 else 255
    colours = values[..., : 1 if colour in (0, 4) else 3]
    expected = palette[values[..., 0]] if palette is not None else colours * (white // (2**bits - 1))
    alpha = values[..., -1] if colour in (4, 6) else None
    if transparent and palette is not None:
        share = RNG.integers(0, 256, 2**bits, dtype=np.uint8)
        extra, alpha = extra + chunk(b"tRNS", share.tobytes()), share[values[..., 0]]
    elif transparent and colour in (0, 2):
        key = values[3, 4]
        extra += chunk(b"tRNS", struct.pack(f">{len(key)}H", *key))
        alpha = np.where((values == key).all(2), 0, white)
    stored = decoded(BytesIO(made(values, colour, bits, filtered, interlaced, extra)), 1, None)
    assert stored.samples.dtype == (np.uint16 if bits == 16 else np.uint8) and stored.white == white
    np.testing.assert_array_equal(stored.samples, expected)
    if alpha is None:
        assert stored.alpha is None or (stored.alpha == white).all()
    else:
        np.testing.assert_array_equal(stored.alpha, alpha)


def exif_of(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = orientation, "maker"
    return exif.tobytes().removeprefix(b"Exif\0\0")


PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("colours", [1, 3])
@pytest.mark.parametrize("clear", [False, True])
def test_what_is_written_is_read_back_with_all_that_belongs_to_it(
    dtype: type, colours: int, clear: bool
) -> None:
    white = np.iinfo(dtype).max
    samples = RNG.integers(0, white, (HEIGHT, WIDTH, colours), dtype=dtype, endpoint=True)
    alpha = RNG.integers(0, white, (HEIGHT, WIDTH), dtype=dtype, endpoint=True) if clear else None
    given = Stored(samples, white, alpha, icc=PROFILE, dpi=(300.0, 150.0), exif=exif_of(1))
    data = png.encode(given)
    back = decoded(BytesIO(data), 1, None)
    np.testing.assert_array_equal(back.samples, samples)
    np.testing.assert_array_equal(back.alpha, alpha) if clear else None
    assert back.icc == PROFILE and back.exif == given.exif and back.dpi == pytest.approx((300, 150), abs=0.02)
    other = Image.open(BytesIO(data))  # another reader sees the same
    assert other.info["icc_profile"] == PROFILE and other.getexif()[0x010F] == "maker"
    assert other.info["dpi"] == pytest.approx((300, 150), abs=0.02)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_once_and_reset(orientation: int) -> None:
    samples = RNG.integers(0, 65536, (HEIGHT, WIDTH, 3), dtype=np.uint16)
    turned = decoded(BytesIO(png.encode(Stored(samples, 65535.0, exif=exif_of(orientation)))), 1, None)
    again = decoded(BytesIO(png.encode(turned)), 1, None)
    np.testing.assert_array_equal(again.samples, turned.samples)
    assert (turned.samples.shape[:2] == (WIDTH, HEIGHT)) == (orientation > 4)
    assert Image.open(BytesIO(png.encode(turned))).getexif()[0x0112] == 1


def test_an_animation_is_said_to_lose_its_frames() -> None:
    stream = BytesIO()
    first, second = Image.new("RGB", (4, 3), (255, 0, 0)), Image.new("RGB", (4, 3), (0, 0, 255))
    first.save(stream, "PNG", save_all=True, append_images=[second])
    stored = decoded(BytesIO(stream.getvalue()), 1, None)
    assert "animation" in stored.lost[0] and (stored.samples == (255, 0, 0)).all()
    with pytest.raises(InputError, match="page 2 was asked for"):
        decoded(BytesIO(stream.getvalue()), 2, None)


def test_a_profile_that_is_a_bomb_is_said_to_be_lost() -> None:
    values = np.zeros((HEIGHT, WIDTH, 1), int)
    bomb = chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(50_000_000), 9))
    stored = decoded(BytesIO(made(values, 0, 8, 0, False, bomb)), 1, None)
    assert stored.icc is None and "profile" in stored.lost[0]
