"""Newton's method per image; conjugate gradients in a metric find the step."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from aipo.basics.arrays import PerImage, dot, expand
from aipo.basics.conjugate_gradients import Iterate, begin
from aipo.basics.errors import Status
from aipo.path.solvers.solver import Metric, Point


@dataclass(frozen=True)
class NewtonState:
    """`model` holds conjugate gradients for the step s of the quadratic model, H s = −∇F.

    An image whose `searching` is true tries point.x + `length` · `step`; the others learn H times
    `model.direction`, one product of their `products` more.
    """

    point: Point
    model: Iterate
    products: Tensor
    searching: Tensor
    length: PerImage
    decrement: PerImage
    status: Tensor

    @property
    def step(self) -> Tensor:
        """What was found; where already the first direction curves downward that direction, like x."""
        nothing = (self.model.x == 0).flatten(1).all(1)
        return torch.where(expand(nothing, self.model.x), self.model.direction, self.model.x)


@dataclass(frozen=True)
class NewtonCG:
    """Truncated Newton: conjugate gradients in the metric until the model is solved or curves downward.

    A Hessian product is a difference of two gradients, H d ≈ (∇F(x + εd) − ∇F(x))/ε, so it costs exactly one
    evaluation and the solver sees values and gradients only.

    Args:
        products: Hessian products at most for one step.
        accuracy: conjugate gradients stop when the residual, in the metric's norm, has fallen to this share
            of the gradient.
        difference: length of εd, root mean square per entry of x.
        sufficient: share of the predicted decrease that a step must reach (Armijo's constant).
        smallest_step: a line search that backtracks below it stalls.

    Source: Nocedal & Wright 2006, algorithm 7.1 and equation 8.20.
    """

    history = 0  # it learns from no point before its start

    products: int = 20
    accuracy: float = 0.3
    difference: float = 1e-4
    sufficient: float = 1e-4
    smallest_step: float = 1e-4

    def init(self, point: Point, metric: Metric, history: Iterable[Point] = ()) -> NewtonState:
        status = torch.where(point.finite(), int(Status.RUNNING), int(Status.DIVERGED))
        return self._model(point, metric, status)

    def propose(self, state: NewtonState) -> Tensor:
        probe = state.model.direction
        trial, difference = expand(state.length, probe) * state.step, self._epsilon(probe) * probe
        return state.point.x + torch.where(expand(state.searching, probe), trial, difference)

    def update(self, state: NewtonState, trial: Point, metric: Metric) -> NewtonState:
        searched = self._search(state, trial, metric)
        learnt = self._learn(state, trial, metric)
        return _pick(state.searching, searched, learnt)

    def _model(self, point: Point, metric: Metric, status: Tensor) -> NewtonState:
        """Conjugate gradients at their beginning."""
        model = begin(-point.gradient, metric, self.accuracy)
        return NewtonState(
            point=point,
            model=model,
            products=torch.zeros_like(status),
            searching=torch.zeros_like(status, dtype=torch.bool),
            length=torch.ones_like(point.value),
            decrement=0.5 * model.squared,
            status=status,
        )

    def _epsilon(self, probe: Tensor) -> Tensor:
        """ε of each image, to multiply its probe with."""
        rms = probe.flatten(1).norm(dim=1) / math.sqrt(probe[0].numel())
        return expand(self.difference / rms.clamp_min(torch.finfo(probe.dtype).tiny), probe)

    def _learn(self, state: NewtonState, trial: Point, metric: Metric) -> NewtonState:
        """One step of conjugate gradients with the product H d that the trial gave."""
        product = (trial.gradient - state.point.gradient) / self._epsilon(state.model.direction)
        # A product that is not finite ends them, as a direction that curves downward does.
        model = state.model.after(torch.where(expand(trial.finite(), product), product, torch.nan), metric)
        products = state.products + 1
        searching = ~model.going | (products >= self.products)
        return replace(state, model=model, products=products, searching=searching)

    def _search(self, state: NewtonState, trial: Point, metric: Metric) -> NewtonState:
        """Take the step, or make it shorter."""
        rounding = 4 * torch.finfo(trial.value.dtype).eps * (1 + state.point.value.abs())
        slope = dot(state.step, state.point.gradient)
        bound = state.point.value + self.sufficient * state.length * slope + rounding
        taken = trial.finite() & (trial.value <= bound)
        shorter = 0.25 * state.length
        stalled = ~taken & (shorter < self.smallest_step) & (state.status == Status.RUNNING)
        status = torch.where(stalled, int(Status.STALLED), state.status)
        waiting = replace(state, length=shorter, status=status)
        if not bool(taken.any()):
            return waiting
        point = trial.where(taken, state.point)
        return _pick(taken, self._model(point, metric, status), waiting)


def _pick(mask: Tensor, a: NewtonState, b: NewtonState) -> NewtonState:
    """The first state for the images in `mask`, the second for the others."""
    tensors = {name: value for name, value in vars(a).items() if isinstance(value, Tensor)}
    picked = {name: torch.where(expand(mask, own), own, getattr(b, name)) for name, own in tensors.items()}
    return NewtonState(point=a.point.where(mask, b.point), model=a.model.where(mask, b.model), **picked)
