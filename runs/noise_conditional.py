"""Does a flow that knows the noise of its pictures pay? One network for p(x; τ), beside a plain Glow.

    python runs/noise_conditional.py FACES_FOLDER PLAIN_PRIOR --out docs/results

PLAIN_PRIOR is the folder of the Glow of runs/families.py, with the same architecture, training time, pictures
and batch. Here functions of log τ scale and shift the outputs of every convolution. Half of each batch has
τ = 0⁺, and the other half has noise with τ log-uniform in .002 to 1. At one τ this is a plain Glow with other
weights, so the same code evaluates it. Three uses are tested on the first six faces of the held-out tar (dB).
The first is the prior itself with `auto` (τ = 0⁺; denoising σ = 0.1, sensing m = 2500 σ = 0.01, a hole of
19 × 19). The second is the posterior mean in one evaluation, y + σ²∇log p_σ(y). The third is the smoothing
path at λ = 1 on two hard cases (m = 614, σ = 0.01; a hole of 40 × 40, σ = 0.02), beside λ = 1 without it and
`auto`. "Energy" is −log p per dimension at τ = 0⁺ of the faces with added noise of .05, .1, .3 and 1. An
interrupted run goes on with the flow at which it stopped.
"""

import argparse
import math
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import torch
from common import add_line, heading, load_faces, mean, read
from families import GLOW, MUON, SHAPE, faces, step_seconds
from torch import Tensor, nn

from aipo.basics.arrays import per_image_sum
from aipo.basics.quality import psnr
from aipo.flows import Flow, Glow
from aipo.flows.layers import BASE_BOUND, GaussianBase, bounded
from aipo.flows.training.loop import bits_per_dim, train
from aipo.io.tensors import load_state, load_tensors, save_tensors
from aipo.likelihoods import Gaussian, measure
from aipo.operators import GaussianSensing, Identity, LinearOperator, block_mask
from aipo.path.schedules import smoothing
from aipo.priors import FlowPrior, load_prior
from aipo.reconstruction.reconstruct import reconstruct
from aipo.selection.defaults import path_to_minima

COUNT = 6
RANGE = (0.002, 1.0)
FEATURES = 12
NOISES = (0.05, 0.1, 0.3, 1.0)
PLAIN, CONDITIONAL = "plain, a quarter of each batch noised", "noise-conditional"


def features(tau: Tensor) -> Tensor:
    """Bumps along log τ, which linear maps interpolate smoothly, (B, FEATURES)."""
    low, high = (math.log(value) for value in RANGE)
    u = (tau.clamp(*RANGE).log() - low) / (high - low) * (FEATURES - 1)
    bumps = torch.exp(-0.5 * (u[:, None] - torch.arange(FEATURES).to(u)) ** 2)
    return bumps / bumps.sum(1, keepdim=True)


class Modulated(nn.Module):
    """A convolution whose outputs are scaled and shifted by functions of τ."""

    def __init__(self, convolution: nn.Conv2d, noise: "Noise"):
        super().__init__()
        self.convolution, self.noise = convolution, [noise]  # listed, so that it is not a submodule
        self.table = nn.Parameter(torch.zeros(FEATURES, 2 * convolution.out_channels))

    def forward(self, h: Tensor) -> Tensor:
        scale, shift = (self.noise[0].features @ self.table)[:, :, None, None].chunk(2, 1)
        return self.convolution(h) * (1 + scale) + shift

    @torch.no_grad()
    def at(self, bumps: Tensor) -> nn.Conv2d:
        scale, shift = (bumps @ self.table)[0].chunk(2)
        plain = deepcopy(self.convolution)
        assert plain.bias is not None
        plain.weight.mul_(1 + scale[:, None, None, None])
        plain.bias.mul_(1 + scale).add_(shift)
        return plain


class ModulatedBase(GaussianBase):
    """The coarsest scale's Gaussian with mean and log-scale moved by functions of τ."""

    def __init__(self, base: GaussianBase, noise: "Noise"):
        channels, *size = base.mean.shape[1:]
        super().__init__(channels, (size[0], size[1]))
        self.noise = [noise]
        self.table = nn.Parameter(torch.zeros(FEATURES, 2 * channels))

    def forward(self, h: Tensor) -> tuple[Tensor, Tensor]:
        mean, raw = self._moved(self.noise[0].features)
        log_std = bounded(raw, BASE_BOUND)
        return (h - mean) * torch.exp(-log_std), -per_image_sum(log_std)

    @torch.no_grad()
    def at(self, bumps: Tensor) -> GaussianBase:
        plain = GaussianBase(self.mean.shape[1], (self.mean.shape[2], self.mean.shape[3]))
        mean, log_std = self._moved(bumps)
        plain.mean.copy_(mean)
        plain.log_std.copy_(log_std)
        return plain

    def _moved(self, bumps: Tensor) -> tuple[Tensor, Tensor]:
        mean_shift, log_shift = (bumps @ self.table)[:, :, None, None].chunk(2, 1)
        return self.mean + mean_shift, self.log_std + log_shift


class Noise:
    """The features of the batch that is being evaluated."""

    features: Tensor


class NoiseConditional(Flow):
    """p(x; τ) for a Glow; `log_prob` draws τ and noise itself, for training; `at(τ)` is a plain Glow."""

    def __init__(self, shape: tuple[int, int, int], levels: int, steps: int, hidden: int):
        super().__init__(shape, 2**levels)
        self.noise = Noise()
        self.glow = Glow(shape, levels, steps, hidden)
        for module in list(self.glow.modules()):
            for name, child in list(module.named_children()):
                if isinstance(child, nn.Conv2d):
                    setattr(module, name, Modulated(child, self.noise))
        self.glow.base = ModulatedBase(self.glow.base, self.noise)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        tau = torch.full((len(x),), RANGE[0])
        count = len(x) // 2
        low, high = (math.log(value) for value in RANGE)
        tau[:count] = torch.exp(low + (high - low) * torch.rand(count))
        if self.training:  # also in the validations of `train`, which are not used
            tau[count:] = 0
            x = x + tau[:, None, None, None] * torch.randn_like(x)
        else:
            tau[:] = RANGE[0]
        self.noise.features = features(tau)
        return self.glow(x)

    @torch.no_grad()
    def at(self, tau: float) -> Glow:
        bumps = features(torch.tensor([tau]))
        glow = deepcopy(self.glow)
        for module in list(glow.modules()):
            for name, child in list(module.named_children()):
                if isinstance(child, Modulated | ModulatedBase):
                    setattr(module, name, child.at(bumps))
        return glow


class ConditionalPrior(FlowPrior):
    """The plain prior, τ = 0⁺, with the smoothed energies beside it."""

    def __init__(self, flow: NoiseConditional, surrogate, card: dict):
        super().__init__(flow.at(0.0), surrogate, card)
        self.conditional = flow
        self._smoothed: dict[float, Flow] = {}

    def energy(self, x: Tensor, tau: float = 0.0) -> Tensor:
        if tau == 0:
            return super().energy(x)
        if tau not in self._smoothed:
            self._smoothed[tau] = self.conditional.at(tau).freeze()
        return -self._smoothed[tau].log_prob(x)


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
    conditional = ConditionalPrior(flow.eval(), plain.surrogate, {})
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


def trained(arguments: argparse.Namespace) -> tuple[NoiseConditional, int, float]:
    """The flow after as long a training as the plain Glow's, its steps, and bits/dim at τ = 0⁺."""
    torch.manual_seed(0)
    flow = NoiseConditional(SHAPE, GLOW.levels, GLOW.steps, GLOW.hidden)
    file = arguments.work / "weights.safetensors"
    if not file.exists():
        training, validation = faces(arguments.faces)
        plain = Glow(SHAPE, GLOW.levels, GLOW.steps, GLOW.hidden)
        seconds = step_seconds({"conditional": (deepcopy(flow), MUON), "plain": (plain, MUON)}, training)
        plain_steps = load_prior(arguments.plain).card["training"]["steps"]
        steps = round(plain_steps * seconds["plain"] / seconds["conditional"])
        held_out = validation.batch(seed=1, step=0, size=160)
        train(flow, training, held_out, arguments.work, replace(MUON, steps=steps, noised=0.0))
        bits = round(bits_per_dim(flow.eval().at(0.0), held_out), 4)
        save_tensors(file, flow.state_dict(), {"steps": steps, "bits": bits})
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


def one_step(prior: ConditionalPrior, x: Tensor) -> dict[str, list[float]]:
    """The posterior mean by Tweedie's formula."""
    found = {}
    for sigma in (0.05, 0.1, 0.2):
        y = _measured(x, Identity(SHAPE), sigma).y.requires_grad_()
        gradient = torch.autograd.grad(prior.energy(y, tau=sigma).sum(), y)[0]
        found[f"one step, σ = {sigma:g}"] = psnr((y - sigma**2 * gradient).detach(), x).tolist()
    return found


def smoothed(prior: ConditionalPrior, x: Tensor) -> dict[str, list[float]]:
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
