"""The path: minimisers of F(x; λ) = D(x) + λ R(x) for λ from 0 upward, as an iterator of states.

For each weight: predict a starting point, correct it with an inner solver, judge the result per image.
Rejected points are yielded and flagged, and the next prediction starts from the last accepted one.

Source: Liu, Yang, Zhang & Lei 2023 (AIPO), algorithm 1. Its own choices are the `paper` preset.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from aipo.arrays import PerImage, as_per_image, expand
from aipo.errors import InputError, Status
from aipo.minimise import minimise
from aipo.solvers import LBFGS, GradientDescent, Metric, Point, Solver

# Points of the path kept, so that the solver learns its curvature at a new λ from what it saw at others:
# with D and R at hand separately, their gradients at any λ cost nothing.
VISITED = 11


@dataclass(frozen=True)
class Terms:
    """The two energies and their gradients at x: D, R of shape (B,), gradients like x."""

    data: PerImage
    prior: PerImage
    data_gradient: Tensor
    prior_gradient: Tensor


@dataclass(frozen=True)
class Problem:
    """What the path needs to know of a model.

    Attributes:
        terms: (x, indices) -> energies and gradients of the images with these indices.
        start: weights (B,) -> the starting point at these weights; 0 means the limit λ → 0⁺.
        metric: weights (B,) -> an approximation of the inverse Hessian of F(·; λ).
    """

    terms: Callable[[Tensor, Tensor], Terms]
    start: Callable[[PerImage], Tensor]
    metric: Callable[[PerImage], Metric]


@dataclass(frozen=True)
class State:
    """One point of the path, for every image of the batch.

    Attributes:
        index: number of the point, 0 at the path's beginning.
        weight: λ, (B,).
        x: (B, C, H, W).
        data_energy, prior_energy, objective: D, R and D + λR in nats, (B,).
        decrement: nats that the metric predicts could still be gained at this λ, (B,).
        evaluations: flow evaluations spent so far, (B,).
        status: how the correction at this λ ended, (B,) integers of `Status`.
        accepted: (B,) bool; where false the point is not part of the path.
    """

    index: int
    weight: PerImage
    x: Tensor
    data_energy: PerImage
    prior_energy: PerImage
    objective: PerImage
    decrement: PerImage
    evaluations: Tensor
    status: Tensor
    accepted: Tensor


# (problem, last accepted x, its weight, next weight) -> starting point at the next weight.
Predictor = Callable[[Problem, Tensor, PerImage, PerImage], Tensor]


def warm(problem: Problem, x: Tensor, weight: PerImage, target: PerImage) -> Tensor:
    """Start from the last solution (the paper's)."""
    return x


def cold(problem: Problem, x: Tensor, weight: PerImage, target: PerImage) -> Tensor:
    """Start from the closed-form solution at the new weight: a homotopy from the Gaussian to the flow."""
    return problem.start(target)


def shifted(problem: Problem, x: Tensor, weight: PerImage, target: PerImage) -> Tensor:
    """The last solution, moved by what the closed-form path moves between the two weights."""
    return x + problem.start(target) - problem.start(weight)


@dataclass(frozen=True)
class PathOptions:
    """How the path is followed.

    Args:
        weights: increasing λ; a first 0 is the path's beginning and is evaluated, not minimised.
        predictor: `warm`, `cold` or `shifted`.
        solver: the corrector.
        evaluations: budget of the corrector at each weight.
        tolerance: expected further decrease, in nats, below which a point has converged.
        start: where the path begins and which metric the solver uses: the prior's Gaussian surrogate, or
            the measurement alone (A⁺y and the data term's scale, as in the paper).
        stiffness: how much more curved than its surrogate the prior is taken to be; the metric is that of
            λ · stiffness. A Gaussian with the covariance of all pictures is wide where the neighbourhood
            of one picture is narrow: along the steps taken in a flow the ratio is 5 to 500.
    """

    weights: tuple[float, ...]
    predictor: Predictor = shifted
    solver: Solver = LBFGS()
    evaluations: int = 20
    tolerance: float = 0.1
    start: Literal["surrogate", "measurement"] = "surrogate"
    stiffness: float = 1.0

    def __post_init__(self):
        increasing = all(a < b for a, b in zip(self.weights, self.weights[1:], strict=False))
        if not self.weights or self.weights[0] < 0 or not increasing or not np.isfinite(self.weights[-1]):
            raise InputError(f"weights must be non-negative and increasing, got {self.weights}")
        if self.evaluations < 1:
            raise InputError(f"evaluations = {self.evaluations}; the corrector needs at least 1 per weight")
        if self.start not in ("surrogate", "measurement"):
            raise InputError(f"start = {self.start!r}; use surrogate or measurement")
        if not 0 < self.stiffness < float("inf"):
            raise InputError(f"stiffness = {self.stiffness}; it must be positive, 1 for a Gaussian prior")


def uniform(last: float, count: int) -> tuple[float, ...]:
    """λ_i = iΛ/N for i = 0..N (AIPO, algorithm 1)."""
    _check_count(count)
    return tuple(last * i / count for i in range(count + 1))


def geometric(first: float, last: float, count: int) -> tuple[float, ...]:
    """0, then `count` weights from first to last with a constant ratio."""
    _check_count(count)
    if not 0 < first < last and count > 1:
        raise InputError(f"a geometric path from {first} to {last}; use 0 < first < last")
    if count == 1:
        return (0.0, last)
    return (0.0, *np.geomspace(first, last, count).tolist())


def _check_count(count: int) -> None:
    if count < 1:
        raise InputError(f"count = {count}; a path needs at least 1 weight beside 0")


def paper(last: float = 1.0, count: int = 10, steps: int = 30, step: float = 0.5) -> PathOptions:
    """The paper's algorithm and nothing else: uniform weights, `steps` plain gradient steps at each."""
    return PathOptions(uniform(last, count), warm, GradientDescent(step), steps, 0.0, "measurement")


class Trace(Iterator[State]):
    """Follow the path one weight at a time; take states until satisfied.

    Args:
        problem: energies, start and metric of a batch.
        options: weights, predictor and corrector.
    """

    def __init__(self, problem: Problem, options: PathOptions):
        self.problem = problem
        self.options = options
        self._index = 0
        self._point: Point | None = None
        self._visited: list[Point] = []
        self._weight: PerImage | None = None
        self._evaluations = torch.zeros(0, dtype=torch.long)
        self._active = torch.zeros(0, dtype=torch.bool)

    @property
    def count(self) -> int:
        """Images in the batch (0 before the first state)."""
        return len(self._active)

    def retire(self, finished: Tensor) -> None:
        """Spend nothing more on these images, (B,) bool; later states repeat their last point."""
        if self._point is None:
            raise InputError("retire images of a trace after its first state, which tells how many there are")
        self._active = self._active & ~finished

    def __next__(self) -> State:
        if self._index == len(self.options.weights):
            raise StopIteration
        target = self.options.weights[self._index]
        state = self._begin(target) if self._point is None else self._continue(target)
        self._index += 1
        return state

    def _begin(self, target: float) -> State:
        first = self.problem.start(torch.tensor([target]))
        weight = as_per_image(target, first.flatten(1)[:, 0])
        self._active = torch.ones(len(first), dtype=torch.bool, device=first.device)
        self._evaluations = torch.zeros(len(first), dtype=torch.long, device=first.device)
        start = self._evaluate(first, weight, self._active)
        if target == 0:
            status = torch.where(start.finite(), int(Status.CONVERGED), int(Status.DIVERGED))
            return self._advance(start, weight, torch.zeros_like(weight), status, start.finite())
        return self._correct(start, weight)

    def _continue(self, target: float) -> State:
        assert self._point is not None and self._weight is not None
        weight = torch.where(self._active, as_per_image(target, self._weight), self._weight)
        predicted = self.options.predictor(self.problem, self._point.x, self._weight, weight)
        fallback = reweighted(self._point, weight)
        if predicted is self._point.x:
            return self._correct(fallback, weight)
        return self._correct(self._evaluate(predicted, weight, self._active, fallback), weight)

    def _correct(self, start: Point, weight: PerImage) -> State:
        solution = minimise(
            lambda x, indices: weighted(x, self.problem.terms(x, indices), weight[indices]),
            start,
            self.options.solver,
            self.problem.metric(self.options.stiffness * weight),
            self.options.evaluations,
            self.options.tolerance,
            self._active,
            [reweighted(point, weight) for point in self._visited],
        )
        for point in solution.visited:
            self._visited = _remember(self._visited, point)
        self._evaluations = self._evaluations + solution.evaluations
        accepted = solution.point.finite() & (solution.status != Status.DIVERGED)
        return self._advance(solution.point, weight, solution.decrement, solution.status, accepted)

    def _advance(self, point: Point, weight: PerImage, decrement: PerImage, status: Tensor, accepted: Tensor):
        """Judge: keep what was accepted as the new end of the path, and report the point either way."""
        if self._point is None or self._weight is None:
            self._point, self._weight = point, weight
        else:
            self._point = point.where(accepted, self._point)
            self._weight = torch.where(accepted, weight, self._weight)
        return State(
            index=self._index,
            weight=weight,
            x=point.x,
            data_energy=point.info["data"],
            prior_energy=point.info["prior"],
            objective=point.value,
            decrement=decrement,
            evaluations=self._evaluations,
            status=status,
            accepted=accepted,
        )

    def _evaluate(self, x: Tensor, weight: PerImage, active: Tensor, idle: Point | None = None) -> Point:
        """Energies at x for the active images; the others keep their `idle` point."""
        self._evaluations = self._evaluations + active
        if idle is None or bool(active.all()):
            return weighted(x, self.problem.terms(x, torch.arange(len(x), device=x.device)), weight)
        indices = active.nonzero().squeeze(1)
        if len(indices) == 0:
            return idle
        found = weighted(x[indices], self.problem.terms(x[indices], indices), weight[indices])
        return idle.put(indices, found)


def _remember(visited: list[Point], point: Point) -> list[Point]:
    """The last points where each image was, so that what one image spends pushes out no other's points."""
    if not visited:
        return [point] * VISITED
    moved = (point.x != visited[-1].x).flatten(1).any(1)
    return [newer.where(moved, older) for older, newer in pairwise([*visited, point])]


def weighted(x: Tensor, terms: Terms, weight: PerImage) -> Point:
    """F = D + λR with its gradient; the terms stay at hand, so that another λ costs no evaluation."""
    info = {
        "data": terms.data,
        "prior": terms.prior,
        "data_gradient": terms.data_gradient,
        "prior_gradient": terms.prior_gradient,
    }
    gradient = terms.data_gradient + expand(weight, x) * terms.prior_gradient
    return Point(x, terms.data + weight * terms.prior, gradient, info)


def reweighted(point: Point, weight: PerImage) -> Point:
    """The same place, seen at another λ."""
    info = point.info
    terms = Terms(info["data"], info["prior"], info["data_gradient"], info["prior_gradient"])
    return weighted(point.x, terms, weight)
