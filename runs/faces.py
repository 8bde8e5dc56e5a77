"""The prior for faces beside the one for photographs and BM3D, on faces that none was trained on.

    python runs/faces.py HELD_OUT_TAR --out docs/results

The first twelve faces of the tar that was held out of training, 3 × 64 × 64: denoising σ = 0.1, and a
hole of 19 × 19 in the centre with σ = 0.02. BM3D's strength comes from the truth; aipo does not see it.
"Start" is the closed form of each prior's surrogate.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from common import heading, mean, save

from aipo.baselines import bm3d
from aipo.data import load_pictures
from aipo.evaluation import centre_hole
from aipo.likelihoods import Gaussian, measure
from aipo.metrics import psnr
from aipo.operators import Identity, Mask
from aipo.priors import load_prior
from aipo.reconstruct import reconstruct

COUNT, SHAPE = 12, (3, 64, 64)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("tar")
    parser.add_argument("--out", default="docs/results")
    arguments = parser.parse_args()
    x = torch.from_numpy(np.stack(load_pictures(arguments.tar)[:COUNT])).float() / 255
    tasks = {"denoise": (Identity(SHAPE), 0.1), "inpaint": (Mask(centre_hole(SHAPE, 19)), 0.02)}
    rows = []
    for task, (operator, sigma) in tasks.items():
        likelihood = measure(operator, x, sigma, torch.Generator().manual_seed(1))
        rows.append({"task": task, **judge(likelihood, x, sigma)})
        print(
            {name: f"{mean(values):.2f}" for name, values in rows[-1].items() if name != "task"}, flush=True
        )
    file = Path(arguments.out) / "faces.json"
    save(rows, file)
    lines = [*heading("Faces", __doc__), "Mean PSNR in dB.", "", "| " + " | ".join(rows[0]) + " |"]
    lines += ["|---" * len(rows[0]) + "|"]
    for row in rows:
        cells = [row["task"], *(f"{mean(values):.2f}" for name, values in row.items() if name != "task")]
        lines.append("| " + " | ".join(cells) + " |")
    file.with_suffix(".md").write_text("\n".join(lines) + "\n")


def judge(likelihood: Gaussian, x: torch.Tensor, sigma: float) -> dict[str, list[float]]:
    found = {}
    for name in ("photos", "faces64"):
        restored = reconstruct(likelihood, load_prior(name))
        found[f"{name}, start"] = psnr(restored.start, x).tolist()
        found[name] = psnr(restored.image, x).tolist()
    each = zip(likelihood.y.split(1), x.split(1), strict=True)
    images = [bm3d(likelihood.operator, y, sigma, truth).image for y, truth in each]
    return found | {"BM3D": psnr(torch.cat(images), x).tolist()}


if __name__ == "__main__":
    main()
