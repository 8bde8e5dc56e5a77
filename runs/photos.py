"""The prior for photographs at the usual noise level of denoisers, on CBSD68 and, in grey, on Set12.

    python runs/photos.py CBSD68_FOLDER SET12_FOLDER --out docs/results

Centre crops of 128 × 128 of all pictures, σ = 25/255, not clipped. Grey pictures are restored in colour, of
which only the grey was measured, and judged in grey. BM3D's strength (0.8, 1 or 1.2 σ) comes from the
truth; aipo does not see it. "Start" is the closed form of the prior's surrogate, "path" what
`aipo.reconstruct` restores with everything by default, "mean" the posterior mean of `aipo.sample`, and
"inside" the share of true values in its 90 % interval; ± is the standard error of the mean's difference
over pictures. Goes on where it stopped.
"""

import argparse
from pathlib import Path

import torch
from common import add_line, crop, heading, image_shape, inside, mean, read
from torch import Tensor

from aipo.baselines import bm3d
from aipo.data import load_pictures
from aipo.likelihoods import Gaussian, measure
from aipo.metrics import psnr
from aipo.operators import Grey, Identity
from aipo.priors import FlowPrior, load_prior
from aipo.reconstruct import reconstruct
from aipo.sampling import sample

SIGMA, SIDE = 25 / 255, 128
SETS = {"CBSD68": "photos.jsonl", "Set12, grey": "photos-grey.jsonl"}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("colour", help="folder of CBSD68")
    parser.add_argument("grey", help="folder of Set12")
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    prior = load_prior("photos")
    for file, folder in zip(SETS.values(), (arguments.colour, arguments.grey), strict=True):
        done = len(read(arguments.out / file))
        for index, picture in list(enumerate(load_pictures(folder)))[done:]:
            add_line(judge(crop(picture, SIDE), index, prior), arguments.out / file)
    write(arguments.out)


def judge(x: Tensor, index: int, prior: FlowPrior) -> dict:
    """PSNR in dB of every way to restore one picture, (1, 1 or 3, H, W)."""
    plain = measure(Identity(image_shape(x)), x, SIGMA, torch.Generator().manual_seed(index))
    seen = Identity(image_shape(x)) if x.shape[1] == 3 else Grey((3, SIDE, SIDE))
    likelihood = Gaussian(seen, plain.y, SIGMA)
    restored, drawn = reconstruct(likelihood, prior), sample(likelihood, prior)
    figures = {"start": restored.start, "path": restored.image, "mean": drawn.mean}
    return {
        "picture": index,
        "BM3D": float(psnr(bm3d(plain.operator.linear, plain.y, SIGMA, x).image, x)),
        **{name: float(psnr(seen(image), x)) for name, image in figures.items()},
        **({"inside": inside(drawn, x)[0]} if x.shape[1] == 3 else {}),
    }


def write(out: Path) -> None:
    columns = ("BM3D", "start", "path", "mean")
    lines = [*heading("Photographs, σ = 25/255", __doc__), "Mean PSNR in dB.", ""]
    lines += ["| set | pictures | " + " | ".join([*columns, "ahead by", "inside"]) + " |", "|---" * 8 + "|"]
    for name, file in SETS.items():
        rows = read(out / file)
        ahead = torch.tensor([row["mean"] - row["BM3D"] for row in rows])
        figures = [f"{mean([row[column] for row in rows]):.2f}" for column in columns]
        figures.append(f"{float(ahead.mean()):+.2f} ± {float(ahead.std()) / len(rows) ** 0.5:.2f}")
        share = [row["inside"] for row in rows if "inside" in row]
        figures.append(f"{100 * mean(share):.1f} %" if share else "")
        lines.append(f"| {name} | {len(rows)} | " + " | ".join(figures) + " |")
    (out / "photos.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
