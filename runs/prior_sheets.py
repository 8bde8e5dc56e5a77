"""What each bundled prior is: samples, densities of pictures it knows and does not know, and its training.

    python runs/prior_sheets.py DATA --out docs/results --images docs/images

DATA holds photos/train and photos/cbsd68 (BSDS500), faces64 (tars of CelebA crops) and fashion (the idx files
of Fashion-MNIST). The densities are those of 200 pictures each: training pictures, held-out pictures,
pictures of another kind of the same size, held-out pictures with noise of σ = 0.1 and 0.5, and the prior's
own samples. The figures are −log p in bits per dimension of 8-bit pictures, mean ± standard deviation. Noisy
pictures are not clipped.
"""

import argparse
import math
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import torch
from common import heading, save
from matplotlib.figure import Figure
from torch import Tensor

from aipo.basics.arrays import Images
from aipo.flows.training.data import PictureData, dequantize, load_pictures
from aipo.io.images import hstack, write_image
from aipo.priors import FlowPrior, bundled_priors, load_prior

COUNT, SHOWN, SIDE = 200, 8, 64
COLOURS = ("tab:blue", "tab:green", "tab:red", "tab:orange", "tab:brown", "tab:gray")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    parser.add_argument("--images", type=Path, default=Path("docs/images"))
    arguments = parser.parse_args()
    matplotlib.use("agg")
    rows = []
    for name in bundled_priors():
        prior = load_prior(name)
        found = {kind: bits(prior, x) for kind, x in pictures(name, prior, arguments.data).items()}
        rows += [{"prior": name, "pictures": kind, "bits": values.tolist()} for kind, values in found.items()]
        histogram(name, found, arguments.images / f"prior-{name}-density.png")
        curve(prior, arguments.images / f"prior-{name}-curve.png")
        for temperature in (0.7, 1.0):
            drawn = prior.sample(SHOWN, sample_size(prior), temperature, seed=1).clamp(0, 1)
            write_image(arguments.images / f"prior-{name}-{temperature:g}.png", hstack(list(drawn)))
    save(rows, arguments.out / "prior_sheets.json")
    write(rows, arguments.out / "prior_sheets.md")


def sample_size(prior: FlowPrior) -> tuple[int, int] | None:
    return (SIDE, SIDE) if None in prior.shape else None


def pictures(name: str, prior: FlowPrior, data: Path) -> dict[str, Images]:
    """The kinds of pictures, dequantized, COUNT each."""
    generator = torch.Generator().manual_seed(0)
    if name == "photos":
        photos = load_pictures(data / "photos/train")
        trained, held_out = photos[:-20], load_pictures(data / "photos/cbsd68")
        other, kind, crop = load_pictures(tars(data)[-1]), "faces", 64
    elif name == "faces64":
        trained, held_out = load_pictures(tars(data)[0]), load_pictures(tars(data)[-1])
        other, kind, crop = load_pictures(data / "photos/cbsd68"), "photographs", 64
    else:
        garments = load_pictures(data / "fashion/train-images-idx3-ubyte.gz")
        trained, held_out = garments[:-1000], load_pictures(data / "fashion/t10k-images-idx3-ubyte.gz")
        other = [grey(picture) for picture in load_pictures(data / "photos/cbsd68")]
        kind, crop = "photographs, grey", 28
    chosen = [
        dequantize(PictureData(own, crop, False).batch(0, 0, COUNT), generator)
        for own in (trained, held_out, other)
    ]
    noise = torch.randn(chosen[1].shape, generator=generator)
    noisy = {f"held out, noise {sigma:g}": chosen[1] + sigma * noise for sigma in (0.1, 0.5)}
    drawn = prior.sample(COUNT, sample_size(prior), seed=0)
    return {"trained on": chosen[0], "held out": chosen[1], kind: chosen[2], **noisy, "own samples": drawn}


def tars(data: Path) -> list[Path]:
    return sorted((data / "faces64").glob("*.tar"))


def grey(picture: np.ndarray) -> np.ndarray:
    return np.tensordot([0.299, 0.587, 0.114], picture, 1).round().astype(np.uint8)[None]


@torch.no_grad()
def bits(prior: FlowPrior, x: Images) -> Tensor:
    """−log2 p per dimension of 8-bit pictures, one per picture."""
    energies = torch.cat([prior.energy(chunk) for chunk in x.split(20)])
    return energies / (x[0].numel() * math.log(2)) + 8


def histogram(name: str, found: dict[str, Tensor], file: Path) -> None:
    figure, axes = plt.subplots(figsize=(7, 3))
    low = min(float(values.min()) for values in found.values())
    high = max(float(values.quantile(0.99)) for values in found.values())
    for (kind, values), colour in zip(found.items(), COLOURS, strict=True):
        axes.hist(values.numpy(), np.linspace(low, high, 60).tolist(), label=kind, alpha=0.5, color=colour)
    axes.set(xlabel="−log p, bits per dimension", ylabel="pictures", title=name)
    axes.legend(fontsize=8)
    finish(figure, file)


def curve(prior: FlowPrior, file: Path) -> None:
    """Held-out bits per dimension during training, for priors that carry their curve."""
    if "curve" in prior.card:
        figure, axes = plt.subplots(figsize=(5, 3))
        axes.plot(*zip(*prior.card["curve"], strict=True))
        axes.set(xlabel="training step", ylabel="held-out bits per dimension", title=prior.card["name"])
        finish(figure, file)


def finish(figure: Figure, file: Path) -> None:
    figure.savefig(file, dpi=90, bbox_inches="tight")
    plt.close(figure)


def write(rows: list[dict], file: Path) -> None:
    kinds = list(dict.fromkeys(row["pictures"] for row in rows))
    priors = list(dict.fromkeys(row["prior"] for row in rows))
    cells = {(row["prior"], row["pictures"]): torch.tensor(row["bits"]) for row in rows}
    lines = [*heading("Bundled priors", __doc__), "| pictures | " + " | ".join(priors) + " |"]
    lines.append("|---" * (len(priors) + 1) + "|")
    for kind in kinds:
        found = [cells.get((name, kind)) for name in priors]
        shown = ["–" if v is None else f"{float(v.mean()):.2f} ± {float(v.std()):.2f}" for v in found]
        lines.append(f"| {kind} | " + " | ".join(shown) + " |")
    file.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
