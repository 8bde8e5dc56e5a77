"""The one inner loop: a solver, an energy and a number of evaluations.

Images that are finished are no longer evaluated, so an easy image of a batch costs what it costs alone.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from aipo.basics.arrays import PerImage
from aipo.basics.errors import Status
from aipo.path.solvers.solver import Metric, Point, Solver

# The energy at x (K, ...) of the K images with the given indices.
Energy = Callable[[Tensor, Tensor], Point]


@dataclass(frozen=True)
class Solution:
    """Where a minimisation ended.

    Attributes:
        point: the lowest point that each image visited, never above its start.
        decrement: (B,) nats that the metric predicts could still be gained there.
        evaluations: (B,) value-and-gradient evaluations spent here, without that of the start.
        status: (B,) integers of `Status`; RUNNING never occurs.
    """

    point: Point
    decrement: PerImage
    evaluations: Tensor
    status: Tensor


def minimise(
    energy: Energy,
    start: Point,
    solver: Solver,
    metric: Metric,
    evaluations: int | Tensor,
    tolerance: float,
    active: Tensor,
    history: Iterable[Point] = (),
    visit: Callable[[Point], None] = lambda point: None,
) -> Solution:
    """Run a solver from an evaluated start until the evaluations or the expected gain run out.

    Args:
        energy: called as energy(x, indices) with the images still running.
        start: evaluated starting point of all images.
        evaluations: budget per image, one number or (B,).
        tolerance: nats; an image whose predicted decrease falls below it has converged.
        active: (B,) bool; the others are left where they are.
        history: points of the same energy visited before, oldest first; the solver may learn curvature from
            them.
        visit: called with the start, and after every evaluation with the solver's point; nothing keeps them.
    """
    state = solver.init(start, metric, history)
    visit(start)
    spent = torch.zeros(len(start.x), dtype=torch.long, device=start.x.device)
    best, decrement = start, state.decrement
    while True:
        running = active & (state.status == Status.RUNNING) & (state.decrement > tolerance)
        running = running & (spent < evaluations)
        indices = running.nonzero().squeeze(1)
        if len(indices) == 0:
            break
        found = energy(solver.propose(state)[indices], indices)
        trial = found if len(indices) == len(start.x) else state.point.put(indices, found)
        updated = solver.update(state, trial, metric)
        state = _keep_idle(updated, state, running)
        visit(state.point)
        # Not every solver descends: plain steps that are too long climb, and Adam overshoots.
        lower = state.point.value <= best.value
        best = state.point.where(lower, best)
        decrement = torch.where(lower, state.decrement, decrement)
        spent = spent + running
    converged = (state.status == Status.RUNNING) & (state.decrement <= tolerance)
    status = torch.where(converged, int(Status.CONVERGED), state.status)
    status = torch.where(status == Status.RUNNING, int(Status.BUDGET), status)
    return Solution(best, decrement, spent, status)


def _keep_idle(updated, state, running: PerImage):
    """Images that were not evaluated keep point, decrement and status, whatever the solver made of them."""
    return replace(
        updated,
        point=updated.point.where(running, state.point),
        decrement=torch.where(running, updated.decrement, state.decrement),
        status=torch.where(running, updated.status, state.status),
    )
