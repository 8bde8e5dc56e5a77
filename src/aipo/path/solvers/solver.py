"""Inner solvers: minimise one energy per image, seeing only values and gradients.

A solver is an immutable set of options with three methods: `init` makes a state at the first point,
`propose` names the next point to evaluate, one per image, and `update` takes or refuses what was found
there. Each proposal costs exactly one evaluation, and every image has its own step, history and status,
so the result for an image does not depend on its batch.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from aipo.basics.arrays import PerImage, expand

# A symmetric positive approximation of the inverse Hessian, applied to a batch of gradients, or to several
# batches one after the other.
Metric = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Point:
    """A place where an energy was evaluated.

    Attributes:
        x: (B, ...) positions.
        value: (B,) nats.
        gradient: like x.
        info: what else the evaluation gave, one entry per image in every tensor.
    """

    x: Tensor
    value: PerImage
    gradient: Tensor
    info: dict[str, Tensor]

    def where(self, mask: PerImage, other: "Point") -> "Point":
        """This point for the images in `mask`, the other for the rest."""

        def pick(a: Tensor, b: Tensor) -> Tensor:
            return torch.where(expand(mask, a), a, b)

        chosen = int(mask.sum())
        if chosen in (0, len(mask)):  # nothing is copied
            return self if chosen else other
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

    @property
    def history(self) -> int:
        """How many earlier points `init` learns from; 0 if it looks at none."""
        ...

    def init(self, point: Point, metric: Metric, history: Iterable[Point] = ()) -> Any:
        """A state at `point`; `history` yields points of the same energy visited before, oldest first."""
        ...

    def propose(self, state: Any) -> Tensor: ...
    def update(self, state: Any, trial: Point, metric: Metric) -> Any: ...
