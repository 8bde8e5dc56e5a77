"""Training pictures: every kind of source, and batches that depend on (seed, step) alone."""

import gzip
import io
import math
import os
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from aipo.basics.errors import InputError
from aipo.flows.training import data as training_data
from aipo.flows.training.data import PictureData, ahead, dequantize, enlarged, load_pictures

RNG = np.random.default_rng(0)


def picture(channels: int = 3, height: int = 5, width: int = 4) -> np.ndarray:
    return RNG.integers(0, 256, (channels, height, width), dtype=np.uint8)


def png(levels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(levels[0] if len(levels) == 1 else levels.transpose(1, 2, 0)).save(file, "PNG")
    return file.getvalue()


def packed(files: dict[str, bytes]) -> bytes:
    """A tar, in memory."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


def tar(path: Path, files: dict[str, bytes]) -> Path:
    path.write_bytes(packed(files))
    return path


def idx(levels: np.ndarray, magic: int = 2051) -> bytes:
    return struct.pack(">IIII", magic, *levels.shape) + levels.tobytes()


def same(found: list[np.ndarray], expected: list[np.ndarray]) -> bool:
    pairs = zip(found, expected, strict=True)
    return all(a.dtype == np.uint8 and a.shape == b.shape and (a == b).all() for a, b in pairs)


# Sources.


def test_a_folder_is_read_to_the_last_bit_and_sorted_by_name(tmp_path):
    first, second, third = picture(), picture(height=9), picture()
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "b.png").write_bytes(png(first))
    (tmp_path / "deep" / "er" / "a.PNG").write_bytes(png(third))
    (tmp_path / "c.png").write_bytes(png(second))
    (tmp_path / "notes.txt").write_text("no picture")
    assert same(load_pictures(tmp_path), [first, second, third])
    assert same(load_pictures(str(tmp_path)), [first, second, third])


def test_every_level_survives(tmp_path):
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    (tmp_path / "a.png").write_bytes(png(levels))
    assert same(load_pictures(tmp_path), [levels])


def test_a_tar_and_a_folder_of_tars(tmp_path):
    pictures = [picture() for _ in range(4)]
    one = tar(
        tmp_path / "1.tar", {"x/a.png": png(pictures[0]), "x/b.png": png(pictures[1]), "README": b"text"}
    )
    tar(tmp_path / "2.tar", {"c.png": png(pictures[2]), "d.png": png(pictures[3])})
    assert same(load_pictures(one), pictures[:2])
    assert same(load_pictures(tmp_path), pictures)


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["idx", "idx.gz"])
def test_idx_files(tmp_path, pack):
    levels = RNG.integers(0, 256, (6, 3, 5), dtype=np.uint8)
    path = tmp_path / "images-idx3-ubyte"
    path.write_bytes(pack(idx(levels)))
    assert same(load_pictures(path), list(levels[:, None]))


LEVELS = RNG.integers(0, 256, (6, 8, 5), dtype=np.uint8)
ZIPPED = gzip.compress(idx(LEVELS))


TAR = packed({"x/a.png": png(picture()), "b.png": png(picture())})
DAMAGED = {
    "empty": b"",
    "short": b"\0\0\x08",
    "cut": idx(LEVELS)[:-1],
    "long": idx(LEVELS) + b"\0",
    "labels": idx(LEVELS, magic=2049),
    "text": b"these are no pictures at all, only words",
    "gzip-cut": ZIPPED[:-10],
    "gzip-header-only": ZIPPED[:10],
    "gzip-damaged": ZIPPED[:12] + b"\xff" * 8 + ZIPPED[20:],
    "gzip-wrong-checksum": ZIPPED[:-8] + b"\0" * 8,
    "gzip-of-text": gzip.compress(b"these are no pictures at all, only words"),
}


@pytest.mark.parametrize("data", DAMAGED.values(), ids=DAMAGED)
def test_damaged_idx_files_are_refused_by_name(tmp_path, data):
    path = tmp_path / "train-images"
    path.write_bytes(data)
    with pytest.raises(InputError, match="train-images"):
        load_pictures(path)


def test_an_idx_file_without_pictures_is_refused(tmp_path):
    path = tmp_path / "train-images"
    path.write_bytes(idx(np.zeros((0, 4, 4), np.uint8)))
    with pytest.raises(InputError, match="train-images"):
        load_pictures(path)


def test_damaged_tars_are_refused_by_name(tmp_path):
    path = tar(tmp_path / "faces.tar", {"a.png": png(picture(height=60, width=60))})
    data = path.read_bytes()
    for damaged in (b"", b"no tar", data[:100], data[:1000], b"\xff" * 300 + data[300:]):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"faces\.tar"):
            load_pictures(path)


def test_a_damaged_picture_is_refused_by_name(tmp_path):
    (tmp_path / "good.png").write_bytes(png(picture()))
    (tmp_path / "bad.png").write_bytes(png(picture())[:-20])
    with pytest.raises(InputError, match=r"bad\.png"):
        load_pictures(tmp_path)
    with pytest.raises(InputError, match=r"pictures\.tar:x/bad\.png"):
        load_pictures(tar(tmp_path / "pictures.tar", {"x/bad.png": b"no picture"}))


def test_sources_with_nothing_in_them_are_refused_by_name(tmp_path):
    (tmp_path / "empty").mkdir()
    for source in (tmp_path / "nowhere", tmp_path / "empty", tar(tmp_path / "none.tar", {"a.txt": b"x"})):
        with pytest.raises(InputError, match=source.name):
            load_pictures(source)


# Bombs, and files that never end.


def sparse_tar(path: Path, size: int) -> Path:
    """One member of so many bytes, all of them a hole: two kilobytes on the disk."""
    header = bytearray(tarfile.TarInfo("a.png").tobuf(format=tarfile.GNU_FORMAT)[:512])
    header[156:157], header[124:136] = b"S", b"%011o\0" % 512
    header[386:398], header[398:410], header[482] = b"%011o\0" % 0, b"%011o\0" % 512, 0
    header[483:495] = b"\x80" + size.to_bytes(11, "big")
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    path.write_bytes(bytes(header) + bytes(1536))
    return path


@pytest.mark.parametrize("size", [1 << 36, 1 << 20, 1 << 70])
def test_a_tar_with_holes_is_refused_before_they_are_filled(tmp_path, size):
    with pytest.raises(InputError, match=r"s\.tar"):
        load_pictures(sparse_tar(tmp_path / "s.tar", size))


@pytest.mark.parametrize("size", [b"77777777777\0", b"\x80" + b"\0" * 3 + b"\xff" * 8, b"\xff" * 12])
@pytest.mark.parametrize("kind", [b"0", b"x", b"g", b"L", b"K"])
def test_sizes_that_no_tar_holds_are_refused(tmp_path, size, kind):
    """Of a picture, and of a header that tells a long name; below zero they would lead back for ever."""
    header = bytearray(tarfile.TarInfo("a.png").tobuf()[:512])
    header[124:136], header[156:157], header[148:156] = size, kind, b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    (tmp_path / "a.tar").write_bytes(bytes(header) + png(picture()) + bytes(2048))
    with pytest.raises(InputError, match=r"a\.tar"):
        load_pictures(tmp_path / "a.tar")


@pytest.mark.parametrize("mode", ["w:gz", "w:xz", "w:bz2"])
def test_a_compressed_tar_is_refused(tmp_path, mode):
    """It could unpack to anything; whoever has an honest one can unpack it."""
    with tarfile.open(tmp_path / "a.tar", mode) as archive:
        archive.addfile(tarfile.TarInfo("a.png"), io.BytesIO())
    with pytest.raises(InputError, match="unpack it if it is compressed"):
        load_pictures(tmp_path / "a.tar")


@pytest.mark.parametrize("shape", [(0, 0, 0), (10**4, 28, 28), (2**32 - 1,) * 3, (1, 2**31, 3), (9, 9, 0)])
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["idx", "idx.gz"])
def test_an_idx_file_that_promises_more_than_it_holds_is_refused_by_its_header(tmp_path, pack, shape):
    path = tmp_path / "images"
    path.write_bytes(pack(struct.pack(">IIII", 2051, *shape) + bytes(1000)))
    with pytest.raises(InputError, match="images"):
        load_pictures(path)


def test_an_idx_file_that_unpacks_to_far_more_than_it_takes_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "images"
    path.write_bytes(gzip.compress(struct.pack(">IIII", 2051, 4000, 50, 50) + bytes(10_000_000)))
    read = gzip.GzipFile.read

    def little(stream, size):
        assert size <= 16, "nothing but the header is unpacked"
        return read(stream, size)

    monkeypatch.setattr(gzip.GzipFile, "read", little)
    with pytest.raises(InputError, match="images promises 4,000 pictures"):
        load_pictures(path)


def test_pictures_that_no_memory_holds_are_refused(tmp_path, monkeypatch):
    for name in "abc":
        (tmp_path / f"{name}.png").write_bytes(png(picture(height=64, width=64)))
    monkeypatch.setattr(training_data, "_memory", lambda: 2 * 3 * 64 * 64 / training_data.SHARE)
    with pytest.raises(InputError, match="after 2 pictures"):
        load_pictures(tmp_path)


@pytest.mark.parametrize("name", ["a.tar", "a.png"])
def test_pipes_and_devices_are_refused_unopened(tmp_path, name):
    for place in (os.mkfifo, lambda path: path.symlink_to("/dev/zero")):
        place(tmp_path / name)
        for source in (tmp_path, tmp_path / name):
            with pytest.raises(InputError, match=name if source == tmp_path else "a"):
                load_pictures(source)
        (tmp_path / name).unlink()


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_damage_of_a_tar_or_an_idx_file_is_a_sentence(tmp_path_factory, data):
    """Or, where it lies beside the pictures, nothing at all."""
    whole = data.draw(st.sampled_from([TAR, idx(LEVELS), ZIPPED]))
    damaged = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        piece = data.draw(st.binary(min_size=1, max_size=13))
        damaged[at : at + len(piece)] = piece
    path = tmp_path_factory.getbasetemp() / ("damaged.tar" if whole is TAR else "damaged")
    path.write_bytes(damaged)
    try:
        found = load_pictures(path)
    except InputError as error:
        assert "damaged" in str(error)
    else:
        assert all(one.dtype == np.uint8 and one.ndim == 3 for one in found)


def test_the_identity_of_pictures_is_that_of_their_content():
    data = PictureData(PLACES, 3, True)
    assert PictureData([one.copy() for one in PLACES], 3, True).identity == data.identity
    turned = [PLACES[0].transpose(0, 2, 1), *PLACES[1:]]
    changed = [PLACES[0] ^ np.uint8(1), *PLACES[1:]]
    for other in (turned, changed, PLACES[:2], PLACES[::-1]):
        assert PictureData(other, 3, True).identity["pictures"] != data.identity["pictures"]


# Batches.

# Every entry tells its picture and its place: level = 64 · picture + 8 · row + column.
ROWS, COLUMNS = np.meshgrid(np.arange(8), np.arange(8), indexing="ij")
PLACES = [np.stack([64 * k + 8 * ROWS + COLUMNS] * 3).astype(np.uint8)[:, : 8 - k] for k in range(3)]


def test_a_batch_is_determined_by_seed_and_step():
    data = PictureData(PLACES, crop=3, flips=True)
    batch = data.batch(seed=4, step=17, size=16)
    data.batch(seed=4, step=18, size=5)
    again = PictureData([p.copy() for p in PLACES], crop=3, flips=True).batch(seed=4, step=17, size=16)
    assert torch.equal(batch, again)
    assert not torch.equal(batch, data.batch(seed=4, step=18, size=16))
    assert not torch.equal(batch, data.batch(seed=5, step=17, size=16))


@given(st.integers(1, 6), st.booleans(), st.integers(0, 10**6))
def test_crops_lie_inside_and_are_untouched_but_for_flips(crop, flips, seed):
    data = PictureData(PLACES, crop=crop, flips=flips)
    assert data.shape == (3, crop, crop)
    batch = data.batch(seed, 0, 8).numpy()
    assert batch.shape == (8, 3, crop, crop) and batch.dtype == np.uint8
    for entry in batch:
        step = int(entry[0, 0, -1]) - int(entry[0, 0, 0])
        upright = entry[:, :, ::-1] if step < 0 else entry
        assert flips or step >= 0
        corner = int(upright[0, 0, 0])
        k, top, left = corner // 64, corner // 8 % 8, corner % 8
        assert (upright == PLACES[k][:, top : top + crop, left : left + crop]).all()


def test_every_crop_of_every_picture_is_drawn_and_half_of_them_are_flipped():
    batch = PictureData(PLACES, crop=6, flips=True).batch(0, 0, 2000)[:, 0].int()
    flipped = batch[:, 0, -1] < batch[:, 0, 0]
    assert abs(float(flipped.float().mean()) - 0.5) < 4 * math.sqrt(0.25 / 2000)
    corners = torch.where(flipped, batch[:, 0, -1], batch[:, 0, 0])
    expected = {64 * k + 8 * top + left for k in range(3) for top in range(3 - k) for left in range(3)}
    assert set(corners.tolist()) == expected


def test_whole_pictures():
    data = PictureData(PLACES[:1], crop=None, flips=False)
    assert data.shape == (3, 8, 8)
    assert (data.batch(0, 0, 2).numpy() == PLACES[0]).all()


# Enlarged windows.

# Five times its row, its column and 0: an enlarged window tells its place and its size.
SLOPES = 5 * np.stack([*np.meshgrid(np.arange(40), np.arange(40), indexing="ij"), np.zeros((40, 40))])
SLOPES = SLOPES.astype(np.uint8)


def test_without_zoom_a_batch_is_made_of_windows_as_they_are():
    rng, expected = np.random.Generator(np.random.PCG64([4, 17])), []
    for index in rng.integers(3, size=16):
        top, left = rng.integers(PLACES[index].shape[1] - 2), rng.integers(6)
        window = PLACES[index][:, top : top + 3, left : left + 3]
        expected.append(window[:, :, ::-1] if rng.random() < 0.5 else window)
    for data in (PictureData(PLACES, 3, True), PictureData(PLACES, 3, True, zoom_range=(0.5, 0.5))):
        assert (data.batch(seed=4, step=17, size=16).numpy() == np.stack(expected)).all()


def test_an_enlarged_window_is_what_the_formula_says():
    """Entry i of 40 lies at top + (i + 1/2) · 32/40 − 1/2; away from the border the filter keeps slopes."""
    batch = PictureData([SLOPES], None, False, 1.0, (0.8, 0.8)).batch(seed=0, step=0, size=300).numpy()
    assert batch.shape == (300, 3, 40, 40) and batch.dtype == np.uint8
    inner = np.arange(3, 37)
    places = (inner + 0.5) * 0.8 - 0.5
    corners = set()
    for rows, columns, nothing in batch:
        top, left = round(rows[20, 20] / 5 - places[17]), round(columns[20, 20] / 5 - places[17])
        corners.add((top, left))
        assert np.abs(rows[inner][:, inner] - 5 * (top + places)[:, None]).max() < 0.51
        assert np.abs(columns[inner][:, inner] - 5 * (left + places)[None]).max() < 0.51
        assert (nothing == 0).all()
    for drawn in zip(*corners, strict=True):
        assert set(drawn) == set(range(9)), "every place of a window of 32 in 40"


def test_a_share_of_the_crops_is_enlarged_from_windows_of_every_side():
    batch = PictureData([SLOPES], None, False, 0.5, (0.5, 1.0)).batch(0, 0, 2000).numpy().astype(float)
    rows = np.round(8 * (batch[:, 0, 35, 20] - batch[:, 0, 4, 20]) / 31)
    columns = np.round(8 * (batch[:, 1, 20, 35] - batch[:, 1, 20, 4]) / 31)
    assert (rows == columns).all(), "the aspect stays"
    assert set(rows) == set(range(20, 41))
    whole = 0.5 + 0.5 / 40  # not enlarged, or drawn from 0.9875 to 1
    assert abs((rows == 40).mean() - whole) < 4 * math.sqrt(0.25 / 2000)
    assert (batch[rows == 40] == SLOPES).all()


def test_the_filter_keeps_parabolas_away_from_the_border():
    """Linear interpolation and other cubic filters do not."""
    parabola = np.broadcast_to((5 * np.arange(8) ** 2).astype(np.uint8), (1, 8, 8))
    inner = np.arange(4, 12)
    expected = 5 * ((inner + 0.5) / 2 - 0.5) ** 2
    for levels in (parabola, parabola.transpose(0, 2, 1)):
        found = enlarged(levels, 16, 16)
        along = found[0, 8] if levels is parabola else found[0, :, 8]
        assert np.abs(along[inner] - expected).max() < 0.51


def test_levels_do_not_wrap_around_where_the_filter_overshoots():
    edge = np.zeros((1, 8, 8), np.uint8)
    edge[:, :, 4:] = 255
    found = enlarged(edge, 10, 10)
    assert (found[:, :, :4] < 64).all() and (found[:, :, 6:] > 192).all()


def test_enlarged_batches_are_the_same_after_a_stop():
    def batches(start: int) -> list[torch.Tensor]:
        data = PictureData([picture.copy() for picture in PLACES], 5, True, 0.5, (0.5, 1.0))
        return list(ahead(lambda step: data.batch(seed=4, step=step, size=8), start, 6))

    whole, resumed = batches(0), batches(2)
    assert all(torch.equal(a, b) for a, b in zip(whole[2:], resumed, strict=True))
    assert not torch.equal(whole[2], whole[3])


@pytest.mark.parametrize(
    ("zoomed", "zoom_range"),
    [(-0.1, (0.8, 1)), (1.1, (0.8, 1)), (0.5, (0, 1)), (0.5, (0.9, 0.8)), (0.5, (0.8, 1.2))],
)
def test_a_wrong_zoom_is_refused(zoomed, zoom_range):
    with pytest.raises(InputError, match="zoom"):
        PictureData(PLACES, 3, True, zoomed, zoom_range)


@pytest.mark.parametrize(
    ("pictures", "crop", "message"),
    [
        ([picture(), picture(channels=1)], 2, "grey and colour"),
        ([picture(), picture(height=9)], None, "2 sizes"),
        ([picture(), picture(height=9)], 5, "crop = 5"),
        ([picture()], 0, "crop = 0"),
        ([picture()], -2, "crop = -2"),
        ([], 4, "no picture"),
    ],
)
def test_pictures_that_make_no_batch_are_refused(pictures, crop, message):
    with pytest.raises(InputError, match=message):
        PictureData(pictures, crop, False)


def test_dequantization_is_uniform_within_each_level():
    pixels = torch.arange(256, dtype=torch.uint8).expand(2000, 256)
    x = dequantize(pixels, torch.Generator().manual_seed(0))
    fraction = x * 256 - torch.arange(256)
    assert x.dtype == torch.float32
    assert 0 <= fraction.min() < 1e-3 and 0.999 < fraction.max() <= 1
    assert abs(float(fraction.mean()) - 0.5) < 4 * math.sqrt(1 / 12 / fraction.numel())
    assert abs(float(fraction.var()) - 1 / 12) < 1e-3
    assert torch.equal(x, dequantize(pixels, torch.Generator().manual_seed(0)))
