"""Three families of flows and two optimisers, trained equally long on the same faces, and what each is worth.

    python runs/families.py FACES_FOLDER --out docs/results

Every family trains for the same time (--minutes of one thread each). The time of a step of each family is
measured in turn, and each family makes as many steps as fit. Widths and depths are those of `aipo train` for
faces64. "Glow, Adam" is trained without Muon, at three times the usual learning rate, which suits it better
than the usual one. The last tar is held out. Bits per dimension are measured on 160 of its pictures. Its
first six faces are used for denoising with σ = 0.1, sensing of m = 2500 with σ = 0.01 and a hole of 19 × 19
with σ = 0.02, each with the automatic weight. "Gradient" is ∂(−log p)/∂x of the frozen flow at 3 × 64 × 64,
batch 4, the median of 15, taken in turn. Trained priors are kept in --work, in one folder each. --family
trains one family and stops, so that families can train side by side on as many cores. If the judging was
interrupted, it goes on with the next family.
"""

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import torch
from common import add_line, heading, load_faces, mean, read

from aipo.basics.quality import psnr
from aipo.flows import Flow
from aipo.flows.training.data import PictureData, load_pictures
from aipo.flows.training.loop import TrainingOptions, curve, train
from aipo.likelihoods import measure
from aipo.operators import GaussianSensing, Identity, block_mask
from aipo.priors import FlowPrior, build_flow, load_prior
from aipo.priors.fit import FlowOptions, Origin, fit_prior
from aipo.reconstruction.reconstruct import reconstruct

SHAPE, HELD_OUT, COUNT = (3, 64, 64), 1006, 6
GLOW = FlowOptions("glow", levels=4, steps=8, hidden=96)
MUON = TrainingOptions(batch=16, precision="bfloat16", validate_every=500)
ADAM = replace(MUON, optimizer="adam", learning_rate=3e-3)
FAMILIES = {
    "realnvp": (FlowOptions("realnvp", levels=4, steps=4, hidden=96), MUON),
    "glow": (GLOW, MUON),
    "glow, Adam": (GLOW, ADAM),
    "tarflow": (FlowOptions("tarflow", levels=2, steps=6, hidden=128), MUON),
}
TIMED, ROUNDS = 8, 5


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("faces")
    parser.add_argument("--out", default="docs/results")
    parser.add_argument("--images", type=Path, default=Path("docs/images"))
    parser.add_argument("--work", type=Path, default=Path("out/families"), help="where priors are trained")
    parser.add_argument("--minutes", type=float, default=24.0)
    parser.add_argument("--family", choices=list(FAMILIES), default=None, help="train only this one")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    training, validation = faces(arguments.faces)
    plan = planned(arguments, training)
    for name in FAMILIES if arguments.family is None else [arguments.family]:
        folder = arguments.work / name
        if not (folder / "config.json").exists():
            origin = Origin(name, "CelebA, aligned face crops", "research use only", "runs/families.py")
            flow, options = FAMILIES[name]
            fit_prior(training, validation, folder, flow, replace(options, steps=plan["steps"][name]), origin)
    if arguments.family is None:
        compare(arguments, plan["minutes"])


def faces(folder: str) -> tuple[PictureData, PictureData]:
    """Pictures to train on, and those held out."""
    pictures = load_pictures(folder)
    return PictureData(pictures[:-HELD_OUT], None, True), PictureData(pictures[-HELD_OUT:], None, False)


def planned(arguments: argparse.Namespace, training: PictureData) -> dict:
    """How many steps each family takes in the given minutes; measured once, and kept."""
    file = arguments.work / "plan.json"
    if not file.exists():
        trials = {
            name: (build_flow({"shape": SHAPE, **asdict(flow)}), options)
            for name, (flow, options) in FAMILIES.items()
        }
        seconds = step_seconds(trials, training)
        steps = {name: round(60 * arguments.minutes / value) for name, value in seconds.items()}
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"minutes": arguments.minutes, "seconds": seconds, "steps": steps}))
    return json.loads(file.read_text())


def step_seconds(trials: dict[str, tuple[Flow, TrainingOptions]], training: PictureData) -> dict[str, float]:
    """Seconds of one training step, the median of ROUNDS rounds, the flows in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in trials}
    for _ in range(ROUNDS):
        for name, (flow, options) in trials.items():
            with tempfile.TemporaryDirectory() as folder:
                started = time.perf_counter()
                train(flow, training, training.batch(0, 0, 1), Path(folder), replace(options, steps=TIMED))
                seconds[name].append((time.perf_counter() - started) / TIMED)
    return {name: statistics.median(values) for name, values in seconds.items()}


def compare(arguments: argparse.Namespace, minutes: float) -> None:
    priors = {name: load_prior(arguments.work / name) for name in FAMILIES}
    tar = sorted(Path(arguments.faces).glob("*.tar"))[-1]
    x = load_faces(tar, COUNT)
    file = Path(arguments.out) / "families.jsonl"
    if not file.exists():
        add_line({"gradient, ms": gradients(priors, x[:4])}, file)
    first, *rows = read(file)
    done = {row["family"] for row in rows}
    for name, prior in priors.items():
        if name not in done:
            row = {
                "family": name,
                "weights": prior.card["parameters"],
                "steps": prior.card["training"]["steps"],
                "bits/dim": prior.card["validation_bits_per_dim"],
                "gradient, ms": first["gradient, ms"][name],
                **judge(prior, x),
            }
            print(row, flush=True)
            add_line(row | {"curve": curve(arguments.work / name / "training")}, file)
    rows = read(file)[1:]
    curves = {row["family"]: row.pop("curve") for row in rows}
    write(rows, minutes, file.with_suffix(".md"))
    draw(curves, minutes, arguments.images / "families.png")


def gradients(priors: dict[str, FlowPrior], x: torch.Tensor) -> dict[str, float]:
    """Median milliseconds of a gradient, the families in turn."""
    times: dict[str, list[float]] = {name: [] for name in priors}
    for _ in range(18):
        for name, prior in priors.items():
            started = time.perf_counter()
            moving = x.clone().requires_grad_()
            torch.autograd.grad(prior.energy(moving).sum(), moving)
            times[name].append(1000 * (time.perf_counter() - started))
    return {name: statistics.median(values[3:]) for name, values in times.items()}


def judge(prior: FlowPrior, x: torch.Tensor) -> dict[str, list[float]]:
    tasks = {
        "denoise": (Identity(SHAPE), 0.1),
        "sense": (GaussianSensing(SHAPE, 2500, seed=0), 0.01),
        "inpaint": (block_mask(SHAPE, 19), 0.02),
    }
    found = {}
    for task, (operator, sigma) in tasks.items():
        restored = reconstruct(measure(operator, x, sigma, torch.Generator().manual_seed(1)), prior)
        found[task] = psnr(restored.image, x).tolist()
        found[f"{task}, start"] = psnr(restored.start, x).tolist()
    return found


def draw(curves: dict[str, list[tuple[int, float]]], minutes: float, file: Path) -> None:
    """Held-out bits per dimension against training time."""
    matplotlib.use("agg")
    figure, axes = plt.subplots(figsize=(5, 3))
    for name, points in curves.items():
        steps, bits = zip(*points, strict=True)
        axes.plot([minutes * step / steps[-1] for step in steps], bits, marker=".", label=name)
    axes.set(xlabel="minutes of one core", ylabel="held-out bits per dimension")
    axes.legend()
    figure.savefig(file, dpi=90, bbox_inches="tight")


def write(rows: list[dict], minutes: float, file: Path) -> None:
    lines = [*heading("Families of flows", __doc__), f"{minutes:g} minutes each; mean PSNR in dB.", ""]
    lines += ["| " + " | ".join(rows[0]) + " |", "|---" * len(rows[0]) + "|"]
    for row in rows:
        cells = [f"{mean(value):.2f}" if isinstance(value, list) else _cell(value) for value in row.values()]
        lines.append("| " + " | ".join(cells) + " |")
    file.write_text("\n".join(lines) + "\n")


def _cell(value: str | float) -> str:
    if isinstance(value, float):
        return f"{value:.3f}" if value < 10 else f"{value:.0f}"
    return f"{value:,}" if isinstance(value, int) else value


if __name__ == "__main__":
    main()
