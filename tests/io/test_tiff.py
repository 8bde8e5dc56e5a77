"""TIFF: every variant is read right or refused in one sentence, and what is written has the same kind."""

import resource
import struct
import zlib
from contextlib import suppress
from io import BytesIO
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from aipo.basics.errors import InputError
from aipo.io.images import read_image
from aipo.io.picture import decoded

RNG = np.random.default_rng(3)
TYPES = ("u1", "u2", "u4", "i1", "i2", "i4", "f2", "f4", "f8")
PACKED = ("zlib", "lzw", "packbits", "zstd", "lzma")


def levels(dtype: str, channels: int) -> np.ndarray:
    """Levels over all of the numbers of [0, 1] or of the integers, (20, 18, channels)."""
    shape = (20, 18, channels)
    if dtype[0] == "f":
        return RNG.random(shape).astype(dtype)
    limits = np.iinfo(dtype)
    return RNG.integers(limits.min, limits.max, shape, dtype=dtype, endpoint=True)


def file(array: np.ndarray, **options: Any) -> BytesIO:
    stream = BytesIO()
    tifffile.imwrite(stream, array, metadata=None, **options)
    return BytesIO(stream.getvalue())


def refusal(stream: BytesIO, page: int = 1) -> str:
    with pytest.raises(InputError) as caught:
        decoded(stream, page, "x.tif")
    message = str(caught.value)
    assert message.startswith("Cannot read the picture 'x.tif': ") and "\n" not in message
    return message


VARIANTS = [
    (dtype, channels, order, layout, packed)
    for dtype in TYPES
    for channels in (1, 3)
    for order in "<>"
    for layout in ("strips", "tiles", "planes", "tiled planes")
    for packed in (None, "zlib")
    if channels == 3 or "planes" not in layout
]


@pytest.mark.parametrize("dtype", TYPES)
def test_every_layout_and_byte_order_is_read_exactly(dtype: str) -> None:
    count = 0
    for kind, channels, order, layout, packed in VARIANTS:
        if kind != dtype:
            continue
        array = levels(dtype, channels)
        planes = "planes" in layout
        options: dict[str, Any] = {"photometric": "rgb" if channels == 3 else "minisblack"}
        options |= {"planarconfig": "separate" if planes else "contig"} if channels == 3 else {}
        options |= {"tile": (16, 16)} if "tile" in layout else {"rowsperstrip": 7}
        given = np.moveaxis(array, 2, 0) if planes else array if channels == 3 else array[..., 0]
        stored = decoded(file(given, byteorder=order, compression=packed, **options), 1, None)
        assert stored.samples.dtype == np.dtype(dtype)
        np.testing.assert_array_equal(stored.samples, array)
        count += 1
    assert count >= 20


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("packed", PACKED)
@pytest.mark.parametrize(
    ("dtype", "predictor"), [("u1", 2), ("u2", 2), ("u4", 2), ("f4", 3), ("f8", 3), ("f2", 3)]
)
def test_every_compression_and_predictor_is_read_exactly(
    dtype: str, predictor: int, packed: str, order: str
) -> None:
    array = levels(dtype, 3)
    for each in (predictor, None) if packed != "packbits" else (None,):
        stream = file(array, photometric="rgb", compression=packed, predictor=each, byteorder=order)
        np.testing.assert_array_equal(decoded(stream, 1, None).samples, array)


@pytest.mark.parametrize("packed", ["jpeg2000", "webp", "png", "jpegxl"])
def test_lossless_codecs_of_pictures_are_read_exactly(packed: str) -> None:
    array = levels("u1", 3)
    options = {"jpeg2000": {"level": 0}, "webp": {"lossless": True}, "png": {}, "jpegxl": {"lossless": True}}
    stream = file(array, photometric="rgb", compression=packed, compressionargs=options[packed])
    np.testing.assert_array_equal(decoded(stream, 1, None).samples, array)


def test_jpeg_within_tiff_is_red_green_and_blue() -> None:
    array = np.zeros((16, 16, 3), np.uint8) + np.array([200, 100, 50], np.uint8)
    apart = {"photometric": "rgb", "compressionargs": {"outcolorspace": "rgb"}}
    for options in ({}, {"photometric": "rgb"}, apart):
        stream = file(array, compression="jpeg", **options)
        np.testing.assert_allclose(decoded(stream, 1, None).samples, array, atol=3)


def test_uncompressed_brightness_and_chroma_are_refused() -> None:
    assert "YCBCR" in refusal(file(levels("u1", 3), photometric="ycbcr"))
    assert "CIELAB" in refusal(file(levels("u1", 3), photometric="cielab"))


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15])
def test_packed_bits_are_spread_over_all_levels(bits: int) -> None:
    small = RNG.integers(0, 2**bits, (6, 8), dtype=np.uint16)
    small[0, :2] = 0, 2**bits - 1
    dtype = np.uint8 if bits <= 8 else np.uint16
    packed = imagecodecs.packints_encode(small.astype(dtype), bits)
    stream = raw(packed, 8, 6, bits, 1)
    samples = decoded(stream, 1, None).samples[..., 0]
    white = np.iinfo(dtype).max
    assert samples.dtype == dtype and samples[0, 0] == 0 and samples[0, 1] == white
    np.testing.assert_allclose(samples / white, small / (2**bits - 1), atol=0.5 / white)


def raw(data: bytes, width: int, height: int, bits: int, photometric: int, samples: int = 1) -> BytesIO:
    """An uncompressed little-endian grey TIFF with any tags."""
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 273: 8, 277: 1, 278: height}
    tags |= {279: len(data), 339: samples}
    head = b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", len(tags))
    fields = b"".join(struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in tags.items())
    return BytesIO(head + fields + bytes(4))


def test_where_white_is_zero_levels_are_turned_round() -> None:
    for dtype in ("u1", "u2"):
        array = levels(dtype, 1)[..., 0]
        samples = decoded(file(array, photometric="miniswhite"), 1, None).samples[..., 0]
        np.testing.assert_array_equal(samples, np.iinfo(dtype).max - array)
    bits = decoded(file(levels("u1", 1)[..., 0] > 99, photometric="miniswhite"), 1, None).samples
    assert bits.dtype == np.uint8 and set(np.unique(bits)) == {0, 255}
    for dtype in ("i2", "f4", "u4"):
        assert "MINISWHITE" in refusal(file(levels(dtype, 1)[..., 0], photometric="miniswhite"))


@pytest.mark.parametrize("planes", ["contig", "separate"])
@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
@pytest.mark.parametrize("colours", [1, 3])
def test_alpha_is_apart_and_premultiplied_colours_are_undone(colours: int, dtype: str, planes: Any) -> None:
    array = levels(dtype, colours + 1)
    array[:4, :, -1] = 0
    white = 1.0 if dtype[0] == "f" else np.iinfo(dtype).max
    share = array[..., -1:].astype(float) / white
    options = {"photometric": "rgb" if colours == 3 else "minisblack", "planarconfig": planes}
    for alpha in ("unassalpha", "assocalpha"):
        given = array
        if alpha == "assocalpha":
            soft = array[..., :-1] * share
            given = np.concatenate([soft if dtype[0] == "f" else np.rint(soft), array[..., -1:]], 2).astype(
                dtype
            )
        given = np.moveaxis(given, 2, 0) if planes == "separate" else given
        stored = decoded(file(np.ascontiguousarray(given), extrasamples=[alpha], **options), 1, None)
        np.testing.assert_array_equal(stored.alpha, array[..., -1])
        much = share[..., 0] > 0.5
        tolerance = 0 if alpha == "unassalpha" else 1e-3 * white if dtype == "f4" else 1
        np.testing.assert_allclose(
            stored.samples[much].astype(float), array[much][:, :-1].astype(float), atol=tolerance
        )


def test_channels_without_a_meaning_are_refused_or_named() -> None:
    grey = file(
        levels("u2", 2), photometric="minisblack", planarconfig="contig", extrasamples=["unspecified"]
    )
    assert "2 samples a pixel" in refusal(grey)
    assert "5 samples a pixel" in refusal(file(levels("u1", 5), photometric="rgb", planarconfig="contig"))
    array = levels("u1", 4)
    stored = decoded(file(array, photometric="rgb", extrasamples=["unspecified"]), 1, None)
    np.testing.assert_array_equal(stored.samples, array[..., :3])
    assert stored.alpha is None and "no stated meaning" in stored.lost[0]


def test_a_palette_becomes_its_colours() -> None:
    palette = RNG.integers(0, 256, (3, 256), dtype=np.uint16) * 257
    indices = levels("u1", 1)[..., 0]
    expected = np.moveaxis(palette[:, indices] >> 8, 0, 2)
    for packed in (None, "zlib"):
        stream = file(indices, photometric="palette", colormap=palette, compression=packed)
        np.testing.assert_array_equal(decoded(stream, 1, None).samples, expected)


def test_inks_become_red_green_and_blue() -> None:
    array = levels("u1", 4)
    stored = decoded(file(array, photometric="separated"), 1, None)
    share = 1 - array / 255
    np.testing.assert_array_equal(stored.samples, np.rint(share[..., :3] * share[..., 3:] * 255))
    assert any("four inks" in sentence for sentence in stored.lost)


def test_complex_numbers_and_volumes_are_refused() -> None:
    assert "samples of 64 bits" in refusal(file(np.ones((6, 5), np.complex64)))
    volume = np.zeros((16, 16, 16), np.uint8)
    assert "dimensions" in refusal(file(volume, volumetric=True, tile=(16, 16, 16), photometric="minisblack"))


@pytest.mark.parametrize("packed", ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK", "RGBA", "P"])
def test_what_libtiff_writes_is_read_as_libtiff_reads_it(mode: str, packed: str) -> None:
    stream = BytesIO()
    array = np.repeat(np.repeat(levels("u1", 3)[:4, :4], 8, 0), 8, 1)
    picture = Image.fromarray(array).convert(mode)
    if packed == "jpeg" and mode in ("RGBA", "P"):
        pytest.skip("libtiff writes no such file")
    picture.save(stream, "TIFF", compression=packed)
    expected = np.array(Image.open(stream).convert("L" if mode == "L" else "RGB")).reshape(32, 32, -1)
    samples = decoded(BytesIO(stream.getvalue()), 1, None).samples
    np.testing.assert_allclose(samples, expected.astype(float), atol=4 if packed == "jpeg" else 0)


@pytest.mark.parametrize("packed", ["group3", "group4", "raw", "tiff_lzw"])
def test_fax_pages_are_black_and_white(packed: str) -> None:
    stream = BytesIO()
    bits = levels("u1", 1)[..., 0] > 99
    Image.fromarray(bits).save(stream, "TIFF", compression=packed)
    np.testing.assert_array_equal(decoded(BytesIO(stream.getvalue()), 1, None).samples[..., 0], 255 * bits)


def test_pages_are_counted_without_thumbnails() -> None:
    first, second = levels("u1", 1)[..., 0], levels("u1", 1)[..., 0]
    stream = BytesIO()
    with tifffile.TiffWriter(stream) as writer:
        writer.write(first, metadata=None)
        writer.write(first[:4, :4], subfiletype=1, metadata=None)
        writer.write(second, metadata=None)
    data = stream.getvalue()
    stored = decoded(BytesIO(data), 2, None)
    np.testing.assert_array_equal(stored.samples[..., 0], second)
    assert "page 2 of 2" in stored.lost[-1]
    np.testing.assert_array_equal(decoded(BytesIO(data), 1, None).samples[..., 0], first)
    for page in (0, 3):
        assert f"page {page} was asked for" in refusal(BytesIO(data), page)


def test_missing_strips_are_no_black_ones() -> None:
    whole = file(levels("u1", 1)[..., 0], rowsperstrip=5, compression="zlib").getvalue()
    with tifffile.TiffFile(BytesIO(whole)) as opened:
        counts = opened.pages[0].tags[279]  # type: ignore[union-attr]
        size = {3: 2, 4: 4}[int(counts.dtype)]
        damaged = bytearray(whole)
        damaged[counts.valueoffset : counts.valueoffset + size] = bytes(size)
    assert "3 of 4 parts" in refusal(BytesIO(bytes(damaged)))


def test_a_bomb_within_a_strip_takes_no_memory() -> None:
    whole = bytearray(file(np.zeros((64, 64), np.uint8), compression="zlib", rowsperstrip=64).getvalue())
    flood = zlib.compress(bytes(200_000_000), 9)
    with tifffile.TiffFile(BytesIO(bytes(whole))) as opened:
        page = opened.pages[0]
        counts, starts = page.tags[279], page.tags[273]  # type: ignore[union-attr]
        form = {3: "<u2", 4: "<u4"}
        for tag, value in ((counts, min(len(flood), 65535)), (starts, len(whole))):
            end = tag.valueoffset + np.dtype(form[int(tag.dtype)]).itemsize
            whole[tag.valueoffset : end] = np.array(value, form[int(tag.dtype)]).tobytes()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with suppress(InputError):  # it may also read the first pixels only
        decoded(BytesIO(bytes(whole) + flood), 1, None)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000


def test_the_orientation_of_a_tiff_is_applied() -> None:
    array = levels("u2", 1)[..., 0]
    stream = file(array, extratags=[(274, 3, 1, 6, True)])
    np.testing.assert_array_equal(decoded(stream, 1, None).samples[..., 0], np.rot90(array, -1))
    shown = read_image(file(array, extratags=[(274, 3, 1, 6, True)]))
    assert shown.shape == (1, 18, 20)
