"""Inner solvers: minimise one energy per image, seeing only values and gradients.

A solver is an immutable set of options with three methods: `init` makes a state at the first point,
`propose` names the next point to evaluate, one per image, and `update` takes or refuses what was found
there. Each proposal costs exactly one evaluation, and every image has its own step, history and status,
so the result for an image does not depend on its batch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from aipo.basics.arrays import PerImage, dot, expand
from aipo.basics.errors import Status

# A symmetric positive approximation of the inverse Hessian, applied to a batch of gradients, or to several
# batches one behind the other.
Metric = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Point:
    """Where an energy was evaluated.

    Attributes:
        x: (B, ...) positions.
        value: (B,) nats.
        gradient: like x.
        info: whatever else the evaluation told, one entry per image in every tensor.
    """

    x: Tensor
    value: PerImage
    gradient: Tensor
    info: dict[str, Tensor]

    def where(self, mask: PerImage, other: "Point") -> "Point":
        """This point for the images in `mask`, the other for the rest."""

        def pick(a: Tensor, b: Tensor) -> Tensor:
            return torch.where(expand(mask, a), a, b)

        info = {name: pick(value, other.info[name]) for name, value in self.info.items()}
        return Point(
            pick(self.x, other.x), pick(self.value, other.value), pick(self.gradient, other.gradient), info
        )

    def put(self, indices: Tensor, found: "Point") -> "Point":
        """This point with the images at `indices` replaced by those found."""
        info = {name: value.index_copy(0, indices, found.info[name]) for name, value in self.info.items()}
        return Point(
            self.x.index_copy(0, indices, found.x),
            self.value.index_copy(0, indices, found.value),
            self.gradient.index_copy(0, indices, found.gradient),
            info,
        )

    def finite(self) -> PerImage:
        """Which images have a finite value and gradient."""
        return torch.isfinite(self.value) & torch.isfinite(self.gradient.flatten(1)).all(1)


class SolverState(Protocol):
    """What `minimise` reads of a solver's state."""

    @property
    def point(self) -> Point: ...
    @property
    def decrement(self) -> PerImage:
        """½ gᵀ H⁻¹ g, the decrease in nats that the metric predicts."""
        ...

    @property
    def status(self) -> Tensor: ...


class Solver(Protocol):
    """See the module's text."""

    def init(self, point: Point, metric: Metric, history: Sequence[Point]) -> Any:
        """A state at `point`; `history` holds points of the same energy visited before, oldest first."""
        ...

    def propose(self, state: Any) -> Tensor: ...
    def update(self, state: Any, trial: Point, metric: Metric) -> Any: ...


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

    step: float = 0.5

    def init(self, point: Point, metric: Metric, history: Sequence[Point] = ()) -> DescentState:
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

    rate: float = 0.01
    mean_decay: float = 0.9
    square_decay: float = 0.999

    def init(self, point: Point, metric: Metric, history: Sequence[Point] = ()) -> AdamState:
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
