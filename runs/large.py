"""Large photographs: seconds, memory and decibels against the number of pixels.

    python runs/large.py --out docs/results

The pictures are made of the photographs "coffee" and "astronaut" of scikit-image, mirrored until they fill
the size, under the prior `photos`. "Denoise" has white noise of σ = 0.1, "half" has half of the pixels and
σ = 0.02, "scratches" have one line of five pixels in forty lost and σ = 0.02. Every cell is one run in a
process of its own, by all cores of the machine. Memory is the largest of that process. Pictures of more than
0.8 megapixels are restored in tiles. The script goes on where it stopped.
"""

import argparse
import resource
import subprocess
import sys
import time
from itertools import product
from pathlib import Path

import torch
from common import add_line, heading, read
from skimage import data
from torch import Tensor

from aipo.basics.quality import psnr
from aipo.likelihoods import measure
from aipo.operators import Identity, LinearOperator, Mask, random_mask
from aipo.priors import load_prior
from aipo.reconstruction.reconstruct import reconstruct

SIZES = ((512, 512), (1024, 1536), (2000, 2000), (3000, 4000), (4000, 6000))
TASKS = {"denoise": 0.1, "half": 0.02, "scratches": 0.02}
# Cells that two cores finish within twenty minutes.
CELLS = [(task, size) for task, size in product(TASKS, SIZES) if task == "denoise" or size <= (2000, 2000)]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    parser.add_argument("--cell", nargs=3, default=None, help="task, height, width: this one alone")
    arguments = parser.parse_args()
    file = arguments.out / "large.jsonl"
    if arguments.cell is not None:
        task, height, width = arguments.cell
        add_line(judge(task, (int(height), int(width))), file)
        return
    done = {(row["task"], row["height"], row["width"]) for row in read(file)}
    for task, (height, width) in CELLS:
        if (task, height, width) not in done:
            own = [sys.executable, __file__, "--out", str(arguments.out), "--cell", task]
            subprocess.run([*own, str(height), str(width)], check=True)
            write(arguments.out)
    write(arguments.out)


def photograph(height: int, width: int) -> Tensor:
    """(1, 3, height, width), two photographs beside each other and their mirror images."""
    pair = [torch.from_numpy(picture.copy())[:400] for picture in (data.coffee(), data.astronaut())]
    one = torch.cat(pair, 1).permute(2, 0, 1)[None].float() / 255
    four = torch.cat((torch.cat((one, one.flip(3)), 3), torch.cat((one.flip(2), one.flip((2, 3))), 3)), 2)
    down, right = -(-height // four.shape[2]), -(-width // four.shape[3])
    return four.repeat(1, 1, down, right)[:, :, :height, :width]


def operator(task: str, height: int, width: int) -> LinearOperator:
    if task == "half":
        return random_mask((3, height, width), 0.5)
    if task == "scratches":
        known = torch.ones(1, height, width, dtype=torch.bool)
        known[:, torch.arange(height) % 40 < 5] = False
        return Mask(known, 3)
    return Identity((3, height, width))


def judge(task: str, size: tuple[int, int]) -> dict:
    x, sigma = photograph(*size), TASKS[task]
    likelihood = measure(operator(task, *size), x, sigma, torch.Generator().manual_seed(0))
    prior, started = load_prior("photos"), time.perf_counter()
    result = reconstruct(likelihood, prior)
    return {
        "task": task,
        "height": size[0],
        "width": size[1],
        "seconds": time.perf_counter() - started,
        "gigabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "start": float(psnr(result.start, x)),
        "psnr": float(psnr(result.image, x)),
        "evaluations": int(result.evaluations),
        "threads": torch.get_num_threads(),
    }


def write(out: Path) -> None:
    lines = [*heading("Large photographs", __doc__)]
    lines += [
        "| task | pixels | megapixels | seconds | per MP | GiB | start | restored | evaluations | cores |",
        "|---" * 10 + "|",
    ]
    for row in sorted(read(out / "large.jsonl"), key=lambda row: (row["task"], row["height"])):
        pixels = row["height"] * row["width"] / 1e6
        lines.append(
            f"| {row['task']} | {row['height']} × {row['width']} | {pixels:.1f} | {row['seconds']:.0f} "
            f"| {row['seconds'] / pixels:.0f} | {row['gigabytes']:.1f} | {row['start']:.2f} "
            f"| {row['psnr']:.2f} | {row['evaluations']} | {row['threads']} |"
        )
    (out / "large.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
