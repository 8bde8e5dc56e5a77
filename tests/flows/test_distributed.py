"""Training by several processes: torchrun with gloo, as on a machine with several GPUs."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from aipo.flows.training.distributed import average_gradients, leads, share
from aipo.flows.training.loop import CHECKPOINT_NAME, METRICS_NAME
from aipo.io.tensors import load_tensors
from aipo.priors import load_prior

TRAIN = ["-m", "aipo.cli", "train"]
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(24):
        slope = np.linspace(0, rng.uniform(50, 255), 8)
        picture = (slope[:, None] + rng.normal(0, 5, (8, 8))).clip(0, 255).astype(np.uint8)
        Image.fromarray(picture).save(folder / f"{i:02d}.png")
    return folder


def run(
    pictures: Path, out: Path, processes: int, steps: int, batch: int = 8, more: tuple[str, ...] = ()
) -> subprocess.CompletedProcess:
    launch = [] if processes == 1 else [*TORCHRUN, str(processes)]
    options = ["--holdout", "8", "--flow.levels", "1", "--flow.steps", "1", "--flow.hidden", "4"]
    options += ["--training.batch", str(batch), "--training.steps", str(steps)]
    command = [sys.executable, *launch, *TRAIN, str(pictures), "--out", str(out), *options]
    command += ["--training.validate_every", "1", "--training.warmup", "1"]
    return subprocess.run([*command, *more], capture_output=True, text=True, timeout=300)


def gradients(out: Path) -> dict[str, torch.Tensor]:
    """Adam's first moments: after one step a tenth of the gradients."""
    tensors = load_tensors(out / "training" / CHECKPOINT_NAME)[0]
    return {name: tensor for name, tensor in tensors.items() if name.endswith("exp_avg")}


def test_two_processes_have_the_gradients_of_one_and_resume(pictures, tmp_path):
    alone, together = tmp_path / "alone", tmp_path / "together"
    assert run(pictures, alone, 1, 1).returncode == 0
    found = run(pictures, together, 2, 1)
    assert found.returncode == 0, found.stderr
    assert found.stdout.count("bits per dimension") == 1  # one of them reports
    one, two = gradients(alone), gradients(together)
    assert one.keys() == two.keys() and len(one) > 5
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-3, atol=1e-6)
    assert run(pictures, together, 2, 3).returncode == 0  # goes on from the checkpoint
    steps = [json.loads(line)["step"] for line in (together / "training" / METRICS_NAME).open()]
    initial = ("--initial", str(together), "--training.learning_rate", "0")
    found = run(pictures, tmp_path / "further", 2, 1, more=initial)  # all of them go on from the same weights
    assert found.returncode == 0, found.stderr
    further, source = (load_prior(out).flow.trained for out in (tmp_path / "further", together))
    for name, tensor in source.state_dict().items():
        assert torch.equal(further.state_dict()[name], tensor), name
    assert steps == [1, 2, 3] and (together / "model.safetensors").exists()


def test_two_processes_share_the_pictures_whose_noise_is_told(pictures, tmp_path):
    told = ("--flow.noise_levels", "true", "--training.told", "0.5", "--training.denoising", "1")
    for processes in (1, 2):
        found = run(pictures, tmp_path / str(processes), processes, 1, more=told)
        assert found.returncode == 0, found.stderr
    one, two = gradients(tmp_path / "1"), gradients(tmp_path / "2")
    assert one.keys() == two.keys() and len(one) > 5
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-3, atol=1e-6)


def test_a_batch_that_cannot_be_shared_is_refused(pictures, tmp_path):
    found = run(pictures, tmp_path / "odd", 2, 2, batch=7)
    assert found.returncode != 0 and "a batch of 7 for 2 processes; use a multiple of 2" in found.stderr


def test_one_process_has_everything_to_itself():
    x, flow = torch.rand(5, 1, 4, 4), torch.nn.Linear(2, 2)
    flow(torch.ones(1, 2)).sum().backward()
    assert flow.weight.grad is not None
    before = flow.weight.grad.clone()
    average_gradients(flow)
    assert leads() and share(x) is x and torch.equal(flow.weight.grad, before)
