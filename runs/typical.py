"""Pictures that a prior was not trained on: does it know, and how are holes filled?

    python runs/typical.py FACES_TAR PHOTOS_FOLDER FASHION_IDX --out docs/results

Every prior gets pictures like those of its training and others: faces upside down, moved by 8 pixels, shrunk
to three quarters, turned by 20°; photographs; garments, upside down and moved by 5 pixels. None was seen in
training or tuning. A hole is lost from the centre, 19 × 19 of 64 × 64 and 9 × 9 of 28 × 28; σ is 0.02.
"Untypical" is `result.untypical`, in standard deviations, of the restored pictures: its median, and the share
of pictures above 3, of which a result warns. "No prior" is biharmonic filling, then TV, its weight from the
truth. "Path" is what the path restores, "guarded" is the result of `aipo.reconstruct` with all defaults, and
"smooth" is the mean share of the smooth filling. Figures are in dB of the whole picture; ± is the standard
error of the mean difference over pictures. The script goes on where it stopped.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from common import add_line, ahead, crop, heading, image_shape, load_faces, mean, read, to_image
from rivals import biharmonic

from aipo.basics.arrays import Images
from aipo.basics.quality import psnr
from aipo.flows.training.data import load_pictures
from aipo.likelihoods import measure
from aipo.operators import block_mask
from aipo.priors import load_prior
from aipo.reconstruction.follow import follow
from aipo.selection.plans import plan
from aipo.selection.typical import UNTYPICAL, untypical

COUNT, CHUNK, SIGMA = 24, 8, 0.02
HOLES = {64: 19, 28: 9}


def moved(x: Images, by: int) -> Images:
    """Upwards, the lowest rows mirrored."""
    return F.pad(x[:, :, by:], (0, 0, 0, by), mode="reflect")


def shrunk(x: Images) -> Images:
    """To three quarters, with a mirrored border."""
    side = x.shape[2] * 3 // 4
    border = (x.shape[2] - side) // 2
    return F.pad(F.interpolate(x, size=(side, side), mode="area"), 4 * (border,), mode="reflect")


def turned(x: Images, degrees: float) -> Images:
    angle = torch.tensor(degrees).deg2rad()
    matrix = torch.tensor([[angle.cos(), -angle.sin(), 0], [angle.sin(), angle.cos(), 0]])
    grid = F.affine_grid(matrix.expand(len(x), -1, -1), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, padding_mode="reflection", align_corners=False)


def upside_down(x: Images) -> Images:
    return x.flip(2)


def enlarged(x: Images) -> Images:
    """Of a garment a colour picture of 64 × 64."""
    return F.interpolate(x, size=(64, 64), mode="bicubic").clamp(0, 1).repeat(1, 3, 1, 1)


def sets(faces: Images, photos: Images, garments: Images) -> dict[tuple[str, str], Images]:
    """(prior, pictures) -> pictures."""
    changed: dict[str, Callable[[Images], Images]] = {
        "faces": lambda x: x,
        "faces upside down": upside_down,
        "faces moved by 8": lambda x: moved(x, 8),
        "faces shrunk": shrunk,
        "faces turned by 20°": lambda x: turned(x, 20.0),
    }
    found = {("faces64", name): change(faces) for name, change in changed.items()}
    found |= {("faces64", "photographs"): photos, ("faces64", "garments"): enlarged(garments)}
    found |= {
        ("fashion28", "garments"): garments,
        ("fashion28", "garments upside down"): upside_down(garments),
        ("fashion28", "garments moved by 5"): moved(garments, 5),
    }
    return found | {("photos", "photographs"): photos, ("photos", "faces"): faces}


def judge(prior_name: str, x: Images) -> dict[str, list[float]]:
    """PSNR of every way, the smooth share, evaluations and typicality of each picture."""
    prior, operator = load_prior(prior_name), block_mask(image_shape(x), HOLES[x.shape[2]])
    likelihood = measure(operator, x, SIGMA, torch.Generator().manual_seed(0))
    each = zip(likelihood.y.split(1), x.split(1), strict=True)
    rival = torch.cat([biharmonic(operator, y, truth).image for y, truth in each])
    planned = plan(likelihood, prior)
    found = follow(planned, likelihood, prior)
    image, _ = planned.combine(found.pictures, found.weights, found.chosen, found.usable)
    guarded = planned.guard(image, found.chosen, found.counted)
    far = untypical(likelihood, prior, guarded.image)
    assert far is not None
    return {
        "no prior": psnr(rival, x).tolist(),
        "path": psnr(image, x).tolist(),
        "guarded": psnr(guarded.image, x).tolist(),
        "smooth": guarded.share.tolist(),
        "untypical": far.tolist(),
        "evaluations": found.evaluations.tolist(),
        "further": guarded.evaluations.tolist(),
    }


def write(rows: list[dict], out: Path) -> None:
    lines = heading("Pictures that a prior was not trained on", __doc__)
    lines += [
        "| prior | pictures | untypical | above 3 | no prior | path | guarded | − path | − no prior | smooth "
        "| evaluations |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for prior, name in dict.fromkeys((row["prior"], row["pictures"]) for row in rows):
        own = [row for row in rows if (row["prior"], row["pictures"]) == (prior, name)]

        def column(key: str, own: list[dict] = own) -> list[float]:
            return [value for row in own for value in row[key]]

        far = torch.tensor(column("untypical"))
        psnrs = " | ".join(f"{mean(column(key)):.2f}" for key in ("no prior", "path", "guarded"))
        gains = " | ".join(ahead(column("guarded"), column(key)) for key in ("path", "no prior"))
        spent = f"{mean(column('evaluations')):.0f} + {mean(column('further')):.0f}"
        above = f"{100 * float((far > UNTYPICAL).float().mean()):.0f} %"
        lines.append(
            f"| {prior} | {name} | {float(far.median()):.1f} | {above} | {psnrs} "
            f"| {gains} | {mean(column('smooth')):.2f} | {spent} |"
        )
    (out / "typical.md").write_text("\n".join(lines) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name in ("faces", "photos", "fashion"):
        parser.add_argument(name)
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    photos = [crop(picture, 64) for picture in load_pictures(arguments.photos)[:COUNT]]
    garments = [to_image(picture) for picture in load_pictures(arguments.fashion)[:COUNT]]
    pictures = sets(load_faces(arguments.faces, COUNT), torch.cat(photos), torch.cat(garments))
    file = arguments.out / "typical.jsonl"
    done = {(row["prior"], row["pictures"], row["first"]) for row in read(file)}
    for (prior, name), x in pictures.items():
        for first in range(0, COUNT, CHUNK):
            if (prior, name, first) not in done:
                row = {"prior": prior, "pictures": name, "first": first}
                add_line({**row, **judge(prior, x[first : first + CHUNK])}, file)
                write(read(file), arguments.out)
    write(read(file), arguments.out)


if __name__ == "__main__":
    main()
