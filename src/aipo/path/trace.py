"""The path: minimisers of F(x; λ) = D(x) + λ R(x) for λ that rises or falls, as an iterator of states.

For each weight: predict a starting point, correct it with an inner solver, judge the result per image, adapt
the step. Rejected points are yielded and flagged, and the next prediction starts from the last accepted one.

Source: Liu, Yang, Zhang & Lei 2023 (AIPO), algorithm 1. The preset `paper` makes the same choices.
"""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from aipo.basics.arrays import PerImage, as_per_image, expand
from aipo.basics.errors import CheckpointError, InputError, Status
from aipo.io.tensors import load_tensors, save_tensors
from aipo.path.options import PathOptions
from aipo.path.problem import PLAIN, Deformation, Problem, Terms, reweighted, weighted
from aipo.path.solvers.minimise import Solution, minimise
from aipo.path.solvers.solver import Point
from aipo.path.state import State
from aipo.path.step_control import StepControl
from aipo.path.visited import Visited


class Trace(Iterator[State]):
    """Follow the path one weight at a time; take states until satisfied.

    Args:
        problem: energies, start and metric of a batch.
        options: weights, predictor, corrector and step control.
        copies: of each image, as one batch after the other. If steps are controlled, the copies of an image
            take the same steps and are accepted or rejected together.
    """

    def __init__(self, problem: Problem, options: PathOptions, copies: int = 1):
        self.problem = problem
        self.options = options
        self.copies = copies
        self._index = 0
        self._point: Point | None = None
        self._visited = Visited(options.solver.history)
        self._weight: PerImage | None = None
        self._ratio: PerImage | None = None
        self._before: tuple[Tensor, PerImage] | None = None
        self._deformation = PLAIN
        self._stale = False
        self._evaluations = torch.zeros(0, dtype=torch.long)
        self._active = torch.zeros(0, dtype=torch.bool)

    def retire(self, finished: Tensor) -> None:
        """Spend nothing more on these images, (B,) bool; later states repeat their last point."""
        if self._point is None:
            raise InputError("retire images of a trace after its first state, which tells how many there are")
        self._active = self._active & ~finished

    def __next__(self) -> State:
        if self._ended():
            raise StopIteration
        self._deform(_deformation(self.options, self._index))
        state = (
            self._begin(self.options.weights[0]) if self._point is None else self._continue(self._target())
        )
        self._index += 1
        if self.options.control is not None:
            # A further point costs at least a prediction and one step.
            left = (self.options.control.budget - self._evaluations).reshape(self.copies, -1).amin(0)
            self._active = self._active & (left >= 2).repeat(self.copies)
        return state

    def _ended(self) -> bool:
        if self.options.control is None:
            return self._index == len(self.options.weights)
        return self._point is not None and not bool(self._active.any())

    def _target(self) -> float | PerImage:
        """The next λ: from the options, or by each image's own step to the last of them."""
        weights, last = self.options.weights, self.options.weights[-1]
        if self._ratio is None or self._weight is None or self._index < len(weights) - 1:
            return weights[self._index]
        return torch.where(self._weight > 0, self._weight * self._ratio, last).clamp_max(last)

    def save(self, path: str | Path) -> None:
        """Write where the trace stands (tensors and JSON); `resume` goes on from there to the same result."""
        if self._point is None or self._weight is None:
            raise InputError("save a trace after its first state; before it there is nothing to keep")
        tensors = {"weight": self._weight, "evaluations": self._evaluations, "active": self._active}
        if self._ratio is not None:
            tensors["ratio"] = self._ratio
        if self._before is not None:
            tensors |= {"before.x": self._before[0], "before.weight": self._before[1]}
        fields = {"x": self._point.x, **self._point.info}
        tensors |= {f"point.{name}": tensor for name, tensor in fields.items()}
        tensors |= {f"visited.{name}": tensor for name, tensor in self._visited.tensors().items()}
        metadata = {"index": self._index, "options": _text(self.options)}
        save_tensors(Path(path), tensors, metadata)

    def resume(self, path: str | Path) -> None:
        """Go on from a file of `save`, written by a trace of the same problem and options.

        Raises:
            CheckpointError: a damaged file, or one of other options, measurements or priors.
        """
        tensors, metadata = load_tensors(Path(path))
        if metadata.get("options") != _text(self.options):
            raise CheckpointError(f"{path} is of a path with other options; use the ones it was saved with")
        like = self.problem.start(tensors["weight"][:1])
        tensors = {name: tensor.to(like.device) for name, tensor in tensors.items()}
        fields = _within("point", tensors)
        point = weighted(fields.pop("x"), Terms(**fields), tensors["weight"])
        self._deformation = _deformation(self.options, metadata["index"] - 1)
        self._check(point, like, path)
        self._point, self._index = point, metadata["index"]
        self._visited.restore(_within("visited", tensors))
        self._weight, self._evaluations = tensors["weight"], tensors["evaluations"]
        self._active, self._ratio = tensors["active"], tensors.get("ratio")
        self._before = (tensors["before.x"], tensors["before.weight"]) if "before.x" in tensors else None

    def _check(self, point: Point, like: Tensor, path: str | Path) -> None:
        """Refuse another problem's file: the same place must have the same energies."""
        same = point.x.shape == like.shape
        if same:
            terms = self._terms(point.x, torch.arange(len(point.x), device=point.x.device))
            pairs = ((terms.data, point.info["data"]), (terms.prior, point.info["prior"]))
            same = all(torch.allclose(now, then, rtol=1e-4, equal_nan=True) for now, then in pairs)
        if not same:
            raise CheckpointError(f"{path} is of other measurements or another prior; resume it with its own")

    def _deform(self, deformation: Deformation) -> None:
        """Change the prior energy. What was seen under the old one says nothing about the new gradients."""
        self._stale = deformation != self._deformation
        self._deformation = deformation
        if self._stale:
            self._visited = Visited(self._visited.size)

    def _begin(self, target: float) -> State:
        first = self.problem.start(torch.tensor([target]))
        weight = as_per_image(target, first.flatten(1)[:, 0])
        self._active = torch.ones(len(first), dtype=torch.bool, device=first.device)
        self._evaluations = torch.zeros(len(first), dtype=torch.long, device=first.device)
        if self.options.control is not None:
            self._ratio = torch.full_like(weight, self.options.control.ratio)
        start = self._evaluate(first, weight, self._active)
        if target == 0:
            status = torch.where(start.finite(), int(Status.CONVERGED), int(Status.DIVERGED))
            return self._advance(start, weight, torch.zeros_like(weight), status, start.finite())
        return self._correct(self._lower(start, weight), weight)

    def _lower(self, start: Point, weight: PerImage) -> Point:
        """The lower of two starts for a path that begins at λ > 0: its own, or that of λ = 0.

        At small λ the second one is often lower.
        """
        limit = self.problem.start(torch.zeros(1))
        if torch.equal(limit, start.x):
            return start
        other = self._evaluate(limit, weight, self._active)
        return other.where(other.finite() & ~(start.value <= other.value), start)

    def _continue(self, target: float | PerImage) -> State:
        assert self._point is not None and self._weight is not None
        weight = torch.where(self._active, as_per_image(target, self._weight), self._weight)
        accepted = [*([] if self._before is None else [self._before]), (self._point.x, self._weight)]
        predicted = self.options.predictor(self.problem, accepted, weight)
        self._point = fallback = reweighted(self._point, weight)
        if predicted is self._point.x and not self._stale:
            return self._correct(fallback, weight)
        return self._correct(self._evaluate(predicted, weight, self._active, fallback), weight)

    def _correct(self, start: Point, weight: PerImage) -> State:
        allowed = self._allowed()
        solution = minimise(
            lambda x, indices: weighted(x, self._terms(x, indices), weight[indices]),
            start,
            self.options.solver,
            self.problem.metric(self.options.stiffness * weight),
            allowed,
            self.options.tolerance,
            self._active,
            self._visited.at(weight),
            self._visited.add if self._teaches() else lambda point: None,
        )
        self._evaluations = self._evaluations + solution.evaluations
        accepted = solution.point.finite() & (solution.status != Status.DIVERGED)
        if self.options.control is not None:
            accepted = self._adapt(self.options.control, solution, weight, accepted, allowed)
        return self._advance(solution.point, weight, solution.decrement, solution.status, accepted)

    def _teaches(self) -> bool:
        """Whether the next point of the path can learn from what is seen at this one."""
        following = self._index + 1
        if self.options.control is not None:
            return True
        return (
            following < len(self.options.weights)
            and _deformation(self.options, following) == self._deformation
        )

    def _allowed(self) -> Tensor:
        """Evaluations of each image for the next correction."""
        allowed = torch.full_like(self._evaluations, self.options.evaluations)
        if self.options.control is None:
            return allowed
        # One evaluation is kept for the next prediction.
        return torch.minimum(allowed, self.options.control.budget - self._evaluations - 1).clamp_min(0)

    def _adapt(
        self, control: StepControl, solution: Solution, weight: PerImage, accepted: Tensor, allowed: Tensor
    ) -> Tensor:
        """The next step of each image, and whether this one is accepted; copies decide together."""
        assert self._ratio is not None
        if self._point is not None:
            staying = reweighted(self._point, weight).value
            slack = 1e-6 * (1 + staying.abs())
            accepted = accepted & ~(self._active & (solution.point.value > staying + slack))
        groups = accepted.reshape(self.copies, -1)
        accepted = groups.all(0).repeat(self.copies)
        slowest = (solution.evaluations / allowed.clamp_min(1)).reshape(self.copies, -1).amax(0)
        status = solution.status.reshape(self.copies, -1).amax(0)  # CONVERGED is the smallest
        ended = control.ended(self._ratio, accepted) | (accepted & (weight >= self.options.weights[-1]))
        self._ratio = control.adapt(
            self._ratio, accepted, status.repeat(self.copies), slowest.repeat(self.copies)
        )
        self._active = self._active & ~ended
        return accepted

    def _advance(self, point: Point, weight: PerImage, decrement: PerImage, status: Tensor, accepted: Tensor):
        """Judge: keep what was accepted as the new end of the path, and report the point either way."""
        if self._point is None or self._weight is None:
            self._point, self._weight = point, weight
        else:
            older = self._before or (self._point.x, self._weight)
            self._before = (
                torch.where(expand(accepted, point.x), self._point.x, older[0]),
                torch.where(accepted, self._weight, older[1]),
            )
            self._point = point.where(accepted, self._point)
            self._weight = torch.where(accepted, weight, self._weight)
        return State(
            index=self._index,
            weight=weight,
            x=point.info.get("image", point.x),
            data_energy=point.info["data"],
            prior_energy=point.info["prior"],
            objective=point.value,
            decrement=decrement,
            evaluations=self._evaluations,
            status=status,
            accepted=accepted,
            deformation=self._deformation,
        )

    def _evaluate(self, x: Tensor, weight: PerImage, active: Tensor, idle: Point | None = None) -> Point:
        """Energies at x for the active images; the others keep their `idle` point."""
        self._evaluations = self._evaluations + active
        if idle is None or bool(active.all()):
            return weighted(x, self._terms(x, torch.arange(len(x), device=x.device)), weight)
        indices = active.nonzero().squeeze(1)
        if len(indices) == 0:
            return idle
        found = weighted(x[indices], self._terms(x[indices], indices), weight[indices])
        return idle.put(indices, found)

    def _terms(self, x: Tensor, indices: Tensor) -> Terms:
        return self.problem.terms(x, indices, self._deformation)


def _deformation(options: PathOptions, index: int) -> Deformation:
    return options.deformations[index] if options.deformations else PLAIN


def _text(options: PathOptions) -> str:
    """The options as a text that is the same in every process: functions by name, not by address."""
    fields = {name: getattr(value, "__name__", value) for name, value in vars(options).items()}
    return str(fields)


def _within(group: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a group, by their names in it."""
    prefix = f"{group}."
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
