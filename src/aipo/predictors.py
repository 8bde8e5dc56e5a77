"""Where to start at the next point of the path, given the last accepted one."""

from collections.abc import Callable

from torch import Tensor

from aipo.arrays import PerImage
from aipo.problem import Problem

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
