"""`aipo restore` and kinds of pictures: results keep their kind, and nothing of the user's is replaced."""

import json
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from aipo.basics.errors import InputError
from aipo.cli.main import main
from aipo.cli.outputs import check_ours, check_unread, names_of, outputs_of, written_by

RNG = np.random.default_rng(2)
NOISY = RNG.integers(60, 200, (8, 8, 3), dtype=np.uint8)
QUICK = ["--sigma", "0.1"]  # white noise over a whole picture goes in six evaluations
# Where pixels are lost.
SHORT = ["--weight", "mean", "--chain.evaluations", "20", "--chain.burn_in", "5"]


def save(path: Path, array: np.ndarray = NOISY) -> str:
    Image.fromarray(array).save(path)
    return str(path)


def restored(tmp_path: Path, file: str, *options: str) -> dict:
    assert main(["restore", file, *(options or QUICK), "--out", str(tmp_path / "out")]) == 0
    (record,) = json.loads((tmp_path / "out" / "summary.json").read_text())
    return record


def test_a_dim_picture_of_16_bits_keeps_its_bits_and_its_levels(tmp_path):
    levels = RNG.integers(300, 1500, (8, 8, 3)).astype(np.uint16)
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(levels))
    record = restored(tmp_path, str(tmp_path / "a.png"), "--sigma", str(60 / 65535))
    back = np.asarray(imagecodecs.png_decode((tmp_path / "out" / "a.png").read_bytes()))
    assert back.dtype == np.uint16 and back.min() > 200 and back.max() < 1700
    assert np.corrcoef(back.ravel(), levels.ravel())[0, 1] > 0.9
    assert record["sigma"] == pytest.approx(60 / np.ptp(levels), rel=0.01)
    assert "is 60 of its own levels" in " ".join(record["remarks"])


def test_floats_come_back_as_floats_in_a_tiff_and_lost_pixels_are_filled(tmp_path):
    values = RNG.uniform(-40, 160, (8, 8)).astype("f4")
    values[2, 3] = np.nan
    tifffile.imwrite(tmp_path / "a.tif", values)
    record = restored(tmp_path, str(tmp_path / "a.tif"), "--sigma", "10", *SHORT)
    back = tifffile.imread(tmp_path / "out" / "a.tif")
    assert back.dtype == np.float32 and np.isfinite(back).all() and back.min() < 0 and back.max() > 100
    assert not (tmp_path / "out" / "a.png").exists() and (tmp_path / "out" / "a-panel.png").exists()
    assert "1 pixels are NaN" in " ".join(record["remarks"])


def test_a_cut_out_keeps_its_alpha_and_what_is_not_shown(tmp_path):
    alpha = np.zeros((8, 8), np.uint8)
    alpha[2:, 1:] = 255
    file = save(tmp_path / "a.png", np.dstack([NOISY, alpha]))
    restored(tmp_path, file, *QUICK, *SHORT)
    back = np.asarray(Image.open(tmp_path / "out" / "a.png"))
    np.testing.assert_array_equal(back[..., 3], alpha)
    np.testing.assert_array_equal(back[alpha == 0][:, :3], NOISY[alpha == 0])
    assert (back[alpha > 0][:, :3] != NOISY[alpha > 0]).any()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--range", "5"], "--range 5 is no range"),
        (["--range", "9,3"], "MIN below MAX"),
        (["--page", "2"], "page 2 was asked for"),
        (["--sigma", "40"], "a noise of 40 of 255 is --sigma 0.157"),
        (["--range", "100,120", "--sigma", "0.5"], "levels 100 to 120 have room for"),
    ],
)
def test_options_that_do_not_fit_are_one_sentence(tmp_path, caplog, options, told):
    assert main(["restore", save(tmp_path / "a.png"), *options, "--out", str(tmp_path / "out")]) in (1, 2)
    assert told in caplog.text and not (tmp_path / "out" / "summary.json").exists()


def test_only_own_files_are_replaced(tmp_path, caplog):
    file, out = save(tmp_path / "a.png"), tmp_path / "out"
    restored(tmp_path, file)
    check_ours(out, written_by([file], ["a"], 1))
    mine = Path(save(out / "a.png", NOISY[::-1])).read_bytes()
    assert main(["restore", file, *QUICK, "--out", str(out)]) == 2
    assert "a.png is there already and was not written by aipo" in caplog.text
    assert (out / "a.png").read_bytes() == mine
    assert main(["restore", file, *QUICK, "--out", str(out), "--overwrite"]) == 0
    assert (out / "a.png").read_bytes() != mine


@pytest.mark.parametrize("name", ["a.png", "a-panel.png", "a-path.png", "summary.json", "summary.txt"])
def test_every_kind_of_foreign_file_is_noticed(tmp_path, name):
    written = written_by(["a.png"], ["a"], 1)
    check_ours(tmp_path, written)
    (tmp_path / name).write_text("mine")
    with pytest.raises(InputError, match=f"{name} is there already"):
        check_ours(tmp_path, written)
    (tmp_path / name).unlink()
    (tmp_path / name).symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match=f"{name} is there already"):
        check_ours(tmp_path, written)


def test_a_loop_of_links_is_no_output(tmp_path):
    (tmp_path / "b").symlink_to(tmp_path / "a")
    (tmp_path / "a").symlink_to(tmp_path / "b")
    check_unread(tmp_path, ["c.png"], [tmp_path / "a"])
    with pytest.raises(InputError, match="would replace"):
        check_unread(tmp_path, ["c.png"], [tmp_path / "c.png"])


def test_names_do_not_clash_across_kinds_of_files(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((4, 4), "f4"))
    tifffile.imwrite(tmp_path / "b.tif", np.zeros((4, 4), "u2"))
    files = [str(tmp_path / name) for name in ("a.tif", "b.tif", "a.png")]
    names = names_of(files)
    assert names == ["a", "b", "a-2"]
    assert {"a.tif", "b.png", "a-2.png", "summary.json"} <= set(written_by(files, names, 1))
    assert outputs_of("a", ".tif") == {"a.tif", "a-panel.png", "a-path.png"}


def test_names_never_reach_the_terminal_raw(tmp_path, capfd, caplog):
    name = "bad\udcff\x1b]0;owned\x07\n\u202eleft"
    odd, broken = tmp_path / f"{name}.png", tmp_path / f"{name}-broken.png"
    Path(save(tmp_path / "a.png")).rename(odd)
    broken.write_text("no picture")
    assert main(["restore", str(odd), str(broken), *QUICK, "--out", str(tmp_path / "out")]) == 1
    assert (tmp_path / "out" / f"{name}.png").exists()
    said = capfd.readouterr()
    shown = said.out + said.err.replace("\x1b[A", "") + caplog.text
    escaped = r"bad\udcff\x1b]0;owned\x07\n\u202eleft"
    assert f"denoise {escaped}" in said.out and f"{escaped}-broken.png" in shown.replace("\\\\", "\\")
    assert not any(char in shown for char in "\udcff\x1b\x07\u202e")
