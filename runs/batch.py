"""Whether an image's answer depends on the other images of its batch.

    python runs/batch.py PHOTOS_FOLDER FASHION_IDX --out docs/results

The images are eight 32 × 32 crops or garments, and the tasks are the three of cost.py. One batch mixes the
difficulties: its σ go from a fifth of the task's σ to five times that σ. Every image is then restored alone
from the same measurement. "Largest |Δ|" is taken over all entries of an image, and "|ΔPSNR|" is the largest
over the images (targets: 0.001 and 0.02 dB). "Evaluations" are the mean per image, in the batch and alone.
"""

from pathlib import Path

import common
import torch
from common import heading, image_shape, load, save

from aipo.basics.quality import psnr
from aipo.likelihoods import Gaussian, measure
from aipo.priors import FlowPrior, load_prior
from aipo.reconstruction.reconstruct import reconstruct

COUNT = 8
HARDER = torch.logspace(-0.7, 0.7, COUNT)


def main() -> None:
    arguments = common.parser(__doc__).parse_args()
    rows = []
    for name, pictures in load(arguments, COUNT).items():
        for task, likelihood in tasks(pictures).items():
            rows.append({"prior": name, "task": task, **compare(likelihood, load_prior(name), pictures)})
            print(rows[-1], flush=True)
    file = Path(arguments.out) / "batch.json"
    save(rows, file)
    write(rows, file.with_suffix(".md"))


def tasks(x: torch.Tensor) -> dict[str, Gaussian]:
    return {
        task: measure(operator, x, sigma * HARDER, torch.Generator().manual_seed(1))
        for task, (operator, sigma) in common.settings(image_shape(x)).items()
    }


def compare(likelihood: Gaussian, prior: FlowPrior, pictures: torch.Tensor) -> dict[str, float]:
    batch = reconstruct(likelihood, prior)
    alone = [reconstruct(likelihood.select(torch.tensor([i])), prior) for i in range(COUNT)]
    images = torch.cat([result.image for result in alone])
    quality = psnr(images, pictures) - psnr(batch.image, pictures)
    return {
        "largest": float((images - batch.image).abs().max()),
        "median": float((images - batch.image).abs().flatten(1).amax(1).median()),
        "psnr": float(quality.abs().max()),
        "weights": sum(
            float(result.weight[0]) == float(w) for result, w in zip(alone, batch.weight, strict=True)
        ),
        "batch": float(batch.evaluations.float().mean()),
        "alone": sum(float(result.evaluations[0]) for result in alone) / COUNT,
    }


def write(rows: list[dict], file: Path) -> None:
    lines = heading("Does the batch matter?", __doc__)
    lines += [r"| prior | task | largest \|Δ\|: worst image | median image | \|ΔPSNR\|, dB | same λ |"]
    lines[-1] += " evaluations |"
    lines += ["|---" * 7 + "|"]
    for row in rows:
        cells = [row["prior"], row["task"], f"{row['largest']:.1e}", f"{row['median']:.1e}"]
        cells += [
            f"{row['psnr']:.3f}",
            f"{row['weights']} of {COUNT}",
            f"{row['batch']:.1f}, {row['alone']:.1f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    met = sum(row["largest"] <= 1e-3 and row["psnr"] <= 0.02 for row in rows)
    lines += ["", f"Both targets are met in {met} of {len(rows)} tasks."]
    file.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
