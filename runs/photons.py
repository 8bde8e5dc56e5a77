"""Which criterion chooses λ under photon noise: PURE or the discrepancy principle, on tuning pictures.

    python runs/photons.py HELD_OUT_TAR --out docs/results

The pictures are faces 500 to 502 of the tar that was held out of training, 3 × 64 × 64. No other table judges
them. All pixels or a random half of them are measured, with counts of 10 and 50 photons per white pixel, and
with counts and read-out noise. "PURE" and "discrepancy" are the one state that each criterion chooses. PURE
follows two copies of a path (`weight="sure"`), and the discrepancy principle follows one path with twice the
evaluations. "Best" is the best state of the latter path by the truth. `auto` mixes states around that of the
discrepancy principle. The table gives the mean PSNR in dB. The script goes on where it stopped.
"""

from pathlib import Path

import torch
from common import add_line, heading, held_out, load_faces, mean, read
from tasks import SHAPE, Task, measured
from torch import Tensor

from aipo.basics.quality import psnr
from aipo.likelihoods import Poisson, PoissonGaussian
from aipo.operators import Identity, random_mask
from aipo.priors import load_prior
from aipo.reconstruction.reconstruct import reconstruct

FIRST, COUNT = 500, 3
OPERATORS = {"all pixels": Identity(SHAPE), "half of the pixels": random_mask(SHAPE, share=0.5, seed=0)}
NOISE = {
    "10 photons": lambda a, y: Poisson(a, y, 10.0),
    "50 photons": lambda a, y: Poisson(a, y, 50.0),
    "100 photons and σ = 0.05": lambda a, y: PoissonGaussian(a, y, 100.0, 0.05),
}
TASKS = {
    f"{kind}, {name}": Task(operator, make)
    for name, operator in OPERATORS.items()
    for kind, make in NOISE.items()
}


def main() -> None:
    arguments = held_out(__doc__).parse_args()
    torch.set_num_threads(1)
    x = load_faces(arguments.tar, COUNT, FIRST)
    file = arguments.out / "photons.jsonl"
    done = {row["task"] for row in read(file)}
    for name, task in TASKS.items():
        if name not in done:
            add_line({"task": name, **judge(task, x)}, file)
    write(read(file), arguments.out / "photons.md")


def judge(task: Task, x: Tensor) -> dict:
    """PSNR of each face, and the evaluations of both criteria."""
    likelihood, prior = measured(task, x), load_prior("faces64")
    pure, auto = reconstruct(likelihood, prior, "sure"), reconstruct(likelihood, prior)
    states = torch.stack([psnr(state.x, x) for state in auto.path])
    return {
        "PURE": psnr(pure.image, x).tolist(),
        "discrepancy": states[auto.chosen, torch.arange(len(x))].tolist(),
        "best": states.max(0).values.tolist(),
        "auto": psnr(auto.image, x).tolist(),
        "spent": [mean(pure.evaluations.tolist()), mean(auto.evaluations.tolist())],
    }


def write(rows: list[dict], file: Path) -> None:
    columns = ("PURE", "discrepancy", "best", "auto")
    lines = heading("Photons", __doc__)
    lines += [f"| task | {' | '.join(columns)} | evaluations: PURE | auto |", "|---" * 7 + "|"]
    for row in rows:
        figures = [f"{mean(row[name]):.2f}" for name in columns] + [f"{spent:.0f}" for spent in row["spent"]]
        lines.append(f"| {row['task']} | " + " | ".join(figures) + " |")
    file.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
