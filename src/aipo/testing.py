"""Verification of a user's own operator in one line: `aipo.testing.check_operator(operator)`."""

import torch
from torch import Tensor

from aipo.arrays import dot
from aipo.errors import InputError
from aipo.operators import LinearOperator

TOLERANCE = 1e-10


def check_operator(operator: LinearOperator, seed: int = 0) -> None:
    """Shapes, independence of the batch, linearity, adjoint, and pseudo-inverse, in float64 and float32.

    Args:
        operator: any `LinearOperator`; it is applied about ten times, and its pseudo-inverse twice.
        seed: of the random pictures and measurements.

    Raises:
        InputError: the first thing that is wrong, with the figure found.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(shape: tuple[int, ...]) -> Tensor:
        return torch.randn(2, *shape, generator=generator, dtype=torch.float64)

    name = type(operator).__name__
    x, y = draw(operator.shape), draw(operator.measurement_shape)
    measured, back = operator(x), operator.adjoint(y)
    for what, found, expected in (("forward", measured, y), ("adjoint", back, x)):
        _require(
            found.shape == expected.shape and found.dtype == expected.dtype,
            f"{name}.{what} gives {tuple(found.shape)} of {found.dtype}, expected {tuple(expected.shape)} of "
            f"{expected.dtype}; keep batch and dtype, and let shape and measurement_shape tell the rest",
        )
    _close(operator(x[1:]), measured[1:], f"{name}.forward of an image depends on the batch")
    _close(operator.adjoint(y[1:]), back[1:], f"{name}.adjoint of an image depends on the batch")
    doubled = operator(2 * x[:1] - 3 * x[1:])
    _close(doubled, 2 * measured[:1] - 3 * measured[1:], f"{name}.forward is not linear")
    scale = (dot(measured, measured) * dot(y, y)).sqrt() + (dot(x, x) * dot(back, back)).sqrt()
    gap = float(((dot(measured, y) - dot(x, back)).abs() / scale).max())
    _require(
        gap <= TOLERANCE,
        f"{name}.adjoint is not that of forward: <Ax, y> and <x, A'y> differ by {gap:.1e} of their size",
    )
    single = operator(x.float())
    _require(
        single.dtype == torch.float32 and bool(torch.isfinite(single).all()),
        f"{name}.forward of float32 pictures gives {single.dtype}; compute in the dtype of its argument",
    )
    explained = operator(operator.pseudoinverse(measured))
    _close(explained, measured, f"{name}.pseudoinverse does not explain a measurement A x", 1e-6)


def _close(found: Tensor, expected: Tensor, what: str, tolerance: float = TOLERANCE) -> None:
    gap = float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-300))
    _require(gap <= tolerance, f"{what}: relative difference {gap:.1e}, allowed {tolerance:.0e}")


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise InputError(otherwise)
