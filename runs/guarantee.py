"""Which methods find the global minimum: 2,000 random problems in the plane, solved on a dense grid.

    python runs/guarantee.py --out docs/results

The task is denoising in the plane, y = x + e with e ~ N(0, σ² I). Every problem has its own mixture of 6
Gaussians for x (means N(0, 4 I), standard deviations log-uniform in 0.15–0.6, random axes and weights).
Success means that F = D + R at the end is within 0.001 nats of the lowest known value. That value comes from
a 200 × 200 grid, polished, or from any of the methods. "Evaluations" are value-and-gradient evaluations spent
per problem. The certificate of a method warns of an end that may not be global: branches that ended in
different minima, a path along which F was not convex, or an end that has not converged.
"""

import argparse
import json
import math
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from aipo.basics.derivatives import hessian_product, value_and_gradient
from aipo.path.options import PathOptions
from aipo.path.predictors import warm
from aipo.path.problem import Deformation, Problem, Terms
from aipo.path.schedules import paper, smoothing
from aipo.path.solvers.descent import GradientDescent
from aipo.path.solvers.lbfgs import LBFGS
from aipo.path.trace import Trace
from aipo.reconstruction.branches import lowest
from aipo.reconstruction.certificate import Verdict, certify

COMPONENTS, TOLERANCE = 6, 1e-3
# Cold starts and their evaluations set the budget; the engine's branches converge long before it is spent.
COLD_STARTS, PER_PATH, BRANCHES = 8, 100, 16


@dataclass(frozen=True)
class Planar:
    """N denoising problems in the plane; x has shape (N, 1, 1, 2)."""

    means: Tensor
    values: Tensor
    vectors: Tensor
    log_weights: Tensor
    y: Tensor
    sigma: float

    def select(self, indices: Tensor) -> "Planar":
        fields = {name: value[indices] for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **fields)

    def data(self, x: Tensor) -> Tensor:
        squares = ((x - self.y) ** 2).flatten(1).sum(1)
        return squares / (2 * self.sigma**2) + math.log(2 * math.pi * self.sigma**2)

    def prior(self, x: Tensor, tau: float = 0.0) -> Tensor:
        variances = self.values + tau**2
        centred = x.flatten(1)[:, None] - self.means
        squares = (torch.einsum("bki,bkij->bkj", centred, self.vectors) ** 2 / variances).sum(2)
        constants = variances.log().sum(2) + 2 * math.log(2 * math.pi)
        return -torch.logsumexp(self.log_weights - 0.5 * (squares + constants), 1)

    def terms(self, x: Tensor, indices: Tensor, deformation: Deformation) -> Terms:
        own = self.select(indices)
        data, data_gradient = value_and_gradient(own.data, x)
        prior, prior_gradient = value_and_gradient(lambda x: own.prior(x, deformation.tau), x)
        return Terms(data, prior, data_gradient, prior_gradient)

    def hessian(self, x: Tensor, weight: Tensor, deformation: Deformation):
        return hessian_product(lambda x: self.data(x) + weight * self.prior(x, deformation.tau), x)

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean (N, 2) and covariance (N, 2, 2) of each mixture: its Gaussian surrogate."""
        weights = self.log_weights.exp()
        mean = torch.einsum("bk,bki->bi", weights, self.means)
        centred = self.means - mean[:, None]
        inner = torch.einsum("bk,bkij,bkj,bklj->bil", weights, self.vectors, self.values, self.vectors)
        return mean, inner + torch.einsum("bk,bki,bkj->bij", weights, centred, centred)

    def posterior(self) -> tuple[Tensor, Tensor]:
        """Mean and covariance of the surrogate's posterior."""
        mean, covariance = self.moments()
        precision = torch.linalg.inv(covariance)
        posterior = torch.linalg.inv(precision + torch.eye(2).to(mean) / self.sigma**2)
        right = self.y.flatten(1) / self.sigma**2 + (precision @ mean[:, :, None])[:, :, 0]
        return (posterior @ right[:, :, None])[:, :, 0], posterior


def draw(count: int, sigma: float, seed: int) -> Planar:
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, dtype=torch.float64)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    means = 2 * normal(count, COMPONENTS, 2)
    weights = -uniform(count, COMPONENTS).log()
    deviations = 0.15 * (0.6 / 0.15) ** uniform(count, COMPONENTS, 2)
    angle = math.pi * uniform(count, COMPONENTS)
    vectors = torch.stack((angle.cos(), -angle.sin(), angle.sin(), angle.cos()), -1).unflatten(-1, (2, 2))
    chosen = torch.multinomial(weights, 1, generator=generator)[:, 0]
    rows = torch.arange(count)
    steps = deviations[rows, chosen] * normal(count, 2)
    x = means[rows, chosen] + (vectors[rows, chosen] @ steps[:, :, None])[:, :, 0]
    y = (x + sigma * normal(count, 2))[:, None, None]
    log_weights = (weights / weights.sum(1, keepdim=True)).log()
    return Planar(means, deviations**2, vectors, log_weights, y, sigma)


def branch_problem(planar: Planar, starts: Tensor) -> Problem:
    """K starts (K, N, 1, 1, 2), one behind the other, with the surrogate's curvature as metric."""
    wide = planar.select(torch.arange(len(planar.y)).repeat(len(starts)))
    precision = torch.linalg.inv(wide.moments()[1])

    def metric(weight: Tensor):
        hessian = torch.eye(2).to(precision) / planar.sigma**2 + weight[:, None, None] * precision
        inverse = torch.linalg.inv(hessian)

        def apply(v: Tensor) -> Tensor:
            times = len(v) // len(inverse)
            return (inverse.repeat(times, 1, 1) @ v.flatten(1)[:, :, None]).reshape(v.shape)

        return apply

    return Problem(wide.terms, lambda weight: starts.flatten(0, 1), metric, wide.hessian)


@dataclass(frozen=True)
class Row:
    """What one method reached at one noise level."""

    sigma: float
    method: str
    problems: int
    success: float
    evaluations: float
    failures_warned: float | None
    successes_warned: float | None
    seconds: float


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", default="docs/results")
    parser.add_argument("--count", type=int, default=2000)
    arguments = parser.parse_args()
    rows = [row for sigma in (0.3, 0.6, 1.0, 2.0) for row in study(draw(arguments.count, sigma, seed=0))]
    write(rows, Path(arguments.out))


def methods(planar: Planar) -> dict[str, tuple[Tensor, list[PathOptions]]]:
    """Name -> starting points (K, N, 1, 1, 2) and the paths followed from each."""
    generator = torch.Generator().manual_seed(1)
    y = planar.y[None]
    step = 1 / (planar.sigma**-2 + 0.15**-2)
    noise = torch.randn(BRANCHES, *planar.y.shape, generator=generator, dtype=torch.float64)
    mode, covariance = planar.posterior()
    mode = mode[None, :, None, None]
    root = torch.linalg.cholesky(covariance)
    draws = mode + torch.einsum("nij,kncdj->kncdi", root, noise)
    draws = torch.cat((mode, draws[1:]))
    plain = PathOptions((1.0,), warm, GradientDescent(step), PER_PATH - 1, 0.0)
    direct = PathOptions((1.0,), warm, LBFGS(), PER_PATH - 1, 1e-6)
    smooth = smoothing(tau=3.0, count=11, steps=8)
    short = smoothing(tau=0.5, count=11, steps=8)
    long = paper(last=1.0, count=10, steps=10 * COLD_STARTS, step=step)
    return {
        "gradient descent from y": (y, [plain]),
        "L-BFGS from y": (y, [direct]),
        "L-BFGS from the surrogate's mode": (mode, [direct]),
        "λ path from y (the paper's)": (y, [replace(long, evaluations=10)]),
        "λ path from y, 8 × the evaluations": (y, [long]),
        "smoothing path from y": (y, [smooth]),
        "8 × L-BFGS from y + σ n": (y + planar.sigma * noise[:COLD_STARTS], [direct]),
        "8 × L-BFGS from the surrogate's posterior": (draws[:COLD_STARTS], [direct]),
        "8 × smoothing path from the surrogate's posterior": (draws[:COLD_STARTS], [short]),
        "best-of: 16 × both from the surrogate's posterior": (draws, [short, direct]),
    }


def study(planar: Planar) -> list[Row]:
    ends, rows = {}, []
    for name, (starts, paths) in methods(planar).items():
        started = time.perf_counter()
        ends[name] = (*follow(planar, starts, paths), time.perf_counter() - started)
    found = [objective for objective, *_ in ends.values()]
    truth = torch.stack([grid_minimum(planar), *found]).min(0).values
    for name, (objective, evaluations, warned, seconds) in ends.items():
        success = objective <= truth + TOLERANCE
        row = Row(
            planar.sigma,
            name,
            len(truth),
            share(success),
            float(evaluations.double().mean()),
            share(warned[~success]),
            share(warned[success]),
            round(seconds, 2),
        )
        rows.append(row)
        print(row, flush=True)
    return rows


def follow(planar: Planar, starts: Tensor, paths: list[PathOptions]) -> tuple[Tensor, Tensor, Tensor]:
    """Lowest end, evaluations and whether the certificate warns, for each problem."""
    problem = branch_problem(planar, starts)
    plain = replace(problem, metric=lambda weight: lambda v: v)
    solved = [plain if isinstance(options.solver, GradientDescent) else problem for options in paths]
    states = [list(Trace(p, options)) for p, options in zip(solved, paths, strict=True)]
    found = lowest([path[-1] for path in states], len(starts))
    if len(starts) > 1:
        verdict = found.verdict
    else:
        kept = torch.full((len(planar.y),), len(states[0]) - 1)
        verdict = certify(problem, states[0], kept, iterations=2).verdict
    warned = torch.tensor([v not in (Verdict.CONVEX, Verdict.AGREEING) for v in verdict])
    return found.objective, found.evaluations, warned


def grid_minimum(planar: Planar, side: int = 200) -> Tensor:
    """The lowest F over a grid around all means and y, polished, (N,)."""
    lower = torch.minimum(planar.means.amin(1), planar.y.flatten(1)) - 0.5
    upper = torch.maximum(planar.means.amax(1), planar.y.flatten(1)) + 0.5
    best = torch.full((len(lower),), torch.inf, dtype=torch.float64)
    start = planar.y.clone()
    across = torch.linspace(0, 1, side, dtype=torch.float64)
    for row in across:
        places = torch.stack((row.expand(side), across), 1)
        x = lower[:, None] + places * (upper - lower)[:, None]
        wide = planar.select(torch.arange(len(lower)).repeat_interleave(side))
        flat = x.reshape(-1, 1, 1, 2)
        value, index = (wide.data(flat) + wide.prior(flat)).reshape(-1, side).min(1)
        lower_now = value < best
        best = torch.where(lower_now, value, best)
        start[lower_now] = flat.reshape(-1, side, 1, 1, 2)[torch.arange(len(lower)), index][lower_now]
    polished = list(Trace(branch_problem(planar, start[None]), PathOptions((1.0,), warm, evaluations=60)))
    return torch.minimum(best, polished[-1].objective)


def share(flags: Tensor) -> float:
    """NaN where nothing is counted."""
    return float(flags.double().mean())


def write(rows: list[Row], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    records = [{k: None if v != v else v for k, v in asdict(row).items()} for row in rows]
    (folder / "guarantee.json").write_text(json.dumps(records, indent=1, ensure_ascii=False) + "\n")
    lines = ["# Global minima", "", (__doc__ or "").strip().split("\n\n", 2)[2].replace("\n", " "), ""]
    lines += ["| σ | method | success | evaluations | failures warned of | successes warned of |"]
    lines += ["|---" * 6 + "|"]
    for row in records:
        warned = ["–" if row[k] is None else f"{row[k]:.0%}" for k in ("failures_warned", "successes_warned")]
        cells = [
            f"{row['sigma']}",
            row["method"],
            f"{row['success']:.3f}",
            f"{row['evaluations']:.0f}",
            *warned,
        ]
        lines.append("| " + " | ".join(cells) + " |")
    (folder / "guarantee.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
