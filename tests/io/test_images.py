"""Pictures: every special kind is read as documented, every damage is refused in one sentence."""

import os
import resource
import stat
import struct
import time
import warnings
import zlib
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile
from torch import Tensor

from aipo.basics.errors import InputError
from aipo.io import files
from aipo.io.files import MAX_PIXELS
from aipo.io.images import hstack, read_image, write_image
from aipo.io.picture import FORMATS

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (6, 5, 3), dtype=np.uint8)
GREY = RNG.integers(0, 256, (6, 5), dtype=np.uint8)
WIDE = RNG.integers(0, 65536, (6, 5), dtype=np.uint16)
FLOAT = RNG.random((6, 5), dtype=np.float32)


def encode(picture: np.ndarray | Image.Image, format: str, **options: Any) -> bytes:
    file = BytesIO()
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    image.save(file, format, **options)
    return file.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(
    width: int, height: int, bits: int, colour: int, rows: bytes, extra: bytes = b"", interlaced: int = 0
) -> bytes:
    """A PNG of unfiltered rows, for the kinds that Pillow does not write."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlaced))
    pixels = chunk(b"IDAT", zlib.compress(rows, 9))
    return b"\x89PNG\r\n\x1a\n" + header + extra + pixels + chunk(b"IEND", b"")


def tiff(bits: int, photometric: int, samples: int, data: bytes) -> bytes:
    """An uncompressed grey TIFF of one row and two pixels."""
    tags = {
        256: 2,
        257: 1,
        258: bits,
        259: 1,
        262: photometric,
        273: 8,
        277: 1,
        278: 1,
        279: len(data),
        339: samples,
    }
    head = b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", len(tags))
    return head + b"".join(struct.pack("<HHIHH", tag, 3, 1, tags[tag], 0) for tag in tags) + bytes(4)


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def read(data: bytes, name: str = "cat.png") -> Tensor:
    return read_image(BytesIO(data), name)


def refusal(source: Any, name: str | None = None) -> str:
    """The message with which a source is refused, which is one sentence on one line."""
    with pytest.raises(InputError) as caught:
        read_image(BytesIO(source) if isinstance(source, bytes) else source, name)
    message = str(caught.value)
    assert message.startswith("Cannot read the picture '") and message.endswith(".")
    assert "\n" not in message and ": " in message and "; " in message
    return message


def levels(image: Tensor) -> np.ndarray:
    """(C, H, W) in [0, 1] -> 8-bit (H, W, C), which must be exact."""
    scaled = image.permute(1, 2, 0).numpy() * 255
    np.testing.assert_allclose(scaled, scaled.round(), atol=1e-4)
    return scaled.round().astype(np.uint8)


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "PPM"])
def test_8_bit_colour_and_grey_keep_every_level(format: str) -> None:
    colour, grey = read(encode(COLOUR, format)), read(encode(GREY, format))
    assert colour.dtype == torch.float32 and colour.is_contiguous()
    np.testing.assert_array_equal(levels(colour), COLOUR)
    np.testing.assert_array_equal(levels(grey)[..., 0], GREY)


@pytest.mark.parametrize("format", ["PNG", "TIFF", "PPM"])
def test_16_bit_grey_keeps_every_level(format: str) -> None:
    expected = torch.from_numpy(WIDE.astype(np.float32) / 65535)[None]
    torch.testing.assert_close(read(encode(WIDE, format)), expected, rtol=0, atol=1e-7)


def test_16_bit_colour_and_alpha_keep_every_level() -> None:
    row = struct.pack(">6H", 0x1234, 0xFFFF, 0, 0x8000, 0x80FF, 0x0100)
    expected = torch.tensor([[[0x1234, 0x8000]], [[0xFFFF, 0x80FF]], [[0, 0x0100]]]) / 65535
    torch.testing.assert_close(read(png(2, 1, 16, 2, b"\0" + row)), expected, rtol=0, atol=1e-7)
    opaque_and_clear = b"\0" + struct.pack(">4H", 0x1234, 0xFFFF, 0x1234, 0)
    torch.testing.assert_close(
        read(png(2, 1, 16, 4, opaque_and_clear)), torch.tensor([[[0x1234 / 65535, 1]]])
    )


def test_integers_of_32_bits_are_levels_of_65535() -> None:
    data = encode(np.array([[0, 65535, 257]], dtype=np.int32), "TIFF")
    torch.testing.assert_close(read(data), torch.tensor([[[0, 1, 1 / 255]]]))
    assert "from 0 to 65536" in refusal(encode(np.array([[0, 65536]], dtype=np.int32), "TIFF"))
    assert "from -1 to 5" in refusal(encode(np.array([[-1, 5]], dtype=np.int32), "TIFF"))


def test_floats_stay_as_they_are_and_must_be_within_0_and_1() -> None:
    assert torch.equal(read(encode(FLOAT, "TIFF")), torch.from_numpy(FLOAT)[None])
    for bad, shown in ((np.nan, "nan"), (np.inf, "inf"), (-np.inf, "-inf"), (1.5, "1.5"), (-0.25, "-0.25")):
        values = FLOAT.copy()
        values[2, 3] = bad
        message = refusal(encode(values, "TIFF"), "depth.tif")
        assert shown in message and "'depth.tif'" in message and "between 0 and 1" in message


@pytest.mark.parametrize("bits", [8, 16])
def test_signed_samples_have_no_white(bits: int) -> None:
    assert f"signed {bits}-bit samples" in refusal(tiff(bits, 1, 2, bytes(4)))


def test_tiff_samples_of_other_bits_and_with_white_as_0() -> None:
    torch.testing.assert_close(read(tiff(16, 1, 1, b"\xff\xff\0\0")), torch.tensor([[[1.0, 0.0]]]))
    torch.testing.assert_close(read(tiff(8, 0, 1, b"\xff\0")), torch.tensor([[[0.0, 1.0]]]))
    torch.testing.assert_close(read(tiff(16, 0, 1, b"\xff\xff\0\0")), torch.tensor([[[0.0, 1.0]]]))
    torch.testing.assert_close(read(tiff(12, 1, 1, b"\xff\xf0\0")), torch.tensor([[[1.0, 0.0]]]))


UPRIGHT = np.array([[250, 100, 100], [0, 100, 50]], dtype=np.uint8)  # every corner is its own
STORED = {  # what a camera stores, so that the orientation brings it back
    1: UPRIGHT,
    2: UPRIGHT[:, ::-1],
    3: UPRIGHT[::-1, ::-1],
    4: UPRIGHT[::-1],
    5: UPRIGHT.T,
    6: np.rot90(UPRIGHT, 1),
    7: UPRIGHT[::-1, ::-1].T,
    8: np.rot90(UPRIGHT, -1),
}


@pytest.mark.parametrize("format", ["PNG", "TIFF", "JPEG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(format: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    big = np.ascontiguousarray(np.kron(STORED[orientation], np.ones((16, 16), dtype=np.uint8)))
    options = {"lossless": True} if format == "WEBP" else {}
    image = read(encode(big, format, exif=exif, **options))
    assert image.shape[1:] == (32, 48)
    marked = image[0, 8::16, 8::16] * 255
    torch.testing.assert_close(marked, torch.from_numpy(UPRIGHT).float(), rtol=0, atol=3)


def test_16_bit_grey_is_turned_as_well() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = read(encode(WIDE, "PNG", exif=exif))
    assert torch.equal(turned[0], torch.rot90(read(encode(WIDE, "PNG"))[0], -1))


def test_alpha_is_shown_on_white() -> None:
    pixels = np.array([[[255, 0, 100, 255], [255, 0, 100, 0], [255, 0, 100, 51]]], dtype=np.uint8)
    expected = np.array([[[255, 0, 100], [255, 255, 255], [255, 204, 224]]], dtype=np.uint8)
    np.testing.assert_array_equal(levels(read(encode(pixels, "PNG"))), expected)
    np.testing.assert_array_equal(levels(read(encode(pixels, "WEBP", lossless=True, exact=True))), expected)
    grey = Image.merge("LA", [Image.fromarray(pixels[..., 2]), Image.fromarray(pixels[..., 3])])
    np.testing.assert_array_equal(levels(read(encode(grey, "PNG"))), expected[..., 2:])


@pytest.mark.parametrize(
    ("bits", "colour", "row", "key", "expected"),
    [
        (1, 0, b"\x40", (0,), [[[255], [255]]]),
        (2, 0, b"\x90", (2,), [[[255], [85]]]),
        (4, 0, b"\x34", (3,), [[[255], [68]]]),
        (8, 0, b"\x34\x35", (0x34,), [[[255], [0x35]]]),
        (16, 0, b"\0\0\0\1", (1,), [[[0], [255]]]),
        (8, 2, b"\1\2\3\1\2\4", (1, 2, 3), [[[255] * 3, [1, 2, 4]]]),
        (16, 2, b"\1\1\2\2\3\3\1\1\2\2\4\4", (0x101, 0x202, 0x303), [[[255] * 3, [1, 2, 4]]]),
    ],
)
def test_a_transparent_colour_is_white(
    bits: int, colour: int, row: bytes, key: tuple, expected: list
) -> None:
    data = png(2, 1, bits, colour, b"\0" + row, chunk(b"tRNS", struct.pack(f">{len(key)}H", *key)))
    np.testing.assert_array_equal(levels(read(data)), expected)


def test_a_palette_is_colour_also_with_transparency() -> None:
    image = Image.fromarray(np.array([[0, 1, 2]], dtype=np.uint8), "P")
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 70, 70])
    opaque = [[[10, 20, 30], [40, 50, 60], [70, 70, 70]]]
    np.testing.assert_array_equal(levels(read(encode(image, "PNG"))), opaque)
    np.testing.assert_array_equal(levels(read(encode(image, "GIF"))), opaque)
    clear = [[[10, 20, 30], [255, 255, 255], [70, 70, 70]]]
    np.testing.assert_array_equal(levels(read(encode(image, "PNG", transparency=1))), clear)
    np.testing.assert_array_equal(levels(read(encode(image, "GIF", transparency=1))), clear)


def test_cmyk_becomes_rgb_and_1_bit_becomes_grey() -> None:
    ink = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    np.testing.assert_array_equal(levels(read(encode(ink, "TIFF")))[0, 0], [0, 255, 255])
    jpeg = read(encode(ink, "JPEG", quality=100))
    torch.testing.assert_close(jpeg[:, 8, 8], torch.tensor([0.0, 1.0, 1.0]), rtol=0, atol=0.02)
    for format in ("PNG", "TIFF", "BMP", "PPM"):
        bits = read(encode(Image.fromarray(GREY > 99), format))
        assert torch.equal(bits[0], torch.from_numpy(GREY > 99).float())


@pytest.mark.parametrize("format", ["GIF", "PNG", "TIFF", "WEBP"])
def test_of_an_animation_the_first_frame_is_read(format: str) -> None:
    first, second = Image.new("RGB", (4, 3), (255, 0, 0)), Image.new("RGB", (4, 3), (0, 0, 255))
    options = {"lossless": True} if format == "WEBP" else {}
    data = encode(first, format, save_all=True, append_images=[second], **options)
    np.testing.assert_array_equal(levels(read(data)), np.array(first))


@pytest.mark.parametrize("picture", [COLOUR, WIDE, GREY > 99], ids=["8 bits", "16 bits", "1 bit"])
def test_every_proper_prefix_of_a_png_is_refused(picture: np.ndarray) -> None:
    data = encode(picture, "PNG")
    read(data)
    for length in range(len(data)):
        message = refusal(data[:length], "half.png")
        assert "'half.png'" in message and ("cut short" in message or length < 8)


def test_every_damaged_byte_of_a_png_is_refused() -> None:
    data = encode(COLOUR[:3], "PNG")
    for position in range(len(data)):
        damaged = bytearray(data)
        damaged[position] ^= 0x11
        refusal(bytes(damaged))
    damaged = bytearray(data)
    damaged[-1] ^= 1
    assert "checksum of its chunk b'IEND'" in refusal(bytes(damaged))
    assert torch.equal(read(data + b"appended"), read(data))


def test_a_png_with_too_few_pixels_is_refused() -> None:
    assert "it has 19 of 20 bytes of pixels" in refusal(png(4, 4, 8, 0, bytes(19)))
    assert "it has 0 of 20 bytes of pixels" in refusal(png(4, 4, 8, 0, b""))
    refusal(png(4, 4, 8, 0, bytes(20))[:33] + chunk(b"IEND", b""))
    assert torch.equal(read(png(4, 3, 8, 0, bytes(18), interlaced=1)), torch.zeros(1, 3, 4))
    assert "it has 17 of 18 bytes of pixels" in refusal(png(4, 3, 8, 0, bytes(17), interlaced=1))


@pytest.mark.parametrize("progressive", [False, True])
def test_every_proper_prefix_of_a_jpeg_is_refused(progressive: bool) -> None:
    thumbnail = b"Exif\0\0" + encode(GREY, "JPEG")  # has an end marker of its own, in the middle of the file
    data = encode(COLOUR, "JPEG", progressive=progressive, exif=thumbnail, restart_marker_blocks=1)
    whole = read(data)
    assert all("JPEG end" in refusal(data[:length]) for length in range(3, len(data)))
    assert torch.equal(read(data + b"appended"), whole)


def read_or_refuse(data: bytes) -> Tensor | None:
    try:
        return read(data)
    except InputError:
        return None


@pytest.mark.parametrize("format", ["BMP", "GIF", "PPM", "TIFF", "WEBP"])
def test_a_prefix_of_another_format_is_refused_or_loses_no_pixel(format: str) -> None:
    data = encode(COLOUR, format)
    whole = read(data)
    prefixes = [read_or_refuse(data[:length]) for length in range(len(data))]
    assert all(image is None or torch.equal(image, whole) for image in prefixes)
    assert all(image is None for image in prefixes[: len(data) * 9 // 10])


@pytest.mark.parametrize("format", FORMATS)
def test_random_damage_gives_a_picture_or_an_input_error(
    format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MAX_PIXELS", 10_000)  # so that a damaged size costs no time
    data = encode(COLOUR, format)
    for _ in range(60):
        damaged = bytearray(data)
        damaged[RNG.integers(0, len(data))] = RNG.integers(0, 256)
        image = read_or_refuse(bytes(damaged))
        assert image is None or (image.min() >= 0 and image.max() <= 1 and image.shape[0] in (1, 3))


def resize(data: bytes, format: str, width: int, height: int) -> bytes:
    """Forge the size in the header of a 4 x 4 picture."""
    forged = bytearray(data)
    at, layout, size = {
        "PNG": (16, ">II", (width, height)),
        "JPEG": (data.index(b"\xff\xc0") + 5 if format == "JPEG" else 0, ">HH", (height, width)),
        "BMP": (18, "<ii", (width, height)),
        "GIF": (6, "<HH", (width, height)),
        "WEBP": (24, "<HBHB", (width - 1 & 0xFFFF, width - 1 >> 16, height - 1 & 0xFFFF, height - 1 >> 16)),
    }[format]
    struct.pack_into(layout, forged, at, *size)
    if format == "PNG":
        forged[29:33] = struct.pack(">I", zlib.crc32(forged[12:29]))
    return bytes(forged)


@pytest.mark.parametrize("size", [(8_001, 8_000), (12_000, 12_000), (20_000, 20_000)])
@pytest.mark.parametrize("format", ["PNG", "JPEG", "BMP", "GIF", "WEBP", "PPM", "TIFF"])
def test_a_bomb_is_refused_before_it_is_decoded(
    format: str, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("it was decoded"))
    two = {"save_all": True, "append_images": [Image.new("RGB", (4, 4), "red")]} if format == "WEBP" else {}
    if format == "PPM":
        data = b"P6 %d %d 255\n" % size
    elif format == "TIFF":
        data = tiff(8, 1, 1, bytes(2)).replace(
            struct.pack("<HHIH", 256, 3, 1, 2), struct.pack("<HHIH", 256, 3, 1, size[0])
        )
        data = data.replace(struct.pack("<HHIH", 257, 3, 1, 1), struct.pack("<HHIH", 257, 3, 1, size[1]))
    else:
        data = resize(encode(Image.new("RGB", (4, 4)), format, **two), format, *size)
    memory, start = peak_memory(), time.perf_counter()
    with warnings.catch_warnings(record=True) as leaked:
        warnings.simplefilter("always")
        message = refusal(data)
    assert f"at most {MAX_PIXELS} pixels" in message
    assert f"{size[0]} x {size[1]}" in message or f"{size[0] * size[1]} pixels" in message
    assert not leaked and time.perf_counter() - start < 1 and peak_memory() - memory < 100


def peak_memory() -> float:
    """Of this process, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def test_the_hidden_parts_of_a_small_png_cost_nothing() -> None:
    flood = zlib.compress(bytes(100_000_000), 1)
    text = b"".join(chunk(b"zTXt", b"a\0\0" + flood) for _ in range(20))
    plain = png(4, 4, 8, 0, bytes(20))
    stuffed = (
        plain[:33] + text + chunk(b"iCCP", b"a\0\0" + flood) + chunk(b"IDAT", flood) + chunk(b"IEND", b"")
    )
    memory, start = peak_memory(), time.perf_counter()
    assert torch.equal(read(stuffed), read(plain))
    assert time.perf_counter() - start < 1 and peak_memory() - memory < 100


def test_no_pixels_and_no_picture() -> None:
    assert "it is 0 x 3 pixels" in refusal(png(0, 3, 8, 0, b""))
    for format in ("BMP", "JPEG"):
        refusal(resize(encode(Image.new("RGB", (4, 4)), format), format, 0, 4))
    refusal(b"P6 0 4 255\n")
    assert "it is empty (0 bytes)" in refusal(b"")
    text = refusal(b"just some text\n", "note.png")
    assert "'note.png'" in text and "b'just som'" in text and "PNG, JPEG" in text
    refusal(encode(COLOUR, "ICO"))


def test_files_are_named_in_the_message(tmp_path: Path) -> None:
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    (tmp_path / "text.png").write_text("text")
    (tmp_path / "empty.png").touch()
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    with open(tmp_path / "sparse.png", "wb") as file:
        file.truncate(10**12)
    found = {
        "missing.png": "No such file",
        "loop.png": "symbolic links",
        "text.png": "no sound picture",
        "empty.png": "is empty",
        "folder.png": "is a folder",
        "pipe.png": "not a regular file",
        "sparse.png": "1000000000000 bytes",
        "text.png/under.png": "Not a directory",
        "n" * 300: "name too long",
    }
    for name, problem in found.items():
        for source in (tmp_path / name, str(tmp_path / name)):
            message = refusal(source)
            assert problem in message and f"/{name}'" in message
    assert "null" in refusal("a\0b") and "'called so'" in refusal(tmp_path / "missing.png", "called so")


def test_an_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "secret.png"
    path.write_bytes(encode(COLOUR, "PNG"))
    if os.geteuid() == 0:  # whom no permission stops

        def denied(*_: object) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr("builtins.open", denied)
    else:
        path.chmod(0)
    assert "Permission denied" in refusal(path)


def test_streams(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encode(COLOUR, "PNG"))
    with open(tmp_path / "a.png", "rb") as file:
        np.testing.assert_array_equal(levels(read_image(file)), COLOUR)
        assert "a.png'" in refusal(file)  # at its end by now
    assert "'<BytesIO>'" in refusal(b"") and "'upload 7'" in refusal(b"", "upload 7")
    assert "not bytes" in refusal(StringIO("text"))
    closed = BytesIO()
    closed.close()
    for wrong in (closed, None, 3, torch.ones(3)):
        refusal(cast(Any, wrong))


def test_written_pictures_are_clipped_rounded_and_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.PNG"
    path.write_text("replaced")
    image = torch.tensor([-1.0, 0.0, 0.4 / 255, 0.6 / 255, 0.5, 1.0, 2.0]).expand(1, 2, 7).requires_grad_()
    write_image(path, image)
    np.testing.assert_array_equal(levels(read_image(path))[0, :, 0], [0, 0, 0, 1, 128, 255, 255])
    colour = torch.from_numpy(COLOUR).permute(2, 0, 1).double() / 255
    write_image(str(path), colour)
    torch.testing.assert_close(read_image(path), colour.float(), rtol=0, atol=1e-7)
    assert names(tmp_path) == ["a.PNG"]
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask


def test_a_failed_write_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    path.write_text("old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(InputError, match=r"a\.png'.*No space left"):
        write_image(path, torch.zeros(1, 2, 2))
    assert names(tmp_path) == ["a.png"] and path.read_text() == "old"


def test_what_cannot_be_written(tmp_path: Path) -> None:
    good = torch.zeros(1, 2, 2)
    (tmp_path / "folder.png").mkdir()
    for name in ("folder.png", "missing/a.png", "a.jpg", "a", "a\0.png"):
        with pytest.raises(InputError, match="Cannot write"):
            write_image(str(tmp_path / name), good)
    for shape in ((2, 2), (2, 2, 2), (1, 1, 2, 2), (1, 0, 2)):
        with pytest.raises(InputError, match="shape"):
            write_image(tmp_path / "a.png", torch.zeros(shape))
    with pytest.raises(InputError, match="uint8"):
        write_image(tmp_path / "a.png", good.byte())
    for value in (torch.nan, torch.inf):
        with pytest.raises(InputError, match="NaN"):
            write_image(tmp_path / "a.png", good + value)
    assert names(tmp_path) == ["folder.png"]


def test_hstack_broadcasts_grey_and_separates_with_white() -> None:
    colour, grey = torch.zeros(3, 4, 5), torch.full((1, 4, 2), 0.5)
    joined = hstack([colour, grey, colour], gap=3)
    assert joined.shape == (3, 4, 5 + 3 + 2 + 3 + 5)
    assert joined[1, 2].tolist() == [0] * 5 + [1] * 3 + [0.5] * 2 + [1] * 3 + [0] * 5
    assert hstack([grey, grey]).shape == (1, 4, 6)
    assert torch.equal(hstack([grey, grey], gap=0), torch.cat([grey, grey], 2))
    assert torch.equal(hstack([grey]), grey)


def test_hstack_refuses_what_does_not_fit() -> None:
    grey = torch.zeros(1, 4, 5)
    for pictures, gap in (([], 2), ([grey], -1), ([grey, torch.zeros(1, 3, 5)], 2), ([grey, grey[0]], 2)):
        with pytest.raises(InputError, match="Cannot place"):
            hstack(pictures, gap)
