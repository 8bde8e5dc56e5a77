"""The commands as a user runs them, on small pictures."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from aipo.cli import demo
from aipo.cli.main import main
from aipo.io.images import read_square
from aipo.io.measurements import load_measurement, save_measurement
from aipo.likelihoods import Gaussian, measure
from aipo.operators import GaussianSensing, Identity, Magnitude

FIELDS = {
    "task", "image", "psnr_before", "psnr_after", "data_energy", "prior_energy", "weight", "evaluations",
    "seconds", "status",
}  # fmt: skip


def save(path: Path, picture: np.ndarray) -> str:
    Image.fromarray((picture.clip(0, 1) * 255).round().astype(np.uint8)).save(path)
    return str(path)


@pytest.fixture
def clean() -> np.ndarray:
    return data.astronaut()[100:133, 180:220] / 255.0


@pytest.fixture
def noisy(clean: np.ndarray) -> np.ndarray:
    return clean + 0.1 * np.random.default_rng(0).standard_normal(clean.shape)


def summary(folder: Path) -> list[dict]:
    records = json.loads((folder / "summary.json").read_text())
    assert all(record.keys() >= FIELDS for record in records)
    return records


def test_restore_denoises_several_files_and_goes_on_after_bad_ones(tmp_path, clean, noisy, capsys, caplog):
    save(tmp_path / "clean.png", clean)
    (tmp_path / "text.png").write_text("no picture")
    files = [save(tmp_path / "a.png", noisy), str(tmp_path / "missing.png"), str(tmp_path / "text.png")]
    out = tmp_path / "out"
    status = main(
        ["restore", *files, "--sigma", "0.1", "--reference", str(tmp_path / "clean.png"), "--out", str(out)]
    )
    assert status == 1
    (record,) = summary(out)
    assert record["psnr_after"] > record["psnr_before"] + 4 and record["status"] in ("denoised", "averaged")
    assert {file.name for file in out.iterdir()} == {
        "a.png", "a-panel.png", "a-path.png", "summary.json", "summary.txt"
    }  # fmt: skip
    assert "missing.png" in caplog.text and "text.png" in caplog.text
    assert "denoise" in capsys.readouterr().out


def test_the_posterior_mean_shows_its_progress(tmp_path, noisy, capsys):
    arguments = ["--sigma", "0.1", "--weight", "mean", "--chain.evaluations", "90"]
    file, out = save(tmp_path / "a.png", noisy[:8, :8]), str(tmp_path / "out")
    assert main(["restore", file, *arguments, "--out", out]) == 0
    shown = capsys.readouterr().err
    told = re.findall(r"a, (\d+) of about (\d+) evaluations", shown)
    done = [int(number) for number, _ in told]
    assert done[0] == 1 and done == sorted(done) and done[-1] == 91  # the chain's, and one where it starts
    assert {expected for _, expected in told} == {"91"}
    (record,) = summary(tmp_path / "out")
    assert record["criterion"] == "mean"


def test_restore_takes_a_folder(tmp_path, clean, noisy, caplog):
    """Its pictures, not what else lies there; one that has none is one sentence, and the rest go on."""
    folder = tmp_path / "noisy"
    (folder / "deeper").mkdir(parents=True)
    for name in ("b.png", "a.PNG", "deeper/c.png"):
        save(folder / name, noisy[:16, :16])
    (folder / "notes.txt").write_text("no picture")
    (tmp_path / "empty").mkdir()
    arguments = ["--sigma", "0.1", "--weight", "1", "--out", str(tmp_path / "out")]
    assert main(["restore", str(tmp_path / "empty"), str(folder), *arguments]) == 1
    assert [record["image"] for record in summary(tmp_path / "out")] == ["a", "b"]
    assert "empty has no pictures that can be read" in caplog.text


def test_restore_takes_a_precision(tmp_path, noisy, capsys):
    """Another picture, and nearly the same."""
    file, pictures = save(tmp_path / "a.png", noisy), []
    for precision in ("float32", "bfloat16"):
        out = tmp_path / precision
        arguments = ["--sigma", "0.1", "--weight", "1", "--precision", precision, "--out", str(out)]
        assert main(["restore", file, *arguments]) == 0
        pictures.append(np.asarray(Image.open(out / "a.png")) / 255.0)
    assert np.abs(pictures[1] - pictures[0]).max() > 0 and np.abs(pictures[1] - pictures[0]).mean() < 0.01
    with pytest.raises(SystemExit) as ended:
        main(["restore", file, "--precision", "half", "--out", str(tmp_path / "out")])
    assert ended.value.code != 0 and "float32" in capsys.readouterr().err


def test_restored_file_is_the_picture_of_the_record(tmp_path, clean, noisy):
    out = tmp_path / "out"
    main(
        [
            "restore",
            save(tmp_path / "a.png", noisy),
            "--reference",
            save(tmp_path / "c.png", clean),
            "--out",
            str(out),
        ]
    )
    (record,) = summary(out)
    restored = np.asarray(Image.open(out / "a.png")) / 255.0
    psnr = -10 * np.log10(np.mean((restored - np.round(clean * 255) / 255) ** 2))
    assert psnr == pytest.approx(record["psnr_after"], abs=0.05)
    assert record["sigma"] == pytest.approx(0.1, rel=0.3), "estimated, not given"


def test_restore_inpaints_with_a_mask(tmp_path, clean):
    mask = np.ones(clean.shape[:2])
    mask[14:18, 14:18] = 0
    holed = clean * mask[..., None]
    out = tmp_path / "out"
    arguments = ["--task", "inpaint", "--mask", save(tmp_path / "mask.png", mask), "--sigma", "0.02"]
    arguments += ["--reference", save(tmp_path / "c.png", clean), "--weight", "1", "--out", str(out)]
    assert main(["restore", save(tmp_path / "a.png", holed), *arguments]) == 0
    (record,) = summary(out)
    assert record["task"] == "inpaint" and record["weight"] == 1 and record["criterion"] == "fixed"
    assert record["psnr_after"] > record["psnr_before"] + 3


@pytest.mark.parametrize("task", ["denoise", "inpaint"])
def test_a_grey_picture_is_restored_under_a_prior_for_colour(tmp_path, clean, task):
    """And stays grey: in the files, and in what is measured against the clean one."""
    grey = clean.mean(2)
    holed = grey + 0.1 * np.random.default_rng(0).standard_normal(grey.shape)
    mask = np.ones(grey.shape)
    if task == "inpaint":
        mask[14:18, 14:18] = holed[14:18, 14:18] = 0
    out = tmp_path / "out"
    arguments = ["--task", task, "--mask", save(tmp_path / "mask.png", mask), "--sigma", "0.1"]
    arguments += ["--reference", save(tmp_path / "c.png", grey), "--out", str(out)]
    assert main(["restore", save(tmp_path / "a.png", holed), *arguments]) == 0
    (record,) = summary(out)
    assert record["psnr_before"] + 4 < record["psnr_after"] > record["psnr_start"]
    restored = np.asarray(Image.open(out / "a.png"))
    assert restored.shape == grey.shape and np.asarray(Image.open(out / "a-panel.png")).ndim == 2
    psnr = -10 * np.log10(np.mean((restored / 255.0 - np.round(grey * 255) / 255) ** 2))
    assert psnr == pytest.approx(record["psnr_after"], abs=0.05)


@pytest.mark.parametrize("task", ["denoise", "sense"])
def test_a_measurement_of_a_grey_picture_is_restored_under_a_prior_for_colour(tmp_path, clean, task):
    picture, file = save(tmp_path / "c.png", clean.mean(2)), str(tmp_path / "y.safetensors")
    measured = ["--task", task, "--sigma", "0.02", "--size", "16", "--seed", "1", "--out", file]
    assert main(["measure", picture, *measured]) == 0
    assert main(["restore", file, "--weight", "1", "--out", str(tmp_path / "out")]) == 0
    (record,) = summary(tmp_path / "out")
    restored = np.asarray(Image.open(tmp_path / "out" / "y.png"))
    assert record["task"] == task and restored.shape == (16, 16)
    truth = read_square(picture, 16).numpy()[0, 0]
    psnr = -10 * np.log10(np.mean((restored / 255.0 - truth) ** 2))
    assert psnr > 24


@pytest.mark.parametrize(
    ("command", "option", "told"),
    [("restore", "--chain.evaluations=9", "burn_in = 60"), ("train", "--training.batch=0", "batch = 0")],
)
def test_an_option_out_of_range_is_one_sentence(tmp_path, noisy, caplog, command, option, told):
    file = save(tmp_path / "a.png", noisy)
    assert main([command, file, option, "--out", str(tmp_path / "out")]) == 2
    assert told in caplog.text and not (tmp_path / "out").exists()


def test_magnitudes_of_a_grey_picture_do_not_fit_a_prior_for_colour(tmp_path, caplog):
    linear = GaussianSensing((1, 8, 8), 48, seed=0)
    likelihood = measure(Magnitude(linear), torch.rand(1, 1, 8, 8), 0.01)
    save_measurement(tmp_path / "y.safetensors", "phase", likelihood)
    assert main(["restore", str(tmp_path / "y.safetensors"), "--out", str(tmp_path / "out")]) == 1
    assert "grey picture, the prior is for colour ones" in caplog.text


def test_a_reference_in_colour_does_not_fit_a_grey_picture(tmp_path, clean, caplog):
    arguments = ["--sigma", "0.1", "--reference", save(tmp_path / "c.png", clean)]
    file = save(tmp_path / "a.png", clean.mean(2))
    assert main(["restore", file, *arguments, "--out", str(tmp_path / "out")]) == 1
    assert "is (3, 33, 40), the measured picture is (1, 33, 40)" in caplog.text


def test_a_colour_picture_does_not_fit_a_prior_for_grey(tmp_path, clean, caplog):
    file = save(tmp_path / "a.png", clean)
    assert main(["restore", file, "--prior", "fashion28", "--out", str(tmp_path / "out")]) == 1
    assert "a.png" in caplog.text and "colour picture, the prior is for grey ones" in caplog.text


def test_measure_then_restore(tmp_path, clean):
    file = tmp_path / "y.safetensors"
    arguments = [
        "--size",
        "16",
        "--measurements",
        "300",
        "--sigma",
        "0.01",
        "--seed",
        "5",
        "--out",
        str(file),
    ]
    assert main(["measure", save(tmp_path / "c.png", clean), *arguments]) == 0
    task, likelihood = load_measurement(file)
    assert task == "sense" and likelihood.y.shape == (1, 300) and likelihood.operator.shape == (3, 16, 16)
    assert main(["restore", str(file), "--out", str(tmp_path / "out")]) == 0
    (record,) = summary(tmp_path / "out")
    assert record["task"] == "sense" and record["psnr_after"] is None and record["criterion"] == "mean"


@pytest.mark.parametrize("command", ["demo", "restore", "measure", "priors", "train"])
def test_help_says_what_every_option_means(command, capsys):
    """Also of options that are the fields of a dataclass, whose meaning stands in its docstring."""
    with pytest.raises(SystemExit):
        main([command, "--help"])
    words = " ".join(capsys.readouterr().out.split("options:")[-1].split())
    options = re.split(r" (?=--[a-z])", words)[1:]
    silent = [option for option in options if re.fullmatch(r"(--\S+ )(\S+ )?\(.*", option)]
    assert not silent and (len(options) > 4 or command in ("demo", "priors"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--prior", "nope"], "there is no prior nope"),
        (["--sigma", "-1"], "sigma = -1 of the noise must be positive"),
        (["--sigma", "25"], "25 of 255 is --sigma 0.098"),
        (["--task", "inpaint"], "--mask"),
        (["--weight", "-2"], "weight"),
        (["--chain.chains", "4"], "--weight auto runs no chain"),
        (["--weight", "mean", "--chain.chains", "0"], "chains = 0"),
    ],
)
def test_what_cannot_work_is_one_sentence_and_a_status(tmp_path, noisy, caplog, arguments, words):
    status = main(["restore", save(tmp_path / "a.png", noisy), *arguments, "--out", str(tmp_path / "out")])
    assert status != 0
    assert words in caplog.text and "Traceback" not in caplog.text
    assert not (tmp_path / "out" / "summary.json").exists()


@pytest.mark.parametrize("read", ["noisy", "reference", "mask"])
def test_what_is_read_is_never_replaced(tmp_path, noisy, caplog, read):
    """A restoration of a.png into the folder where a.png, or its reference or mask, lies."""
    (tmp_path / "elsewhere").mkdir()
    kept = Path(save(tmp_path / "a.png", noisy))
    before = kept.read_bytes()
    file = str(kept) if read == "noisy" else save(tmp_path / "elsewhere" / "a.png", noisy)
    options = {"noisy": [], "reference": ["--reference", str(tmp_path)]}
    options["mask"] = ["--task", "inpaint", "--mask", str(kept)]
    assert main(["restore", file, *options[read], "--out", str(tmp_path)]) == 2
    assert f"would replace {kept}" in caplog.text and kept.read_bytes() == before
    assert not (tmp_path / "summary.txt").exists()


def test_no_restoration_replaces_another(tmp_path, noisy):
    names = ("a-panel.png", "a.png", "deeper/a.png")
    (tmp_path / "deeper").mkdir()
    files = [save(tmp_path / name, noisy[:8, :8]) for name in names]
    assert main(["restore", *files, "--sigma", "0.1", "--weight", "1.0", "--out", str(tmp_path / "out")]) == 0
    images = [record["image"] for record in summary(tmp_path / "out")]
    assert images == ["a-panel", "a-2", "a-3"]
    assert len(list((tmp_path / "out").glob("*.png"))) == 9


def test_a_measurement_does_not_replace_its_picture(tmp_path, clean, caplog):
    file = save(tmp_path / "c.png", clean)
    before = Path(file).read_bytes()
    assert main(["measure", file, "--task", "denoise", "--sigma", "0.1", "--out", file]) == 2
    assert ".safetensors" in caplog.text and Path(file).read_bytes() == before


def test_an_output_folder_that_cannot_be_written_is_refused_before_computing(tmp_path, noisy, caplog):
    (tmp_path / "file").write_text("in the way")
    assert main(["restore", save(tmp_path / "a.png", noisy), "--out", str(tmp_path / "file")]) == 2
    assert "cannot write" in caplog.text


def test_priors_lists_what_ships(capsys):
    assert main(["priors"]) == 0
    text = capsys.readouterr().out
    assert (
        "photos" in text and "fashion28" in text and "bits per dimension" in text and "research use" in text
    )


def test_train_then_restore_with_the_new_prior(tmp_path, clean, noisy):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index in range(6):
        save(folder / f"{index}.png", data.astronaut()[40 * index : 40 * index + 40, 100:150] / 255.0)
    prior = tmp_path / "prior"
    arguments = [
        "--out",
        str(prior),
        "--holdout",
        "2",
        "--crop",
        "16",
        "--flow.any_size",
        "true",
        "--flow.hidden",
        "8",
    ]
    arguments += ["--flow.steps", "1", "--flow.levels", "2", "--training.steps", "6", "--training.batch", "4"]
    assert main(["train", str(folder), *arguments]) == 0
    assert (prior / "README.md").exists() and (prior / "training" / "metrics.jsonl").exists()
    arguments[1] = str(tmp_path / "more")
    assert main(["train", str(folder), *arguments, "--initial", str(prior)]) == 0
    picture = save(tmp_path / "a.png", noisy)
    assert (
        main(["restore", picture, "--prior", str(prior), "--weight", "0.5", "--out", str(tmp_path / "out")])
        == 0
    )


def test_demo_measures_and_restores_in_three_ways(tmp_path, monkeypatch, capsys):
    small = tuple(demo.Task(task.name, (3, 16, 16), task.sigma, task.operator) for task in demo.TASKS[:2])
    monkeypatch.setattr(demo, "TASKS", small)
    assert main(["demo", "--out", str(tmp_path)]) == 0
    records = summary(tmp_path)
    assert [record["task"] for record in records] == ["denoise", "sense"]
    assert all(record["psnr_after"] > record["psnr_before"] for record in records)
    assert (tmp_path / "sense-panel.png").exists() and "evaluations" in capsys.readouterr().out


def test_the_real_demo_is_the_three_tasks_of_the_paper():
    assert [(task.name, task.sigma) for task in demo.TASKS] == [
        ("denoise", 0.1),
        ("sense", 0.01),
        ("inpaint", 0.02),
    ]
    sensing = demo.TASKS[1].operator((3, 16, 16))
    assert sensing.measurements == 3 * 16 * 16 // 4
    assert not demo.TASKS[2].operator((3, 128, 128)).mask[:, 48:80, 48:80].any()  # type: ignore[attr-defined]
    assert torch.equal(demo.photograph(64), demo.photograph(64))


@pytest.mark.parametrize(
    ("options", "operator", "noise"),
    [
        (["--task", "deblur", "--size", "16", "--blur", "1.0", "--sigma", "0.02"], "Blur", "Gaussian"),
        (
            ["--task", "superresolve", "--size", "32", "--noise", "laplace", "--sigma", "0.02"],
            "Downsampling",
            "Laplace",
        ),
        (["--task", "colourise", "--sigma", "0.02"], "Grey", "Gaussian"),
        (["--task", "mosaic", "--sigma", "0.02"], "Mask", "Gaussian"),
        (["--task", "denoise", "--noise", "poisson", "--gain", "60"], "Identity", "Poisson"),
    ],
)
def test_other_tasks_and_noise_from_picture_to_restoration(tmp_path, clean, options, operator, noise):
    file = tmp_path / "y.safetensors"
    assert main(["measure", save(tmp_path / "c.png", clean), *options, "--out", str(file)]) == 0
    _, likelihood = load_measurement(file)
    assert type(likelihood.operator).__name__ == operator and type(likelihood).__name__ == noise
    assert main(["restore", str(file), "--weight", "1.0", "--out", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "y.png").exists()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--task", "denoise", "--noise", "poisson"], "--gain"),
        (["--task", "denoise"], "--sigma"),
        (["--task", "superresolve", "--factor", "7", "--sigma", "0.1"], "factor = 7"),
    ],
)
def test_what_a_measurement_lacks_is_named(tmp_path, clean, caplog, options, named):
    file = tmp_path / "y.safetensors"
    assert main(["measure", save(tmp_path / "c.png", clean), *options, "--out", str(file)]) == 2
    assert named in caplog.text and not file.exists()


def test_the_posterior_mean_from_the_command_line(tmp_path, clean, capsys):
    file = save(tmp_path / "c.png", clean)
    arguments = ["restore", file, "--sigma", "0.1", "--weight", "mean", "--out", str(tmp_path / "out")]
    chains = ["--chain.evaluations=40", "--chain.burn_in=10", "--chain.chains=2", "--chain.seed=3"]
    assert main([*arguments, *chains]) == 0
    (record,) = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert record["criterion"] == "mean" and "each of 2 chains" in record["plan"]
    assert record["rhat"] > 1 and record["effective"] > 0 and record["status"] in ("agreeing", "drawn")
    remark = record["remarks"][0]
    assert "R̂ of 2 chains" in remark and f"denoise c: {remark}" in capsys.readouterr().out
    assert record["evaluations"] == 2 * 41 + 1 and record["sigma"] == pytest.approx(0.1)


def test_the_kind_of_noise_is_said_and_may_be_named(tmp_path, clean):
    """By the picture itself, by a name, and by a flat field; what does not go together is refused."""
    grey = np.clip(clean.mean(2) + 0.1 * np.random.default_rng(0).standard_normal(clean.shape[:2]), 0, 1)
    noisy, out = save(tmp_path / "a.png", grey), str(tmp_path / "out")
    flat = 0.5 + 0.05 * np.random.default_rng(1).standard_normal((64, 64))
    for own, sentence, sigma in [
        ([], "standard deviation", 0.1),
        (["--noise", "gaussian"], "white", 0.1),
        (["--sigma", "0.1"], None, 0.1),
        (["--noise", "poisson-gaussian", "--gain", "100", "--sigma", "0.05"], None, 0.09),
        (["--flat", save(tmp_path / "flat.png", flat)], "white", 0.05),
    ]:
        assert main(["restore", noisy, "--out", out, *own]) == 0
        (record,) = summary(tmp_path / "out")
        told = [remark for remark in record["remarks"] if "The noise" in remark]
        assert (not told) if sentence is None else (sentence in told[0])
        assert record["sigma"] == pytest.approx(sigma, rel=0.3)
    twice = ["--flat", noisy, "--sigma", "0.1"]
    for own in (["--noise", "coloured", "--sigma", "0.1"], twice, ["--gain", "9"]):
        assert main(["restore", noisy, "--out", out, *own]) == 2


def test_a_file_of_several_measurements_is_refused_and_not_restored_in_part(tmp_path, caplog):
    file, picture = str(tmp_path / "y.safetensors"), Identity((3, 16, 16))
    save_measurement(file, "denoise", Gaussian(picture, torch.rand(3, 3, 16, 16), 0.1))
    assert main(["restore", file, "--out", str(tmp_path / "out")]) == 1
    assert "holds 3 measurements" in caplog.text
