"""Operators as tensors and numbers, for files: described, checked before anything is built of them, and made.

A measurement has as many values as its operator gives, and an operator keeps so many bytes of its own. Both
follow from a few numbers, which are looked at first: a file of a kilobyte could otherwise ask for a matrix of
terabytes.
"""

import math
from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from aipo.basics.errors import InputError
from aipo.operators import (
    Blur,
    Composition,
    Downsampling,
    Filter,
    FourierMask,
    FourierSensing,
    GaussianSensing,
    Grey,
    Identity,
    LinearOperator,
    Magnitude,
    Mask,
    Operator,
    Radon,
    Stack,
)

# Bytes that the operators of one measurement may keep: a sensing matrix of float32 for 128 × 128 in colour.
LARGEST = 2**32
# Entries of a picture that any measurement may be of; beyond, at most so many for each measured value.
SMALL_PICTURE, ENTRIES_PER_VALUE = 2**20, 1000
MOST_PARTS, DEEPEST = 64, 8

Shape = tuple[int, int, int]
# Operators that are made of others, each made from its parts.
_COMBINED: dict[str, Callable[..., Operator]] = {
    "Composition": Composition,
    "Stack": Stack,
    "Magnitude": Magnitude,
}


def described(operator: Operator) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the numbers that a file keeps of an operator and, inside, of its parts.

    Raises:
        InputError: numbers alone do not describe the operator.
    """
    kind = type(operator).__name__
    if kind not in _OPERATORS and kind not in _COMBINED:
        raise InputError(f"a measurement of {kind} cannot be written to a file; keep it in Python")
    parts = [described(part) for part in _parts(operator)]
    tensors = {f"{i}.{name}": value for i, part in enumerate(parts) for name, value in part[0].items()}
    numbers = {"operator": kind, "shape": operator.shape, **_numbers(operator)}
    if parts:
        numbers["parts"] = [part[1] for part in parts]
    return tensors | _tensors(operator), numbers


def made(tensors: dict[str, Tensor], numbers: dict[str, Any], measured: Sequence[int]) -> Operator:
    """The operator of a description, checked before any memory is taken for it.

    Args:
        tensors: of the description.
        numbers: of the description.
        measured: shape of one measurement, without the batch.

    Raises:
        InputError: it says which number or tensor cannot be, or that this machine draws another matrix.
        KeyError: something is missing.
    """
    gives, kept = _check(tensors, numbers, prod(measured), 0)
    if gives != tuple(measured):
        raise InputError(
            f"its {numbers['operator']} measures {gives}, but the values have shape {tuple(measured)}"
        )
    if kept > LARGEST:
        raise InputError(f"its operators would take {kept:,} bytes, more than {LARGEST:,}")
    return _build(tensors, numbers)


def check_matrix(shape: Shape, measurements: int) -> None:
    """Refuse a sensing matrix that is larger than a file may ask for.

    Raises:
        InputError: it says how many bytes, and what to do.
    """
    size = 4 * measurements * prod(shape)
    if size > LARGEST:
        raise InputError(
            f"sensing {measurements:,} values of {shape[1]} × {shape[2]} pixels takes a matrix of {size:,} "
            f"bytes, more than {LARGEST:,}; give --size, for example 64, or fewer --measurements"
        )


def whole(numbers: dict[str, Any], name: str, least: int, most: int) -> int:
    """A number of a description, a whole one within bounds.

    Raises:
        InputError: it is no such number.
        KeyError: it is missing.
    """
    value = numbers[name]
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise InputError(f"its {name} is {str(value)[:50]}, no whole number from {least} to {most}")
    return value


def _check(tensors: dict[str, Tensor], numbers: Any, values: int, depth: int) -> tuple[tuple[int, ...], int]:
    """The shape of what an operator measures, and the bytes that it keeps; nothing is built."""
    if not isinstance(numbers, dict):
        raise InputError(f"a part of its operator is {type(numbers).__name__}, no table")
    kind = numbers["operator"]
    if kind in _COMBINED:
        return _check_parts(tensors, numbers, values, depth)
    if not isinstance(kind, str) or kind not in _OPERATORS:
        raise InputError(
            f"it was measured by {str(kind)[:50]}, which this version does not know; update aipo"
        )
    shape = _shape(numbers, values)
    return _measured(kind, shape, tensors, numbers)


def _check_parts(
    tensors: dict[str, Tensor], numbers: dict[str, Any], values: int, depth: int
) -> tuple[tuple[int, ...], int]:
    kind, parts = numbers["operator"], numbers["parts"]
    most = 1 if kind == "Magnitude" else MOST_PARTS
    if not isinstance(parts, list) or not 1 <= len(parts) <= most or depth >= DEEPEST:
        raise InputError(f"its {kind} has no list of 1 to {most} parts, or parts in parts beyond {DEEPEST}")
    found = [_check(_inside(tensors, i), part, values, depth + 1) for i, part in enumerate(parts)]
    if any(part["operator"] == "Magnitude" for part in parts):
        raise InputError(f"its {kind} has a part that is not linear")
    gives = (sum(prod(shape) for shape, _ in found),) if kind == "Stack" else found[-1][0]
    return gives, sum(kept for _, kept in found)


def _shape(numbers: dict[str, Any], values: int) -> Shape:
    """(C, H, W) of the picture, which may be much larger than what is measured of it only if it is small."""
    shape = numbers["shape"]
    if not isinstance(shape, list | tuple) or len(shape) != 3:
        raise InputError(f"its shape is {str(shape)[:50]}, not (C, H, W)")
    sides = [whole({"shape": side}, "shape", 1, 2**31) for side in shape]
    most = max(SMALL_PICTURE, ENTRIES_PER_VALUE * values)
    if prod(sides) > most:
        raise InputError(f"its picture {tuple(sides)} has more than {most:,} entries for {values:,} values")
    return sides[0], sides[1], sides[2]


def _measured(
    kind: str, shape: Shape, tensors: dict[str, Tensor], numbers: dict[str, Any]
) -> tuple[tuple[int, ...], int]:
    """The shape of what one operator measures, and the bytes that it keeps beside the file's tensors."""
    channels, height, width = shape
    spectrum = 32 * height * (width // 2 + 1)
    match kind:
        case "Mask":
            mask = _tensor(tensors, "mask", shape, torch.bool)
            return (int(mask.sum()),), 8 * mask.numel()
        case "GaussianSensing" | "FourierSensing":
            entries = prod(shape)
            count = whole(numbers, "measurements", 1, entries)
            whole(numbers, "seed", 0, 2**128)
            return (count,), 4 * count * entries if kind == "GaussianSensing" else 24 * entries
        case "Blur":
            kernel = _tensor(tensors, "kernel", (None, None))
            if kernel.shape[0] > height or kernel.shape[1] > width:
                raise InputError(f"its kernel {tuple(kernel.shape)} is larger than its picture {shape}")
            return shape, spectrum
        case "Filter":
            _tensor(tensors, "transfer", (height, width // 2 + 1, 2), torch.float64)
            return shape, spectrum
        case "Downsampling":
            factor = whole(numbers, "factor", 1, max(height, width))
            return (channels, height // factor, width // factor), 0
        case "Grey":
            _check_weights(numbers["weights"])
            return (1, height, width), 0
        case "FourierMask":
            mask = _tensor(tensors, "mask", (height, width), torch.bool)
            return (channels, int(mask.sum()), 2), 8 * mask.numel()
        case "Radon":
            degrees = _tensor(tensors, "degrees", (None,))
            return (channels, len(degrees), width), 16 * len(degrees) * height * width
    return shape, 0


def _tensor(
    tensors: dict[str, Tensor], name: str, shape: tuple[int | None, ...], kind: torch.dtype | None = None
) -> Tensor:
    """A tensor of a description, of this shape; finite floating-point numbers unless a type is named."""
    tensor = tensors[name]
    fits = tensor.ndim == len(shape) and all(
        want in (None, have) for want, have in zip(shape, tensor.shape, strict=True)
    )
    typed = tensor.is_floating_point() if kind is None else tensor.dtype == kind
    if not fits or not typed or not bool(torch.isfinite(tensor).all()):
        wanted = "finite numbers" if kind is None else str(kind)
        raise InputError(
            f"its {name} is {tensor.dtype} of shape {tuple(tensor.shape)}; it should be {wanted} of {shape}"
        )
    return tensor


def _check_weights(weights: Any) -> None:
    if not isinstance(weights, list | tuple) or len(weights) != 3:
        raise InputError(f"its weights are {str(weights)[:50]}, not three numbers")
    if not all(isinstance(weight, int | float) and math.isfinite(weight) for weight in weights):
        raise InputError(f"its weights are {str(weights)[:50]}, not finite numbers")


def _parts(operator: Operator) -> tuple[Operator, ...]:
    if isinstance(operator, Composition | Stack):
        return tuple(operator.operators)
    return (operator.linear,) if isinstance(operator, Magnitude) else ()


def _tensors(operator: Operator) -> dict[str, Tensor]:
    """The tensors that a file keeps of an operator."""
    if isinstance(operator, Mask | FourierMask):
        return {"mask": operator.mask}
    if isinstance(operator, Blur):
        return {"kernel": operator.kernel}
    if isinstance(operator, Filter):
        return {"transfer": torch.view_as_real(operator.transfer.to(torch.complex128))}
    return {"degrees": operator.degrees} if isinstance(operator, Radon) else {}


def _numbers(operator: Operator) -> dict[str, Any]:
    """The numbers that a file keeps of an operator."""
    if isinstance(operator, GaussianSensing):
        return {
            "measurements": operator.measurements,
            "seed": operator.seed,
            "fingerprint": operator.fingerprint(),
        }
    if isinstance(operator, FourierSensing):
        return {"measurements": operator.measurements, "seed": operator.seed}
    if isinstance(operator, Downsampling):
        return {"factor": operator.factor}
    return {"weights": operator.weights} if isinstance(operator, Grey) else {}


# How each operator is made from its shape, tensors and numbers.
_OPERATORS: dict[str, Callable[[Shape, dict, dict], LinearOperator]] = {
    "Identity": lambda shape, tensors, numbers: Identity(shape),
    "Mask": lambda shape, tensors, numbers: Mask(tensors["mask"]),
    "GaussianSensing": lambda shape, tensors, numbers: GaussianSensing(
        shape, numbers["measurements"], numbers["seed"]
    ),
    "FourierSensing": lambda shape, tensors, numbers: FourierSensing(
        shape, numbers["measurements"], numbers["seed"]
    ),
    "Blur": lambda shape, tensors, numbers: Blur(shape, tensors["kernel"]),
    "Filter": lambda shape, tensors, numbers: Filter(shape, torch.view_as_complex(tensors["transfer"])),
    "Downsampling": lambda shape, tensors, numbers: Downsampling(shape, numbers["factor"]),
    "Grey": lambda shape, tensors, numbers: Grey(shape, tuple(numbers["weights"])),
    "FourierMask": lambda shape, tensors, numbers: FourierMask(shape, tensors["mask"]),
    "Radon": lambda shape, tensors, numbers: Radon(shape, tensors["degrees"]),
}


def _build(tensors: dict[str, Tensor], numbers: dict[str, Any]) -> Operator:
    kind = numbers["operator"]
    if kind in _COMBINED:
        return _COMBINED[kind](
            *(_build(_inside(tensors, i), part) for i, part in enumerate(numbers["parts"]))
        )
    operator = _OPERATORS[kind](tuple(numbers["shape"]), tensors, numbers)
    if isinstance(operator, GaussianSensing) and operator.fingerprint() != numbers["fingerprint"]:
        raise InputError(
            f"its seed {numbers['seed']} gives another matrix with this NumPy; restore it with the version "
            "that measured it"
        )
    return operator


def _inside(tensors: dict[str, Tensor], index: int) -> dict[str, Tensor]:
    """The tensors of one part, under the names that the part itself uses."""
    prefix = f"{index}."
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
