"""Where to start at the next point of the path, given the last accepted ones.

There is no separate tangent predictor: L-BFGS carries its curvature from one weight to the next, so its first
step from the last solution, −H⁻¹(∇D + λ'∇R) = −(λ' − λ) H⁻¹∇R, is the tangent step dx/dλ · (λ' − λ).
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from aipo.basics.arrays import PerImage, expand
from aipo.path.problem import Problem

# (problem, the last accepted points (x, λ), at most two and the newest last, next λ) -> start at the next λ.
Predictor = Callable[[Problem, Sequence[tuple[Tensor, PerImage]], PerImage], Tensor]


def warm(problem: Problem, accepted: Sequence[tuple[Tensor, PerImage]], target: PerImage) -> Tensor:
    """Start from the last solution (the paper's)."""
    return accepted[-1][0]


def cold(problem: Problem, accepted: Sequence[tuple[Tensor, PerImage]], target: PerImage) -> Tensor:
    """Start from the closed-form solution at the new weight: a homotopy from the Gaussian to the flow."""
    return problem.start(target)


def shifted(problem: Problem, accepted: Sequence[tuple[Tensor, PerImage]], target: PerImage) -> Tensor:
    """The last solution, moved by the step of the closed-form path between the two weights."""
    x, weight = accepted[-1]
    return x + problem.start(target) - problem.start(weight)


def secant(problem: Problem, accepted: Sequence[tuple[Tensor, PerImage]], target: PerImage) -> Tensor:
    """Continue along the line through the last two solutions; `warm` while there is only one weight.

    Source: Allgower & Georg 2003, Introduction to Numerical Continuation Methods, section 2.2.
    """
    (before, first), (x, weight) = accepted[0], accepted[-1]
    span = weight - first
    if bool((span == 0).all()):
        return x
    share = torch.where(span == 0, 0.0, (target - weight) / torch.where(span == 0, 1.0, span))
    return x + expand(share, x) * (x - before)
