"""The prior for faces beside classical methods, on a hundred faces that it was not trained on.

    python runs/faces.py HELD_OUT_TAR --out docs/results

The pictures are the first hundred faces of the tar that was held out of training, 3 × 64 × 64. There are
three tasks: denoising at σ = 0.1 beside BM3D, sensing of m = 2500 with σ = 0.01 beside LASSO in a wavelet
basis, and a hole of 19 × 19 in the centre with σ = 0.02 beside biharmonic filling followed by TV. The weights
of the other methods come from the truth, for each face; aipo does not see the truth. "Start" is the closed
form of the prior's surrogate. "Path" is what `aipo.reconstruct` restores with all defaults. "Mean" is the
posterior mean of `aipo.sample`. ± is the standard error of the mean difference over faces. "Inside" is the
share of true values that lie in the 90 % interval of the samples. The script goes on where it stopped; --task
runs one task alone.
"""

from collections.abc import Callable
from itertools import product
from pathlib import Path

import torch
from common import add_line, ahead, heading, held_out, load_faces, mean, of_mean, of_path, read
from rivals import Baseline, biharmonic, bm3d, lasso_wavelet
from torch import Tensor

from aipo.basics.quality import psnr
from aipo.likelihoods import measure
from aipo.operators import GaussianSensing, Identity, LinearOperator, Mask, block_mask
from aipo.posterior.chain import sample
from aipo.priors import load_prior
from aipo.reconstruction.reconstruct import reconstruct

COUNT, CHUNK, SHAPE = 100, 10, (3, 64, 64)
WAYS = ("other", "path", "mean")
Competitor = Callable[[LinearOperator, Tensor, float, Tensor], Baseline]


def _filled(operator: LinearOperator, y: Tensor, sigma: float, truth: Tensor) -> Baseline:
    assert isinstance(operator, Mask)
    return biharmonic(operator, y, truth)


TASKS: dict[str, tuple[LinearOperator, float, str, Competitor]] = {
    "denoise": (Identity(SHAPE), 0.1, "BM3D", bm3d),
    "sense": (GaussianSensing(SHAPE, 2500, seed=0), 0.01, "LASSO-wavelet", lasso_wavelet),
    "inpaint": (block_mask(SHAPE, 19), 0.02, "biharmonic, TV", _filled),
}


def main() -> None:
    parser = held_out(__doc__)
    parser.add_argument("--task", choices=list(TASKS), default=None, help="only this one")
    parser.add_argument("--prior", default="faces64", help="bundled name, or folder")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    x = load_faces(arguments.tar, COUNT)
    for task in TASKS if arguments.task is None else [arguments.task]:
        file = arguments.out / f"faces-{task}.jsonl"
        done = {(row["way"], row["first"]) for row in read(file)}
        for way, first in product(WAYS, range(0, COUNT, CHUNK)):
            if (way, first) not in done:
                add_line(judge(task, way, first, x[first : first + CHUNK], arguments.prior), file)
    if arguments.task is None:
        write(arguments.out)


def judge(task: str, way: str, first: int, x: Tensor, prior: str) -> dict:
    """PSNR of each face of a chunk; every way restores the same measurements."""
    operator, sigma, _, competitor = TASKS[task]
    likelihood = measure(operator, x, sigma, torch.Generator().manual_seed(first))
    row = {"way": way, "first": first}
    if way == "other":
        each = zip(likelihood.y.split(1), x.split(1), strict=True)
        images = torch.cat([competitor(operator, y, sigma, truth).image for y, truth in each])
        return {**row, "psnr": psnr(images, x).tolist()}
    if way == "path":
        return {**row, **of_path(reconstruct(likelihood, load_prior(prior)), x)}
    return {**row, **of_mean(sample(likelihood, load_prior(prior)), x)}


def write(out: Path) -> None:
    lines = [*heading("Faces", __doc__), "Mean PSNR in dB.", ""]
    lines += ["| task | faces | other method | | start | way | faces64 | ahead by | evaluations | inside |"]
    lines += ["|---" * 10 + "|"]
    for task, (_, _, name, _) in TASKS.items():
        rows = read(out / f"faces-{task}.jsonl")
        lines += [_line(rows, task, name, way) for way in WAYS[1:] if any(row["way"] == way for row in rows)]
    (out / "faces.md").write_text("\n".join(lines) + "\n")


def _line(rows: list[dict], task: str, name: str, way: str) -> str:
    measured = sorted(row["first"] for row in rows if row["way"] == way)
    by_way = {(row["way"], row["first"]): row for row in rows}

    def column(of: str, key: str) -> list[float]:
        return [value for first in measured for value in by_way[of, first].get(key, [])]

    found, other = column(way, "psnr"), column("other", "psnr")
    share = column(way, "inside")
    cells = [task, str(len(found)), name, f"{mean(other):.2f}", f"{mean(column('path', 'start')):.2f}", way]
    cells += [f"{mean(found):.2f}", ahead(found, other)]
    cells += [f"{mean(column(way, 'evaluations')):.0f}", f"{100 * mean(share):.1f} %" if share else ""]
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
