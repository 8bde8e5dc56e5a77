"""The weights and deformations that a path visits.

Source of `paper`: Liu, Yang, Zhang & Lei 2023 (AIPO), algorithm 1.
"""

import numpy as np

from aipo.basics.errors import InputError
from aipo.path.options import PathOptions
from aipo.path.predictors import warm
from aipo.path.problem import Deformation
from aipo.path.solvers.descent import GradientDescent
from aipo.path.solvers.lbfgs import LBFGS


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


def smoothing(tau: float = 0.5, count: int = 12, steps: int = 8, weight: float = 1.0) -> PathOptions:
    """A path at one λ from the smoothed density p ∗ N(0, τ² I) to p itself: τ falls to 0 quadratically.

    Args:
        tau: τ at the path's beginning, in units of x.
        count: points before τ = 0.
        steps: evaluations at each point.
    """
    _check_count(count)
    deformations = tuple(Deformation(tau=tau * (1 - i / count) ** 2) for i in range(count + 1))
    weights = (weight,) * (count + 1)
    return PathOptions(weights, warm, LBFGS(), steps, 1e-3, deformations=deformations)


def gaussian_to_prior(count: int = 6, steps: int = 8, weight: float = 1.0) -> PathOptions:
    """A path at one λ from the surrogate's energy to the prior's own: s = i/N for i = 1..N."""
    _check_count(count)
    deformations = tuple(Deformation(share=i / count) for i in range(1, count + 1))
    return PathOptions((weight,) * count, warm, LBFGS(), steps, 1e-3, deformations=deformations)


def _check_count(count: int) -> None:
    if count < 1:
        raise InputError(f"count = {count}; a path needs at least 1 weight beside 0")


def paper(last: float = 1.0, count: int = 10, steps: int = 30, step: float = 0.5) -> PathOptions:
    """The paper's algorithm and nothing else: uniform weights, `steps` plain gradient steps at each."""
    return PathOptions(uniform(last, count), warm, GradientDescent(step), steps, 0.0, "measurement", "data")
