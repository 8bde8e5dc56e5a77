"""The conventional methods at the weight that the truth would choose, from several starts, beside aipo.

    python runs/fixed_weight.py PHOTOS_FOLDER FASHION_IDX --out docs/results

Pictures and tasks are those of cost.py. "Penalty ‖z‖²" is CSGM and GlowIP: D(G(z)) + λ‖z‖²/2 over the latent,
from zero, from small (0.1) and unit random latents, and from the encoded A⁺y. "Density of x" minimises D + λR
over the picture, from A⁺y, the surrogate's closed form, grey and noise. Each runs by Adam and by L-BFGS with
300 evaluations at each weight. The 18 weights go from 0.01 to 100 in equal ratios. All starts and solvers run
at every third weight. For each objective, the pair with the highest mean PSNR then runs at all 18 weights
("grid"). Every method gets, picture by picture, the weight with the highest PSNR. "Multi-start" runs the four
starts by L-BFGS and keeps, at each weight, the end with the lowest loss. "Decreasing λ" passes the 18 weights
from the top by L-BFGS with 18 evaluations at each. Each solution starts the next, and the method keeps the
best of its states. aipo sees no truth. The script writes one JSON line per solve to fixed_weight.jsonl, and
an interrupted run goes on from there.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from math import isnan
from pathlib import Path

import common
import conventional
import torch
from common import add_line, heading, load, mean, read
from cost import COUNT, tasks
from torch import Tensor

from aipo.basics.arrays import Images
from aipo.basics.quality import psnr
from aipo.likelihoods import Gaussian
from aipo.path.objective import objective
from aipo.path.options import PathOptions
from aipo.path.predictors import warm
from aipo.path.problem import Problem
from aipo.path.schedules import geometric
from aipo.path.solvers.descent import Adam
from aipo.path.solvers.lbfgs import LBFGS
from aipo.path.solvers.solver import Solver
from aipo.path.trace import Trace
from aipo.priors import FlowPrior, load_prior
from aipo.reconstruction.reconstruct import reconstruct

BUDGET = 300
GRID = geometric(0.01, 100.0, 18)[1:]
COARSE = GRID[1::3]
LATENT, PICTURE = "penalty ‖z‖²", "density of x"
STARTS = {LATENT: ("zero", "small", "unit", "encoded A⁺y"), PICTURE: ("A⁺y", "surrogate", "grey", "random")}
SOLVERS: dict[str, dict[str, Solver]] = {
    LATENT: {"Adam": Adam(0.05), "L-BFGS": LBFGS(first_step=1e-3)},
    PICTURE: {"Adam": Adam(0.01), "L-BFGS": LBFGS()},
}


@dataclass(frozen=True)
class Task:
    """One prior and one task, and the lines that are known of it."""

    prior: str
    name: str
    likelihood: Gaussian
    flow: FlowPrior
    pictures: Images
    file: Path

    def rows(self, method: str | None = None) -> list[dict]:
        own = [row for row in read(self.file) if (row["prior"], row["task"]) == (self.prior, self.name)]
        return [row for row in own if method in (None, row["method"])]

    def keep(self, key: dict, image: Images, objective: Tensor, evaluations: Tensor) -> None:
        figures = {"psnr": psnr(image, self.pictures), "objective": objective, "evaluations": evaluations}
        row = {"prior": self.prior, "task": self.name, **key}
        row |= {name: values.tolist() for name, values in figures.items()}
        add_line(row, self.file)
        print(self.prior, self.name, *key.values(), f"{mean(row['psnr']):.2f}", flush=True)


def main() -> None:
    arguments, file = common.resumable(__doc__, "fixed_weight.jsonl")
    for name, pictures in load(arguments, COUNT).items():
        if arguments.prior in (None, name):
            flow = load_prior(name)
            for task, likelihood in tasks(pictures).items():
                run(Task(name, task, likelihood, flow, pictures, file))
    write(read(file), file.with_suffix(".md"))


def run(task: Task) -> None:
    if not task.rows("aipo"):
        found = reconstruct(task.likelihood, task.flow)
        task.keep({"method": "aipo"}, found.image, found.objective, found.evaluations)
    if not task.rows("decreasing λ"):
        decrease(task)
    for method, problem in problems(task).items():
        pairs = list(product(SOLVERS[method], STARTS[method]))
        solve(task, method, problem, pairs, COARSE)
        solve(task, method, problem, [best_pair(task.rows(method))], GRID)


def problems(task: Task) -> dict[str, Callable[[str], Problem]]:
    """Objective -> the problem from a named start."""
    likelihood, flow = task.likelihood, task.flow
    minimal = likelihood.operator.linear.pseudoinverse(likelihood.y)
    with torch.no_grad():
        encoded = flow.encode(minimal)
    noise = torch.randn(encoded.shape, generator=torch.Generator().manual_seed(0))
    over_latents = {
        "zero": torch.zeros_like(noise),
        "small": 0.1 * noise,
        "unit": noise,
        "encoded A⁺y": encoded,
    }
    over_pictures = {
        "A⁺y": minimal,
        "grey": conventional.grey(likelihood),
        "random": conventional.random(likelihood),
    }

    def of_picture(start: str) -> Problem:
        if start == "surrogate":  # which depends on λ
            return objective(likelihood, flow, "surrogate", "data")
        return conventional.in_pictures(likelihood, flow, over_pictures[start])

    return {
        LATENT: lambda start: conventional.in_latents(likelihood, flow, over_latents[start]),
        PICTURE: of_picture,
    }


def solve(task: Task, method: str, problem: Callable[[str], Problem], pairs, weights) -> None:
    """One line for each pair of solver and start, and each weight, that is not there yet."""
    done = {(row["solver"], row["start"], row["weight"]) for row in task.rows(method)}
    for (solver, start), weight in product(pairs, weights):
        if (solver, start, weight) not in done:
            options = PathOptions((weight,), warm, SOLVERS[method][solver], BUDGET, 0.0)
            end = list(Trace(problem(start), options))[-1]
            key = {"method": method, "solver": solver, "start": start, "weight": weight}
            task.keep(key, end.x, end.objective, end.evaluations)


def decrease(task: Task) -> None:
    """The state with the highest PSNR, picture by picture."""
    options = PathOptions(GRID[::-1], warm, LBFGS(), 18, 0.0)
    problem = objective(task.likelihood, task.flow, "measurement", "data")
    states = list(Trace(problem, options))
    best = torch.stack([psnr(state.x, task.pictures) for state in states]).argmax(0)
    image, value = (
        torch.stack([getattr(state, name) for state in states])[best, torch.arange(len(best))]
        for name in ("x", "objective")
    )
    task.keep({"method": "decreasing λ"}, image, value, states[-1].evaluations)


def best_pair(rows: list[dict]) -> tuple[str, str]:
    """Solver and start with the highest mean PSNR at the coarse weights, each picture at its best weight."""
    pairs = {(row["solver"], row["start"]) for row in rows}
    return max(sorted(pairs), key=lambda pair: mean(best(of_pair(rows, pair, COARSE))))


def of_pair(rows: list[dict], pair: tuple[str, str], weights: tuple[float, ...]) -> list[dict]:
    return [row for row in rows if (row["solver"], row["start"]) == pair and row["weight"] in weights]


def best(rows: list[dict]) -> list[float]:
    """The highest PSNR of each picture."""
    return [max(values) for values in zip(*(row["psnr"] for row in rows), strict=True)]


def multi_start(rows: list[dict]) -> list[float]:
    """The PSNR of each picture at its best coarse weight, where the start with the lowest loss is kept."""
    ends = []
    for weight in COARSE:
        own = [row for row in rows if row["solver"] == "L-BFGS" and row["weight"] == weight]
        starts = list(zip(*(zip(row["objective"], row["psnr"], strict=True) for row in own), strict=True))
        ends.append([min(tried, key=lambda end: (isnan(end[0]), end[0]))[1] for tried in starts])
    return [max(values) for values in zip(*ends, strict=True)]


def write(rows: list[dict], file: Path) -> None:
    lines = [*heading("Fixed weights, the truth choosing", __doc__), "Mean PSNR in dB.", ""]
    names = [(row["prior"], row["task"]) for row in rows if row["method"] == "aipo"]
    lines += ["| prior | task | method | solver | start | weights | PSNR | aipo − it | worst | evaluations |"]
    lines += ["|---" * 10 + "|"]
    ahead = []
    for prior, task in names:
        own = [row for row in rows if (row["prior"], row["task"]) == (prior, task)]
        aipo = next(row for row in own if row["method"] == "aipo")
        for label, values, spent in summary(own):
            gains = [a - b for a, b in zip(aipo["psnr"], values, strict=True)]
            ahead += [mean(gains)] if "aipo" not in label else []
            figures = [f"{mean(values):.2f}", f"{mean(gains):+.2f}", f"{min(gains):+.2f}", f"{spent:.0f}"]
            lines.append("| " + " | ".join([prior, task, *label, *figures]) + " |")
    beaten = sum(gain >= 0 for gain in ahead)
    lines += ["", f"aipo, without the truth, is at least as good as {beaten} of {len(ahead)} rows with it."]
    file.write_text("\n".join(lines) + "\n")


def summary(rows: list[dict]) -> list[tuple[list[str], list[float], float]]:
    """(method, solver, start, weights), PSNR of each picture, evaluations of each picture."""
    found = []
    for method in ("aipo", "decreasing λ"):
        row = next(row for row in rows if row["method"] == method)
        weights = "auto" if method == "aipo" else f"{len(GRID)}, best state"
        solver = "its own" if method == "aipo" else "L-BFGS"
        label = [method, solver, "its own" if method == "aipo" else "A⁺y", weights]
        found.append((label, row["psnr"], mean(row["evaluations"])))
    for method, starts in STARTS.items():
        own = [row for row in rows if row["method"] == method]
        for pair in product(SOLVERS[method], starts):
            found.append(line(method, own, pair, COARSE, "6"))
        found.append(line(method, own, best_pair(own), GRID, "grid: 18"))
        spent = sum(line(method, own, ("L-BFGS", start), COARSE, "")[2] for start in starts)
        found.append(([method, "L-BFGS", "multi-start", "6"], multi_start(own), spent))
    return found


def line(method: str, rows: list[dict], pair: tuple[str, str], weights, label: str):
    own = of_pair(rows, pair, weights)
    return [method, *pair, label], best(own), sum(mean(row["evaluations"]) for row in own)


if __name__ == "__main__":
    main()
