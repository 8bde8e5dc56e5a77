"""The training loop: it learns, it resumes to the bit, and its figures are right."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import ramps
from torch import Tensor, nn

from aipo.basics.errors import CheckpointError, InputError
from aipo.flows import ConditionalFlow, Glow
from aipo.flows.training import checkpoint
from aipo.flows.training import loop as training
from aipo.flows.training.batches import Batch, draw
from aipo.flows.training.data import PictureData
from aipo.flows.training.loop import CHECKPOINT_NAME, METRICS_NAME, train
from aipo.flows.training.options import TrainingOptions
from aipo.flows.training.validation import bits_per_dim, denoising
from aipo.io.tensors import load_tensors, save_tensors
from aipo.priors import build_flow

OPTIONS = TrainingOptions(steps=12, batch=8, learning_rate=3e-3, warmup=3, average=0.8, validate_every=4)
BATCH = PictureData.batch

DATA = PictureData(ramps(200), crop=None, flips=False)
VALIDATION = torch.from_numpy(np.stack(DATA.pictures[:50]))


def fresh() -> Glow:
    torch.manual_seed(0)
    return Glow((1, 4, 4), levels=1, steps=2, hidden=8)


def weights(flow: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in flow.state_dict().items()}


def identical(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def metrics(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / METRICS_NAME).read_text().splitlines()]


def test_training_learns(tmp_path):
    flow = fresh()
    before = bits_per_dim(flow, VALIDATION)
    options = replace(OPTIONS, steps=60, validate_every=20)
    bits = train(flow, DATA, VALIDATION, tmp_path, options)
    rows = metrics(tmp_path)
    assert [row["step"] for row in rows] == [20, 40, 60]
    figures = [row["validation_bits_per_dim"] for row in rows]
    assert before - 2 > figures[0] > figures[1] > figures[2] == bits
    assert rows[2]["loss"] < rows[0]["loss"]
    assert bits == pytest.approx(bits_per_dim(flow, VALIDATION)), "the flow ends with the weights measured"


def test_the_loss_recorded_is_that_of_the_batch(tmp_path):
    """Step 1 of a flow that never moves: nats per dimension of the noised, dequantized batch."""
    flow = fresh()
    train(flow, DATA, VALIDATION, tmp_path, replace(OPTIONS, steps=1, learning_rate=0.0))
    x = draw(DATA, 0, OPTIONS).pictures
    assert metrics(tmp_path)[0]["loss"] == pytest.approx(-flow.log_prob(x).mean().item() / 16, rel=1e-5)


def test_a_share_of_each_batch_is_noised():
    clean = draw(DATA, 3, replace(OPTIONS, batch=400, noised=0.0)).pictures
    noised = draw(DATA, 3, replace(OPTIONS, batch=400, noised=0.25, noise_range=(0.1, 0.4))).pictures
    assert torch.equal(clean[100:], noised[100:])
    strength = (noised - clean)[:100].flatten(1).std(1)
    assert strength.min() > 0.05 and strength.max() < 0.8
    assert 0.15 < strength.log().mean().exp() < 0.27, "log-uniform: the middle is 0.2"


def test_noise_and_dequantization_change_with_step_and_seed():
    one = PictureData(DATA.pictures[:1], crop=None, flips=False)
    steps_and_seeds = ((0, 0), (1, 0), (0, 1), (0, 0))
    batches = [draw(one, step, replace(OPTIONS, seed=seed)).pictures for step, seed in steps_and_seeds]
    assert torch.equal(batches[0], batches[3])
    for other in batches[1:3]:
        assert (batches[0] != other).float().mean() > 0.99


def interrupted(monkeypatch, out: Path, options: TrainingOptions, step: int, make=fresh) -> None:
    """Train until the batch of a step is asked for, then press Ctrl-C."""

    def batch(data: PictureData, seed: int, index: int, size: int) -> Tensor:
        if index == step:
            raise KeyboardInterrupt
        return BATCH(data, seed, index, size)

    monkeypatch.setattr(PictureData, "batch", batch)
    with pytest.raises(KeyboardInterrupt):
        train(make(), DATA, VALIDATION, out, options)
    monkeypatch.undo()


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> tuple[dict[str, Tensor], list[dict]]:
    out = tmp_path_factory.mktemp("uninterrupted")
    flow = fresh()
    train(flow, DATA, VALIDATION, out, OPTIONS)
    return weights(flow), metrics(out)


@pytest.mark.parametrize("steps", [(2,), (4,), (6,), (11,), (5, 7, 9)])
def test_resumed_training_gives_identical_weights(tmp_path, monkeypatch, uninterrupted, steps):
    for step in steps:
        interrupted(monkeypatch, tmp_path, OPTIONS, step)
    flow = fresh()
    train(flow, DATA, VALIDATION, tmp_path, OPTIONS)
    assert identical(weights(flow), uninterrupted[0])
    assert metrics(tmp_path) == uninterrupted[1]


TOLD = replace(OPTIONS, told=0.5, told_range=(0.02, 0.5), denoising=1.0, noised=0.25)


def fresh_told() -> ConditionalFlow:
    return ConditionalFlow(fresh())


def test_training_with_told_noise_learns_to_restore(tmp_path):
    flow = fresh_told()
    before = bits_per_dim(flow, VALIDATION), denoising(flow, VALIDATION, 50)
    train(flow, DATA, VALIDATION, tmp_path, replace(TOLD, steps=100, validate_every=50))
    last = metrics(tmp_path)[-1]
    assert last["validation_bits_per_dim"] < before[0] - 2
    assert last["validation_db_50"] > before[1] + 1
    assert last["validation_db_15"] > last["validation_db_25"] > last["validation_db_50"]


def test_training_with_told_noise_resumes_to_identical_weights(tmp_path, monkeypatch):
    whole, resumed = fresh_told(), fresh_told()
    train(whole, DATA, VALIDATION, tmp_path / "whole", TOLD)
    interrupted(monkeypatch, tmp_path / "resumed", TOLD, 6, fresh_told)
    train(resumed, DATA, VALIDATION, tmp_path / "resumed", TOLD)
    assert identical(weights(whole), weights(resumed))
    assert metrics(tmp_path / "whole") == metrics(tmp_path / "resumed")


def test_noise_is_not_told_to_a_flow_without_levels(tmp_path):
    with pytest.raises(InputError, match=r"told = 0\.5.*noise_levels"):
        train(fresh(), DATA, VALIDATION, tmp_path, TOLD)


def test_a_training_begun_before_an_option_existed_goes_on(tmp_path, monkeypatch, uninterrupted):
    interrupted(monkeypatch, tmp_path, OPTIONS, 6)
    tensors, metadata = load_tensors(tmp_path / CHECKPOINT_NAME)
    del metadata["options"]["told"]
    save_tensors(tmp_path / CHECKPOINT_NAME, tensors, metadata)
    flow = fresh()
    train(flow, DATA, VALIDATION, tmp_path, OPTIONS)
    assert identical(weights(flow), uninterrupted[0])


def test_the_told_share_of_a_batch(tmp_path):
    options = replace(TOLD, batch=400, told=0.25, told_range=(0.1, 0.4))
    batch, without = draw(DATA, 3, options), draw(DATA, 3, replace(options, told=0.0))
    assert len(batch.pictures) == 300 and len(batch.noisy) == len(batch.tau) == 100
    assert torch.equal(batch.pictures, without.pictures[:300])
    clean = batch.noisy - batch.tau.view(-1, 1, 1, 1) * batch.noise
    torch.testing.assert_close(clean, without.pictures[300:])
    assert abs(float(batch.noise.std()) - 1) < 0.1
    assert batch.tau.min() >= 0.1 and batch.tau.max() <= 0.4
    assert 0.17 < batch.tau.log().mean().exp() < 0.23, "log-uniform: the middle is 0.2"
    assert len(without.noisy) == 0


def test_adam_alone_resumes_as_well_and_is_another_training(tmp_path, monkeypatch, uninterrupted):
    options = replace(OPTIONS, optimizer="adam")
    whole, resumed = fresh(), fresh()
    train(whole, DATA, VALIDATION, tmp_path / "whole", options)
    interrupted(monkeypatch, tmp_path / "resumed", options, 7)
    train(resumed, DATA, VALIDATION, tmp_path / "resumed", options)
    assert identical(weights(whole), weights(resumed))
    assert not identical(weights(whole), uninterrupted[0])
    with pytest.raises(CheckpointError, match="optimizer"):
        train(fresh(), DATA, VALIDATION, tmp_path / "whole", OPTIONS)


@pytest.mark.parametrize("family", ["glow", "realnvp", "tarflow"])
def test_every_weight_has_one_optimizer_and_muon_has_the_networks(family):
    flow = build_flow({"family": family, "shape": (1, 8, 8), "levels": 1, "steps": 2, "hidden": 32})
    held = {
        name: {id(weight) for group in optimizer.param_groups for weight in group["params"]}
        for name, optimizer in training._optimizers(flow, OPTIONS).items()
    }
    assert held["adam"] | held["muon"] == {id(weight) for weight in flow.parameters()}
    assert not held["adam"] & held["muon"]
    networks = {id(w) for name, w in flow.named_parameters() if "network" in name and w.ndim > 1}
    assert networks <= held["muon"]
    triangles = {id(w) for name, w in flow.named_parameters() if name.endswith(("lower", "upper"))}
    assert triangles <= held["adam"]


def test_an_interruption_between_metrics_and_checkpoint_repeats_no_row(tmp_path, monkeypatch, uninterrupted):
    def save_once(*arguments):
        if (tmp_path / CHECKPOINT_NAME).exists():
            raise KeyboardInterrupt
        save(*arguments)

    save = checkpoint.save_tensors
    monkeypatch.setattr(checkpoint, "save_tensors", save_once)
    with pytest.raises(KeyboardInterrupt):
        train(fresh(), DATA, VALIDATION, tmp_path, OPTIONS)
    monkeypatch.undo()
    flow = fresh()
    train(flow, DATA, VALIDATION, tmp_path, OPTIONS)
    assert identical(weights(flow), uninterrupted[0])
    assert metrics(tmp_path) == uninterrupted[1]


def test_a_metrics_line_cut_short_does_not_stop_the_training(tmp_path, monkeypatch, uninterrupted):
    interrupted(monkeypatch, tmp_path, OPTIONS, 6)
    with open(tmp_path / METRICS_NAME, "a") as stream:
        stream.write('{"step": 8, "lo')
    train(fresh(), DATA, VALIDATION, tmp_path, OPTIONS)
    assert metrics(tmp_path) == uninterrupted[1]


def test_finished_training_is_not_repeated(tmp_path, monkeypatch, uninterrupted):
    bits = train(fresh(), DATA, VALIDATION, tmp_path, OPTIONS)
    monkeypatch.setattr(PictureData, "batch", None)
    flow = fresh()
    assert train(flow, DATA, VALIDATION, tmp_path, OPTIONS) == pytest.approx(bits)
    assert identical(weights(flow), uninterrupted[0])
    assert metrics(tmp_path) == uninterrupted[1]


def test_training_is_deterministic_and_depends_on_its_seed(tmp_path, uninterrupted):
    again, other = fresh(), fresh()
    torch.manual_seed(99)
    train(again, DATA, VALIDATION, tmp_path / "again", OPTIONS)
    train(other, DATA, VALIDATION, tmp_path / "other", replace(OPTIONS, seed=1))
    assert identical(weights(again), uninterrupted[0])
    assert not identical(weights(other), uninterrupted[0])


def test_the_checkpoint_of_another_flow_is_refused(tmp_path):
    train(fresh(), DATA, VALIDATION, tmp_path, OPTIONS)
    with pytest.raises(CheckpointError, match=CHECKPOINT_NAME):
        train(Glow((1, 4, 4), 1, 2, hidden=4), DATA, VALIDATION, tmp_path, replace(OPTIONS, steps=20))


def test_the_checkpoint_of_another_training_is_refused(tmp_path):
    """Going on with another seed or batch is neither the old training nor the new one."""
    train(fresh(), DATA, VALIDATION, tmp_path, OPTIONS)
    with pytest.raises(CheckpointError, match="batch"):
        train(fresh(), DATA, VALIDATION, tmp_path, replace(OPTIONS, batch=4))


OTHER_DATA = {
    "pictures": PictureData(ramps(201)[1:], crop=None, flips=False),
    "crop": replace(DATA, crop=4),
    "flips": replace(DATA, flips=True),
    "zoomed": replace(DATA, zoomed=0.5),
    "zoom_range": replace(DATA, zoom_range=(0.5, 1.0)),
}


@pytest.mark.parametrize("name", OTHER_DATA)
def test_a_training_does_not_go_on_with_other_pictures_or_crops(tmp_path, monkeypatch, name):
    interrupted(monkeypatch, tmp_path, OPTIONS, 6)
    before = (tmp_path / CHECKPOINT_NAME).read_bytes()
    with pytest.raises(CheckpointError, match=rf"with other {name};"):
        train(fresh(), OTHER_DATA[name], VALIDATION, tmp_path, OPTIONS)
    assert (tmp_path / CHECKPOINT_NAME).read_bytes() == before


def test_a_checkpoint_that_does_not_know_its_pictures_is_taken_and_then_knows_them(
    tmp_path, monkeypatch, uninterrupted
):
    """Checkpoints of earlier versions recorded none."""
    interrupted(monkeypatch, tmp_path, OPTIONS, 6)
    tensors, metadata = load_tensors(tmp_path / CHECKPOINT_NAME)
    del metadata["data"]
    save_tensors(tmp_path / CHECKPOINT_NAME, tensors, metadata)
    flow = fresh()
    train(flow, DATA, VALIDATION, tmp_path, OPTIONS)
    assert identical(weights(flow), uninterrupted[0])
    assert load_tensors(tmp_path / CHECKPOINT_NAME)[1]["data"]["pictures"] == DATA.identity["pictures"]


@pytest.mark.parametrize(
    "change",
    [
        {"step": None}, {"step": "4"}, {"step": -1}, {"step": 4.5}, {"options": None}, {"options": [1]},
        {"data": [1]}, {"data": None},
    ],
    ids=str,
)  # fmt: skip
def test_metadata_that_cannot_be_are_refused(tmp_path, monkeypatch, change):
    interrupted(monkeypatch, tmp_path, OPTIONS, 6)
    tensors, metadata = load_tensors(tmp_path / CHECKPOINT_NAME)
    save_tensors(tmp_path / CHECKPOINT_NAME, tensors, metadata | change)
    with pytest.raises(CheckpointError, match=CHECKPOINT_NAME):
        train(fresh(), DATA, VALIDATION, tmp_path, OPTIONS)


@pytest.mark.parametrize("name", ["adam.999.exp_avg", "adam.x.exp_avg", "adam.0", "muon.0.momentum"])
def test_states_of_no_weight_are_refused(tmp_path, monkeypatch, name):
    interrupted(monkeypatch, tmp_path, OPTIONS, 6)
    tensors, metadata = load_tensors(tmp_path / CHECKPOINT_NAME)
    save_tensors(tmp_path / CHECKPOINT_NAME, tensors | {name: torch.zeros(7)}, metadata)
    with pytest.raises(CheckpointError, match=f"state {name.partition(chr(46))[2]} that fits no weight"):
        train(fresh(), DATA, VALIDATION, tmp_path, OPTIONS)


def test_rows_that_are_no_rows_are_dropped(tmp_path, monkeypatch, uninterrupted):
    interrupted(monkeypatch, tmp_path, OPTIONS, 6)
    with open(tmp_path / METRICS_NAME, "ab") as stream:
        stream.write(b'[1]\n3\n{"step": "4"}\n{"step": 4}\n\xff\xfe\n' + b"[" * 100_000 + b"\n")
    train(fresh(), DATA, VALIDATION, tmp_path, OPTIONS)
    assert metrics(tmp_path) == uninterrupted[1]


def test_a_training_that_diverges_says_so_and_keeps_its_last_checkpoint(tmp_path, monkeypatch):
    interrupted(monkeypatch, tmp_path, OPTIONS, 6)
    before, rows = (tmp_path / CHECKPOINT_NAME).read_bytes(), metrics(tmp_path)
    ruined = training._step

    def step(flow, *arguments) -> None:
        ruined(flow, *arguments)
        next(flow.parameters()).data.fill_(torch.nan)

    monkeypatch.setattr(training, "_step", step)
    with pytest.raises(InputError, match=r"diverged before step 8 .*learning_rate below 0\.003"):
        train(fresh(), DATA, VALIDATION, tmp_path, OPTIONS)
    assert (tmp_path / CHECKPOINT_NAME).read_bytes() == before and metrics(tmp_path) == rows


def test_a_damaged_checkpoint_is_refused(tmp_path):
    (tmp_path / CHECKPOINT_NAME).write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match=CHECKPOINT_NAME):
        train(fresh(), DATA, VALIDATION, tmp_path, OPTIONS)


def test_the_checkpoint_tells_its_step_and_options(tmp_path):
    train(fresh(), DATA, VALIDATION, tmp_path, OPTIONS)
    _, metadata = load_tensors(tmp_path / CHECKPOINT_NAME)
    assert metadata["step"] == 12
    assert metadata["options"]["learning_rate"] == OPTIONS.learning_rate


def test_a_batch_of_nan_does_not_destroy_the_weights(tmp_path, monkeypatch):
    options = replace(OPTIONS, steps=60, validate_every=60)
    broken = {5, 6, 30}

    def batch(data: PictureData, step: int, options: TrainingOptions) -> Batch:
        return draw(data, step, options).each(lambda part: part * (torch.nan if step in broken else 1.0))

    monkeypatch.setattr(training, "draw", batch)
    flow = fresh()
    before = bits_per_dim(flow, VALIDATION)
    bits = train(flow, DATA, VALIDATION, tmp_path, options)
    assert all(torch.isfinite(tensor).all() for tensor in weights(flow).values())
    assert bits < before - 2


# Bits per dimension of densities known by hand.


class Uniform(nn.Module):
    """Density 1 on the unit cube."""

    def log_prob(self, x: Tensor) -> Tensor:
        return x.new_zeros(len(x))


def test_the_uniform_density_needs_all_eight_bits():
    assert bits_per_dim(Uniform(), VALIDATION) == 8.0


@pytest.mark.parametrize("level", [0, 128, 255])
def test_an_untrained_glow_is_a_normal_density_around_grey(level):
    """Rotations and identities only: p(x) = N(x − 1/2; 0, I), x uniform over one level of width 1/256."""
    pixels = torch.full((40, 1, 4, 4), level, dtype=torch.uint8)
    square = ((level + 0.5) / 256 - 0.5) ** 2 + 1 / (12 * 256**2)
    expected = (0.5 * square + 0.5 * math.log(2 * math.pi)) / math.log(2) + 8
    assert bits_per_dim(fresh(), pixels) == pytest.approx(expected, abs=2e-4)


def test_the_size_of_the_batches_does_not_matter_to_the_bits():
    torch.manual_seed(1)
    assert bits_per_dim(fresh(), VALIDATION, batch=7) == pytest.approx(
        bits_per_dim(fresh(), VALIDATION), abs=1e-3
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"batch": 0},
        {"warmup": 0},
        {"validate_every": 0},
        {"learning_rate": -1.0},
        {"clip": 0.0},
        {"average": 1.0},
        {"noised": 1.5},
        {"told": 0.9},
        {"told": -0.1},
        {"denoising": -1.0},
        {"told_range": (0.0, 0.5)},
        {"told_range": (0.5, 0.1)},
        {"told_range": (0.1, 2.0)},
        {"noise_range": (0.0, 1.0)},
        {"noise_range": (0.5, 0.1)},
        {"precision": "half"},
        {"optimizer": "sgd"},
        {"seed": -1},
        {"seed": 2**32},
        {"batch": 10**9},
        {"learning_rate": math.nan},
        {"learning_rate": math.inf},
        {"clip": math.nan},
        {"average": math.nan},
        {"noised": math.nan},
        {"told": math.nan},
        {"denoising": math.inf},
        {"noise_range": (0.1, math.inf)},
        {"noise_range": (math.nan, 1.0)},
    ],
    ids=str,
)
def test_wrong_options_are_named(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        TrainingOptions(**wrong)
