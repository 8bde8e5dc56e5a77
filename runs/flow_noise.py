"""Structured noise with a learnt density, beside a Gaussian of the same strength, under the same prior.

    python runs/flow_noise.py FASHION_FOLDER --out docs/results

The pictures are garments of Fashion-MNIST's test set. The noise is stripes a·sin(2π(f·column + φ)), with a in
[0.15, 0.35], f in [0.05, 0.25] cycles per pixel and φ at random, plus white noise of σ = 0.02. A small Glow
is trained on 20,000 pictures of such noise alone. A camera's dark frames would give such pictures, stored
with 8 bits around grey. "Gaussian" treats all of the noise as white noise of the same strength, and
"coloured" also knows its power spectrum. Both restore with all defaults ("path"), at λ = 1 alone ("fixed")
and by the posterior mean ("mean"), and so does the learnt density. The table gives the mean PSNR in dB.
Source of the idea: Whang, Lei & Dimakis 2021. Training goes on where it stopped.
"""

import argparse
import math
from pathlib import Path

import numpy as np
import torch
from common import heading, mean, save
from torch import Tensor

from aipo.basics.quality import psnr
from aipo.flows.training.data import PictureData, load_pictures
from aipo.flows.training.loop import TrainingOptions
from aipo.likelihoods import Coloured, FlowNoise, Gaussian, Likelihood
from aipo.operators import Identity
from aipo.priors import FlowPrior, load_prior
from aipo.priors.fit import FlowOptions, Origin, fit_prior
from aipo.reconstruction.reconstruct import reconstruct

SHAPE, COUNT, WHITE = (1, 28, 28), 20, 0.02


def stripes(count: int, seed: int) -> Tensor:
    """Noise pictures (count, 1, 28, 28)."""
    generator = torch.Generator().manual_seed(seed)
    a, f, phase = torch.rand(3, count, 1, 1, 1, generator=generator)
    angle = 2 * math.pi * ((0.05 + 0.2 * f) * torch.arange(28.0) + phase)
    white = WHITE * torch.randn(count, *SHAPE, generator=generator)
    return (0.15 + 0.2 * a) * angle.sin() + white


class DarkFrames:
    """The density of noise e, from a prior for pictures of 0.5 + e."""

    def __init__(self, prior: FlowPrior):
        self.prior = prior

    def log_prob(self, e: Tensor) -> Tensor:
        return self.prior.log_prob(0.5 + e)

    def sample(self, count: int) -> Tensor:
        return self.prior.sample(count) - 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("fashion")
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    parser.add_argument("--noise", type=Path, default=Path("out/stripes"), help="folder of the noise's prior")
    parser.add_argument("--steps", type=int, default=1500)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    trained = train(arguments.noise, arguments.steps)
    pictures = load_pictures(Path(arguments.fashion) / "t10k-images-idx3-ubyte.gz")[:COUNT]
    x = torch.from_numpy(np.stack(pictures)).float() / 255
    y = x + stripes(COUNT, seed=2)
    rows = [judge(name, likelihood, x) for name, likelihood in noise_models(y, trained).items()]
    save(rows, arguments.out / "flow_noise.json")
    write(rows, float(psnr(y, x).mean()), trained.card, arguments.out / "flow_noise.md")


def train(folder: Path, steps: int) -> FlowPrior:
    bytes_ = [(255 * (0.5 + e)).round().clamp(0, 255).byte().numpy() for e in stripes(20_000, seed=0)]
    held_out = [(255 * (0.5 + e)).round().clamp(0, 255).byte().numpy() for e in stripes(200, seed=1)]
    options = TrainingOptions(steps=steps, batch=64, noised=0.0)
    flow = FlowOptions(levels=2, steps=6, hidden=48)
    origin = Origin("stripes", "simulated noise", "free", "runs/flow_noise.py")
    data = (PictureData(bytes_, None, False), PictureData(held_out, None, False))
    fit_prior(*data, folder, flow, options, origin)
    return load_prior(folder)


def noise_models(y: Tensor, trained: FlowPrior) -> dict[str, Likelihood]:
    """Each with what it can know of the noise, from the same kind of dark frames."""
    frames = stripes(20_000, seed=0)
    spectrum = torch.fft.fft2(frames, norm="ortho").abs().square().mean((0, 1))
    spectrum = (spectrum + spectrum.flip(0, 1).roll((1, 1), (0, 1))) / 2
    operator = Identity(SHAPE)
    return {
        "Gaussian": Gaussian(operator, y, float(frames.std())),
        "coloured": Coloured(operator, y, spectrum),
        "learnt": FlowNoise(operator, y, DarkFrames(trained)),
    }


def judge(name: str, likelihood: Likelihood, x: Tensor) -> dict:
    prior = load_prior("fashion28")
    restored = {
        "path": reconstruct(likelihood, prior),
        "fixed": reconstruct(likelihood, prior, 1.0),
        "mean": reconstruct(likelihood, prior, "mean"),
    }
    return {"noise model": name} | {way: psnr(found.image, x).tolist() for way, found in restored.items()}


def write(rows: list[dict], before: float, card: dict, file: Path) -> None:
    lines = [*heading("A learnt noise density", __doc__)]
    lines += [
        f"{COUNT} garments, measured at {before:.2f} dB; the noise's density has "
        f"{card['validation_bits_per_dim']:.2f} bits per dimension on held-out noise.",
        "",
        "| noise model | path | fixed | mean |",
        "|---|---|---|---|",
    ]
    for row in rows:
        cells = [f"{mean(row[way]):.2f}" for way in ("path", "fixed", "mean")]
        lines.append("| " + " | ".join([row["noise model"], *cells]) + " |")
    file.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
