"""What the automatic weight costs: the whole path next to one solve at the weight the truth would choose.

    python runs/path_cost.py PHOTOS_FOLDER FASHION_IDX --out docs/results

Pictures and tasks are those of cost.py. "Auto" is `reconstruct` with everything included: the path, SURE's
second copy and the rest. For each picture, one λ has the state with the highest PSNR on that path. The oracle
weight is the geometric mean of these λ over the pictures. "Engine, one solve" and "conventional, one solve"
are the evaluations until F at the oracle weight is within 0.1 % of the lowest known value, as in cost.py. The
conventional method is the best of all in each cell. "Grid" is 18 conventional solves, one for each value of
GlowIP's weight grid. A picture that does not come within 0.1 % in 150 evaluations counts as 151, so the two
ratios are bounds where that happened (marked ≤).
"""

from pathlib import Path
from typing import Any

import common
import torch
from common import heading, load, save
from cost import BUDGET, COUNT, geometric_mean, solve, tasks

from aipo.basics.arrays import Images
from aipo.basics.quality import psnr
from aipo.likelihoods import Gaussian
from aipo.priors import FlowPrior, load_prior
from aipo.reconstruction.reconstruct import reconstruct

GRID = 18


def main() -> None:
    arguments = common.parser(__doc__).parse_args()
    rows = []
    for name, pictures in load(arguments, COUNT).items():
        prior = load_prior(name)
        for task, likelihood in tasks(pictures).items():
            rows.append({"prior": name, "task": task, **compare(likelihood, prior, pictures)})
            print(rows[-1], flush=True)
    file = Path(arguments.out) / "path_cost.json"
    save(rows, file)
    write(rows, file.with_suffix(".md"))


def compare(likelihood: Gaussian, prior: FlowPrior, pictures: Images) -> dict[str, Any]:
    found = reconstruct(likelihood, prior)
    states = [state for state in found.path if bool((state.weight > 0).all())]
    best = torch.stack([psnr(state.x, pictures) for state in states]).argmax(0)
    weights = torch.stack([state.weight for state in states])[best, torch.arange(len(best))]
    oracle = geometric_mean(weights.tolist())
    solved = solve(likelihood, prior, oracle)
    counts = solved.evaluations()
    means = {name: geometric_mean(values) for name, values in counts.items()}
    conventional = min((name for name in means if name != "engine"), key=lambda name: means[name])
    return {
        "auto": found.evaluations.tolist(),
        "oracle": oracle,
        "engine": counts["engine"],
        "conventional": counts[conventional],
        "method": conventional,
    }


def write(rows: list[dict], file: Path) -> None:
    lines = heading("What the automatic weight costs", __doc__)
    lines += ["Evaluations, geometric means over pictures (pictures of 6 that came within 0.1 %).", ""]
    lines += ["| prior | task | oracle λ | auto | engine, one solve | conventional, one solve | grid |"]
    lines[-1] += " auto ÷ engine | auto ÷ grid |"
    lines += ["|---" * 9 + "|"]
    to_engine, to_grid = [], []
    for row in rows:
        auto, engine, other = (geometric_mean(row[key]) for key in ("auto", "engine", "conventional"))
        to_engine.append(auto / engine)
        to_grid.append(auto / (GRID * other))
        cells = [row["prior"], row["task"], f"{row['oracle']:.2g}", f"{auto:.0f}"]
        cells += [f"{engine:.0f} ({within(row['engine'])})"]
        cells += [f"{other:.0f} ({within(row['conventional'])}), {row['method']}", f"{GRID * other:.0f}"]
        cells += [f"{bound(row['engine'])}{to_engine[-1]:.2f}"]
        cells += [f"{bound(row['conventional'])}{to_grid[-1]:.3f}"]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", f"Geometric means: auto ÷ engine {geometric_mean(to_engine):.2f} (target 3 at most), "]
    lines[-1] += f"auto ÷ grid {geometric_mean(to_grid):.3f} (target 1/6 = 0.167 at most)."
    file.write_text("\n".join(lines) + "\n")


def within(counts: list[int]) -> int:
    return sum(count <= BUDGET for count in counts)


def bound(counts: list[int]) -> str:
    return "" if within(counts) == len(counts) else "≤ "


if __name__ == "__main__":
    main()
