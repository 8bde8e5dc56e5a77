"""How much the starting point matters: five starts for the engine's path and for the conventional methods.

    python runs/starts.py PHOTOS_FOLDER FASHION_IDX --out docs/results

Pictures and tasks are those of cost.py, with λ = 1 at the end. The starts are grey, uniform noise, A⁺y plus
uniform noise in the null space of A (GlowIP's ablation), A⁺y, and the surrogate's closed form. From each
start, "engine" first minimises with the Gaussian surrogate in place of the flow, at the first λ of its usual
path (300 evaluations at most, none of the flow). That problem is convex and has one minimum. From there the
engine follows its usual path to λ = 1. The conventional methods hold λ = 1 and get as many evaluations. In
latents they begin at the latent of the start. "Spread" is the highest mean PSNR minus the lowest, over
starts. "Per picture" is the mean over pictures of each picture's own spread. An interrupted run goes on where
it stopped.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import common
import conventional
import torch
from common import add_line, heading, load, mean, read
from cost import COUNT, tasks

from aipo.basics.arrays import Images
from aipo.basics.quality import psnr
from aipo.likelihoods import Gaussian
from aipo.path.objective import objective
from aipo.path.options import PathOptions, ending
from aipo.path.predictors import warm
from aipo.path.problem import Deformation
from aipo.path.solvers.descent import Adam
from aipo.path.solvers.lbfgs import LBFGS
from aipo.path.state import State
from aipo.path.trace import Trace
from aipo.priors import FlowPrior, load_prior
from aipo.selection.defaults import path_to_minima

STARTS = ("grey", "random", "null space", "A⁺y", "surrogate")


def main() -> None:
    arguments, file = common.resumable(__doc__, "starts.jsonl")
    done = {(row["prior"], row["task"]) for row in read(file)}
    for name, pictures in load(arguments, COUNT).items():
        if arguments.prior not in (None, name):
            continue
        prior = load_prior(name)
        for task, likelihood in tasks(pictures).items():
            if (name, task) not in done:
                record(name, task, compare(likelihood, prior), pictures, file)
    write(read(file), file.with_suffix(".md"))


def record(name: str, task: str, ends: dict[str, dict[str, State]], pictures: Images, file: Path) -> None:
    for method, of_starts in ends.items():
        row = {"prior": name, "task": task, "method": method, **figures(of_starts, pictures)}
        shown = {start: f"{mean(values):.2f}" for start, values in row["psnr"].items()}
        print(name, task, method, shown, flush=True)
        add_line(row, file)


def figures(ends: dict[str, State], pictures: Images) -> dict[str, Any]:
    return {
        "psnr": {start: psnr(end.x, pictures).tolist() for start, end in ends.items()},
        "objective": {start: end.objective.tolist() for start, end in ends.items()},
        "evaluations": float(ends["grey"].evaluations.float().mean()),
    }


def compare(likelihood: Gaussian, prior: FlowPrior) -> dict[str, dict[str, State]]:
    """Method -> start -> where it ended."""
    starts = {
        "grey": conventional.grey(likelihood),
        "random": conventional.random(likelihood),
        "null space": conventional.null_space(likelihood),
        "A⁺y": likelihood.operator.linear.pseudoinverse(likelihood.y),
        "surrogate": objective(likelihood, prior).start(torch.zeros(1)),
    }
    engine = {name: path(likelihood, prior, start) for name, start in starts.items()}
    spent = int(engine["surrogate"].evaluations.max())

    def fixed(solver, problem: Callable) -> dict[str, State]:
        options = PathOptions((1.0,), warm, solver, spent, 0.0)
        return {name: last(Trace(problem(start), options)) for name, start in starts.items()}

    def pictures(start: Images):
        return conventional.in_pictures(likelihood, prior, start)

    def latents(start: Images):
        with torch.no_grad():
            return conventional.in_latents_by_density(likelihood, prior, prior.encode(start))

    return {
        "engine": engine,
        "L-BFGS": fixed(LBFGS(), pictures),
        "Adam": fixed(Adam(0.01), pictures),
        "L-BFGS in latents": fixed(LBFGS(first_step=1e-3), latents),
        "Adam in latents": fixed(Adam(0.05), latents),
    }


def path(likelihood: Gaussian, prior: FlowPrior, start: Images) -> State:
    """The engine's path to λ = 1, begun somewhere else."""
    options = ending(path_to_minima(likelihood.operator, prior), 1.0)
    problem = objective(likelihood, prior, metric=options.metric)
    exact = objective(likelihood, prior)
    first = next(weight for weight in options.weights if weight > 0)
    convex = PathOptions((first,), warm, LBFGS(memory=20), 300, 1e-9, deformations=(Deformation(share=0.0),))
    begun = last(Trace(replace(exact, start=lambda weight: start), convex)).x
    offset = begun - problem.start(torch.tensor([first]))
    return last(Trace(replace(problem, start=lambda weight: problem.start(weight) + offset), options))


def last(states: Trace) -> State:
    return list(states)[-1]


def write(rows: list[dict], file: Path) -> None:
    lines = [*heading("How much the starting point matters", __doc__), "Mean PSNR in dB at λ = 1.", ""]
    lines += [
        "| prior | task | method | " + " | ".join(STARTS) + " | spread | per picture | F: spread, nats |"
    ]
    lines += ["|---" * (6 + len(STARTS)) + "|"]
    for row in rows:
        means = [mean(row["psnr"][start]) for start in STARTS]
        energies = [mean(row["objective"][start]) for start in STARTS]
        each = torch.tensor([row["psnr"][start] for start in STARTS])
        spread = float((each.max(0).values - each.min(0).values).mean())
        cells = [row["prior"], row["task"], row["method"], *(f"{value:.2f}" for value in means)]
        cells += [f"{max(means) - min(means):.2f}", f"{spread:.2f}", f"{max(energies) - min(energies):.0f}"]
        lines.append("| " + " | ".join(cells) + " |")
    engines = [row for row in rows if row["method"] == "engine"]
    spreads = [[mean(row["psnr"][start]) for start in STARTS] for row in engines]
    close = sum(max(values) - min(values) <= 0.1 for values in spreads)
    lines += ["", f"The engine's spread is at most 0.1 dB (target: all) in {close} of {len(engines)} tasks."]
    file.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
