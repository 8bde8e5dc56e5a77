"""Operators that are made of other operators."""

from collections.abc import Sequence
from functools import reduce
from itertools import pairwise
from math import prod

import torch
from torch import Tensor

from aipo.basics.arrays import Images, Measurements
from aipo.basics.errors import InputError
from aipo.operators.operator import LinearOperator, Operator, Rearranged


class Composition(LinearOperator):
    """A = A_k … A_2 A_1; the first argument is applied first: `Composition(blur, downsampling)`.

    Raises:
        InputError: there is no operator, or one does not fit the measurement shape of the one before it.
    """

    def __init__(self, *operators: LinearOperator):
        if not operators:
            raise InputError("a composition needs at least one operator")
        for before, after in pairwise(operators):
            if tuple(after.shape) != tuple(before.measurement_shape):
                raise InputError(
                    f"{type(after).__name__} takes {tuple(after.shape)}, but {type(before).__name__} before "
                    f"it gives {tuple(before.measurement_shape)}; make it for that shape"
                )
        self.operators = operators
        self.shape, self.measurement_shape = operators[0].shape, operators[-1].measurement_shape
        self.device = _device(operators)

    def forward(self, x: Images) -> Measurements:
        for operator in self.operators:
            x = operator.forward(x)
        return x

    def adjoint(self, y: Measurements) -> Images:
        for operator in reversed(self.operators):
            y = operator.adjoint(y)
        return y

    def transfer_matrices(self) -> Tensor | None:
        """The product of the matrices of the parts, if each has some."""
        parts = [operator.transfer_matrices() for operator in self.operators]
        known = [matrices for matrices in parts if matrices is not None]
        return reduce(lambda total, matrices: matrices @ total, known) if len(known) == len(parts) else None

    def window(self, rows: slice, columns: slice) -> tuple[Operator | None, Rearranged] | None:
        parts = [operator.window(rows, columns) for operator in self.operators]
        if any(part is None for part in parts):
            return None
        found, moved = zip(*parts, strict=True)  # type: ignore[misc]
        linear = [operator for operator in found if isinstance(operator, LinearOperator)]
        return Composition(*linear) if len(linear) == len(found) else None, moved[-1]

    def unwrapped(self) -> tuple[Operator, Rearranged]:
        """The composition without the parts that change nothing."""
        acting = [operator for operator in self.operators if not _changes_nothing(operator)]
        if len(acting) == 1:
            return acting[0].unwrapped()
        if not acting or len(acting) == len(self.operators):
            return super().unwrapped()
        return Composition(*acting), _unchanged


class Stack(LinearOperator):
    """Several instruments measure the same picture; the measurement is one vector of theirs, in order.

    Raises:
        InputError: there is no operator, or the operators are for pictures of different shapes.
    """

    def __init__(self, *operators: LinearOperator):
        shapes = {tuple(operator.shape) for operator in operators}
        if len(shapes) != 1:
            raise InputError(f"stacked operators measure one picture, got shapes {sorted(shapes)}")
        self.operators = operators
        self.shape = operators[0].shape
        self.measurement_shape = (sum(operator.measurements for operator in operators),)
        self.device = _device(operators)

    def forward(self, x: Images) -> Measurements:
        return torch.cat([operator.forward(x).flatten(1) for operator in self.operators], 1)

    def adjoint(self, y: Measurements) -> Images:
        parts = zip(self.operators, self.split(y), strict=True)
        return sum((operator.adjoint(part) for operator, part in parts), y.new_zeros(len(y), *self.shape))

    def unwrapped(self) -> tuple[Operator, Rearranged]:
        """A stack of one operator is that operator."""
        first, *others = self.operators
        if others:
            return super().unwrapped()
        inner, moved = first.unwrapped()
        return inner, lambda y: moved(self.split(y)[0])

    def split(self, y: Measurements) -> Sequence[Tensor]:
        """The measurement of each instrument, in its own shape."""
        flat = y.split([prod(operator.measurement_shape) for operator in self.operators], 1)
        return [
            part.unflatten(1, operator.measurement_shape)
            for part, operator in zip(flat, self.operators, strict=True)
        ]


def _changes_nothing(operator: LinearOperator) -> bool:
    """Whether a picture comes out unchanged; one random picture is tried."""
    if tuple(operator.measurement_shape) != tuple(operator.shape):
        return False
    x = torch.rand(1, *operator.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = x.to(operator.device)
    return bool(torch.allclose(operator.forward(x), x, rtol=0, atol=1e-6))


def _unchanged(y: Measurements) -> Measurements:
    return y


def _device(operators: Sequence[LinearOperator]) -> torch.device:
    """The device of the operator that is not on the CPU; operators that follow their argument say CPU."""
    return next((own.device for own in operators if own.device.type != "cpu"), operators[0].device)
