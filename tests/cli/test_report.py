"""Tables and files that commands leave behind."""

import json
from dataclasses import replace

import pytest
import torch
from PIL import Image

from aipo.basics.quality import psnr, ssim
from aipo.cli.record import Record, explanation
from aipo.cli.report import measurement_picture, table, write_summary
from aipo.io.images import read_square
from aipo.likelihoods import measure
from aipo.operators import (
    Blur,
    Composition,
    Downsampling,
    FourierSensing,
    GaussianSensing,
    Grey,
    Identity,
    Radon,
    block_mask,
    gamma_curve,
    gaussian_kernel,
)

COLOUR = (3, 16, 16)
RECORD = Record(
    "denoise", "a", None, 20.0, 30.5, -100.0, -2000.0, 0.5, "sure", 42, 1.5, "budget", 3.0, "a path", 0.1,
    None, None, {}, None, [],
)  # fmt: skip


def test_table_shows_every_number_and_a_dash_where_unknown():
    other = replace(RECORD, image="longer-name", psnr_before=20.25)
    *lines, blank, plan = table([RECORD, other]).splitlines()
    assert len(lines) == 3 and not blank and plan == "denoise a and 1 more: a path"
    assert len({line.index("status" if i == 0 else "budget") for i, line in enumerate(lines)}) == 1
    assert lines[1].split()[2] == "-" and "30.50" in lines[1] and "42" in lines[1]
    assert lines[2].split()[2] == "20.25"


def test_table_leaves_out_what_is_known_of_no_record():
    titles = table([RECORD]).splitlines()[0]
    assert "before dB" not in titles and "R-hat" not in titles and "start dB" in titles
    drawn = table([RECORD, replace(RECORD, rhat=1.0321, effective=87.4)]).splitlines()
    assert drawn[0].endswith("R-hat  eff. draws") and drawn[1].endswith("-      -")
    assert drawn[2].split()[-2:] == ["1.032", "87"]


def test_every_sentence_stands_once_below_the_table():
    records = [replace(RECORD, image=name, remarks=["It holds."]) for name in ("a", "b")]
    records.append(replace(RECORD, image="c", plan="a chain"))
    said = table(records).split("\n\n")[1].splitlines()
    assert said == [
        "denoise a and 1 more: a path",
        "denoise a and 1 more: It holds.",
        "denoise c: a chain",
    ]


def test_summary_holds_the_same_numbers_twice(tmp_path):
    write_summary(tmp_path, [RECORD])
    (record,) = json.loads((tmp_path / "summary.json").read_text())
    assert record["psnr_before"] is None and record["psnr_after"] == 30.5 and record["evaluations"] == 42
    assert (tmp_path / "summary.txt").read_text() == table([RECORD]) + "\n"


def test_psnr_of_a_known_error_and_after_clipping():
    truth = torch.full((2, 1, 4, 4), 0.5)
    assert psnr(truth + 0.1, truth) == pytest.approx(20.0, abs=1e-4)
    assert torch.isinf(psnr(torch.full((1, 1, 4, 4), 1.7), torch.ones(1, 1, 4, 4))).all()


def test_ssim_is_one_where_equal_and_falls_with_noise():
    x = torch.rand(2, 3, 32, 32)
    assert ssim(x, x) == pytest.approx(1.0)
    assert (ssim(x + 0.3 * torch.randn(x.shape), x) < 0.95).all()


def test_measurement_picture_is_visible_for_every_operator():
    x = torch.rand(1, 3, 8, 8)
    for operator in (block_mask((3, 8, 8), 2), GaussianSensing((3, 8, 8), 40)):
        shown = measurement_picture(measure(operator, x, 0.01))
        assert shown.shape == x.shape and shown.max() > 0.5


def test_sensed_pictures_are_stretched_through_grey_too():
    """0.1 everywhere and a sixteenth of the measurements give values near 0, of any contrast."""
    grey, sensing = Grey((3, 8, 8)), GaussianSensing((1, 8, 8), 4)
    shown = measurement_picture(measure(Composition(grey, sensing), torch.full((1, 3, 8, 8), 0.1), 0.01))
    assert shown.min() < 0.1 and shown.max() > 0.9


@pytest.mark.parametrize("operator", [GaussianSensing(COLOUR, 384), FourierSensing(COLOUR, 400)])
def test_what_mixes_all_entries_measures_no_brightness(operator):
    """A picture of half grey would look half grey; here what is darkest and what is brightest is shown."""
    shown = measurement_picture(measure(operator, torch.full((1, *COLOUR), 0.5), 1e-3))
    dark, bright = (float((shown < 0).float().mean()), float((shown > 1).float().mean()))
    assert 0 < dark < 0.03 and 0 < bright < 0.03


@pytest.mark.parametrize(
    "operator",
    [
        Identity(COLOUR),
        block_mask(COLOUR, 4),
        Blur(COLOUR, gaussian_kernel(1.0)),
        Composition(Blur(COLOUR, gaussian_kernel(1.0)), block_mask(COLOUR, 4)),
        Downsampling(COLOUR, 2),
        Grey(COLOUR),
        Radon(COLOUR, torch.tensor([0.0, 45.0, 90.0])),
        gamma_curve(Identity(COLOUR), 0.45),
    ],
)
def test_measured_brightness_is_shown_as_it_is(operator):
    likelihood = measure(operator, 0.4 + 0.2 * torch.rand(1, *COLOUR), 1e-3)
    assert torch.equal(measurement_picture(likelihood), explanation(likelihood))


def test_read_square_takes_the_centre(tmp_path):
    picture = Image.new("RGB", (30, 10), (0, 0, 0))
    picture.paste((255, 255, 255), (10, 0, 20, 10))
    picture.save(tmp_path / "a.png")
    square = read_square(str(tmp_path / "a.png"), 5)
    assert square.shape == (1, 3, 5, 5) and square.min() > 0.99
