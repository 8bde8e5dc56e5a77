"""One line verifies a user's own operator: `aipo.operators.check_operator(operator)`."""

import torch
from torch import Tensor

from aipo.basics.arrays import dot
from aipo.basics.errors import InputError
from aipo.operators.operator import LinearOperator, Operator

TOLERANCE = 1e-10


def check_operator(operator: Operator, seed: int = 0) -> None:
    """Check shapes, independence of the batch and gradient; if A is linear, also linearity, adjoint and A⁺.

    Args:
        operator: it is applied about ten times to random pictures in [0, 1], in float64 and once in float32.
        seed: determines the random pictures and measurements.

    Raises:
        InputError: names the first thing that is wrong, with the figure that was found.
    """
    generator = torch.Generator().manual_seed(seed)
    name = type(operator).__name__
    x = torch.rand(2, *operator.shape, generator=generator, dtype=torch.float64)
    y = torch.randn(2, *operator.measurement_shape, generator=generator, dtype=torch.float64)
    x, y = x.to(operator.device), y.to(operator.device)
    measured = operator(x)
    _alike(f"{name}.forward", measured, y)
    _close(operator(x[1:]), measured[1:], f"{name}.forward of an image depends on the batch")
    single = operator(x.float())
    _require(
        single.dtype == torch.float32 and bool(torch.isfinite(single).all()),
        f"{name}.forward of float32 pictures gives {single.dtype}; compute in the dtype of its argument",
    )
    if isinstance(operator, LinearOperator):
        _check_linear(operator, name, x, y)
    _check_gradient(operator, name, x, y)


def _check_linear(operator: LinearOperator, name: str, x: Tensor, y: Tensor) -> None:
    measured, back = operator(x), operator.adjoint(y)
    _alike(f"{name}.adjoint", back, x)
    _close(operator.adjoint(y[1:]), back[1:], f"{name}.adjoint of an image depends on the batch")
    mixed = operator(2 * x[:1] - 3 * x[1:])
    _close(mixed, 2 * measured[:1] - 3 * measured[1:], f"{name}.forward is not linear")
    scale = (dot(measured, measured) * dot(y, y)).sqrt() + (dot(x, x) * dot(back, back)).sqrt()
    gap = float(((dot(measured, y) - dot(x, back)).abs() / scale).max())
    _require(
        gap <= TOLERANCE,
        f"{name}.adjoint is not that of forward: <Ax, y> and <x, A'y> differ by {gap:.1e} of their size",
    )
    explained = operator(operator.pseudoinverse(measured))
    _close(explained, measured, f"{name}.pseudoinverse does not explain a measurement A x", 1e-6)


def _check_gradient(operator: Operator, name: str, x: Tensor, y: Tensor, step: float = 1e-5) -> None:
    """Compare the slope along one direction with central differences."""
    direction = torch.cos(torch.arange(x.numel(), dtype=x.dtype)).reshape(x.shape)
    with torch.enable_grad():
        moving = x.clone().requires_grad_()
        value = (operator(moving) * y).sum()
        _require(
            value.requires_grad, f"{name}.forward has no gradient; compute with PyTorch, without detaching"
        )
        slope = (torch.autograd.grad(value, moving)[0] * direction).sum()
    ahead, behind = ((operator(x + sign * step * direction) * y).sum() for sign in (1, -1))
    _close(slope, (ahead - behind) / (2 * step), f"{name}.forward's gradient is not its slope", 1e-5)


def _alike(what: str, found: Tensor, expected: Tensor) -> None:
    _require(
        found.shape == expected.shape and found.dtype == expected.dtype,
        f"{what} gives {tuple(found.shape)} of {found.dtype}, expected {tuple(expected.shape)} of "
        f"{expected.dtype}; keep batch and dtype, and let shape and measurement_shape tell the rest",
    )


def _close(found: Tensor, expected: Tensor, what: str, tolerance: float = TOLERANCE) -> None:
    gap = float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-300))
    _require(gap <= tolerance, f"{what}: relative difference {gap:.1e}, allowed {tolerance:.0e}")


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise InputError(otherwise)
