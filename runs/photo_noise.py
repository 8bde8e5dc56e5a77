"""Photographs under Gaussian noise that is not white, and photographs whose measurements are bent.

    python runs/photo_noise.py CBSD68_FOLDER --out docs/results

Centre crops of the first pictures, 128 × 128, or 64 × 64 of magnitudes (of random frequencies, m = n/2,
σ = 0.01). Noise: a ramp of σ from 0.02 to 0.2 over the columns; another σ for each colour (0.03, 0.05,
0.12); a camera's (σ² = 0.02² + 0.004 x); bands along the rows; and grain of about three pixels. "Default" is
what `aipo.reconstruct` restores with all defaults: steps of falling τ, before a chain where measurements are
bent. "Chain" is the chain from the surrogate's picture, the default before. BM3D is told the spectrum of
stationary noise, and the root mean square of other noise, of all colours or colour by colour; the truth
chooses between these, and its strength (0.5, 0.8, 1 or 1.2 times that). Mean PSNR in dB, with evaluations.
"Ahead by" compares with the better of chain and BM3D on average; ± is the standard error of the mean
difference. The script goes on where it stopped.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path

import bm3d
import numpy as np
import torch
from common import add_line, ahead, crop, heading, image_shape, mean, read
from torch import Tensor

from aipo import likelihoods as noise
from aipo import operators as op
from aipo.basics.quality import psnr
from aipo.flows.training.data import load_pictures
from aipo.likelihoods import Likelihood
from aipo.posterior.chain import sample
from aipo.priors import FlowPrior, load_prior
from aipo.reconstruction.reconstruct import reconstruct
from aipo.selection.defaults import COLD, COLD_WEIGHT

# BM3D asks for this name when it is told a spectrum, and NumPy 2.4 has dropped it.
if not hasattr(np, "trapz"):
    setattr(np, "trapz", np.trapezoid)  # noqa: B010

COUNT, SIDE = 6, 128
WAYS = ("default", "chain", "BM3D")
STRENGTHS = (0.5, 0.8, 1.0, 1.2)


@dataclass(frozen=True)
class Kind:
    """A kind of noise: σ of every value given the picture, or a spectrum; or magnitudes."""

    deviation: Callable[[Tensor], Tensor] | None = None
    spectrum: Tensor | None = None
    side: int = SIDE


def _frequencies(side: int) -> tuple[Tensor, Tensor]:
    return torch.fft.fftfreq(side)[:, None], torch.fft.fftfreq(side)[None]


def _bands(side: int) -> Tensor:
    down, right = _frequencies(side)
    return 0.001 + 0.6 * torch.exp(-((down / 0.02) ** 2)) * (right.abs() < 0.01)


def _grain(side: int) -> Tensor:
    down, right = _frequencies(side)
    return 1e-5 + 0.04 * torch.exp(-(down**2 + right**2) / (2 * 0.12**2))


KINDS = {
    "ramp": Kind(lambda x: torch.linspace(0.02, 0.2, SIDE).expand_as(x)),
    "colours": Kind(lambda x: torch.tensor([0.03, 0.05, 0.12])[:, None, None].expand_as(x)),
    "camera": Kind(lambda x: (0.02**2 + 0.004 * x).sqrt()),
    "bands": Kind(spectrum=_bands(SIDE)),
    "grain": Kind(spectrum=_grain(SIDE)),
    "magnitudes": Kind(side=64),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", help="folder of CBSD68")
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    parser.add_argument("--kinds", nargs="*", choices=list(KINDS), default=list(KINDS), help="only these")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    prior, pictures = load_prior("photos"), load_pictures(arguments.folder)[:COUNT]
    file = arguments.out / "photo_noise.jsonl"
    done = {(row["kind"], row["way"], row["picture"]) for row in read(file)}
    for name, way, (index, picture) in product(arguments.kinds, WAYS, list(enumerate(pictures))):
        if (name, way, index) in done or (name == "magnitudes" and way == "BM3D"):
            continue
        x = crop(picture, KINDS[name].side)
        row = judge(KINDS[name], way, x, index, prior)
        add_line({"kind": name, "way": way, "picture": index, **row}, file)
    write(arguments.out)


def judge(kind: Kind, way: str, x: Tensor, index: int, prior: FlowPrior) -> dict:
    """PSNR in dB of one way to restore a picture, (1, 3, H, W); all restore the same measurement."""
    likelihood = measured(kind, x, index)
    if way == "BM3D":
        return {"psnr": max(float(psnr(image, x)) for image in rivals(kind, likelihood, x))}
    if way == "chain":
        drawn = sample(likelihood, prior, 1, weight=COLD_WEIGHT, options=COLD)
        return {"psnr": float(psnr(drawn.mean, x)), "evaluations": drawn.evaluations}
    restored = reconstruct(likelihood, prior)
    figures = {"psnr": float(psnr(restored.image, x)), "start": float(psnr(restored.start, x))}
    return {**figures, "evaluations": int(restored.evaluations)}


def measured(kind: Kind, x: Tensor, index: int) -> Likelihood:
    """Fresh noise of a picture, always the same."""
    shape = image_shape(x)
    make: Callable[[Tensor], Likelihood]
    if kind.deviation is not None:
        make = partial(noise.Heteroscedastic, op.Identity(shape), sigma=kind.deviation(x))
    elif kind.spectrum is not None:
        make = partial(noise.Coloured, op.Identity(shape), spectrum=kind.spectrum)
    else:
        operator = op.Magnitude(op.FourierSensing(shape, x.numel() // 2, seed=0))
        make = partial(noise.Gaussian, operator, sigma=0.01)
    blank = make(torch.full((1, *make.args[0].measurement_shape), 0.5))
    return make(blank.simulate(x, torch.Generator().manual_seed(index)))


def rivals(kind: Kind, likelihood: Likelihood, x: Tensor) -> list[Tensor]:
    """BM3D's pictures at every strength."""
    y, profile, found = likelihood.y[0].permute(1, 2, 0).double().numpy(), bm3d.BM3DProfile(), []
    profile.num_threads = 1  # more threads add in another order each time
    for strength in STRENGTHS:
        if kind.spectrum is not None:
            power = strength**2 * kind.spectrum.double().numpy() * kind.spectrum.numel()
            found.append(bm3d.bm3d_rgb(y, power, profile))
            continue
        assert kind.deviation is not None
        deviation = strength * kind.deviation(x)[0].square().mean((1, 2)).sqrt().double().numpy()
        found.append(bm3d.bm3d_rgb(y, float(np.sqrt((deviation**2).mean())), profile))
        alone = [bm3d.bm3d(y[..., k], float(deviation[k]), profile) for k in range(3)]
        found.append(np.stack(alone, -1))
    return [torch.from_numpy(image).permute(2, 0, 1)[None].to(x) for image in found]


def write(out: Path) -> None:
    rows = read(out / "photo_noise.jsonl")
    lines = [*heading("Photographs with noise that is not white", __doc__), "Mean PSNR in dB.", ""]
    lines += ["| kind | pictures | start | BM3D | chain | default | ahead by | evaluations (chain) |"]
    lines += ["|---" * 8 + "|"]
    for name in KINDS:
        found = {way: [row for row in rows if (row["kind"], row["way"]) == (name, way)] for way in WAYS}
        quality = {way: [row["psnr"] for row in part] for way, part in found.items() if part}
        if not {"default", "chain"} <= set(quality):
            continue
        other = max((way for way in quality if way != "default"), key=lambda way: mean(quality[way]))
        cells = [
            name,
            str(len(quality["default"])),
            f"{mean([row['start'] for row in found['default']]):.2f}",
        ]
        cells += [
            f"{mean(quality[way]):.2f}" if way in quality else "–" for way in ("BM3D", "chain", "default")
        ]
        cells.append(ahead(quality["default"], quality[other]))
        counts = [mean([row["evaluations"] for row in found[way]]) for way in ("default", "chain")]
        lines.append("| " + " | ".join([*cells, f"{counts[0]:.0f} ({counts[1]:.0f})"]) + " |")
    (out / "photo_noise.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
