"""Ordinary options that cannot be: one sentence and a status, never a traceback."""

import numpy as np
import pytest
from PIL import Image

from aipo.basics.devices import usable
from aipo.basics.errors import InputError
from aipo.cli import main as command
from aipo.cli.main import main


@pytest.fixture
def picture(tmp_path) -> str:
    levels = np.random.default_rng(0).integers(0, 256, (192, 256, 3), dtype=np.uint8)
    Image.fromarray(levels).save(tmp_path / "a.png")
    return str(tmp_path / "a.png")


def said(caplog) -> str:
    (sentence,) = [record.getMessage() for record in caplog.records if record.name == "aipo"]
    assert sentence.startswith("aipo: ") and "\n" not in sentence
    return sentence


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--task", "sense"], "matrix of"),
        (["--task", "sense", "--measurements", "99999999999"], "matrix of"),
        (["--task", "sense", "--size", "16", "--measurements", "-1"], "measurements = -1"),
        (["--seed", "99999999999999999999999"], "--seed"),
        (["--seed", "-1"], "--seed"),
        (["--task", "deblur", "--blur", "1e6"], "--blur"),
        (["--task", "deblur", "--blur", "0"], "--blur"),
        (["--task", "superresolve", "--factor", "0"], "factor = 0"),
        (["--task", "denoise", "--size", "0"], "--size"),
        (["--task", "denoise", "--size", "10000000"], "--size"),
        (["--task", "denoise", "--noise", "poisson", "--gain", "1e300"], "gain"),
    ],
    ids=str,
)
def test_measurements_that_cannot_be_made(tmp_path, picture, caplog, options, named):
    out = tmp_path / "y.safetensors"
    assert main(["measure", picture, "--sigma", "0.1", "--out", str(out), *options]) == 2
    assert named in said(caplog) and not out.exists()


def test_a_folder_in_place_of_a_measurement_file(tmp_path, picture, caplog):
    (tmp_path / "d.safetensors").mkdir()
    options = ["--task", "denoise", "--sigma", "0.1", "--out", str(tmp_path / "d.safetensors")]
    assert main(["measure", picture, *options]) == 2
    assert "cannot write" in said(caplog)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--flow.levels", "0"], "flow.levels"),
        (["--flow.levels", "99"], "flow.levels"),
        (["--flow.hidden", "-1"], "flow.hidden"),
        (["--flow.steps", "0"], "flow.steps"),
        (["--training.seed", "-1"], "seed"),
        (["--crop", "12"], "divisible by 8"),
        (["--crop", "12", "--flow.any_size", "true"], "divisible by 8"),
        (["--crop", "0"], "crop = 0"),
        (["--device", "meta"], "meta"),
    ],
    ids=str,
)
def test_trainings_that_cannot_be(tmp_path, picture, caplog, options, named):
    (tmp_path / "p").mkdir()
    for name in "abc":
        Image.open(picture).save(tmp_path / "p" / f"{name}.png")
    arguments = ["train", str(tmp_path / "p"), "--holdout", "1", "--out", str(tmp_path / "out")]
    assert main([*arguments, *options]) == 2
    assert named in said(caplog)


def test_a_device_that_has_no_numbers_is_none():
    assert str(usable("cpu")) == "cpu"
    with pytest.raises(InputError, match="meta"):
        usable("meta")


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (OSError(28, "No space left on device", "a\nb"), 2, r"a\nb: No space left on device"),
        (MemoryError(), 2, "memory"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_stops_a_command_anywhere_is_one_sentence(monkeypatch, caplog, error, status, told):
    """Also before the command begins, while parsers are made and files are loaded."""

    def fail():
        raise error

    monkeypatch.setattr(command, "_commands", fail)
    assert main(["priors"]) == status
    assert told in said(caplog)
