"""The smallest curvature of an energy in a metric, found by Hessian-vector products.

Lanczos iterations approach it from above: each value is the curvature along a direction that was looked at.
So a negative one proves that the energy is not convex, and a positive one proves nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from aipo.basics.arrays import PerImage, dot, expand
from aipo.basics.derivatives import HessianProduct
from aipo.path.solvers.solver import Metric

# How many products are made at least, because a start with almost no part along the lowest direction seems
# settled too early; and the share of itself to which the value must be known.
LEAST, TOLERANCE = 12, 0.1


@dataclass(frozen=True)
class Curvature:
    """The smallest curvature found at one place, in units of the metric's inverse, (B,) each.

    Attributes:
        value: never below the true smallest one except by rounding; NaN where the Hessian is not finite.
        negative: whether it is below 0 by more than rounding, which proves that the energy is not convex.
        settled: whether an eigenvalue is known to lie within a tenth of the value. It is nearly always the
            smallest one, but that is not proved.
        products: Hessian products until the value settled, or all that were allowed.
    """

    value: PerImage
    negative: Tensor
    settled: Tensor
    products: Tensor


def smallest_curvature(
    product: HessianProduct, metric: Metric, like: Tensor, iterations: int = 100
) -> Curvature:
    """The smallest eigenvalue of M½ H M½, H the Hessian and M the metric, by Lanczos iterations.

    If the metric is the inverse Hessian, it is 1. If it is negative, F is not convex here.

    Args:
        product: v -> H v at one place.
        like: (B, ...), for shape, dtype and device.
        iterations: Hessian products at most. As many as an image has entries give its exact value.

    Source: Lanczos with full reorthogonalisation in the metric's inner product; its residual bounds the
        distance to an eigenvalue (Golub & Van Loan, 10.1).
    """
    most = min(iterations, like[0].numel())
    found = None
    for products, (matrix, beyond) in enumerate(islice(_lanczos(product, metric, like), most), 1):
        if products < min(LEAST, most):
            continue
        now = _judged(matrix, beyond, products, torch.finfo(like.dtype).eps)
        found = now if found is None else _kept(found, now)
        if bool((found.settled | found.value.isnan()).all()):
            break
    assert found is not None
    others = (found.negative, found.settled, found.products)
    return Curvature(found.value.to(like), *(tensor.to(like.device) for tensor in others))


def _lanczos(product: HessianProduct, metric: Metric, like: Tensor) -> Iterator[tuple[Tensor, PerImage]]:
    """After each product: the operator within the space seen so far, (B, k, k), and its link to the rest."""
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(like.shape[1:], generator=generator, dtype=like.dtype).to(like)
    residual = start.expand(like.shape)
    bases: list[Tensor] = []  # q_j with q_i · M q_j = 1 where i = j, else 0
    images: list[Tensor] = []  # M q_j
    diagonal: list[PerImage] = []
    beside: list[PerImage] = []
    image, ended = metric(residual), torch.zeros(len(like), dtype=torch.bool, device=like.device)
    length = _length(residual, image)
    while True:
        bases.append(residual / expand(length, residual))
        images.append(image / expand(length, image))
        residual = product(images[-1])
        seen = dot(images[-1], residual)
        # If H maps the space into itself, nothing new is seen; a repeated value changes no extreme.
        diagonal.append(torch.where(ended, diagonal[0], seen) if diagonal else seen)
        for _ in range(2):
            for basis, other in zip(bases, images, strict=True):
                residual = residual - expand(dot(other, residual), residual) * basis
        image = metric(residual)
        length = _length(residual, image)
        scale = torch.stack(diagonal + beside).abs().amax(0)
        ended = length <= 100 * torch.finfo(like.dtype).eps * scale
        yield _tridiagonal(diagonal, beside), torch.where(ended, 0, length).cpu().double()
        beside.append(torch.where(ended, 0, length))
        length = torch.where(ended, torch.inf, length)


def _length(residual: Tensor, image: Tensor) -> PerImage:
    return dot(residual, image).clamp_min(torch.finfo(image.dtype).tiny).sqrt()


def _tridiagonal(diagonal: list[PerImage], beside: list[PerImage]) -> Tensor:
    """The matrices (B, k, k), on the CPU, where small eigenvalue problems belong."""
    matrix = torch.stack(diagonal, 1).cpu().double().diag_embed()
    if beside:
        off = torch.stack(beside, 1).cpu().double()
        matrix = matrix + off.diag_embed(1) + off.diag_embed(-1)
    return matrix


def _judged(matrix: Tensor, beyond: PerImage, products: int, eps: float) -> Curvature:
    finite = torch.isfinite(matrix).all((1, 2)) & torch.isfinite(beyond)
    values, vectors = torch.linalg.eigh(torch.where(finite[:, None, None], matrix, 0))
    residual = beyond * vectors[:, -1, 0].abs()
    rounding = 100 * eps * values.abs().amax(1)
    value = torch.where(finite, values[:, 0], torch.nan)
    return Curvature(
        value=value,
        negative=value < -rounding,
        settled=residual <= torch.maximum(TOLERANCE * value.abs(), rounding),
        products=torch.full_like(value, products, dtype=torch.long),
    )


def _kept(before: Curvature, now: Curvature) -> Curvature:
    """An image that settled keeps what it had, so that it does not depend on how long others take."""
    pairs = ((getattr(before, name), getattr(now, name)) for name in vars(now))
    return Curvature(*(torch.where(before.settled, old, new) for old, new in pairs))
