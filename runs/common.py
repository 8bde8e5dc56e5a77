"""What the scripts that write tables share: their arguments, pictures, tasks and headings."""

import argparse
import json
from math import prod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from aipo.basics.arrays import Images
from aipo.basics.quality import psnr
from aipo.flows.training.data import load_pictures
from aipo.operators import GaussianSensing, Identity, LinearOperator, block_mask
from aipo.posterior.chain import Samples
from aipo.reconstruction.result import Reconstruction


def parser(doc: str | None) -> argparse.ArgumentParser:
    """PHOTOS_FOLDER FASHION_IDX --out, described by the first line of a script's own text."""
    found = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    found.add_argument("photos")
    found.add_argument("fashion")
    found.add_argument("--out", default="docs/results")
    return found


def held_out(doc: str | None) -> argparse.ArgumentParser:
    """HELD_OUT_TAR --out, described by the first line of a script's own text."""
    found = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    found.add_argument("tar")
    found.add_argument("--out", type=Path, default=Path("docs/results"))
    return found


def load_faces(tar: str | Path, count: int, first: int = 0) -> Images:
    """Some of a tar's pictures, which are of one size."""
    return torch.from_numpy(np.stack(load_pictures(tar)[first : first + count])).float() / 255


def resumable(doc: str | None, name: str) -> tuple[argparse.Namespace, Path]:
    """Arguments, with --prior, and the file of JSON lines of a script that goes on where it stopped."""
    own = parser(doc)
    own.add_argument("--prior", choices=["photos", "fashion28"], default=None, help="only this one")
    arguments = own.parse_args()
    file = Path(arguments.out) / name
    file.parent.mkdir(parents=True, exist_ok=True)
    return arguments, file


def heading(title: str, doc: str | None) -> list[str]:
    """A table's title and what the script's text says of it, below its usage line."""
    return [f"# {title}", "", (doc or "").strip().split("\n\n", 2)[2].replace("\n", " "), ""]


def save(rows: list[dict], file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(rows, ensure_ascii=False) + "\n")


def read(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def add_line(row: dict, file: Path) -> None:
    with open(file, "a") as stream:
        stream.write(json.dumps(row, ensure_ascii=False) + "\n")


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def ahead(found: list[float], other: list[float]) -> str:
    """Mean difference over pictures, ± its standard error."""
    gain = torch.tensor(found) - torch.tensor(other)
    return f"{float(gain.mean()):+.2f} ± {float(gain.std()) / len(gain) ** 0.5:.2f}"


def load(arguments: argparse.Namespace, count: int) -> dict[str, Images]:
    """Prior -> `count` pictures: the first garments, and 32 × 32 centres of evenly spaced photographs."""
    photos = load_pictures(arguments.photos)[:: 68 // count][:count]
    garments = load_pictures(arguments.fashion)[:count]
    return {
        "fashion28": torch.cat([to_image(picture) for picture in garments]),
        "photos": torch.cat([crop(picture, 32) for picture in photos]),
    }


def settings(shape: tuple[int, int, int]) -> dict[str, tuple[LinearOperator, float]]:
    """The paper's three tasks: operator and σ."""
    return {
        "denoise": (Identity(shape), 0.1),
        "sense": (GaussianSensing(shape, prod(shape) // 4, seed=0), 0.01),
        "inpaint": (block_mask(shape, shape[1] // 3), 0.02),
    }


def image_shape(image: Images) -> tuple[int, int, int]:
    return (image.shape[1], image.shape[2], image.shape[3])


def crop(picture: np.ndarray, side: int) -> Images:
    """The centre of a picture."""
    top, left = (picture.shape[1] - side) // 2, (picture.shape[2] - side) // 2
    return to_image(picture[:, top : top + side, left : left + side])


def to_image(picture: np.ndarray) -> Images:
    return torch.from_numpy(picture.copy())[None].float() / 255


def of_path(restored: Reconstruction, x: Images) -> dict:
    """PSNR of each picture of a path, of its start, and what chose the weight at which cost."""
    return {
        "psnr": psnr(restored.image, x).tolist(),
        "start": psnr(restored.start, x).tolist(),
        "evaluations": restored.evaluations.tolist(),
        "criterion": restored.criterion,
    }


def of_mean(drawn: Samples, x: Images) -> dict:
    """PSNR of each posterior mean, its cost, and the share of the true values in its 90 % interval."""
    return {
        "psnr": psnr(drawn.mean, x).tolist(),
        "evaluations": [drawn.evaluations] * len(x),
        "inside": inside(drawn, x),
    }


def inside(drawn: Samples, x: Tensor) -> list[float]:
    """The share of each picture's true values in its 90 % interval."""
    lower, upper = drawn.interval(0.9)
    return ((lower < x) & (x < upper)).float().flatten(1).mean(1).tolist()
