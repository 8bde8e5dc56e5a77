"""The three tasks of the paper on one real photograph: what `aipo demo` runs."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path

import torch
from skimage import data
from skimage.transform import resize

from aipo.basics.arrays import Images
from aipo.cli.record import Record, restore
from aipo.cli.report import prepare_folder, write_pictures, write_summary
from aipo.likelihoods import measure
from aipo.operators import GaussianSensing, Identity, LinearOperator, block_mask
from aipo.priors import load_prior


@dataclass(frozen=True)
class Task:
    """One measurement of a picture: how it is measured, and with how much noise."""

    name: str
    shape: tuple[int, int, int]
    sigma: float
    operator: Callable[[tuple[int, int, int]], LinearOperator]


def photograph(side: int) -> Images:
    """Eileen Collins (NASA, public domain, from scikit-image), (1, 3, side, side) in [0, 1]."""
    crop = data.astronaut()[0:256, 96:352] / 255.0
    small = resize(crop, (side, side), anti_aliasing=True)
    return torch.from_numpy(small).permute(2, 0, 1)[None].float().clamp(0, 1)


LARGE, SMALL = (3, 128, 128), (3, 64, 64)  # sensing takes the smaller picture: its matrix is dense

TASKS = (
    Task("denoise", LARGE, 0.1, Identity),
    Task("sense", SMALL, 0.01, lambda shape: GaussianSensing(shape, prod(shape) // 4, seed=0)),
    Task("inpaint", LARGE, 0.02, lambda shape: block_mask(shape, 32)),
)


def run(out: str | Path, prior: str, bar: Callable[[str, int, int], None]) -> list[Record]:
    """Measure, restore, and write summary, pictures and path plots to `out`."""
    folder = prepare_folder(out)
    flow_prior = load_prior(prior)
    records: list[Record] = []
    for index, task in enumerate(TASKS):
        truth = photograph(task.shape[1])
        likelihood = measure(
            task.operator(task.shape), truth, task.sigma, torch.Generator().manual_seed(index)
        )
        record, result = restore(
            task.name, "astronaut", likelihood, flow_prior, truth=truth, progress=partial(bar, task.name)
        )
        records.append(record)
        write_pictures(folder, task.name, likelihood, result, truth)
        write_summary(folder, records)
    return records
