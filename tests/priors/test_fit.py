"""From pictures to a prior folder."""

from dataclasses import replace

import pytest
import torch
from pictures import ramps

from aipo.basics.errors import InputError
from aipo.flows.training.data import PictureData
from aipo.flows.training.options import TrainingOptions
from aipo.priors import load_prior
from aipo.priors.fit import FlowOptions, Origin, fit_prior

FLOW = FlowOptions(levels=1, steps=2, hidden=8)
OPTIONS = TrainingOptions(steps=6, batch=4, learning_rate=1e-2, warmup=1, validate_every=3)
ORIGIN = Origin("ramps", "made up", "free", "pytest")
TRAINING, VALIDATION = PictureData(ramps(40), None, False), PictureData(ramps(60)[40:], None, False)


def fit(folder, options=OPTIONS, flow=FLOW, initial=None):
    return fit_prior(TRAINING, VALIDATION, folder, flow, options, ORIGIN, initial=initial)


def test_what_is_saved_is_what_was_measured(tmp_path):
    prior = fit(tmp_path / "prior")
    x = torch.rand(3, 1, 4, 4)
    loaded = load_prior(tmp_path / "prior")
    assert torch.equal(loaded.energy(x), prior.energy(x))
    assert [step for step, _ in loaded.card["curve"]] == [3, 6]
    assert f"{prior.card['validation_bits_per_dim']:.3f}" in (tmp_path / "prior" / "README.md").read_text()


def test_training_goes_on_from_the_weights_of_a_prior(tmp_path):
    first = fit(tmp_path / "first")
    frozen = TrainingOptions(steps=1, batch=4, learning_rate=0.0)
    same = fit(tmp_path / "same", frozen, initial=first)
    x = torch.rand(3, 1, 4, 4)
    assert torch.allclose(same.energy(x), first.energy(x), atol=1e-3)
    assert same.card["validation_bits_per_dim"] == first.card["validation_bits_per_dim"]
    further = fit(tmp_path / "further", initial=first)
    assert further.card["validation_bits_per_dim"] < first.card["validation_bits_per_dim"]


def test_going_on_is_resumed_from_its_own_checkpoint(tmp_path):
    first = fit(tmp_path / "first")
    whole = fit(tmp_path / "whole", initial=first)
    again = fit(tmp_path / "whole", initial=first)
    x = torch.rand(3, 1, 4, 4)
    assert torch.equal(whole.energy(x), again.energy(x))


def test_a_flow_with_noise_levels_goes_on_from_a_plain_one(tmp_path):
    """At a rate of zero it is the plain prior at every τ; with a rate it learns, is saved and goes on."""
    plain, told = fit(tmp_path / "plain"), replace(FLOW, noise_levels=True)
    still = TrainingOptions(steps=1, batch=4, learning_rate=0.0, told=0.5, denoising=1.0)
    same, x = fit(tmp_path / "same", still, told, plain), torch.rand(3, 1, 4, 4)
    assert same.noise_levels and not plain.noise_levels
    for tau in (0.0, 0.1):
        assert torch.allclose(same.energy(x, tau), plain.energy(x), atol=1e-3)
    assert same.card["validation_bits_per_dim"] == plain.card["validation_bits_per_dim"]
    further = fit(tmp_path / "further", replace(still, steps=6, learning_rate=1e-2), told, same)
    loaded = load_prior(tmp_path / "further")
    assert not torch.allclose(further.energy(x, 0.1), further.energy(x, 0.4))
    assert torch.equal(loaded.energy(x, 0.1), further.energy(x, 0.1))
    assert torch.equal(loaded.denoise(x, 0.1), further.denoise(x, 0.1))
    assert loaded.card["flow"]["noise_levels"] and loaded.card["validation_db_25"] > 0
    with pytest.raises(InputError, match="asked for"):
        fit(tmp_path / "back", initial=same)


def test_clean_pictures_keep_the_density_that_training_starts_from(tmp_path):
    """However far the levels of noise are trained; what training cannot do is refused before it begins."""
    plain, apart = fit(tmp_path / "plain"), replace(FLOW, noise_levels=True, clean_apart=True)
    trained = TrainingOptions(steps=6, batch=4, learning_rate=1e-2, noised=0.0, told=1.0, denoising=1.0)
    fit(tmp_path / "apart", trained, apart, plain)
    loaded, x = load_prior(tmp_path / "apart"), torch.rand(3, 1, 4, 4)
    assert torch.equal(loaded.energy(x), plain.energy(x))
    assert loaded.card["typicality"] == plain.card["typicality"]
    assert torch.equal(loaded.surrogate.mean, plain.surrogate.mean)
    assert not torch.allclose(loaded.energy(x, 0.1), plain.energy(x), atol=0.1)
    assert loaded.card["validation_bits_per_dim"] == plain.card["validation_bits_per_dim"]
    assert fit(tmp_path / "on", trained, apart, loaded).card["flow"] == loaded.card["flow"]
    with pytest.raises(InputError, match=r"told = 0\.5.*initial prior"):
        fit(tmp_path / "a", replace(trained, told=0.5), apart, plain)
    with pytest.raises(InputError, match=r"initial prior"):
        fit(tmp_path / "b", trained, apart)
    with pytest.raises(InputError, match="knows no noise"):
        FlowOptions(clean_apart=True)


def test_typical_pictures_are_enlarged_as_those_of_training_but_figures_are_of_pictures_as_they_are(tmp_path):
    still, plain = replace(OPTIONS, learning_rate=0.0), fit(tmp_path / "plain")
    zoomed = replace(TRAINING, zoomed=1.0, zoom_range=(0.5, 0.5))
    prior = fit_prior(zoomed, VALIDATION, tmp_path / "zoomed", FLOW, still, ORIGIN, initial=plain)
    assert prior.card["validation_bits_per_dim"] == plain.card["validation_bits_per_dim"]
    assert prior.card["typicality"] != plain.card["typicality"]
    assert prior.card["training"]["zoomed"] == 1.0
    assert load_prior(tmp_path / "zoomed").card["training"]["zoom_range"] == [0.5, 0.5]


@pytest.mark.parametrize("name", ["README.md", "config.json", "model.safetensors"])
def test_files_of_somebody_else_are_not_replaced(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(InputError, match=f"{name} would be replaced"):
        fit(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "mine"


def test_a_training_that_diverges_leaves_no_prior(tmp_path):
    with pytest.raises(InputError, match="learning_rate"):
        fit(tmp_path, replace(OPTIONS, learning_rate=1e30))
    assert [path.name for path in tmp_path.iterdir()] == ["training"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"levels": 0}, {"levels": -1}, {"levels": 60}, {"levels": True}, {"steps": 0}, {"steps": 10**9},
        {"hidden": 0}, {"hidden": -1}, {"hidden": 10**6}, {"family": "spline"},
    ],
    ids=str,
)  # fmt: skip
def test_numbers_that_no_flow_has_are_named(wrong):
    with pytest.raises(InputError, match=rf"flow\.{next(iter(wrong))} = "):
        FlowOptions(**wrong)


@pytest.mark.parametrize("any_size", [False, True])
def test_levels_that_do_not_divide_the_crop_are_refused_before_a_flow_is_made(tmp_path, any_size):
    data = replace(TRAINING, crop=4)
    options = FlowOptions(levels=10, steps=512, hidden=8192, any_size=any_size)
    with pytest.raises(InputError, match="divisible by 1024"):
        fit_prior(data, VALIDATION, tmp_path, options, OPTIONS, ORIGIN)


def test_another_architecture_is_refused(tmp_path):
    first = fit(tmp_path / "first")
    with pytest.raises(InputError, match="asked for"):
        fit(tmp_path / "other", flow=FlowOptions(levels=1, steps=1, hidden=8), initial=first)


def test_the_surrogate_is_of_the_kind_that_held_out_pictures_are_likelier_under(tmp_path):
    """Texture that is the same everywhere, or pixels of their own that are black at the picture's border."""
    noise = torch.randn(80, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    texture = noise + noise.roll(1, 3) + noise.roll(1, 2)
    border = torch.zeros(8, 8)
    border[1:7, 1:7] = 1  # more pixels than the surrogate has components, or both kinds would tie
    for kind, pictures in (("low-rank-stationary", texture), ("low-rank", noise * border)):
        drawn = list((127 + 30 * pictures).clamp(0, 255).byte().numpy())
        data, held_out = PictureData(drawn[:60], None, False), PictureData(drawn[60:], None, False)
        once = TrainingOptions(steps=1, batch=4)
        prior = fit_prior(data, held_out, tmp_path / kind, FLOW, once, ORIGIN)
        assert prior.card["surrogate"] == kind == load_prior(tmp_path / kind).card["surrogate"]
