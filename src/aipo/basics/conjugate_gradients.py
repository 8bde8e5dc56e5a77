"""Conjugate gradients: symmetric positive systems A x = b, one for each image of a batch."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from aipo.basics.arrays import PerImage, dot, expand

# v -> A v for each image of a batch, (B, ...) in float64.
Product = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Solution:
    """What was found, and how far it got.

    Attributes:
        x: (B, ...) in float64.
        residual: √(rᵀPr / bᵀPb) of r = b − A x and the preconditioner P, (B,). With P near A⁻¹ that is the
            error relative to x, in the norm √(xᵀAx). It is 1 where nothing was found, and 0 where b is zero.
        iterations: products with A.
    """

    x: Tensor
    residual: PerImage
    iterations: int


def conjugate_gradients(
    matrix: Product,
    right: Tensor,
    preconditioner: Product = lambda v: v,
    iterations: int = 400,
    tolerance: float = 1e-9,
) -> Solution:
    """Solve A x = b from x = 0, computed in float64.

    Every image stops by itself, so its solution does not depend on the others. It stops at the tolerance, or
    with what it has found so far if the curvature along a direction is not positive. Iterates stay in the
    span of P b, P A P b, …: for A = BᵀB and P = 1 the limit is the least-squares solution of least norm.

    Args:
        matrix: A, symmetric and positive semi-definite.
        right: b, (B, ...).
        preconditioner: P, symmetric and positive, near A⁻¹.
        iterations: products with A at most.
        tolerance: the relative residual that is enough, see `Solution`.

    Source: Hestenes & Stiefel 1952, Methods of conjugate gradients for solving linear systems.
    """
    residual = right.double()
    x = torch.zeros_like(residual)
    direction = z = preconditioner(residual)
    rho = begun = dot(residual, z)
    stop = tolerance**2 * begun
    going = rho > stop  # false where b is zero
    used = 0
    while used < iterations and bool(going.any()):
        image = matrix(direction)
        curvature = dot(direction, image)
        going = going & (curvature > 0)
        step, moved = expand(rho / curvature, x), expand(going, x)
        # Values are chosen, not multiplied by zero, because an image that has stopped may meet infinities.
        x = torch.where(moved, x + step * direction, x)
        residual = torch.where(moved, residual - step * image, residual)
        z = preconditioner(residual)
        previous, rho = rho, torch.where(going, dot(residual, z), rho)
        going = going & (rho > stop)
        direction = z + expand(torch.where(going, rho / previous, 0), x) * direction
        used += 1
    relative = torch.where(begun == 0, 0, (rho / begun).clamp_min(0).sqrt())
    return Solution(x, relative, used)
