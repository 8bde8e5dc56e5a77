"""A frozen multi-scale flow and its derivative, as one operation of automatic differentiation.

"Cotangent" is the derivative of some number with respect to a tensor, and has the tensor's shape.
"""

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from threading import Lock
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.forward_ad import unpack_dual

from aipo.basics.arrays import PerImage
from aipo.flows.frozen import Affine, Record, Step, shuffle, unshuffle

# Yields (log-determinant, record) of each step in turn, and returns the result of the last step.
Walk = Generator[tuple[PerImage, Record], None, Tensor]
# (cotangent of the result, that of the log-determinant, records from the last step to the first) -> cotangent
# of the argument
Pull = Callable[[Tensor, PerImage, Iterator[Record]], Tensor]


@dataclass(frozen=True)
class Scale:
    """Steps that halve the resolution once; then half of the channels leave, the others enter the next scale.

    A walk runs through all steps in one direction, and its result has the shape of its argument. The records
    of a walk are those that the derivative of the other direction needs, in the order in which it reads them.

    Args:
        steps: from fine to coarse.
        split: makes the leaving half standard, given the half that stays; None at the last scale.
        rest: the next scale; None at the last one.
    """

    steps: list[Step]
    split: Affine | None = None
    rest: "Scale | None" = None

    def forward(self, h: Tensor) -> Walk:
        """h -> z, both (B, C, H, W)."""
        for step in self.steps:
            h, logdet, record = step.forward(h)
            yield logdet, record
            del record  # it can be hundreds of MiB, and the next step makes its own
        if self.split is not None and self.rest is not None:
            stay, leaving = h.chunk(2, 1)
            leaving, logdet, record = self.split.inverse(stay, leaving)
            yield logdet, record
            del record
            inner = yield from self.rest.forward(stay)
            h = torch.cat((inner, leaving), 1)
        return shuffle(h)

    def inverse(self, z: Tensor) -> Walk:
        """z -> h, both (B, C, H, W)."""
        h = unshuffle(z)
        if self.split is not None and self.rest is not None:
            inner, leaving = h.chunk(2, 1)
            stay = yield from self.rest.inverse(inner)
            leaving, logdet, record = self.split.forward(stay, leaving)
            yield logdet, record
            del record
            h = torch.cat((stay, leaving), 1)
        for step in reversed(self.steps):
            h, logdet, record = step.inverse(h)
            yield logdet, record
            del record
        return h

    def pull(self, g: Tensor, logdet: PerImage, records: Iterator[Record]) -> Tensor:
        """The cotangent of h, given those of the results of `forward`."""
        g = unshuffle(g)
        if self.split is not None and self.rest is not None:
            inner, leaving = g.chunk(2, 1)
            stay = self.rest.pull(inner, logdet, records)
            more, leaving = self.split.pull_inverse(next(records), leaving, logdet)
            g = torch.cat((more.add_(stay), leaving), 1)
        for step in reversed(self.steps):
            g = step.pull(next(records), g, logdet)
        return g

    def pull_inverse(self, g: Tensor, logdet: PerImage, records: Iterator[Record]) -> Tensor:
        """The cotangent of z, given those of the results of `inverse`."""
        for step in self.steps:
            g = step.pull_inverse(next(records), g, logdet)
        if self.split is not None and self.rest is not None:
            stay, leaving = g.chunk(2, 1)
            more, leaving = self.split.pull(next(records), leaving, logdet)
            inner = self.rest.pull_inverse(more.add_(stay), logdet, records)
            g = torch.cat((inner, leaving), 1)
        return shuffle(g)


class SinglePrecision:
    """While any thread is inside, convolutions use all 24 bits of float32, also on a GPU.

    PyTorch would use only 11 bits there (TF32). That is too few for line searches, which compare energies
    that are sums of thousands of such results. PyTorch has one switch for the whole process. The first thread
    that enters sets it, and the last one that leaves sets it back.
    """

    def __init__(self):
        self._lock, self._inside, self._before = Lock(), 0, ""

    def __enter__(self) -> None:
        convolutions = torch.backends.cudnn.conv  # type: ignore[attr-defined]
        with self._lock:
            if self._inside == 0:
                self._before = convolutions.fp32_precision
                convolutions.fp32_precision = "ieee"
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                torch.backends.cudnn.conv.fp32_precision = self._before  # type: ignore[attr-defined]


single_precision = SinglePrecision()


def finish(walk: Walk, tape: list[Record] | None = None) -> tuple[Tensor, PerImage]:
    """Run a walk to its end.

    Args:
        walk: a walk that has not begun.
        tape: takes the records, if they are to be kept.

    Returns:
        The result and the sum of the log-determinants, (B,).
    """
    total: PerImage | float = 0.0
    with single_precision:
        while True:
            try:
                logdet, record = next(walk)
            except StopIteration as end:
                assert isinstance(total, Tensor)
                return end.value, total
            total = total + logdet
            if tape is not None:
                tape.append(record)
            del record


def records_of(walk: Walk) -> Iterator[Record]:
    """The records of a walk, one after the other; none of them is kept here."""
    while True:
        try:
            yield next(walk)[1]
        except StopIteration:
            return


@dataclass(frozen=True)
class Direction:
    """One direction of a frozen flow.

    Args:
        there: argument -> the walk to its result.
        back: result -> the walk back to its argument; it makes the same records, the last one first.
        pull: the derivative of `there`.
        exact: the result and log-determinant of `there`, by operations that can be differentiated again.
    """

    there: Callable[[Tensor], Walk]
    back: Callable[[Tensor], Walk]
    pull: Pull
    exact: Callable[[Tensor], tuple[Tensor, PerImage]]


def transformed(h: Tensor) -> bool:
    """Whether torch.func (grad, vmap, jvp, …) or forward-mode differentiation is at work on h.

    These know the operations of PyTorch, but not a derivative that was written by hand.
    """
    return torch._C._are_functorch_transforms_active() or unpack_dual(h).tangent is not None


class Recorded(Protocol):
    """An evaluation that was recorded for a GPU, for arguments of one shape; see `aipo.flows.graphs`."""

    def evaluate(self, h: Tensor) -> tuple[Tensor, PerImage, int]:
        """The result, its log-determinant (B,), and the number of this evaluation, for `pull`."""
        ...

    def pull(self, turn: int, g: Tensor, logdet: PerImage) -> Tensor | None:
        """The derivative of the evaluation with this number; None if there was a later evaluation."""
        ...


class Evaluate(torch.autograd.Function):
    """`apply(h, direction, stored, recorded)` gives result and log-determinant; its derivative is ours.

    Args:
        h: the argument, (B, C, H, W).
        direction: of the flow.
        stored: whether the records are kept. If not, the derivative walks back from the result and makes them
            again, which takes longer and needs less memory.
        recorded: the same evaluation as a graph of a GPU, or None. It keeps the records of its latest
            evaluation.
    """

    @staticmethod
    def forward(
        ctx: Any, h: Tensor, direction: Direction, stored: bool, recorded: "Recorded | None"
    ) -> tuple[Tensor, PerImage]:
        ctx.direction, ctx.recorded = direction, recorded
        ctx.tape = [] if stored and recorded is None else None
        if recorded is None:
            result, logdet = finish(direction.there(h), ctx.tape)
        else:
            result, logdet, ctx.turn = recorded.evaluate(h)
        ctx.save_for_backward(h, result)
        return result, logdet

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor):
        h, result = ctx.saved_tensors
        direction: Direction = ctx.direction
        if torch.is_grad_enabled():  # create_graph: this derivative will be differentiated
            gradient = torch.autograd.grad(direction.exact(h), h, cotangents, create_graph=True)[0]
            return gradient, None, None, None
        g, logdet = cotangents
        if ctx.recorded is not None:
            gradient = ctx.recorded.pull(ctx.turn, g, logdet)
            if gradient is not None:
                return gradient, None, None, None
        records = records_of(direction.back(result)) if ctx.tape is None else reversed(ctx.tape)
        with single_precision:
            return direction.pull(g, logdet, records), None, None, None
