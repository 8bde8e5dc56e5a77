"""Conjugate gradients: symmetric positive systems A x = b, one for each image of a batch.

`conjugate_gradients` solves them. Whoever learns products with A in another way than by a function takes the
same steps one by one: `begin`, then `Iterate.after` with the product that was learnt.

Source: Hestenes & Stiefel 1952, Methods of conjugate gradients for solving linear systems.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from aipo.basics.arrays import PerImage, dot, expand

# v -> A v for each image of a batch, (B, ...).
Product = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Iterate:
    """How far each image has come. Every image stops by itself, so it does not depend on the others.

    Attributes:
        x: (B, ...).
        residual: r = b − A x, like x.
        direction: the product of A with it is needed next, like x.
        squared: rᵀPr, with P the preconditioner, (B,).
        goal: the image stops when rᵀPr has fallen to this, (B,).
        going: (B,) bool; the other images stay where they are.
    """

    x: Tensor
    residual: Tensor
    direction: Tensor
    squared: PerImage
    goal: PerImage
    going: Tensor

    def after(self, product: Tensor, preconditioner: Product) -> "Iterate":
        """The next iterate; an image also stops if the curvature along its direction is not in (0, ∞).

        Args:
            product: A times `direction`.
            preconditioner: P.
        """
        curvature = dot(self.direction, product)
        going = self.going & (curvature > 0) & (curvature < torch.inf)  # false for NaN
        step, moved = expand(self.squared / curvature, self.x), expand(going, self.x)
        # Values are chosen, not multiplied by zero, because an image that has stopped may meet infinities.
        x = torch.where(moved, self.x + step * self.direction, self.x)
        residual = torch.where(moved, self.residual - step * product, self.residual)
        z = preconditioner(residual)
        squared = torch.where(going, dot(residual, z), self.squared)
        going = going & (squared > self.goal)
        share = torch.where(going, squared / self.squared, 0)
        return Iterate(x, residual, z + expand(share, x) * self.direction, squared, self.goal, going)

    def where(self, mask: PerImage, other: "Iterate") -> "Iterate":
        """This iterate for the images in `mask`, the other for the rest."""
        pairs = ((value, getattr(other, name)) for name, value in vars(self).items())
        return Iterate(*(torch.where(expand(mask, own), own, another) for own, another in pairs))


def begin(right: Tensor, preconditioner: Product, tolerance: float) -> Iterate:
    """The first iterate, x = 0.

    Args:
        right: b, (B, ...).
        preconditioner: P, symmetric and positive, near A⁻¹.
        tolerance: the share of √(bᵀPb) that √(rᵀPr) must fall to.
    """
    z = preconditioner(right)
    squared = dot(right, z)
    goal = tolerance**2 * squared
    return Iterate(torch.zeros_like(right), right, z, squared, goal, squared > goal)  # false where b is zero


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
        matrix: A, symmetric and positive semi-definite; it gets and gives float64.
        right: b, (B, ...).
        preconditioner: P, symmetric and positive, near A⁻¹; it gets and gives float64.
        iterations: products with A at most.
        tolerance: the relative residual that is enough, see `Solution`.
    """
    found = begin(right.double(), preconditioner, tolerance)
    begun, used = found.squared, 0
    while used < iterations and bool(found.going.any()):
        found = found.after(matrix(found.direction), preconditioner)
        used += 1
    relative = torch.where(begun == 0, 0, (found.squared / begun).clamp_min(0).sqrt())
    return Solution(found.x, relative, used)
