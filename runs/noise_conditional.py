"""Does a flow that knows the noise of its pictures pay? One network for p(x; τ), beside a plain Glow.

    python runs/noise_conditional.py FACES_FOLDER PLAIN_PRIOR --out docs/results

PLAIN_PRIOR is the folder of the Glow of runs/families.py, with the same architecture, training time, pictures
and batch. The other one is an `aipo.flows.ConditionalFlow`. Half of each of its batches has τ = 0⁺, and the
other half has noise with τ log-uniform in .002 to 1; it is trained by likelihood alone. Three uses are tested
on the first six faces of the held-out tar (dB). The first is the prior itself with `auto` (τ = 0⁺; denoising
σ = 0.1, sensing m = 2500 σ = 0.01, a hole of 19 × 19). The second is the posterior mean in one evaluation, y
+ σ²∇log p_σ(y). The third is the smoothing path at λ = 1 on two hard cases (m = 614, σ = 0.01; a hole of 40 ×
40, σ = 0.02), beside λ = 1 without it and `auto`. "Energy" is −log p per dimension at τ = 0⁺ of the faces
with added noise of .05, .1, .3 and 1. An interrupted run goes on with the flow at which it stopped.
"""

import argparse
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import torch
from common import add_line, heading, load_faces, mean, read
from families import GLOW, MUON, SHAPE, faces, step_seconds
from torch import Tensor

from aipo.basics.quality import psnr
from aipo.flows import ConditionalFlow, Flow, Glow
from aipo.flows.training.loop import train
from aipo.io.tensors import load_state, load_tensors, save_tensors
from aipo.likelihoods import Gaussian, measure
from aipo.operators import GaussianSensing, Identity, LinearOperator, block_mask
from aipo.path.schedules import smoothing
from aipo.priors import FlowPrior, load_prior
from aipo.reconstruction.reconstruct import reconstruct
from aipo.selection.defaults import path_to_minima

COUNT = 6
RANGE = (0.002, 1.0)
NOISES = (0.05, 0.1, 0.3, 1.0)
PLAIN, CONDITIONAL = "plain, a quarter of each batch noised", "noise-conditional"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("faces")
    parser.add_argument("plain", help="folder of the plain Glow")
    parser.add_argument("--out", default="docs/results")
    parser.add_argument("--work", type=Path, default=Path("out/noise_conditional"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    plain = load_prior(arguments.plain)
    flow, steps, bits = trained(arguments)
    conditional = FlowPrior(flow, plain.surrogate, {})
    tar = sorted(Path(arguments.faces).glob("*.tar"))[-1]
    x = load_faces(tar, COUNT)
    file = Path(arguments.out) / "noise_conditional.jsonl"
    done = {row["flow"] for row in read(file)}
    if PLAIN not in done:
        card = plain.card
        known = {"training steps": card["training"]["steps"], "bits/dim": card["validation_bits_per_dim"]}
        add_line({"flow": PLAIN, **known, **judge(plain, x)}, file)
    if CONDITIONAL not in done:
        known = {"training steps": steps, "bits/dim": bits}
        figures = judge(conditional, x) | one_step(conditional, x) | smoothed(conditional, x)
        add_line({"flow": CONDITIONAL, **known, **figures}, file)
    write(read(file), file.with_suffix(".md"))


def trained(arguments: argparse.Namespace) -> tuple[Flow, int, float]:
    """The flow after as long a training as the plain Glow's, its steps, and bits/dim at τ = 0⁺."""
    torch.manual_seed(0)
    flow = ConditionalFlow(Glow(SHAPE, GLOW.levels, GLOW.steps, GLOW.hidden))
    options = replace(MUON, noised=0.0, told=0.5, told_range=RANGE)
    file = arguments.work / "weights.safetensors"
    if not file.exists():
        training, validation = faces(arguments.faces)
        plain = Glow(SHAPE, GLOW.levels, GLOW.steps, GLOW.hidden)
        seconds = step_seconds({"conditional": (deepcopy(flow), options), "plain": (plain, MUON)}, training)
        plain_steps = load_prior(arguments.plain).card["training"]["steps"]
        steps = round(plain_steps * seconds["plain"] / seconds["conditional"])
        held_out = validation.batch(seed=1, step=0, size=160)
        bits = train(flow, training, held_out, arguments.work, replace(options, steps=steps))
        save_tensors(file, flow.state_dict(), {"steps": steps, "bits": round(bits, 4)})
    tensors, metadata = load_tensors(file)
    load_state(flow, tensors, str(file))
    return flow, metadata["steps"], metadata["bits"]


def judge(prior: FlowPrior, x: Tensor) -> dict[str, list[float]]:
    """As a prior with `auto`, on the hard cases at λ = 1 too, and off its data."""
    found: dict[str, list[float]] = {}
    for name, likelihood in (easy(x) | hard(x)).items():
        found[f"{name}, auto"] = psnr(reconstruct(likelihood, prior).image, x).tolist()
    for name, likelihood in hard(x).items():
        options = replace(path_to_minima(likelihood.operator, prior), weights=(1.0,), evaluations=104)
        found[f"{name}, λ = 1"] = psnr(reconstruct(likelihood, prior, 1.0, options).image, x).tolist()
    for noise in NOISES:
        noisy = x + noise * torch.randn(x.shape, generator=torch.Generator().manual_seed(2))
        with torch.no_grad():
            found[f"energy, noise {noise:g}"] = (prior.energy(noisy) / x[0].numel()).tolist()
    return found


def easy(x: Tensor) -> dict[str, Gaussian]:
    return {
        "denoise": _measured(x, Identity(SHAPE), 0.1),
        "sense": _measured(x, GaussianSensing(SHAPE, 2500, seed=0), 0.01),
        "hole 19": _measured(x, block_mask(SHAPE, 19), 0.02),
    }


def hard(x: Tensor) -> dict[str, Gaussian]:
    return {
        "m = 614": _measured(x, GaussianSensing(SHAPE, 614, seed=0), 0.01),
        "hole 40": _measured(x, block_mask(SHAPE, 40), 0.02),
    }


def _measured(x: Tensor, operator: LinearOperator, sigma: float) -> Gaussian:
    return measure(operator, x, sigma, torch.Generator().manual_seed(1))


def one_step(prior: FlowPrior, x: Tensor) -> dict[str, list[float]]:
    """The posterior mean by Tweedie's formula."""
    found = {}
    for sigma in (0.05, 0.1, 0.2):
        y = _measured(x, Identity(SHAPE), sigma).y
        found[f"one step, σ = {sigma:g}"] = psnr(prior.denoise(y, sigma), x).tolist()
    return found


def smoothed(prior: FlowPrior, x: Tensor) -> dict[str, list[float]]:
    found = {}
    for name, likelihood in hard(x).items():
        usual = path_to_minima(likelihood.operator, prior)
        path = smoothing(tau=0.3, count=12, steps=8)
        options = replace(path, solver=usual.solver, metric=usual.metric, stiffness=usual.stiffness)
        found[f"{name}, smoothing"] = psnr(reconstruct(likelihood, prior, 1.0, options).image, x).tolist()
    return found


def write(rows: list[dict], file: Path) -> None:
    names = list(dict.fromkeys(name for row in rows for name in row if name != "flow"))
    lines = heading("Noise-conditional flow", __doc__)
    lines += ["| | " + " | ".join(row["flow"] for row in rows) + " |", "|---" * (len(rows) + 1) + "|"]
    for name in names:
        cells = [_cell(row.get(name)) for row in rows]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    file.write_text("\n".join(lines) + "\n")


def _cell(value: list[float] | float | None) -> str:
    if value is None:
        return "–"
    return f"{mean(value):.2f}" if isinstance(value, list) else f"{value:,}"


if __name__ == "__main__":
    main()
