"""What networks in bfloat16 gain and what they cost, beside float32.

    python runs/precision.py PHOTOS_FOLDER FASHION_IDX FACES_TAR --out docs/results

The table uses six pictures per prior (the first held-out faces; 32 × 32 centre crops of CBSD68; the first
garments of Fashion-MNIST's test set) and the three tasks of cost.py. The same measurements are restored in
both precisions, one after the other on one thread. "Path" is `aipo.reconstruct` with all defaults, and "mean"
is the posterior mean of `aipo.sample`. PSNR is in dB. ± is the standard error of the mean difference over
pictures. "Inside" is the share of true values in the 90 % interval. "Gradient" is ∂R/∂x of the six pictures
with noise of 0.1, taken in turn, the fastest of fifteen, with its relative error. "Energy off" is in nats per
picture. The gain depends on the processor, which must know bfloat16 (AVX-512 BF16, AMX, or a GPU); on other
processors bfloat16 is slower. The script goes on where it stopped.
"""

import time
from pathlib import Path

import common
import torch
from common import (
    add_line,
    ahead,
    heading,
    image_shape,
    load,
    load_faces,
    mean,
    of_mean,
    of_path,
    read,
    settings,
)
from torch import Tensor

from aipo.likelihoods import Gaussian, measure
from aipo.posterior.chain import sample
from aipo.priors import FlowPrior, load_prior
from aipo.reconstruction.reconstruct import reconstruct

COUNT, ROUNDS = 6, 15
PRECISIONS = ("float32", "bfloat16")
Priors = dict[str, FlowPrior]


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("faces")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    file = Path(arguments.out) / "precision.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    done = {(row["prior"], row["task"], row.get("way")) for row in read(file)}
    for name, x in {"faces64": load_faces(arguments.faces, COUNT), **load(arguments, COUNT)}.items():
        priors = {precision: load_prior(name, precision) for precision in PRECISIONS}
        if (name, "gradient", None) not in done:
            add_line({"prior": name, "task": "gradient", **gradient(priors, x)}, file)
        for task, (operator, sigma) in settings(image_shape(x)).items():
            likelihood = measure(operator, x, sigma, torch.Generator().manual_seed(0))
            for way in ("path", "mean"):
                if (name, task, way) not in done:
                    row = {"prior": name, "task": task, "way": way}
                    add_line({**row, **restored(likelihood, priors, way, x)}, file)
    write(read(file), file.with_suffix(".md"))


def gradient(priors: Priors, x: Tensor) -> dict:
    noisy = x + 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    seconds: dict[str, list[float]] = {precision: [] for precision in PRECISIONS}
    energies, gradients = {}, {}
    for _ in range(ROUNDS):
        for precision, prior in priors.items():
            moving = noisy.clone().requires_grad_()
            started = time.perf_counter()
            energy = prior.energy(moving)
            gradients[precision] = torch.autograd.grad(energy.sum(), moving)[0].flatten(1)
            seconds[precision].append(time.perf_counter() - started)
            energies[precision] = energy.detach()
    exact, rounded = (gradients[precision] for precision in PRECISIONS)
    return {
        "seconds": {precision: min(values) for precision, values in seconds.items()},
        "error": ((rounded - exact).norm(dim=1) / exact.norm(dim=1)).tolist(),
        "energy off": (energies["bfloat16"] - energies["float32"]).tolist(),
    }


def restored(likelihood: Gaussian, priors: Priors, way: str, x: Tensor) -> dict:
    found = {}
    for precision, prior in priors.items():
        started = time.perf_counter()
        if way == "path":
            figures = of_path(reconstruct(likelihood, prior), x)
        else:
            figures = of_mean(sample(likelihood, prior), x)
        found[precision] = {"seconds": time.perf_counter() - started, **figures}
    return found


def write(rows: list[dict], file: Path) -> None:
    lines = [*heading("Networks in bfloat16", __doc__)]
    lines += ["| prior | gradient, ms | in bfloat16 | faster | error | energy off |", "|---" * 6 + "|"]
    lines += [_gradient_line(row) for row in rows if row["task"] == "gradient"]
    lines += ["", "| prior | task | way | float32 | bfloat16 | difference | faster | inside | in bfloat16 |"]
    lines += ["|---" * 9 + "|"]
    lines += [_restored_line(row) for row in rows if row["task"] != "gradient"]
    file.write_text("\n".join(lines) + "\n")


def _gradient_line(row: dict) -> str:
    exact, rounded = (row["seconds"][precision] for precision in PRECISIONS)
    off = [abs(value) for value in row["energy off"]]
    cells = [row["prior"], f"{1000 * exact:.0f}", f"{1000 * rounded:.0f}", f"{exact / rounded:.2f}"]
    return "| " + " | ".join([*cells, f"{100 * mean(row['error']):.1f} %", f"{mean(off):.2f}"]) + " |"


def _restored_line(row: dict) -> str:
    exact, rounded = (row[precision] for precision in PRECISIONS)
    cells = [
        row["prior"],
        row["task"],
        row["way"],
        f"{mean(exact['psnr']):.2f}",
        f"{mean(rounded['psnr']):.2f}",
    ]
    cells += [ahead(rounded["psnr"], exact["psnr"])]
    cells += [f"{exact['seconds'] / rounded['seconds']:.2f}"]
    cells += [f"{100 * mean(of['inside']):.1f} %" if "inside" in of else "" for of in (exact, rounded)]
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
