"""What a minimum costs: evaluations until F(·; λ) is within 0.1 % of the lowest known value.

    python runs/cost.py PHOTOS_FOLDER FASHION_IDX --out docs/results

The table uses six pictures per prior (32 × 32 centre crops of CBSD68; the first garments of Fashion-MNIST's
test set), three tasks (σ = 0.1; m = n/4 and σ = 0.01; a hole of a third of the side, σ = 0.02), and λ in
{0.1, 0.3, 1, 3}. Every method gets 150 evaluations of value and gradient and its own start, and all run
through the same loop. "Engine" is `aipo.selection.defaults.direct`, which is one minimisation. It runs over
latents where the noise is strong and nothing is hidden (marked z). Elsewhere it runs over pictures, in the
surrogate's metric or the data term's scale. "Paper" is the paper's path, with λ upward in ten steps of plain
gradient descent. "Decreasing λ" comes down from 8 λ in four steps. "Lowest known" is the lowest value that
any method reached, the engine with 450 evaluations included. A picture that is not within 0.1 % after 150
evaluations counts as 151, so ratios are bounds where that happened. Means over pictures are geometric. Over
latents, one evaluation passes the flow once from latent to picture and twice back, and the start costs one
more pass. Over pictures, one evaluation needs one pass each way. CSGM's and GlowIP's penalty ‖z‖²/2 is a
different objective, so they are not in this table. The script writes one JSON line per cell to cost.jsonl,
and an interrupted run goes on from there.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import common
import conventional
import numpy as np
import torch
from common import add_line, heading, image_shape, load, read
from torch import Tensor

from aipo.likelihoods import Gaussian, measure
from aipo.path.objective import objective
from aipo.path.options import PathOptions
from aipo.path.predictors import warm
from aipo.path.problem import Deformation, Problem, Terms
from aipo.path.schedules import paper
from aipo.path.solvers.descent import Adam, GradientDescent
from aipo.path.solvers.lbfgs import LBFGS
from aipo.path.solvers.solver import Solver
from aipo.path.trace import Trace
from aipo.priors import FlowPrior, load_prior
from aipo.reconstruction.follow import trace
from aipo.selection.defaults import direct

COUNT, BUDGET, LONG, CLOSE = 6, 150, 450, 1e-3
WEIGHTS = (0.1, 0.3, 1.0, 3.0)


class Recorder:
    """Follows a problem's energies: the lowest F(·; λ) of each image after each of its evaluations."""

    def __init__(self, problem: Problem, weight: float, count: int, budget: int):
        self.problem, self.weight = problem, weight
        self.lowest = torch.full((count, budget + 1), torch.inf, dtype=torch.float64)
        self.spent = torch.zeros(count, dtype=torch.long)

    def terms(self, x: Tensor, indices: Tensor, deformation: Deformation) -> Terms:
        terms = self.problem.terms(x, indices, deformation)
        value = (terms.data.double() + self.weight * terms.prior.double()).nan_to_num(torch.inf)
        before = self.lowest[indices, (self.spent[indices] - 1).clamp_min(0)]
        self.lowest[indices, self.spent[indices]] = torch.minimum(value, before)
        self.spent[indices] += 1
        return terms

    def curve(self) -> Tensor:
        """(B, budget + 1), the last value repeated where a solver stopped early."""
        return self.lowest.cummin(1).values


def follow(problem: Problem, weight: float, options: PathOptions) -> Tensor:
    """The lowest F(·; weight) after each evaluation of a path, (B, BUDGET + 1) or longer."""
    count = len(problem.start(torch.tensor([weight])))
    budget = max(BUDGET, options.evaluations)
    recorder = Recorder(problem, weight, count, budget + len(options.weights) + 1)
    list(Trace(replace(problem, terms=recorder.terms), options))
    return recorder.curve()[:, : budget + 1]


def methods(likelihood: Gaussian, prior: FlowPrior, weight: float) -> dict[str, Callable[[], Tensor]]:
    """Name -> the lowest F after each evaluation."""
    minimal = likelihood.operator.linear.pseudoinverse(likelihood.y)
    zero = torch.zeros_like(prior.encode(minimal))
    surrogate = objective(likelihood, prior).start(torch.full((len(likelihood),), weight))

    def pictures(start: Tensor, solver: Solver) -> Callable[[], Tensor]:
        problem = conventional.in_pictures(likelihood, prior, start)
        return lambda: follow(problem, weight, PathOptions((weight,), warm, solver, BUDGET, 0.0))

    def latents(solver: Solver) -> Callable[[], Tensor]:
        problem = conventional.in_latents_by_density(likelihood, prior, zero)
        return lambda: follow(problem, weight, PathOptions((weight,), warm, solver, BUDGET, 0.0))

    def path(options: PathOptions) -> Callable[[], Tensor]:
        problem = conventional.in_pictures(likelihood, prior, minimal)
        return lambda: follow(problem, weight, options)

    falling = tuple(weight * factor for factor in (8.0, 4.0, 2.0, 1.0))
    return {
        "engine": lambda: engine(likelihood, prior, weight, BUDGET),
        "paper": path(paper(weight, count=10, steps=BUDGET // 10, step=0.1)),
        "L-BFGS, decreasing λ": path(PathOptions(falling, warm, LBFGS(), BUDGET // 4, 0.0)),
        "gradient descent from A⁺y": pictures(minimal, GradientDescent(0.1)),
        "Adam from A⁺y": pictures(minimal, Adam(0.01)),
        "L-BFGS from A⁺y": pictures(minimal, LBFGS()),
        "Adam from the surrogate": pictures(surrogate, Adam(0.005)),
        "L-BFGS from the surrogate": pictures(surrogate, LBFGS()),
        "Adam in latents from 0": latents(Adam(0.05)),
        "L-BFGS in latents from 0": latents(LBFGS(first_step=1e-3)),
    }


def engine(likelihood: Gaussian, prior: FlowPrior, weight: float, budget: int) -> Tensor:
    options = replace(direct(likelihood, prior, weight, budget), tolerance=0.0)
    return follow(trace(likelihood, prior, options).problem, weight, options)


def tasks(x: Tensor) -> dict[str, Gaussian]:
    generator = torch.Generator().manual_seed(0)
    settings = common.settings(image_shape(x))
    return {name: measure(operator, x, sigma, generator) for name, (operator, sigma) in settings.items()}


def main() -> None:
    arguments, file = common.resumable(__doc__, "cost.jsonl")
    done = {(row["prior"], row["task"], row["weight"]) for row in read(file)}
    for name, pictures in load(arguments, COUNT).items():
        if arguments.prior not in (None, name):
            continue
        prior = load_prior(name)
        for task, likelihood in tasks(pictures).items():
            for weight in WEIGHTS:
                if (name, task, weight) not in done:
                    append(file, {"prior": name, "task": task, "weight": weight}, likelihood, prior)
    write(read(file), file.with_suffix(".md"))


@dataclass(frozen=True)
class Solved:
    """One λ by every method: the lowest F after each evaluation, (B, …), and the lowest known, (B,)."""

    curves: dict[str, Tensor]
    lowest: Tensor

    def evaluations(self) -> dict[str, list[int]]:
        """How many each picture took to come within 0.1 %; one more than the budget where it never did."""
        bound = self._bound()[:, None]
        return {
            name: ((curve > bound).sum(1) + 1).clamp_max(BUDGET + 1).tolist()
            for name, curve in self.curves.items()
        }

    def reached(self) -> dict[str, int]:
        return {name: int((curve[:, -1] <= self._bound()).sum()) for name, curve in self.curves.items()}

    def above_lowest(self) -> dict[str, float]:
        return {name: float((curve[:, -1] - self.lowest).mean()) for name, curve in self.curves.items()}

    def _bound(self) -> Tensor:
        return self.lowest + CLOSE * self.lowest.abs()


def solve(likelihood: Gaussian, prior: FlowPrior, weight: float) -> Solved:
    curves = {name: run() for name, run in methods(likelihood, prior, weight).items()}
    ends = [engine(likelihood, prior, weight, LONG)[:, -1], *(c[:, -1] for c in curves.values())]
    return Solved(curves, torch.stack(ends).min(0).values)


def append(file: Path, cell: dict, likelihood: Gaussian, prior: FlowPrior) -> None:
    """One prior, task and weight: how many evaluations each picture took with each method."""
    solved = solve(likelihood, prior, cell["weight"])
    record = cell | {
        "coordinates": direct(likelihood, prior, cell["weight"]).coordinates,
        "evaluations": solved.evaluations(),
        "reached": solved.reached(),
        "above_lowest": solved.above_lowest(),
        "lowest": solved.lowest.tolist(),
    }
    add_line(record, file)
    reached = record["reached"]
    shown = {n: f"{geometric_mean(row):.0f} ({reached[n]})" for n, row in record["evaluations"].items()}
    print(cell, shown, flush=True)


def geometric_mean(values) -> float:
    return float(np.exp(np.log(np.asarray(values, dtype=float)).mean()))


def write(rows: list[dict], file: Path) -> None:
    names = list(rows[0]["evaluations"])
    others = [name for name in names if name != "engine"]
    lines = heading("What a minimum costs", __doc__)
    lines += ["Geometric mean of evaluations (pictures of 6 that came within 0.1 %).", ""]
    lines += ["| prior | task | λ | " + " | ".join(names) + " | best conventional ÷ engine |"]
    lines += ["|---" * (4 + len(names)) + "|"]
    ratios = []
    for row in rows:
        means = {name: geometric_mean(row["evaluations"][name]) for name in names}
        ratios.append(min(means[name] for name in others) / means["engine"])
        cells = [f"{means[name]:.0f} ({row['reached'][name]})" for name in names]
        cells[0] += " z" if row["coordinates"] == "latents" else ""
        head = [row["prior"], row["task"], f"{row['weight']:g}"]
        lines.append("| " + " | ".join([*head, *cells, f"{ratios[-1]:.2f}"]) + " |")
    one = [geometric_mean([geometric_mean(row["evaluations"][name]) for row in rows]) for name in others]
    mean = geometric_mean([geometric_mean(row["evaluations"]["engine"]) for row in rows])
    lines += [
        "",
        f"Geometric mean of the ratios to each cell's best (target 3): {geometric_mean(ratios):.2f}. ",
    ]
    lines += [f"Against the one conventional method that is best over all cells: {min(one) / mean:.2f}.", ""]
    lines += ["Mean distance from the lowest known F after 150 evaluations, nats:", ""]
    lines += ["| prior | task | λ | " + " | ".join(names) + " |", "|---" * (3 + len(names)) + "|"]
    for row in rows:
        cells = [f"{row['above_lowest'][name]:.1f}" for name in names]
        head = [row["prior"], row["task"], f"{row['weight']:g}"]
        lines.append("| " + " | ".join([*head, *cells]) + " |")
    file.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
