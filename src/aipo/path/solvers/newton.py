"""Newton's method per image; conjugate gradients in a metric find the step."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from aipo.basics.arrays import PerImage, dot, expand
from aipo.basics.errors import Status
from aipo.path.solvers.solver import Metric, Point


@dataclass(frozen=True)
class NewtonState:
    """`step`, `residual`, `scaled`, `probe` are conjugate gradients' p, r = −g − Hp, Mr and d, like x.

    An image whose `searching` is true tries point.x + `length` · `step`; the others learn H d.
    """

    point: Point
    step: Tensor
    residual: Tensor
    scaled: Tensor
    probe: Tensor
    products: Tensor
    goal: PerImage
    searching: Tensor
    length: PerImage
    slope: PerImage
    decrement: PerImage
    status: Tensor


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
        return self._model(point, metric(point.gradient), status)

    def propose(self, state: NewtonState) -> Tensor:
        trial = expand(state.length, state.step) * state.step
        difference = expand(self._epsilon(state.probe), state.probe) * state.probe
        return state.point.x + torch.where(expand(state.searching, trial), trial, difference)

    def update(self, state: NewtonState, trial: Point, metric: Metric) -> NewtonState:
        searched = self._search(state, trial, metric)
        learnt = self._learn(state, trial, metric)
        return _pick(state.searching, searched, learnt)

    def _model(self, point: Point, metric_gradient: Tensor, status: Tensor) -> NewtonState:
        """Conjugate gradients at their beginning."""
        zero = torch.zeros_like(point.value)
        squared = dot(point.gradient, metric_gradient)
        return NewtonState(
            point=point,
            step=torch.zeros_like(point.x),
            residual=-point.gradient,
            scaled=-metric_gradient,
            probe=-metric_gradient,
            products=torch.zeros_like(status),
            goal=self.accuracy**2 * squared,
            searching=torch.zeros_like(status, dtype=torch.bool),
            length=torch.ones_like(zero),
            slope=zero,
            decrement=0.5 * squared,
            status=status,
        )

    def _epsilon(self, probe: Tensor) -> PerImage:
        rms = probe.flatten(1).norm(dim=1) / math.sqrt(probe[0].numel())
        return self.difference / rms.clamp_min(torch.finfo(probe.dtype).tiny)

    def _learn(self, state: NewtonState, trial: Point, metric: Metric) -> NewtonState:
        """One step of conjugate gradients with the product H d that the trial gave."""
        epsilon = expand(self._epsilon(state.probe), state.probe)
        product = (trial.gradient - state.point.gradient) / epsilon
        curvature = dot(state.probe, product)
        squared = dot(state.residual, state.scaled)
        convex = trial.finite() & (curvature > 0)
        share = torch.where(convex, squared / curvature, torch.zeros_like(squared))
        step = state.step + expand(share, state.step) * state.probe
        # If the very first direction has no positive curvature, only the metric's own step is known.
        first = ~convex & (state.products == 0)
        step = torch.where(expand(first, step), state.probe, step)
        residual = state.residual - expand(share, state.residual) * product.nan_to_num(0.0, 0.0, 0.0)
        scaled = metric(residual)
        after = dot(residual, scaled)
        probe = scaled + expand(after / squared, scaled) * state.probe
        products = state.products + 1
        done = ~convex | (after <= state.goal) | (products >= self.products)
        return replace(
            state,
            step=step,
            residual=residual,
            scaled=scaled,
            probe=probe,
            products=products,
            searching=done,
            slope=dot(step, state.point.gradient),
        )

    def _search(self, state: NewtonState, trial: Point, metric: Metric) -> NewtonState:
        """Take the step, or make it shorter."""
        rounding = 4 * torch.finfo(trial.value.dtype).eps * (1 + state.point.value.abs())
        bound = state.point.value + self.sufficient * state.length * state.slope + rounding
        taken = trial.finite() & (trial.value <= bound)
        shorter = 0.25 * state.length
        stalled = ~taken & (shorter < self.smallest_step) & (state.status == Status.RUNNING)
        status = torch.where(stalled, int(Status.STALLED), state.status)
        waiting = replace(state, length=shorter, status=status)
        if not bool(taken.any()):
            return waiting
        point = trial.where(taken, state.point)
        return _pick(taken, self._model(point, metric(point.gradient), status), waiting)


def _pick(mask: Tensor, a: NewtonState, b: NewtonState) -> NewtonState:
    """The first state for the images in `mask`, the second for the others."""
    fields = {name: getattr(b, name) for name in vars(b) if name != "point"}
    picked = {n: torch.where(expand(mask, v), getattr(a, n), v) for n, v in fields.items()}
    return NewtonState(point=a.point.where(mask, b.point), **picked)
