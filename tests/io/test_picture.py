"""Pictures for restoration: range, what is known, grey stored as colour, and the way back into the file."""

from io import BytesIO
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image, ImageCms

from aipo.basics.errors import InputError
from aipo.io.picture import Picture, read_like, read_picture, restored_suffix, write_picture

RNG = np.random.default_rng(7)
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def tif(path: Path, array: np.ndarray, **options: Any) -> Path:
    tifffile.imwrite(path, array, metadata=None, **options)
    return path


def written(path: Path, picture: Picture, restored: torch.Tensor) -> np.ndarray:
    """The file's values after `write_picture`, by readers that are not aipo's."""
    write_picture(path.with_suffix(picture.suffix), picture, restored)
    path = path.with_suffix(picture.suffix)
    if path.suffix == ".tif":
        return tifffile.imread(path)
    return np.asarray(imagecodecs.png_decode(path.read_bytes()))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "i2", "i4", "f2", "f4", "f8"])
def test_what_is_not_changed_comes_back_in_its_own_levels(tmp_path: Path, dtype: str, channels: int) -> None:
    low, high = {"u1": (0, 256), "u2": (300, 1500), "u4": (0, 10**6), "i2": (-900, 900)}.get(
        dtype, (-400, 99)
    )
    array = RNG.uniform(low, high, (12, 10, channels)).astype(dtype)
    photometric: Any = "rgb" if channels == 3 else "minisblack"
    file = tif(tmp_path / "a.tif", array if channels == 3 else array[..., 0], photometric=photometric)
    picture = read_picture(file)
    assert picture.values.shape == (channels, 12, 10) and picture.known.all()
    assert picture.values.min() >= -0.5 and picture.values.max() <= 1.5
    assert picture.suffix == restored_suffix(file) == (".png" if dtype in ("u1", "u2") else ".tif")
    back = written(tmp_path / "b", picture, picture.values)
    assert back.dtype == np.dtype(dtype)
    tolerance = (
        1e-6 * (high - low) if dtype in ("f4", "f8") else 1e-3 * (high - low) if dtype == "f2" else 0.51
    )
    np.testing.assert_allclose(
        back.reshape(array.shape).astype(float), array.astype(float), atol=max(tolerance, 1e-6 * (high - low))
    )


@pytest.mark.parametrize(
    ("levels", "white", "expected"),
    [
        ((300, 1500), "u2", (300, 1500)),  # dim
        ((0, 4095), "u2", (0, 4095)),  # 12 bits in 16
        ((0, 65535), "u2", (0, 65535)),
        ((2000, 50000), "u2", (0, 65535)),
        ((0, 60), "u1", (0, 255)),  # 8 bits stay as they are
        ((0, 1), "f4", (0, 1)),
        ((0, 255), "f4", (0, 255)),
        ((-3, 4), "f4", (-3, 4)),
        ((0.2, 0.3), "f4", (0.2, 0.3)),
        ((-500, 500), "i2", (-500, 500)),
    ],
)
def test_the_automatic_range(tmp_path: Path, levels: tuple, white: str, expected: tuple) -> None:
    array = np.linspace(*levels, 400).reshape(20, 20).astype(white)
    assert read_picture(tif(tmp_path / "a.tif", array)).range == pytest.approx(expected, rel=1e-6)


def test_noise_around_black_and_white_is_no_reason_to_map(tmp_path: Path) -> None:
    array = np.linspace(0, 1, 900).reshape(30, 30) + 0.1 * RNG.standard_normal((30, 30))
    assert read_picture(tif(tmp_path / "a.tif", array.astype("f4"))).range == (0, 1)


def test_hot_pixels_neither_widen_the_range_nor_get_lost(tmp_path: Path) -> None:
    array = RNG.integers(300, 1500, (60, 60)).astype(np.uint16)
    array[5, 7], array[40, 3] = 65535, 0
    picture = read_picture(tif(tmp_path / "a.tif", array))
    assert -100 < picture.range[0] < 320 and 1480 < picture.range[1] < 2000
    assert any("1 pixels lie far outside" in remark for remark in picture.remarks)
    back = written(tmp_path / "b", picture, torch.full_like(picture.values, 0.5))
    assert back[5, 7] > 60_000 and abs(int(back[20, 20]) - 900) < 150


def test_a_range_that_is_given(tmp_path: Path) -> None:
    array = np.array([[100, 200, 250]] * 3, np.uint8)
    picture = read_picture(tif(tmp_path / "a.tif", array), range=(100, 300))
    torch.testing.assert_close(picture.values[0, 0, :2], torch.tensor([0, 0.5]))
    assert "levels 100 to 300 (white is 255)" in picture.remarks[0] and picture.unit == 255 / 200
    for bad in ((1, 1), (2, 1), (0, np.inf), (np.nan, 1)):
        with pytest.raises(InputError, match="range"):
            read_picture(tmp_path / "a.tif", range=bad)


def test_lost_pixels_are_unknown_and_are_filled(tmp_path: Path) -> None:
    array = RNG.random((8, 8)).astype("f4")
    array[2, 3], array[4, 4] = np.nan, np.inf
    picture = read_picture(tif(tmp_path / "a.tif", array))
    assert (~picture.known).nonzero().tolist() == [[0, 2, 3], [0, 4, 4]]
    assert torch.isfinite(picture.values).all() and "2 pixels are NaN" in picture.remarks[-1]
    back = written(tmp_path / "b", picture, torch.full_like(picture.values, 0.25))
    assert np.isfinite(back).all() and back[2, 3] == pytest.approx(0.25)
    with pytest.raises(InputError, match="all of it is NaN"):
        read_picture(tif(tmp_path / "a.tif", np.full((4, 4), np.nan, "f4")))


def test_a_value_that_stands_for_no_data_is_lost(tmp_path: Path) -> None:
    array = RNG.random((8, 8)).astype("f4")
    array[1, 1] = -9999
    file = tif(tmp_path / "a.tif", array, extratags=[(42113, 2, None, "-9999", True)])
    picture = read_picture(file)
    assert (~picture.known).nonzero().tolist() == [[0, 1, 1]] and picture.range == (0, 1)


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("grey", [False, True])
def test_transparent_pixels_stay_as_they_are(tmp_path: Path, grey: bool, wide: bool) -> None:
    dtype, white = (np.uint16, 65535) if wide else (np.uint8, 255)
    array = RNG.integers(0, white, (9, 9, 2 if grey else 4)).astype(dtype)
    array[:3, :, -1], array[3:6, :, -1], array[6:, :, -1] = 0, white // 2, white
    options: Any = {"photometric": "minisblack" if grey else "rgb", "planarconfig": "contig"}
    picture = read_picture(tif(tmp_path / "a.tif", array, extrasamples=["unassalpha"], **options))
    assert picture.known[0].sum() == 54 and not picture.known[0, :3].any()
    assert picture.alpha[0, 4, 0] == pytest.approx(0.5, abs=0.01)
    back = written(tmp_path / "b", picture, torch.full_like(picture.values, 0.5))
    np.testing.assert_array_equal(back[..., -1], array[..., -1])
    np.testing.assert_array_equal(back[:3], array[:3])
    assert np.ptp(back[3:, :, :-1]) == 0
    with pytest.raises(InputError, match="all of it is transparent"):
        array[..., -1] = 0
        read_picture(tif(tmp_path / "a.tif", array, extrasamples=["unassalpha"], **options))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_grey_stored_as_colour_is_grey_and_stays_stored_so(tmp_path: Path, mode: str) -> None:
    grey = RNG.integers(0, 256, (9, 9), dtype=np.uint8)
    image = Image.fromarray(grey)
    if mode == "P":
        image = image.convert("P")
        image.putpalette(np.repeat(np.arange(256), 3).tolist())
    image.convert(mode).save(tmp_path / "a.png")
    picture = read_picture(tmp_path / "a.png")
    torch.testing.assert_close(picture.values, torch.from_numpy(grey)[None].float() / 255)
    back = written(tmp_path / "b", picture, picture.values)
    assert back.shape == (9, 9, 4 if mode == "RGBA" else 3)
    np.testing.assert_array_equal(back[..., :3], np.dstack([grey] * 3))
    assert any("grey stored as colour" in remark for remark in picture.remarks)


def test_jpeg_of_grey_as_colour_is_grey_and_a_tinted_one_is_not(tmp_path: Path) -> None:
    grey = np.kron(RNG.integers(0, 256, (4, 4), dtype=np.uint8), np.ones((4, 4), np.uint8))
    Image.fromarray(np.dstack([grey] * 3)).save(tmp_path / "a.jpg", quality=80)
    assert len(read_picture(tmp_path / "a.jpg").values) == 1
    tinted = np.dstack([grey, grey, np.minimum(grey, 250) + 5])
    Image.fromarray(tinted).save(tmp_path / "a.png")
    assert len(read_picture(tmp_path / "a.png").values) == 3


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_profile_resolution_and_exif_come_back(tmp_path: Path, format: str) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x8298] = 6, "maker", "owner"
    exif.get_ifd(0x8769)[0x829A] = 0.5  # the exposure
    array = RNG.integers(0, 256, (8, 12, 3), dtype=np.uint8)
    options: Any = {} if format == "WEBP" else {"dpi": (300, 150)}
    Image.fromarray(array).save(tmp_path / "a", format, exif=exif, icc_profile=PROFILE, **options)
    picture = read_picture(tmp_path / "a")
    assert picture.values.shape == (3, 12, 8)
    write_picture(tmp_path / "b.png", picture, picture.values)
    other = Image.open(tmp_path / "b.png")
    back = other.getexif()
    assert other.info["icc_profile"] == PROFILE and other.size == (8, 12)
    assert back[0x010F] == "maker" and back[0x8298] == "owner" and back.get(0x0112, 1) == 1
    if format != "TIFF":  # whose writer in Pillow leaves it out
        assert back.get_ifd(0x8769)[0x829A] == 0.5
    if format != "WEBP":  # which knows no resolution; a picture that was turned has turned resolutions
        assert other.info["dpi"] == pytest.approx((150, 300), abs=0.1)


def test_float_tiff_keeps_profile_resolution_and_texts(tmp_path: Path) -> None:
    tags = [(315, 2, None, "artist", True), (270, 2, None, "a description", True)]
    array = RNG.random((6, 7, 3)).astype("f4")
    options: Any = {"iccprofile": PROFILE, "resolution": (100, 50), "resolutionunit": "centimeter"}
    picture = read_picture(tif(tmp_path / "a.tif", array, photometric="rgb", extratags=tags, **options))
    write_picture(tmp_path / "b.tif", picture, picture.values)
    with tifffile.TiffFile(tmp_path / "b.tif") as file:
        page: Any = file.pages[0]
        assert page.tags[315].value == "artist" and page.tags[34675].value == PROFILE
        assert page.tags[282].value[0] / page.tags[282].value[1] == pytest.approx(254)
    assert any("description" in remark for remark in picture.remarks)


def test_inks_lose_their_profile_and_say_so(tmp_path: Path) -> None:
    Image.new("CMYK", (8, 8), (10, 200, 30, 0)).save(tmp_path / "a.jpg", icc_profile=PROFILE)
    picture = read_picture(tmp_path / "a.jpg")
    assert picture.stored.icc is None and "four inks" in picture.remarks[0]


def test_pages_and_what_is_lost_are_told(tmp_path: Path) -> None:
    first, second = Image.new("L", (4, 4), 10), Image.new("L", (4, 4), 200)
    for format in ("TIFF", "GIF", "WEBP"):
        first.save(tmp_path / "a", format, save_all=True, append_images=[second])
        picture = read_picture(tmp_path / "a", page=2)
        assert float(picture.values.mean()) == pytest.approx(200 / 255, abs=0.02)
        assert any("page 2 of 2" in remark for remark in picture.remarks)
        with pytest.raises(InputError, match="page 3 was asked for; give a page from 1 to 2"):
            read_picture(tmp_path / "a", page=3)


@pytest.mark.parametrize("white", [65535, 1023])
def test_ppm_of_16_bits_keeps_them(white: int) -> None:
    array = RNG.integers(0, white, (5, 6, 3), endpoint=True)
    data = b"P6 6 5 %d\n" % white + array.astype(">u2").tobytes()
    picture = read_picture(BytesIO(data))
    np.testing.assert_allclose(picture.stored.samples, array * (65535 / white), atol=0.5)


def test_another_picture_is_read_on_the_same_scale(tmp_path: Path) -> None:
    ramp = np.linspace(300, 1500, 400).reshape(20, 20)
    picture = read_picture(tif(tmp_path / "a.tif", ramp.astype("u2")))
    torch.testing.assert_close(read_like(tmp_path / "a.tif", picture), picture.values)
    float_clean = tif(tmp_path / "c.tif", (ramp / 65535).astype("f4"))
    torch.testing.assert_close(read_like(float_clean, picture), picture.values, rtol=0, atol=1e-3)


def test_what_cannot_be_written(tmp_path: Path) -> None:
    picture = read_picture(tif(tmp_path / "a.tif", RNG.random((4, 4)).astype("f4")))
    for restored in (torch.zeros(1, 4, 5), torch.full((1, 4, 4), torch.nan)):
        with pytest.raises(InputError, match=r"Cannot write .*b\.tif"):
            write_picture(tmp_path / "b.tif", picture, restored)
    with pytest.raises(InputError, match=r"end in \.tif"):
        write_picture(tmp_path / "b.png", picture, picture.values)
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "b.tif").symlink_to(tmp_path / "precious")
    write_picture(tmp_path / "b.tif", picture, picture.values)
    assert (tmp_path / "precious").read_text() == "precious" and not (tmp_path / "b.tif").is_symlink()
