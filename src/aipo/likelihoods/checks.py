"""Measurements that are refused; one sentence says what is wrong and what to give instead."""

from itertools import permutations
from math import prod

import torch

from aipo.basics.arrays import Measurements, check_tensor
from aipo.basics.errors import InputError
from aipo.operators import Operator


def check_measurements(operator: Operator, y: Measurements) -> None:
    """Refuse measurements that this operator cannot have made.

    Args:
        operator: what measured.
        y: expected as finite floating-point numbers (B, *operator.measurement_shape), B ≥ 1.

    Raises:
        InputError: y is not such a tensor.
    """
    check_tensor("y", y)
    shape, wanted = tuple(y.shape), tuple(operator.measurement_shape)
    if shape[1:] != wanted or len(y) == 0:
        raise InputError(
            f"y has shape {shape}, but {type(operator).__name__} measures (B, "
            f"{', '.join(map(str, wanted))}); {_remedy(shape, operator)}"
        )
    if not y.is_floating_point():
        remedy = "y.float() / 255, so that pictures lie in [0, 1]" if y.dtype == torch.uint8 else "y.float()"
        raise InputError(f"y is {str(y.dtype).removeprefix('torch.')}; use {remedy}")
    unknown = int((~torch.isfinite(y)).sum())
    if unknown:
        raise InputError(
            f"y must be finite, but {unknown} of its values are NaN or infinite; leave them out with "
            "aipo.operators.Mask"
        )


def _remedy(shape: tuple[int, ...], operator: Operator) -> str:
    """What to do with y, judged by its shape, so that it becomes a measurement of the operator."""
    wanted, picture = tuple(operator.measurement_shape), tuple(operator.shape)
    batch, one = ("y", shape[1:]) if len(shape) == len(wanted) + 1 else ("y[None]", shape)
    if one == wanted:
        return "use y[None], a batch of one" if batch == "y[None]" else "give at least one measurement"
    order = _order(one, wanted)
    if order is not None:
        axes = ", ".join(str(axis + 1) for axis in order)
        return f"its axes are in another order: use {batch}.permute(0, {axes})"
    if picture in (shape, shape[1:]):
        pictures = "y" if shape[1:] == picture else "y[None]"
        return f"to keep what is measured of pictures, use operator({pictures})"
    if shape[1:] and prod(shape[1:]) == prod(wanted):
        return f"use y.reshape(-1, {', '.join(map(str, wanted))}) if its values are in that order"
    return "measure with the same operator"


def _order(one: tuple[int, ...], wanted: tuple[int, ...]) -> tuple[int, ...] | None:
    """The order of axes that turns one shape into the other; None if there is none."""
    axes = range(len(one))
    # Channels that come last are the most likely mistake, so this order is tried first.
    orders = [(*axes[-1:], *axes[:-1]), *permutations(axes)]
    return next((order for order in orders if tuple(one[axis] for axis in order) == wanted), None)
