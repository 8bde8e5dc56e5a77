"""`aipo bulk`: every picture restored as `aipo restore` does, failures told, a second run goes on."""

import csv
import fcntl
import json

import numpy as np
import pytest
from PIL import Image

from aipo.cli.main import main


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    random = np.random.default_rng(0)
    for name in ("a", "b"):
        noisy = 0.5 + 0.1 * random.standard_normal((16, 20, 3))
        Image.fromarray((noisy.clip(0, 1) * 255).round().astype(np.uint8)).save(folder / f"{name}.png")
    (folder / "bad.png").write_bytes(b"no picture")
    return folder


def lines(out):
    texts = [file.read_text().splitlines() for file in (out / "manifest").glob("*.jsonl")]
    return [json.loads(line) for text in texts for line in text]


def test_pictures_are_restored_as_by_restore_and_failures_are_told(pictures, tmp_path, capsys):
    out, options = tmp_path / "out", ["--sigma", "0.1"]
    assert main(["bulk", str(pictures), "--out", str(out), *options]) == 1
    assert "2 restored and 1 failed" in capsys.readouterr().out
    assert json.loads((out / "summary.json").read_text()) == {"done": 2, "failed": 1}
    ((_, _), (source, error)) = csv.reader((out / "failures.csv").open())
    assert source.endswith("bad.png") and "bad.png" in error
    assert main(["restore", str(pictures / "a.png"), "--out", str(tmp_path / "one"), *options]) == 0
    (made,) = out.glob("a-*.png")
    one = np.asarray(Image.open(tmp_path / "one" / "a.png")).astype(int)
    assert np.abs(np.asarray(Image.open(made)).astype(int) - one).max() <= 1
    before = made.stat().st_mtime_ns
    (pictures / "bad.png").unlink()
    assert main(["bulk", str(pictures), "--out", str(out), *options]) == 0
    assert made.stat().st_mtime_ns == before and len([x for x in lines(out) if x["status"] == "done"]) == 2
    assert main(["bulk", str(pictures / "a.png"), "--out", str(out), "--sigma", "0.2"]) == 0
    assert len(list(out.glob("a-*.png"))) == 2


def test_a_list_gives_options_of_its_own(pictures, tmp_path):
    (pictures / "list.csv").write_text("path,sigma\na.png,0.1\nb.png,much\n")
    assert main(["bulk", str(pictures / "list.csv"), "--out", str(tmp_path / "out")]) == 1
    done, failed = sorted(lines(tmp_path / "out"), key=lambda line: line["status"])
    assert done["sigma"] == pytest.approx(0.1) and "much" in failed["error"]


def test_two_runs_do_not_write_to_one_folder(pictures, tmp_path, caplog):
    folder = tmp_path / "out" / "manifest"
    folder.mkdir(parents=True)
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert main(["bulk", str(pictures), "--out", str(tmp_path / "out")]) == 2
    assert "another run is writing" in caplog.text
    assert main(["bulk", str(pictures), "--out", str(tmp_path / "out"), "--workers", "0"]) == 2
