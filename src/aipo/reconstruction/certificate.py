"""What can be said about a path's end: does the theorem of the paper apply to what was found?

AIPO proves that the path ends in the global minimum when F(·; λ) is locally strongly convex around every
point of it (Liu, Yang, Zhang & Lei 2023, theorem 1). Convexity is checked at the points visited and says
nothing of places in between, so a certificate can refute the assumptions but only support them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor

from aipo.basics.arrays import PerImage
from aipo.basics.errors import InputError, Status
from aipo.path.problem import Problem
from aipo.path.solvers.curvature import smallest_curvature
from aipo.path.state import State


class Verdict(IntEnum):
    """What a certificate concludes for one image."""

    CONVEX = 1
    AGREEING = 2
    SEVERAL = 3
    NONCONVEX = 4
    UNCONVERGED = 5

    @property
    def remedy(self) -> str:
        """One sentence: what this verdict means and what to do about it."""
        return _REMEDIES[self]


_REMEDIES = {
    Verdict.CONVEX: "The objective is strongly convex at every point of the path; nothing to do.",
    Verdict.AGREEING: "All branches ended in the same minimum; more branches would make this surer.",
    Verdict.SEVERAL: "Branches ended in different minima and the lowest is kept; "
    "more branches may find a lower one.",
    Verdict.NONCONVEX: "The objective is not convex somewhere on the path, so the end may not be the global "
    "minimum; follow several branches with aipo.best_of.",
    Verdict.UNCONVERGED: "The end of the path is not yet a minimum; raise the evaluations.",
}


# Ends that are no minimum, whatever the curvature says.
UNFINISHED = (Status.BUDGET, Status.DIVERGED)


@dataclass(frozen=True)
class Certificate:
    """What was measured along a path, for B images and S points.

    Attributes:
        decrement: nats that the metric predicts could still be gained at the kept point, (B,).
        weights: λ of the points where the curvature was measured, (S, B).
        curvature: the smallest curvature there, in units of the metric's inverse, (S, B).
        failed_at: the first λ whose curvature is not positive, NaN where there is none, (B,).
        verdict: the conclusion, one per image.
    """

    decrement: PerImage
    weights: Tensor
    curvature: Tensor
    failed_at: PerImage
    verdict: list[Verdict]


def certify(problem: Problem, path: Sequence[State], kept: Tensor, iterations: int = 12) -> Certificate:
    """Measure the curvature at every point of the path up to the one that was kept.

    Args:
        problem: what the path was followed through; it must offer Hessian products.
        path: its states.
        kept: which of them each image's answer is, (B,).
        iterations: Hessian products per point, each about two evaluations of the prior.

    Raises:
        InputError: no Hessian products, or no point of the path with λ > 0.
    """
    if problem.hessian is None:
        raise InputError(
            "this problem offers no Hessian products, so its curvature cannot be certified; follow the path "
            "with coordinates = pictures"
        )
    visited = [state for state in path if bool((state.weight > 0).all()) and state.index <= int(kept.max())]
    if not visited:
        raise InputError("a path that only has its beginning, λ = 0, has no curvature to certify")
    curvature = torch.stack([_curvature(problem, state, iterations) for state in visited])
    weights = torch.stack([state.weight for state in visited])
    indices = torch.tensor([state.index for state in visited], device=kept.device)
    on_path = (indices[:, None] <= kept) & torch.stack([state.accepted for state in visited])
    failed = on_path & ~(curvature > 0)
    first = failed.long().argmax(0)
    failed_at = torch.where(failed.any(0), weights.gather(0, first[None])[0], torch.nan)
    images = torch.arange(len(kept), device=kept.device)
    statuses = torch.stack([state.status for state in path])[kept, images]
    return Certificate(
        decrement=torch.stack([state.decrement for state in path])[kept, images],
        weights=weights,
        curvature=curvature,
        failed_at=failed_at,
        verdict=[_verdict(*pair) for pair in zip(statuses.tolist(), failed.any(0).tolist(), strict=True)],
    )


def _curvature(problem: Problem, state: State, iterations: int) -> PerImage:
    assert problem.hessian is not None
    product = problem.hessian(state.x, state.weight, state.deformation)
    return smallest_curvature(product, problem.metric(state.weight), state.x, iterations)


def _verdict(status: int, failed: bool) -> Verdict:
    if failed:
        return Verdict.NONCONVEX
    return Verdict.UNCONVERGED if status in UNFINISHED else Verdict.CONVEX
