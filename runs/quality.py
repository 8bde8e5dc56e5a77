"""Quality without the truth: the automatic weight against the best state of its own path, and fixed λ = 1.

    python runs/quality.py PHOTOS_FOLDER FASHION_IDX --out docs/results

The table uses six pictures per prior (32 × 32 centre crops of CBSD68; the first garments of Fashion-MNIST's
test set). The tasks are denoising at three noise levels, sensing with three numbers of measurements and two
noise levels, and two masks (a centre hole of a third of the side; every second entry lost at random;
σ = 0.02). "One λ" is the single state that the criterion chose, and "auto" mixes it with other states of its
path. "Oracle" is the state of the same path with the highest PSNR, picture by picture. "Fixed λ = 1"
minimises at λ = 1 alone, with aipo's solver and coordinates for the task and the mean number of evaluations
that aipo spent. The script writes one JSON line per cell to quality.jsonl, and an interrupted run goes on
from there.
"""

from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import common
import torch
from common import add_line, heading, image_shape, load, mean, read

from aipo.basics.arrays import Images
from aipo.basics.quality import psnr
from aipo.likelihoods import Gaussian, measure
from aipo.operators import GaussianSensing, Identity, LinearOperator, Mask, block_mask
from aipo.priors import FlowPrior, load_prior
from aipo.reconstruction.reconstruct import reconstruct
from aipo.selection.defaults import path_to_minima

COUNT = 6


def cells(shape: tuple[int, int, int]) -> dict[str, tuple[LinearOperator, float]]:
    n = prod(shape)
    generator = torch.Generator().manual_seed(0)
    half = torch.rand(1, *shape[1:], generator=generator) < 0.5
    found: dict[str, tuple[LinearOperator, float]] = {
        f"denoise σ={sigma}": (Identity(shape), sigma) for sigma in (0.05, 0.1, 0.2)
    }
    for share in (10, 4, 2):
        for sigma in (0.01, 0.05):
            operator = GaussianSensing(shape, n // share, seed=0)
            found[f"sense m=n/{share} σ={sigma}"] = (operator, sigma)
    found["inpaint centre"] = (block_mask(shape, shape[1] // 3), 0.02)
    found["inpaint half"] = (Mask(half, channels=shape[0]), 0.02)
    return found


def main() -> None:
    arguments, file = common.resumable(__doc__, "quality.jsonl")
    for name, pictures in load(arguments, COUNT).items():
        if arguments.prior in (None, name):
            judge(name, pictures, file)
    write(read(file), file.with_suffix(".md"))


def judge(name: str, x: Images, file: Path) -> None:
    prior = load_prior(name)
    done = {(row["prior"], row["cell"]) for row in read(file)}
    for cell, (operator, sigma) in cells(image_shape(x)).items():
        if (name, cell) in done:
            continue
        likelihood = measure(operator, x, sigma, torch.Generator().manual_seed(1))
        row: dict[str, Any] = {"prior": name, "cell": cell, **compare(likelihood, prior, x)}
        add_line(row, file)
        print(name, cell, {key: mean(row[key]) for key in ("auto", "oracle", "fixed")}, flush=True)


def compare(likelihood: Gaussian, prior: FlowPrior, x: Images) -> dict[str, Any]:
    found = reconstruct(likelihood, prior)
    oracle = torch.stack([psnr(state.x, x) for state in found.path]).max(0).values
    single = torch.stack([state.x for state in found.path])[found.chosen, torch.arange(len(x))]
    spent = int(found.evaluations.float().mean())
    usual = path_to_minima(likelihood.operator, prior)
    options = replace(usual, weights=(1.0,), evaluations=spent - 1, tolerance=0.0)
    fixed = reconstruct(likelihood, prior, 1.0, options)
    return {
        "auto": psnr(found.image, x).tolist(),
        "single": psnr(single, x).tolist(),
        "oracle": oracle.tolist(),
        "fixed": psnr(fixed.image, x).tolist(),
        "start": psnr(found.start, x).tolist(),
        "weight": found.weight.tolist(),
        "criterion": found.criterion,
        "evaluations": found.evaluations.tolist(),
    }


def write(rows: list[dict], file: Path) -> None:
    lines = [*heading("Quality without the truth", __doc__), "Mean PSNR in dB.", ""]
    lines += ["| prior | cell | start | one λ | auto | oracle | fixed λ = 1 | auto − oracle | auto − fixed |"]
    lines += ["|---" * 9 + "|"]
    for row in rows:
        keys = ("start", "single", "auto", "oracle", "fixed")
        start, single, auto, oracle, fixed = (mean(row[key]) for key in keys)
        figures = f"{start:.2f} | {single:.2f} | {auto:.2f} | {oracle:.2f} | {fixed:.2f}"
        gains = f"{auto - oracle:+.2f} | {auto - fixed:+.2f}"
        lines.append(f"| {row['prior']} | {row['cell']} | {figures} | {gains} |")
    close = sum(mean(row["auto"]) >= mean(row["oracle"]) - 0.1 for row in rows)
    better = sum(mean(row["auto"]) >= mean(row["fixed"]) for row in rows)
    lines += ["", f"Within 0.1 dB of the oracle (target: all): {close} of {len(rows)} cells. "]
    lines += [f"At least as good as fixed λ = 1 (target: all): {better} of {len(rows)} cells."]
    file.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
