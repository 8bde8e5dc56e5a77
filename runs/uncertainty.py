"""How well the spread that aipo states matches the errors that it makes, on held-out faces.

    python runs/uncertainty.py HELD_OUT_TAR --out docs/results

The pictures are the first faces of the tar that was held out of training, 3 × 64 × 64, in three tasks.
"Chain" is mean ± k·std of `aipo.sample`. "Laplace" is the path's picture ± k·`laplace_std`. In both, k
belongs to the nominal probability of the interval. "Inside" is the share of true values in the interval (90 %
and 50 % nominal). "Std" is the root mean square of the stated deviations, and "error" is that of the true
deviations. The script goes on where it stopped.
"""

from pathlib import Path

import torch
from common import add_line, heading, held_out, load_faces, read
from faces import TASKS
from torch import Tensor

from aipo.likelihoods import measure
from aipo.posterior.chain import sample
from aipo.priors import load_prior
from aipo.reconstruction.reconstruct import reconstruct

COUNT = 5


def main() -> None:
    arguments = held_out(__doc__).parse_args()
    torch.set_num_threads(1)
    x = load_faces(arguments.tar, COUNT)
    file = arguments.out / "uncertainty.jsonl"
    done = {row["task"] for row in read(file)}
    for task in TASKS:
        if task not in done:
            add_line(judge(task, x), file)
    write(read(file), arguments.out / "uncertainty.md")


def judge(task: str, x: Tensor) -> dict:
    operator, sigma, _, _ = TASKS[task]
    likelihood, prior = measure(operator, x, sigma, torch.Generator().manual_seed(0)), load_prior("faces64")
    drawn, path = sample(likelihood, prior), reconstruct(likelihood, prior)
    return {
        "task": task,
        "chain": figures(drawn.mean, drawn.std, x),
        "Laplace": figures(path.image, path.laplace_std, x),
    }


def figures(centre: Tensor, std: Tensor, x: Tensor) -> dict:
    error = (centre - x).abs()
    inside = {k: float((error < width * std).float().mean()) for k, width in (("90", 1.6449), ("50", 0.6745))}
    return inside | {"std": float(std.square().mean().sqrt()), "error": float(error.square().mean().sqrt())}


def write(rows: list[dict], file: Path) -> None:
    lines = [*heading("Uncertainty", __doc__), f"{COUNT} faces.", ""]
    lines += ["| task | way | inside 90 % | inside 50 % | std | error |", "|---" * 6 + "|"]
    for row in rows:
        for way in ("chain", "Laplace"):
            own = row[way]
            cells = [row["task"], way, f"{100 * own['90']:.1f} %", f"{100 * own['50']:.1f} %"]
            lines.append("| " + " | ".join([*cells, f"{own['std']:.4f}", f"{own['error']:.4f}"]) + " |")
    file.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
