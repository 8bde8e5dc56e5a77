"""Three tasks on 12 validation pictures per prior: aipo next to TV, BM3D and the same prior at fixed λ = 1.

    python runs/first_light.py PHOTOS_FOLDER FASHION_IDX --out docs/results

PHOTOS_FOLDER holds CBSD68, and FASHION_IDX is Fashion-MNIST's t10k-images-idx3-ubyte.gz. Every method gets
the same measurement. TV, BM3D and the surrogate's own restoration get their best weight from the truth; aipo
does not see the truth. "TV in RGB" is scikit-image's TV without changes. "TV" works in opponent colours.
Where the operator is not the identity, TV and BM3D work inside plug-and-play ADMM. "Fixed λ = 1" is the same
prior from its closed-form start at λ = 1, with aipo's solver and as many evaluations as aipo spent, including
those of its copies for SURE. For holes it is also run in the unchanged metric of the surrogate. "aipo" is
`aipo.reconstruct` with all defaults. "aipo, one λ" is the single state of its path that its criterion chose,
where aipo itself mixes several. "aipo, mean" is the posterior mean (`weight="mean"`). The script writes one
JSON line to first_light.jsonl after each restoration, and an interrupted run goes on from there. It makes
first_light.md from these lines.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import common
import numpy as np
import rivals
import torch
from common import add_line, crop, heading, image_shape, to_image

from aipo.basics.arrays import Images
from aipo.basics.quality import psnr, ssim
from aipo.flows.training.data import load_pictures
from aipo.gaussian import posterior
from aipo.likelihoods import Gaussian, measure
from aipo.operators import GaussianSensing, Identity, Mask, block_mask
from aipo.path.options import PathOptions
from aipo.priors import FlowPrior, load_prior
from aipo.reconstruction.reconstruct import reconstruct
from aipo.reconstruction.result import Reconstruction
from aipo.selection.defaults import path_to_minima

COUNT = 12
PLAIN_TV = "TV in RGB"
SINGLE, MEAN = "aipo, one λ", "aipo, mean"
FIXED, PLAIN_FIXED = "fixed λ = 1", "fixed λ = 1, surrogate's metric"
# Weights tried for the surrogate's own restoration, the best one kept.
SURROGATE_WEIGHTS = np.geomspace(0.05, 20, 30)


@dataclass(frozen=True)
class Case:
    """One picture measured in one way."""

    prior: str
    task: str
    picture: int
    truth: Images
    likelihood: Gaussian


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--prior", choices=["photos", "fashion28"], default=None, help="only this one")
    parser.add_argument("--task", choices=["denoise", "sense", "inpaint"], default=None, help="only this one")
    arguments = parser.parse_args()
    file = Path(arguments.out) / "first_light.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    for case in cases(arguments):
        if arguments.task in (None, case.task):
            run(case, file)
    write_tables(file)


def cases(arguments: argparse.Namespace):
    if arguments.prior != "fashion28":
        chosen = load_pictures(arguments.photos)[:: 68 // COUNT][:COUNT]
        yield from measured("photos", [crop(p, 128) for p in chosen], [crop(p, 64) for p in chosen], 32)
    if arguments.prior != "photos":
        garments = [to_image(picture) for picture in load_pictures(arguments.fashion)[:COUNT]]
        yield from measured("fashion28", garments, garments, 10)


def measured(prior: str, large: list[Images], small: list[Images], hole: int):
    """The three tasks of the paper: σ = 0.1; m = n/4 and σ = 0.01 on the smaller crops; σ = 0.02."""
    shape, small_shape = image_shape(large[0]), image_shape(small[0])
    sensing = GaussianSensing(small_shape, small[0].numel() // 4, seed=0)
    settings = (
        ("denoise", large, Identity(shape), 0.1),
        ("sense", small, sensing, 0.01),
        ("inpaint", large, block_mask(shape, hole), 0.02),
    )
    for task, truths, operator, sigma in settings:
        for index, truth in enumerate(truths):
            generator = torch.Generator().manual_seed(index)
            yield Case(prior, task, index, truth, measure(operator, truth, sigma, generator))


def run(case: Case, file: Path) -> None:
    """Every method on one case, in turn; methods already in the file are skipped."""
    done = [row for row in read(file) if key(row) == (case.prior, case.task, case.picture)]
    names = {row["method"] for row in done}
    prior = load_prior(case.prior)
    if "aipo" not in names:
        done.append(record_aipo(case, prior, file))
    spent = next(row["evaluations"] for row in done if row["method"] == "aipo")
    for name, options in fixed_weights(case, prior, spent).items():
        if name not in names:
            record(case, file, name, lambda options=options: fixed_weight(case, prior, options))
    if MEAN not in names:
        record(case, file, MEAN, lambda: from_result(reconstruct(case.likelihood, prior, "mean")))
    if "surrogate" not in names:
        record(case, file, "surrogate", lambda: surrogate(case, prior))
    sigma, y, operator = float(case.likelihood.sigma[0]), case.likelihood.y, case.likelihood.operator.linear
    if isinstance(operator, Identity) and PLAIN_TV not in names:
        record(
            case, file, PLAIN_TV, lambda: from_baseline(rivals.plain_total_variation(y, sigma, case.truth))
        )
    for name, method in (("TV", rivals.total_variation), ("BM3D", rivals.bm3d)):
        if name not in names:
            record(
                case, file, name, lambda method=method: from_baseline(method(operator, y, sigma, case.truth))
            )


def fixed_weights(case: Case, prior: FlowPrior, spent: int) -> dict[str, PathOptions]:
    """The conventional method with the metrics that aipo has for the task, at as many evaluations."""
    usual = path_to_minima(case.likelihood.operator, prior)
    fixed = replace(usual, weights=(1.0,), evaluations=spent - 1, tolerance=0.0)
    if isinstance(case.likelihood.operator, Mask):
        return {FIXED: fixed, PLAIN_FIXED: replace(fixed, metric="surrogate", stiffness=1.0)}
    return {FIXED: fixed}


def record_aipo(case: Case, prior: FlowPrior, file: Path) -> dict:
    """aipo with its automatic weight, and the best state of the same path as the truth would choose it."""
    started = time.perf_counter()
    result = reconstruct(case.likelihood, prior)
    extra = {"seconds": time.perf_counter() - started, **from_result(result)[1]}
    best = max(result.path, key=lambda state: float(psnr(state.x, case.truth)[0]))
    append(case, file, "oracle on the path", best.x, {"weight": float(best.weight[0])})
    single = result.path[int(result.chosen[0])]
    append(case, file, SINGLE, single.x, {"weight": float(single.weight[0])})
    append(case, file, "A⁺y", case.likelihood.operator.linear.pseudoinverse(case.likelihood.y), {})
    return append(case, file, "aipo", result.image, extra)


def fixed_weight(case: Case, prior: FlowPrior, options: PathOptions) -> tuple[Images, dict]:
    """The conventional method: minimise F(·; 1) and nothing else."""
    return from_result(reconstruct(case.likelihood, prior, 1.0, options))


def surrogate(case: Case, prior: FlowPrior) -> tuple[Images, dict]:
    """The closed-form Gaussian restoration that the path starts from, at its best weight."""
    closed = posterior(case.likelihood.operator.linear, prior.surrogate)
    variance = case.likelihood.sigma**2
    images = [closed.mode(case.likelihood.y, float(w) * variance) for w in SURROGATE_WEIGHTS]
    best = int(np.argmax([float(psnr(image, case.truth)[0]) for image in images]))
    return images[best], {"weight": float(SURROGATE_WEIGHTS[best])}


def from_result(result: Reconstruction) -> tuple[Images, dict]:
    return result.image, {
        "weight": float(result.weight[0]),
        "objective": float(result.objective[0]),
        "data_energy": float(result.data_energy[0]),
        "prior_energy": float(result.prior_energy[0]),
        "evaluations": int(result.evaluations[0]),
        "status": result.status[0].name.lower(),
    }


def from_baseline(baseline: rivals.Baseline) -> tuple[Images, dict]:
    return baseline.image, {"weight": baseline.weight}


def record(case: Case, file: Path, method: str, restore: Callable[[], tuple[Images, dict]]) -> None:
    started = time.perf_counter()
    image, extra = restore()
    append(case, file, method, image, {"seconds": time.perf_counter() - started, **extra})


def append(case: Case, file: Path, method: str, image: Images, extra: dict) -> dict:
    quality = {"psnr": float(psnr(image, case.truth)[0]), "ssim": float(ssim(image, case.truth)[0])}
    row = {
        "prior": case.prior,
        "task": case.task,
        "picture": case.picture,
        "method": method,
        **quality,
        **extra,
    }
    add_line(row, file)
    print(f"{case.prior} {case.task} {case.picture} {method}: {quality['psnr']:.2f} dB", flush=True)
    return row


def read(file: Path) -> list[dict]:
    """The recorded rows, the newest of each case and method."""
    return list({(*key(row), row["method"]): row for row in common.read(file)}.values())


def key(row: dict) -> tuple[str, str, int]:
    return (row["prior"], row["task"], row["picture"])


def write_tables(file: Path) -> None:
    """Mean PSNR and the paired differences, from the recorded lines."""
    rows = read(file)
    methods = ["A⁺y", "surrogate", PLAIN_TV, "TV", "BM3D", FIXED, PLAIN_FIXED]
    methods += ["aipo", MEAN, SINGLE, "oracle on the path"]
    lines = heading("First light", __doc__)
    lines += ["## Picture quality: mean PSNR in dB (mean SSIM)", ""]
    lines += ["| prior | task | pictures | " + " | ".join(methods) + " |", "|---" * (3 + len(methods)) + "|"]
    groups = sorted({(row["prior"], row["task"]) for row in rows if row["method"] == "aipo"}, reverse=True)
    for group in groups:
        found = {
            m: [r for r in rows if (r["prior"], r["task"]) == group and r["method"] == m] for m in methods
        }
        cells = [
            f"{mean(found[m], 'psnr'):.2f} ({mean(found[m], 'ssim'):.3f})" if found[m] else "–"
            for m in methods
        ]
        lines.append(f"| {group[0]} | {group[1]} | {len(found['aipo'])} | " + " | ".join(cells) + " |")
    lines += ["", "## aipo minus each method, dB: mean (worst picture, best picture)", ""]
    others = [m for m in methods if m != "aipo"]
    lines += ["| prior | task | " + " | ".join(others) + " |", "|---" * (2 + len(others)) + "|"]
    lines += [
        f"| {group[0]} | {group[1]} | " + " | ".join(gains(rows, group, others)) + " |" for group in groups
    ]
    lines += ["", "## Objective and cost: means", ""]
    lines += ["| prior | task | chosen weight, range | evaluations | seconds | F(λ = 1) at fixed λ = 1 |"]
    lines += ["|---" * 6 + "|"]
    lines += [f"| {group[0]} | {group[1]} | " + " | ".join(costs(rows, group)) + " |" for group in groups]
    (file.parent / "first_light.md").write_text("\n".join(lines) + "\n")


def gains(rows: list[dict], group: tuple[str, str], methods: list[str]) -> list[str]:
    of = {(r["method"], r["picture"]): r["psnr"] for r in rows if (r["prior"], r["task"]) == group}
    cells = []
    for method in methods:
        pictures = [p for m, p in of if m == method and ("aipo", p) in of]
        differences = [of["aipo", p] - of[method, p] for p in pictures]
        if not differences:
            cells.append("–")
            continue
        cells.append(f"{np.mean(differences):+.2f} ({min(differences):+.2f}, {max(differences):+.2f})")
    return cells


def costs(rows: list[dict], group: tuple[str, str]) -> list[str]:
    ours = [r for r in rows if (r["prior"], r["task"]) == group and r["method"] == "aipo"]
    fixed = [r for r in rows if (r["prior"], r["task"]) == group and r["method"] == FIXED]
    weights = [r["weight"] for r in ours]
    return [
        f"{min(weights):.2g} – {max(weights):.2g}",
        f"{mean(ours, 'evaluations'):.0f}",
        f"{mean(ours, 'seconds'):.1f}",
        f"{mean(fixed, 'objective'):.0f}",
    ]


def mean(rows: list[dict], name: str) -> float:
    return float(np.mean([row[name] for row in rows]))


if __name__ == "__main__":
    main()
