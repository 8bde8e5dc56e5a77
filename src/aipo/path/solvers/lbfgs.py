"""Limited-memory BFGS per image, with a metric: the path's usual corrector."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import chain, pairwise

import torch
from torch import Tensor

from aipo.basics.arrays import PerImage, dot, expand
from aipo.basics.errors import Status
from aipo.path.solvers.solver import Metric, Point


@dataclass(frozen=True)
class LBFGSState:
    """`steps`, `changes`, `metric_changes` hold s, y and H₀y of the last M pairs, (B, n) each; newest last.

    `curvature` is sᵀy of each, (M, B), and 0 for an empty place.
    """

    point: Point
    metric_gradient: Tensor
    direction: Tensor
    slope: PerImage
    step: PerImage
    steps: tuple[Tensor, ...]
    changes: tuple[Tensor, ...]
    metric_changes: tuple[Tensor, ...]
    curvature: Tensor
    decrement: PerImage
    status: Tensor


@dataclass(frozen=True)
class LBFGS:
    """Limited-memory BFGS with a metric as initial inverse Hessian and a backtracking line search per image.

    Args:
        memory: pairs (s, y) kept.
        sufficient: share of the predicted decrease that a step must reach (Armijo's constant).
        smallest_step: a line search that backtracks below it first forgets the history, then stalls.
        first_step: the longest step before any curvature is known, as root mean square per entry; useful if
            the metric does not know the energy's scale.

    Source: Nocedal & Wright 2006, algorithms 7.4 and 3.1, with equation 7.20 scaling the metric.
    """

    memory: int = 10
    sufficient: float = 1e-4
    smallest_step: float = 1e-4
    first_step: float = float("inf")

    @property
    def history(self) -> int:
        return self.memory  # these points and the start make as many pairs

    def init(self, point: Point, metric: Metric, history: Iterable[Point] = ()) -> LBFGSState:
        empty = (torch.zeros_like(point.gradient).flatten(1),) * self.memory
        state = LBFGSState(
            point=point,
            metric_gradient=metric(point.gradient),
            direction=point.gradient,
            slope=point.value,
            step=torch.ones_like(point.value),
            steps=empty,
            changes=empty,
            metric_changes=empty,
            curvature=point.value.new_zeros(self.memory, len(point.x)),
            decrement=point.value,
            status=torch.where(point.finite(), int(Status.RUNNING), int(Status.DIVERGED)),
        )
        # Pair by pair, because a product of many rows rounds differently from a product of a few.
        for before, after in pairwise(chain(history, (point,))):
            change = after.gradient - before.gradient
            state = self._learn(state, after.x - before.x, change, metric(change), after.finite())
        state = replace(state, decrement=0.5 * dot(point.gradient, state.metric_gradient))
        return self._search_direction(state)

    def propose(self, state: LBFGSState) -> Tensor:
        return state.point.x + expand(state.step, state.direction) * state.direction

    def update(self, state: LBFGSState, trial: Point, metric: Metric) -> LBFGSState:
        rounding = 4 * torch.finfo(trial.value.dtype).eps * (1 + state.point.value.abs())
        bound = state.point.value + self.sufficient * state.step * state.slope + rounding
        taken = trial.finite() & (trial.value <= bound)
        backtracked = self._backtrack(state, trial, taken)
        if not bool(taken.any()):
            return backtracked
        return self._advance(backtracked, trial, taken, metric)

    def _backtrack(self, state: LBFGSState, trial: Point, taken: PerImage) -> LBFGSState:
        """A shorter step where the trial was refused, by the parabola through both values, within limits."""
        excess = trial.value - state.point.value - state.step * state.slope
        parabola = -0.5 * state.slope * state.step / excess.clamp_min(torch.finfo(excess.dtype).tiny)
        factor = torch.where(trial.finite(), parabola, torch.zeros_like(parabola)).clamp(0.1, 0.5)
        step = torch.where(taken, state.step, state.step * factor)
        exhausted = ~taken & (step < self.smallest_step)
        fresh = state.curvature.abs().sum(0) == 0
        status = torch.where(
            exhausted & fresh & (state.status == Status.RUNNING), int(Status.STALLED), state.status
        )
        state = replace(state, step=step, status=status)
        if not bool((exhausted & ~fresh).any()):
            return state
        forget = (exhausted & ~fresh)[None, :]
        state = replace(
            state, curvature=torch.where(forget, torch.zeros_like(state.curvature), state.curvature)
        )
        restarted = self._search_direction(state)
        reset = forget[0]
        return replace(
            state,
            direction=torch.where(expand(reset, state.direction), restarted.direction, state.direction),
            slope=torch.where(reset, restarted.slope, state.slope),
            step=torch.where(reset, torch.ones_like(state.step), state.step),
        )

    def _advance(self, state: LBFGSState, trial: Point, taken: PerImage, metric: Metric) -> LBFGSState:
        """Move to the trial where it was taken, and learn the curvature between the two points."""
        point = trial.where(taken, state.point)
        metric_gradient = torch.where(expand(taken, trial.x), metric(trial.gradient), state.metric_gradient)
        learnt = self._learn(
            state,
            point.x - state.point.x,
            point.gradient - state.point.gradient,
            metric_gradient - state.metric_gradient,
            taken,
        )
        decrement = 0.5 * dot(point.gradient, metric_gradient)
        moved = replace(learnt, point=point, metric_gradient=metric_gradient, decrement=decrement)
        searched = self._search_direction(moved)
        return replace(
            searched,
            direction=torch.where(expand(taken, trial.x), searched.direction, state.direction),
            slope=torch.where(taken, searched.slope, state.slope),
            step=torch.where(taken, torch.ones_like(state.step), state.step),
        )

    def _learn(self, state: LBFGSState, s: Tensor, y: Tensor, hy: Tensor, known: PerImage) -> LBFGSState:
        """Remember the pair (s, y) and H₀y of the images in `known` whose curvature sᵀy is positive."""
        s, y, hy = s.flatten(1), y.flatten(1), hy.flatten(1)
        curvature = (s * y).sum(1)
        keep = known & (curvature > 1e-8 * s.norm(dim=1) * y.norm(dim=1))

        learnt = int(keep.sum())
        if learnt == 0:
            return state

        def push(history: tuple[Tensor, ...], new: Tensor) -> tuple[Tensor, ...]:
            shifted = (*history[1:], new)
            if learnt == len(keep):  # nothing is copied
                return shifted
            return tuple(torch.where(expand(keep, a), a, b) for a, b in zip(shifted, history, strict=True))

        return replace(
            state,
            steps=push(state.steps, s),
            changes=push(state.changes, y),
            metric_changes=push(state.metric_changes, hy),
            curvature=torch.stack(push(state.curvature.unbind(), curvature)),
        )

    def _search_direction(self, state: LBFGSState) -> LBFGSState:
        """The two-loop recursion; pairs with curvature 0 are empty places."""
        valid = state.curvature > 0
        rho = torch.where(valid, 1 / state.curvature.where(valid, torch.ones_like(state.curvature)), 0.0)
        q = state.point.gradient.flatten(1)
        r = state.metric_gradient.flatten(1)
        coefficients = torch.zeros_like(rho)
        filled = valid.any(1).nonzero().squeeze(1).tolist()
        for i in reversed(filled):
            coefficients[i] = rho[i] * (state.steps[i] * q).sum(1)
            q = q - coefficients[i][:, None] * state.changes[i]
            r = r - coefficients[i][:, None] * state.metric_changes[i]
        newest = (state.changes[-1] * state.metric_changes[-1]).sum(1)
        scale = torch.where(valid[-1] & (newest > 0), state.curvature[-1] / newest, torch.ones_like(newest))
        r = scale[:, None] * r
        for i in filled:
            beta = rho[i] * (state.changes[i] * r).sum(1)
            r = r + (coefficients[i] - beta)[:, None] * state.steps[i]
        known = valid.any(0)
        longest = self.first_step * math.sqrt(r.shape[1]) / r.norm(dim=1)
        r = torch.where(known, 1.0, longest.clamp_max(1.0))[:, None] * r if self.first_step < math.inf else r
        direction = -r.reshape(state.point.x.shape)
        slope = dot(state.point.gradient, direction)
        # If rounding made the slope positive, the direction is of no use; take the metric's.
        uphill = ~(slope < 0)
        direction = torch.where(expand(uphill, direction), -state.metric_gradient, direction)
        slope = torch.where(uphill, -dot(state.point.gradient, state.metric_gradient), slope)
        return replace(state, direction=direction, slope=slope)
