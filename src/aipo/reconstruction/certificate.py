"""Certificates: does the theorem of the paper apply to the path that was followed?

AIPO proves that the path ends in the global minimum if F(·; λ) is locally strongly convex around every point
of the path (Liu, Yang, Zhang & Lei 2023, theorem 1). A certificate can refute this assumption, but it cannot
prove it. It looks only at the points that were visited, and the smallest curvature that it finds there is an
upper bound of the true one. A negative curvature proves that F is not convex; a positive one proves nothing.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor

from aipo.basics.arrays import PerImage
from aipo.basics.errors import InputError, Status
from aipo.path.problem import Problem
from aipo.path.solvers.curvature import Curvature, smallest_curvature
from aipo.path.state import State


class Verdict(IntEnum):
    """What a certificate concludes for one image."""

    UNREFUTED = 1
    CONVEX = 1  # its former name, which promised more than can be known
    AGREEING = 2
    SEVERAL = 3
    NONCONVEX = 4
    UNCONVERGED = 5
    UNSETTLED = 6

    @property
    def remedy(self) -> str:
        """One sentence: what this verdict means and what to do about it."""
        return _REMEDIES[self]


_REMEDIES = {
    Verdict.UNREFUTED: "No negative curvature was found at any point of the path, which supports that the "
    "objective is convex there and does not prove it.",
    Verdict.AGREEING: "All branches ended in the same minimum; more branches would make this surer.",
    Verdict.SEVERAL: "Branches ended in different minima and the lowest is kept; "
    "more branches may find a lower one.",
    Verdict.NONCONVEX: "The objective is not convex somewhere on the path, so the end may not be the global "
    "minimum; follow several branches with aipo.best_of.",
    Verdict.UNCONVERGED: "The end of the path is not yet a minimum; raise the evaluations.",
    Verdict.UNSETTLED: "No negative curvature was found, but the smallest one was still falling when the "
    "Hessian products ran out; certify with more of them.",
}


# Ends that are no minimum, whatever the curvature says.
UNFINISHED = (Status.BUDGET, Status.DIVERGED, Status.AGREEING, Status.DRAWN, Status.DENOISED, Status.AVERAGED)


@dataclass(frozen=True)
class Certificate:
    """What was measured along a path, for B images and S points.

    Attributes:
        decrement: how many nats could still be gained at the kept point, as the metric predicts, (B,).
        weights: λ of the points where the curvature was measured, (S, B).
        curvature: the smallest curvature found there, in units of the metric's inverse, (S, B). A smaller one
            may exist: a negative value proves that F is not convex, a positive one proves nothing.
        settled: whether more Hessian products would hardly have changed it, (S, B) bool.
        products: Hessian products spent on it, (S, B).
        failed_at: the first λ whose curvature is negative beyond rounding, NaN where there is none, (B,).
        verdict: the conclusion, one per image.
        reason: what was found, one sentence per image; the verdict rests on it.
    """

    decrement: PerImage
    weights: Tensor
    curvature: Tensor
    settled: Tensor
    products: Tensor
    failed_at: PerImage
    verdict: list[Verdict]
    reason: list[str]


def certify(problem: Problem, path: Sequence[State], kept: Tensor, iterations: int = 100) -> Certificate:
    """Measure the curvature at every point of the path up to the kept one.

    Args:
        problem: the problem that the path solves; it must offer Hessian products.
        path: its states.
        kept: the index of the state that is each image's answer, (B,).
        iterations: Hessian products per point at most. Each costs about two evaluations of the prior. Where
            the smallest curvature settles earlier, fewer are spent.

    Raises:
        InputError: the problem offers no Hessian products, or the path has no point with λ > 0.
    """
    if problem.hessian is None:
        raise InputError(
            "this problem offers no Hessian products, so its curvature cannot be certified; follow the path "
            "with coordinates = pictures"
        )
    visited = [state for state in path if bool((state.weight > 0).all()) and state.index <= int(kept.max())]
    if not visited:
        raise InputError("a path that only has its beginning, λ = 0, has no curvature to certify")
    measured = [_curvature(problem, state, iterations) for state in visited]
    found = Curvature(*(torch.stack([getattr(one, name) for one in measured]) for name in vars(measured[0])))
    weights = torch.stack([state.weight for state in visited])
    indices = torch.tensor([state.index for state in visited], device=kept.device)
    on_path = (indices[:, None] <= kept) & torch.stack([state.accepted for state in visited])
    images = torch.arange(len(kept), device=kept.device)
    status = torch.stack([state.status for state in path])[kept, images]
    decrement = torch.stack([state.decrement for state in path])[kept, images]
    judged = [
        _judged(weights[own, i], _along(found, own, i), Status(int(status[i])), float(decrement[i]))
        for i, own in enumerate(on_path.T)
    ]
    return Certificate(
        decrement=decrement,
        weights=weights,
        curvature=found.value,
        settled=found.settled,
        products=found.products,
        failed_at=_first(weights, on_path & found.negative),
        verdict=[verdict for verdict, _ in judged],
        reason=[reason for _, reason in judged],
    )


def _curvature(problem: Problem, state: State, iterations: int) -> Curvature:
    assert problem.hessian is not None
    product = problem.hessian(state.x, state.weight, state.deformation)
    return smallest_curvature(product, problem.metric(state.weight), state.x, iterations)


def _first(weights: Tensor, failed: Tensor) -> PerImage:
    first = failed.long().argmax(0)
    return torch.where(failed.any(0), weights.gather(0, first[None])[0], torch.nan)


def _along(found: Curvature, own: Tensor, image: int) -> Curvature:
    """The curvature at the points on one image's path, (points,)."""
    return Curvature(*(values[own, image] for values in vars(found).values()))


def _judged(weights: Tensor, found: Curvature, status: Status, decrement: float) -> tuple[Verdict, str]:
    """The conclusion for one image from the points on its path, and a sentence that gives the reason."""
    if bool(found.negative.any()):
        first = int(found.negative.long().argmax())
        at = f"{float(found.value[first]):.3g} at λ = {float(weights[first]):.3g}"
        return Verdict.NONCONVEX, f"A curvature of {at} proves that the objective is not convex there."
    products, points = int(found.products.sum()), len(weights)
    seen = f"No negative curvature was found in {products} Hessian products at {points} points of the path"
    if status in UNFINISHED:
        left = "" if math.isnan(decrement) else f": {decrement:.3g} nats may be gained"
        return Verdict.UNCONVERGED, f"{seen}, but its end is no minimum{left}."
    falling = int((~found.settled).sum())
    if falling or not points:
        return Verdict.UNSETTLED, f"{seen}, but at {falling} of them the smallest was still falling."
    return Verdict.UNREFUTED, f"{seen}; that supports convexity there and does not prove it."
