"""The three tasks of the paper on one real photograph: what `aipo demo` runs."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from skimage import data
from skimage.transform import resize

from aipo.arrays import Images
from aipo.evaluation import Record, centre_hole, restore
from aipo.likelihoods import measure
from aipo.operators import GaussianSensing, Identity, LinearOperator, Mask
from aipo.path import State
from aipo.priors import load_prior
from aipo.report import prepare_folder, write_pictures, write_summary


@dataclass(frozen=True)
class Task:
    """One measurement of a picture: how, and with how much noise."""

    name: str
    truth: Images
    operator: LinearOperator
    sigma: float


def photograph(side: int) -> Images:
    """Eileen Collins (NASA, public domain, from scikit-image), (1, 3, side, side) in [0, 1]."""
    crop = data.astronaut()[0:256, 96:352] / 255.0
    small = resize(crop, (side, side), anti_aliasing=True)
    return torch.from_numpy(small).permute(2, 0, 1)[None].float().clamp(0, 1)


def tasks() -> list[Task]:
    """Denoising, compressed sensing (a smaller picture: its matrix is dense) and inpainting."""
    large, small = photograph(128), photograph(64)
    shape, count = (3, 128, 128), small[0].numel() // 4
    return [
        Task("denoise", large, Identity(shape), 0.1),
        Task("sense", small, GaussianSensing((3, 64, 64), count, seed=0), 0.01),
        Task("inpaint", large, Mask(centre_hole(shape, 32)), 0.02),
    ]


def run(out: str | Path, prior: str, watch: Callable[[Task, State], None]) -> list[Record]:
    """Measure, restore, and write summary, pictures and path plots to `out`."""
    folder = prepare_folder(out)
    flow_prior = load_prior(prior)
    records = []
    for index, task in enumerate(tasks()):
        generator = torch.Generator().manual_seed(index)
        likelihood = measure(task.operator, task.truth, task.sigma, generator)

        def progress(state: State, task: Task = task) -> None:
            watch(task, state)

        record, result = restore(
            task.name, "astronaut", likelihood, flow_prior, truth=task.truth, watch=progress
        )
        records.append(record)
        write_pictures(folder, task.name, likelihood, result, task.truth)
        write_summary(folder, records)
    return records
