"""Folders give the same prior back, and those that are damaged or do not fit are refused by name."""

import json
import shutil

import numpy as np
import pytest
import torch
from flow_priors import ANY, FIXED, make, rand

from aipo.basics.errors import CheckpointError, InputError
from aipo.gaussian import LowRankGaussian
from aipo.priors import FlowPrior, build_flow, load_prior


def test_a_saved_prior_differs_by_the_rounding_of_its_weights_alone(prior, tmp_path):
    x = rand(3, 3, 8, 8)
    before = prior.energy(x)
    prior.save(tmp_path / "prior")
    loaded = load_prior(tmp_path / "prior")
    # 11 bits of each weight: far less than a nat per entry, and not nothing.
    assert 0 < (loaded.energy(x) - before).abs().max() <= 0.01 * x[0].numel()
    for parameter in prior.flow.trained.parameters():
        parameter.copy_(parameter.half().float())
    rounded = FlowPrior(prior.flow.trained, prior.surrogate, prior.card)
    assert torch.equal(loaded.energy(x), rounded.energy(x))
    v = rand(2, 3, 8, 8)
    assert torch.equal(loaded.surrogate.precision(v), prior.surrogate.precision(v))
    assert torch.equal(loaded.surrogate.mean_like(v), prior.surrogate.mean_like(v))
    assert type(loaded.flow.trained) is type(prior.flow.trained) and loaded.shape == prior.shape
    assert {name: loaded.card[name] for name in prior.card} == prior.card


def test_loading_and_saving_again_changes_nothing(prior, tmp_path):
    prior.save(tmp_path / "one")
    load_prior(tmp_path / "one").save(tmp_path / "two")
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    x = rand(3, 3, 8, 8)
    assert torch.equal(load_prior(tmp_path / "one").energy(x), load_prior(tmp_path / "two").energy(x))


@pytest.mark.parametrize("name", ["no-such-prior", "folder/file"])
def test_unknown_priors_are_refused_by_name(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_text("not a folder")
    with pytest.raises(InputError, match=f"there is no prior {name}"):
        load_prior(name)


def test_unknown_families_are_refused_by_name():
    with pytest.raises(InputError, match="no flow family spline; use one of glow, realnvp, tarflow"):
        build_flow({**FIXED, "family": "spline"})


def rewrite(prior: FlowPrior, folder, **changes) -> None:
    """Save the prior with a consistent card that says something else."""
    FlowPrior(prior.flow.trained, prior.surrogate, {**prior.card, **changes}).save(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"flow": {**FIXED, "family": "spline"}},
        {"flow": {**FIXED, "levels": 1}},
        {"flow": {**FIXED, "hidden": 7}},
        {"flow": {**FIXED, "shape": [3, 16, 8]}},
        {"flow": {"family": "glow"}},
        {"flow": {**FIXED, "levels": "two"}},
        {"surrogate": "stationary"},
        {"surrogate": "other"},
    ],
    ids=["family", "levels", "hidden", "shape", "incomplete", "text", "wrong-surrogate", "no-surrogate"],
)
def test_cards_that_do_not_fit_their_tensors_are_refused(changes, tmp_path):
    rewrite(make(FIXED), tmp_path / "prior", **changes)
    with pytest.raises(CheckpointError, match="prior"):
        load_prior(tmp_path / "prior")


@pytest.mark.parametrize(
    ("name", "shape"), [("mean", (3, 4, 4)), ("loadings", (5, 192)), ("variances", (191,))], ids=str
)
def test_misshapen_surrogates_are_refused(name, shape, tmp_path):
    prior = make(FIXED)
    setattr(prior.surrogate, name, torch.zeros(shape))
    prior.save(tmp_path / "prior")
    with pytest.raises(CheckpointError, match=name):
        load_prior(tmp_path / "prior")


def test_surrogates_for_other_pictures_are_refused(tmp_path):
    prior = make(FIXED)
    prior.surrogate = LowRankGaussian.fit(rand(20, 3, 4, 4), rank=5)
    prior.save(tmp_path / "prior")
    with pytest.raises(CheckpointError, match=r"surrogate.*\(3, 4, 4\)"):
        load_prior(tmp_path / "prior")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_damaged_folders_are_refused(name, tmp_path):
    make(FIXED).save(tmp_path / "prior")
    path = tmp_path / "prior" / name
    data = bytearray(path.read_bytes())
    for position in np.linspace(0, len(data) - 1, 20, dtype=int):
        damaged = data.copy()
        damaged[position] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=name):
            load_prior(tmp_path / "prior")
    path.unlink()
    with pytest.raises(CheckpointError, match=name):
        load_prior(tmp_path / "prior")


def test_the_tensors_of_another_prior_are_refused(tmp_path):
    make(FIXED).save(tmp_path / "one")
    make(ANY).save(tmp_path / "two")
    shutil.copy(tmp_path / "two" / "model.safetensors", tmp_path / "one" / "model.safetensors")
    with pytest.raises(CheckpointError, match="checksum"):
        load_prior(tmp_path / "one")


def test_the_configuration_is_plain_json(tmp_path):
    make(FIXED).save(tmp_path / "prior")
    card = json.loads((tmp_path / "prior" / "config.json").read_text())
    assert card["flow"] == FIXED
    assert set(card["sha256"]) == {"config.json", "model.safetensors"}
