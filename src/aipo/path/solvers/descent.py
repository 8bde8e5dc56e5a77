"""Plain steps: gradient descent (the paper's corrector) and Adam."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from aipo.basics.arrays import PerImage, dot
from aipo.basics.errors import Status
from aipo.path.solvers.solver import Metric, Point


@dataclass(frozen=True)
class DescentState:
    point: Point
    direction: Tensor
    decrement: PerImage
    status: Tensor


@dataclass(frozen=True)
class GradientDescent:
    """x ← x − η H⁻¹ ∇F, every step taken (AIPO, algorithm 1).

    Args:
        step: η, in units of the metric; 1 is a Newton step where the metric is the inverse Hessian.
    """

    history = 0  # it learns from no point before its start

    step: float = 0.5

    def init(self, point: Point, metric: Metric, history: Iterable[Point] = ()) -> DescentState:
        direction = -metric(point.gradient)
        status = torch.where(point.finite(), int(Status.RUNNING), int(Status.DIVERGED))
        return DescentState(point, direction, -0.5 * dot(point.gradient, direction), status)

    def propose(self, state: DescentState) -> Tensor:
        return state.point.x + self.step * state.direction

    def update(self, state: DescentState, trial: Point, metric: Metric) -> DescentState:
        taken = trial.where(trial.finite(), state.point)
        direction = -metric(taken.gradient)
        status = torch.where(trial.finite(), state.status, int(Status.DIVERGED))
        return DescentState(taken, direction, -0.5 * dot(taken.gradient, direction), status)


@dataclass(frozen=True)
class AdamState:
    point: Point
    mean: Tensor
    square: Tensor
    count: int
    decrement: PerImage
    status: Tensor


@dataclass(frozen=True)
class Adam:
    """Adam (Kingma & Ba 2015), every step taken.

    Args:
        rate: learning rate, in units of x.
    """

    history = 0  # it learns from no point before its start

    rate: float = 0.01
    mean_decay: float = 0.9
    square_decay: float = 0.999

    def init(self, point: Point, metric: Metric, history: Iterable[Point] = ()) -> AdamState:
        status = torch.where(point.finite(), int(Status.RUNNING), int(Status.DIVERGED))
        zeros = torch.zeros_like(point.x)
        decrement = 0.5 * dot(point.gradient, metric(point.gradient))
        return self._average(AdamState(point, zeros, zeros, 0, decrement, status), point.gradient)

    def propose(self, state: AdamState) -> Tensor:
        mean = state.mean / (1 - self.mean_decay**state.count)
        square = state.square / (1 - self.square_decay**state.count)
        return state.point.x - self.rate * mean / (square.sqrt() + 1e-8)

    def update(self, state: AdamState, trial: Point, metric: Metric) -> AdamState:
        taken = trial.where(trial.finite(), state.point)
        status = torch.where(trial.finite(), state.status, int(Status.DIVERGED))
        decrement = 0.5 * dot(taken.gradient, metric(taken.gradient))
        return self._average(replace(state, point=taken, decrement=decrement, status=status), taken.gradient)

    def _average(self, state: AdamState, gradient: Tensor) -> AdamState:
        mean = self.mean_decay * state.mean + (1 - self.mean_decay) * gradient
        square = self.square_decay * state.square + (1 - self.square_decay) * gradient**2
        return replace(state, mean=mean, square=square, count=state.count + 1)
