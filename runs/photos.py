"""The prior for photographs at the noise level that colour denoisers are compared at, on all of CBSD68.

    python runs/photos.py CBSD68_FOLDER --out docs/results

Centre crops of 128 × 128 of all 68 pictures, σ = 25/255, not clipped. BM3D's strength (0.8, 1 or 1.2 σ) comes
from the truth; aipo does not see it. "Start" is the closed form of the prior's surrogate, "path" what
`aipo.reconstruct` restores with everything by default, "mean" the posterior mean of `aipo.sample`, and
"inside" the share of true values in its 90 % interval; ± is the standard error of the mean's difference over
pictures. Goes on where it stopped.
"""

import argparse
from pathlib import Path

import torch
from common import add_line, crop, heading, image_shape, inside, mean, read

from aipo.baselines import bm3d
from aipo.data import load_pictures
from aipo.likelihoods import measure
from aipo.metrics import psnr
from aipo.operators import Identity
from aipo.priors import load_prior
from aipo.reconstruct import reconstruct
from aipo.sampling import sample

SIGMA, SIDE = 25 / 255, 128


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("photos")
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    file, prior = arguments.out / "photos.jsonl", load_prior("photos")
    done = len(read(file))
    for index, picture in enumerate(load_pictures(arguments.photos)):
        if index >= done:
            add_line(judge(crop(picture, SIDE), index, prior), file)
    write(read(file), arguments.out / "photos.md")


def judge(x: torch.Tensor, index: int, prior) -> dict:
    likelihood = measure(Identity(image_shape(x)), x, SIGMA, torch.Generator().manual_seed(index))
    restored = reconstruct(likelihood, prior)
    other = bm3d(likelihood.operator.linear, likelihood.y, SIGMA, x).image
    drawn = sample(likelihood, prior)
    figures = {"BM3D": other, "start": restored.start, "path": restored.image, "mean": drawn.mean}
    return {
        "picture": index,
        **{name: float(psnr(image, x)) for name, image in figures.items()},
        "inside": inside(drawn, x)[0],
    }


def write(rows: list[dict], file: Path) -> None:
    columns = ("BM3D", "start", "path", "mean")
    ahead = torch.tensor([row["mean"] - row["BM3D"] for row in rows])
    figures = [f"{mean([row[name] for row in rows]):.2f}" for name in columns]
    figures.append(f"{float(ahead.mean()):+.2f} ± {float(ahead.std()) / len(rows) ** 0.5:.2f}")
    figures.append(f"{100 * mean([row['inside'] for row in rows]):.1f} %")
    lines = [*heading("Photographs, σ = 25/255", __doc__), "Mean PSNR in dB.", ""]
    lines += ["| pictures | " + " | ".join([*columns, "ahead by", "inside"]) + " |", "|---" * 7 + "|"]
    lines.append(f"| {len(rows)} | " + " | ".join(figures) + " |")
    file.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
