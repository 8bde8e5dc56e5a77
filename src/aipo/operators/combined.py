"""Operators made of others."""

from collections.abc import Sequence
from itertools import pairwise
from math import prod

import torch
from torch import Tensor

from aipo.basics.arrays import Images, Measurements
from aipo.basics.errors import InputError
from aipo.operators.operator import LinearOperator


class Composition(LinearOperator):
    """A = A_k … A_2 A_1, the first argument applied first: `Composition(blur, downsampling)`.

    Raises:
        InputError: no operator, or one whose shape is not the measurement shape of the one before.
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


class Stack(LinearOperator):
    """The same picture measured by several instruments; the measurement is one vector, theirs in order.

    Raises:
        InputError: no operator, or operators for pictures of different shapes.
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

    def split(self, y: Measurements) -> Sequence[Tensor]:
        """The measurement of each instrument, in its own shape."""
        flat = y.split([prod(operator.measurement_shape) for operator in self.operators], 1)
        return [
            part.unflatten(1, operator.measurement_shape)
            for part, operator in zip(flat, self.operators, strict=True)
        ]


def _device(operators: Sequence[LinearOperator]) -> torch.device:
    """That of the one that is not on the CPU; those that follow their argument say they are."""
    return next((own.device for own in operators if own.device.type != "cpu"), operators[0].device)
