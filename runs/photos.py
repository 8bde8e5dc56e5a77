"""The prior for photographs at the usual noise level of denoisers, on CBSD68 and, in grey, on Set12.

    python runs/photos.py CBSD68_FOLDER SET12_FOLDER --out docs/results

The table uses centre crops of 128 × 128 of all pictures, with σ = 25/255, not clipped. A grey picture is
restored as a colour picture whose grey alone was measured, and it is judged in grey. BM3D's strength (0.8, 1
or 1.2 σ) comes from the truth; aipo does not see the truth. "Start" is the closed form of the prior's
surrogate. "Path" is what `aipo.reconstruct` restores with all defaults. "Mean" is the posterior mean of
`aipo.sample`, and "inside" is the share of true values in its 90 % interval. "Ahead by" compares with BM3D,
and ± is the standard error of the mean difference over pictures. The script goes on where it stopped.
"""

import argparse
from itertools import product
from pathlib import Path

import torch
from common import add_line, ahead, crop, heading, image_shape, inside, mean, read
from rivals import bm3d
from torch import Tensor

from aipo.basics.quality import psnr
from aipo.flows.training.data import load_pictures
from aipo.likelihoods import Gaussian, measure
from aipo.operators import Grey, Identity
from aipo.posterior.chain import sample
from aipo.priors import FlowPrior, load_prior
from aipo.reconstruction.reconstruct import reconstruct

SIGMA, SIDE = 25 / 255, 128
SETS = {"CBSD68": "photos.jsonl", "Set12, grey": "photos-grey.jsonl"}
WAYS = ("BM3D", "path", "mean")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("colour", help="folder of CBSD68")
    parser.add_argument("grey", help="folder of Set12")
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    prior = load_prior("photos")
    for file, folder in zip(SETS.values(), (arguments.colour, arguments.grey), strict=True):
        done = {(row["way"], row["picture"]) for row in read(arguments.out / file)}
        for way, (index, picture) in product(WAYS, enumerate(load_pictures(folder))):
            if (way, index) not in done:
                row = {"way": way, "picture": index, **judge(way, crop(picture, SIDE), index, prior)}
                add_line(row, arguments.out / file)
    write(arguments.out)


def judge(way: str, x: Tensor, index: int, prior: FlowPrior) -> dict:
    """PSNR in dB of one way to restore a picture, (1, 1 or 3, H, W); all restore the same measurement."""
    plain = measure(Identity(image_shape(x)), x, SIGMA, torch.Generator().manual_seed(index))
    seen = Identity(image_shape(x)) if x.shape[1] == 3 else Grey((3, SIDE, SIDE))
    likelihood = Gaussian(seen, plain.y, SIGMA)

    def figure(image: Tensor) -> float:
        return float(psnr(image, x))

    if way == "BM3D":
        return {"psnr": figure(bm3d(plain.operator.linear, plain.y, SIGMA, x).image)}
    if way == "path":
        restored = reconstruct(likelihood, prior)
        return {"psnr": figure(seen(restored.image)), "start": figure(seen(restored.start))}
    drawn = sample(likelihood, prior)
    return {"psnr": figure(seen(drawn.mean)), **({"inside": inside(drawn, x)[0]} if x.shape[1] == 3 else {})}


def write(out: Path) -> None:
    lines = [*heading("Photographs, σ = 25/255", __doc__), "Mean PSNR in dB.", ""]
    lines += [
        "| set | pictures | BM3D | start | path | ahead by | mean | ahead by | inside |",
        "|---" * 9 + "|",
    ]
    for name, file in SETS.items():
        by_way = {way: [row for row in read(out / file) if row["way"] == way] for way in WAYS}
        quality = {way: [row["psnr"] for row in rows] for way, rows in by_way.items()}
        start = mean([row["start"] for row in by_way["path"]])
        cells = [name, str(len(quality["BM3D"])), f"{mean(quality['BM3D']):.2f}", f"{start:.2f}"]
        for way in WAYS[1:]:
            cells += [f"{mean(quality[way]):.2f}", ahead(quality[way], quality["BM3D"])]
        share = [row["inside"] for row in by_way["mean"] if "inside" in row]
        lines.append("| " + " | ".join([*cells, f"{100 * mean(share):.1f} %" if share else ""]) + " |")
    (out / "photos.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
