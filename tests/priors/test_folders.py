"""Folders give the same prior back, and those that are damaged or do not fit are refused by name."""

import json
import os
import shutil

import numpy as np
import pytest
import torch
from flow_priors import ANY, FIXED, make, rand

from aipo.basics.errors import CheckpointError, InputError
from aipo.gaussian import LowRankGaussian
from aipo.io.tensors import load_folder, save_folder
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
        {"surrogate": ["low-rank"]},
        {"flow": [1]},
        {"flow": {**FIXED, "shape": [3, 8, None]}},
        {"flow": {**FIXED, "shape": [3, 1 << 14, 1 << 14]}},
        {"flow": {**FIXED, "shape": [3, 1 << 20, 1 << 20]}},
        {"flow": {**FIXED, "shape": [1 << 20, 8, 8]}},
        {"flow": {**FIXED, "levels": 60}},
        {"flow": {**FIXED, "levels": True}},
        {"flow": {**FIXED, "levels": 2.0}},
        {"flow": {**FIXED, "levels": 0}},
        {"flow": {**FIXED, "steps": 10**9}},
        {"flow": {**FIXED, "steps": 512}},
        {"flow": {**FIXED, "hidden": 10**6}},
        {"flow": {**FIXED, "hidden": 8192}},
        {"flow": {**FIXED, "hidden": -1}},
        {"flow": {**FIXED, "hidden": float("inf")}},
        {"flow": {**FIXED, "noise_levels": 1}},
        {"flow": {**FIXED, "noise_levels": True}},
        {"training": [1]},
        {"training": {"told_range": [0.0, 7.0]}},
        {"training": {"told_range": 3}},
        {"training": {"told_range": ["a", "b"]}},
        {"typicality": {"levels": [0.1]}},
        {"typicality": {"levels": [0.1], "mean": [[0.0, 0.0]], "covariance": [[1.0, 0.0]]}},
        {"typicality": {"levels": [0.1], "mean": [[0.0, 0.0]], "covariance": [[0.0, 0.0], [0.0, 0.0]]}},
        {"typicality": {"levels": [0.1], "mean": [[float("nan"), 0.0]], "covariance": [[1.0, 0], [0, 1]]}},
        {"typicality": "none"},
    ],
    ids=str,
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


@pytest.mark.parametrize("description", [FIXED, ANY], ids=["fixed", "any"])
@pytest.mark.parametrize("change", ["nan", "infinite in half precision", "int32", "bool", "zero", "negative"])
def test_numbers_that_no_density_has_are_refused_by_name(description, change, tmp_path):
    """Every checksum is right: the folder was made on purpose."""
    prior = make(description)
    prior.save(tmp_path)
    card, tensors = load_folder(tmp_path)
    positive = "variances" if description is FIXED else "spectrum"
    values = {
        "nan": lambda t: torch.full_like(t, float("nan")),
        "infinite in half precision": lambda t: torch.full(t.shape, 1e300, dtype=torch.float64),
        "int32": lambda t: t.int(),
        "bool": lambda t: t.bool(),
        "zero": torch.zeros_like,
        "negative": lambda t: -1 - t.abs(),
    }
    flow = ("flow.scales.0.3.network.0.weight", "flow.scales.0.1.log_scale", "flow.scales.0.2.permutation")
    names = (flow[2], f"surrogate.{positive}") if change in ("zero", "negative") else flow[:2]
    names += ("surrogate.mean",) if change in ("nan", "int32", "bool") else ()
    for name in names:
        save_folder(tmp_path, card, {**tensors, name: values[change](tensors[name])})
        shown = "scales.0.2" if "permutation" in name else name.removeprefix("flow.")
        with pytest.raises(CheckpointError, match=shown.replace(".", r"\.")):
            load_prior(tmp_path)


def test_a_flow_that_is_singular_or_overflows_is_refused(tmp_path):
    make(FIXED).save(tmp_path)
    card, tensors = load_folder(tmp_path)
    signless = {name: t * 0 if name.endswith("sign") else t for name, t in tensors.items()}
    empty = {name: t * 0 if name.startswith("flow.") else t for name, t in tensors.items()}
    loud = {name: t + 200 if name.endswith("log_scale") else t for name, t in tensors.items()}
    for changed in (signless, empty, loud):
        save_folder(tmp_path, card, changed)
        with pytest.raises(CheckpointError, match=r"cannot be inverted|not finite"):
            load_prior(tmp_path)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_pipes_devices_and_bombs_in_place_of_files_are_refused_unopened(name, tmp_path):
    make(FIXED).save(tmp_path)
    for place in (os.mkfifo, lambda path: path.symlink_to("/dev/zero"), sparse):
        (tmp_path / name).unlink()
        place(tmp_path / name)
        with pytest.raises(CheckpointError, match=name):
            load_prior(tmp_path)


def sparse(path) -> None:
    """No byte on the disk, and more than any memory has when read."""
    with open(path, "wb") as file:
        file.truncate(1 << 40)


def test_a_flow_is_not_built_before_its_shapes_are_compared(tmp_path, monkeypatch):
    """Of a description that its tensors do not fit, no weight is ever made."""
    rewrite(make(FIXED), tmp_path / "prior", flow={**FIXED, "levels": 3, "hidden": 512})
    made = []
    monkeypatch.setattr(torch.nn.Module, "to_empty", lambda *arguments, **named: made.append(arguments))
    monkeypatch.setattr(torch.linalg, "qr", lambda *arguments: made.append(arguments))
    with pytest.raises(CheckpointError, match="another flow"):
        load_prior(tmp_path / "prior")
    assert not made


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
