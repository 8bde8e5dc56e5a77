"""One spelling for operators that measure the same: equal problems are to get equal answers."""

from math import prod

import torch

from aipo.basics.arrays import Measurements
from aipo.operators.entries import Identity, Mask
from aipo.operators.operator import Operator, Rearranged


def simplest(operator: Operator) -> tuple[Operator, Rearranged]:
    """The simplest operator that measures the same values, and how measured values move to it.

    Where every measured value is one entry of the picture, that is the identity or a mask. Otherwise
    compositions lose the parts that change nothing, and a stack of one operator becomes that operator.

    Returns:
        The operator, and a map (B, *operator.measurement_shape) -> (B, *measurement_shape of the first).
    """
    inner, moved = operator.unwrapped()
    kept = inner.kept()
    if kept is None:
        return inner, moved
    plain = Identity(inner.shape) if bool(kept.all()) else Mask(kept.cpu())
    # A picture of its own indices tells which entry each measured value is.
    count = prod(inner.shape)
    indices = torch.arange(count, dtype=torch.float64, device=inner.device).reshape(1, *inner.shape)
    entries = inner.forward(indices).flatten().round().long()

    def placed(y: Measurements) -> Measurements:
        flat = y.new_zeros(len(y), count).index_copy(1, entries.to(y.device), moved(y).flatten(1))
        return plain.forward(flat.unflatten(1, inner.shape))

    return plain, placed
