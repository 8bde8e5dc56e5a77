"""The prior for photographs at the usual noise levels of denoisers, on CBSD68 and, in grey, on Set12.

    python runs/photos.py CBSD68_FOLDER SET12_FOLDER --out docs/results

The table uses centre crops of 128 × 128 of all pictures, with σ = 15, 25 and 50 of 255, not clipped. A grey
picture is restored as a colour picture whose grey alone was measured, and it is judged in grey. BM3D's
strength (0.8, 1 or 1.2 σ) comes from the truth; aipo does not see the truth. "Start" is the closed form of
the prior's surrogate. "Default" is what `aipo.reconstruct` restores with all defaults, with its evaluations
of the flow. "Ahead by" compares with BM3D, and ± is the standard error of the mean difference over
pictures, and – where BM3D was not run on all of them. The script goes on where it stopped.
"""

import argparse
from itertools import product
from pathlib import Path

import torch
from common import add_line, ahead, crop, heading, image_shape, mean, read
from rivals import bm3d
from torch import Tensor

from aipo.basics.quality import psnr
from aipo.flows.training.data import load_pictures
from aipo.likelihoods import Gaussian, measure
from aipo.operators import Grey, Identity
from aipo.operators.filters import EVEN
from aipo.priors import FlowPrior, load_prior
from aipo.reconstruction.reconstruct import reconstruct

LEVELS, SIDE = (15, 25, 50), 128
SETS = {"CBSD68": "photos.jsonl", "Set12, grey": "photos-grey.jsonl"}
WAYS = ("default", "BM3D")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("colour", help="folder of CBSD68")
    parser.add_argument("grey", help="folder of Set12")
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    prior = load_prior("photos")
    folders = zip(SETS.values(), (arguments.colour, arguments.grey), strict=True)
    for way, (file, folder) in product(WAYS, list(folders)):
        done = {(row["sigma"], row["way"], row["picture"]) for row in read(arguments.out / file)}
        pictures = list(enumerate(load_pictures(folder)))
        for level, (index, picture) in product(LEVELS, pictures):
            if (level, way, index) not in done:
                row = judge(way, crop(picture, SIDE), level / 255, index, prior)
                add_line({"sigma": level, "way": way, "picture": index, **row}, arguments.out / file)
    write(arguments.out)


def judge(way: str, x: Tensor, sigma: float, index: int, prior: FlowPrior) -> dict:
    """PSNR in dB of one way to restore a picture, (1, 1 or 3, H, W); all restore the same measurement."""
    plain = measure(Identity(image_shape(x)), x, sigma, torch.Generator().manual_seed(index))
    seen = Identity(image_shape(x)) if x.shape[1] == 3 else Grey((3, SIDE, SIDE), EVEN)

    def figure(image: Tensor) -> float:
        return float(psnr(image, x))

    if way == "BM3D":
        return {"psnr": figure(bm3d(plain.operator.linear, plain.y, sigma, x).image)}
    restored = reconstruct(Gaussian(seen, plain.y, sigma), prior)
    evaluations = int(restored.evaluations)
    quality = {"psnr": figure(seen(restored.image)), "start": figure(seen(restored.start))}
    return {**quality, "evaluations": evaluations}


def write(out: Path) -> None:
    lines = [*heading("Photographs with noise", __doc__), "Mean PSNR in dB.", ""]
    lines += [
        "| set | σ · 255 | pictures | BM3D | start | default | ahead by | evaluations |",
        "|---" * 8 + "|",
    ]
    for (name, file), level in product(SETS.items(), LEVELS):
        rows = [row for row in read(out / file) if row["sigma"] == level]
        own, rival = ([row for row in rows if row["way"] == way] for way in WAYS)
        if not own:
            continue
        quality = [[row["psnr"] for row in part] for part in (own, rival)]
        paired = len(own) == len(rival)
        cells = [name, str(level), str(len(own)), f"{mean(quality[1]):.2f}" if paired else "–"]
        cells += [f"{mean([row['start'] for row in own]):.2f}", f"{mean(quality[0]):.2f}"]
        cells.append(ahead(*quality) if paired else "–")
        lines.append("| " + " | ".join([*cells, f"{mean([row['evaluations'] for row in own]):.0f}"]) + " |")
    (out / "photos.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
