"""The last places of a path, so that a solver learns its curvature at a new λ from what it saw at others."""

from collections.abc import Iterator

import torch
from torch import Tensor

from aipo.basics.arrays import PerImage
from aipo.path.problem import Terms, weighted
from aipo.path.solvers.solver import Point

# What is kept of a point, enough to see it at any λ: x, and the first fields of `Terms` in their order.
FIELDS = ("x", "data", "prior", "data_gradient", "prior_gradient")


class Visited:
    """The last places where each image was. An image that stays where it is adds none.

    Args:
        size: how many places are kept of each image: as many as the solver learns from; 0 keeps none.
    """

    def __init__(self, size: int):
        self.size = size
        self._places: dict[str, Tensor] = {}  # (size, B, ...) each, a ring per image
        self._count = torch.zeros(0, dtype=torch.long)  # places that each image has had, (B,)

    def add(self, point: Point) -> None:
        """Keep the places of the images that have moved."""
        if self.size == 0:
            return
        fields = {"x": point.x, **point.info}
        if not self._places:
            self._places = {name: fields[name].new_zeros(self.size, *fields[name].shape) for name in FIELDS}
            self._count = torch.zeros(len(point.x), dtype=torch.long, device=point.x.device)
        newest = self._places["x"][self._latest(0)]
        moved = (point.x != newest).flatten(1).any(1) | (self._count == 0)
        images = moved.nonzero().squeeze(1)
        slots = self._count[images] % self.size
        for name, ring in self._places.items():
            ring[slots, images] = fields[name][images]
        self._count = self._count + moved

    def at(self, weight: PerImage) -> Iterator[Point]:
        """The places at weights (B,), oldest first; an image with fewer places repeats its first."""
        known = min(self.size, int(self._count.max())) if self._places else 0
        for age in reversed(range(known)):
            latest = self._latest(age)
            x, *terms = (self._places[name][latest] for name in FIELDS)
            yield weighted(x, Terms(*terms), weight)

    def tensors(self) -> dict[str, Tensor]:
        """Everything kept, for a file."""
        return {**self._places, "count": self._count}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Go on from the `tensors` of another object of the same size."""
        self._places = {name: tensors[name] for name in FIELDS if name in tensors}
        self._count = tensors["count"]

    def _latest(self, age: int) -> tuple[Tensor, Tensor]:
        """The index in the rings of each image's place, `age` places before its last."""
        back = (self._count - 1).clamp(0, age)
        slots = (self._count - 1 - back) % self.size
        return slots, torch.arange(len(slots), device=slots.device)
