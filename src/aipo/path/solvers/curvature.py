"""The smallest curvature of an energy, seen through Hessian-vector products and a metric."""

import torch
from torch import Tensor

from aipo.basics.arrays import PerImage, dot, expand
from aipo.basics.derivatives import HessianProduct
from aipo.path.solvers.solver import Metric


def smallest_curvature(
    product: HessianProduct, metric: Metric, like: Tensor, iterations: int = 12
) -> PerImage:
    """The smallest eigenvalue of M½ H M½, H the Hessian and M the metric, by Lanczos iterations.

    1 everywhere would mean that the metric is the inverse Hessian; 0 or less, that F is not convex here.
    The estimate is never below the true value, and exact after n iterations.

    Args:
        product: v -> H v at one place.
        like: (B, ...), for shape, dtype and device.
        iterations: Hessian products spent.

    Returns:
        (B,) in units of the metric's inverse.

    Source: Lanczos with full reorthogonalisation in the metric's inner product (Golub & Van Loan, 10.1).
    """
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(like.shape[1:], generator=generator, dtype=like.dtype).to(like)
    steps = min(iterations, start.numel())
    bases: list[Tensor] = []  # q_j with q_i · M q_j = 1 where i = j, else 0
    images: list[Tensor] = []  # M q_j
    matrix = like.new_zeros(len(like), steps, steps)
    residual = start.expand(like.shape)
    for j in range(steps):
        image = metric(residual)
        length = dot(residual, image).clamp_min(torch.finfo(like.dtype).tiny).sqrt()
        if j > 0:
            scale = matrix[:, :j, :j].abs().amax((1, 2))
            ended = length <= 100 * torch.finfo(like.dtype).eps * scale
            length = torch.where(ended, torch.inf, length)  # an invariant space: what follows counts as zero
            matrix[:, j, j - 1] = matrix[:, j - 1, j] = torch.where(ended, 0, length)
        bases.append(residual / expand(length, residual))
        images.append(image / expand(length, image))
        residual = product(images[j])
        matrix[:, j, j] = dot(images[j], residual)
        for _ in range(2):
            for basis, other in zip(bases, images, strict=True):
                residual = residual - expand(dot(other, residual), residual) * basis
        if j > 0:  # outside the space that H leaves invariant nothing was seen
            matrix[:, j, j] = torch.where(ended, matrix[:, 0, 0], matrix[:, j, j])
    return torch.linalg.eigvalsh(matrix)[:, 0]
