"""The spread around a minimiser, as if F were quadratic there: x ~ N(x*, (∇²F)⁻¹), Laplace's approximation.

Its variances are the diagonal of an inverse that is never formed. With M the metric, whose diagonal draws of
N(0, M) give without the prior,

    diag (∇²F)⁻¹ = diag M + E[v ⊙ ((∇²F)⁻¹ − M) v],   v of independent signs,

and (∇²F)⁻¹v by conjugate gradients on Hessian-vector products, with M as preconditioner.

Source: Hutchinson 1990, A stochastic estimator of the trace; Bekas, Kokiopoulou & Saad 2007 for diagonals.
"""

import torch
from torch import Tensor

from aipo.basics.arrays import PerImage, White, dot, expand
from aipo.basics.derivatives import HessianProduct
from aipo.basics.errors import InputError
from aipo.path.problem import PLAIN, Problem
from aipo.path.solvers.solver import Metric

# Draws of N(0, M) that its diagonal is taken from.
DRAWS = 200


def laplace_std(
    problem: Problem, x: Tensor, weight: PerImage, seeds: list[int], probes: int = 8, iterations: int = 25
) -> Tensor:
    """Standard deviation of every value, like x (B, ...).

    Args:
        problem: its `hessian` and `noise` are needed.
        x: minimisers of F(·; λ).
        weight: λ, (B,).
        seeds: of probes and draws, one per image.
        probes: v; the error falls with their square root.
        iterations: Hessian products for each of them.

    Raises:
        InputError: a problem over latents, or fewer than one probe.
    """
    if problem.hessian is None or problem.noise is None or probes < 1:
        raise InputError(f"probes = {probes}; use 1 or more, and a problem over pictures with a Hessian")
    white, metric = White(seeds), problem.metric(weight)
    product = problem.hessian(x, weight, PLAIN)
    variance = sum((problem.noise(weight, white) ** 2 for _ in range(DRAWS)), torch.zeros_like(x)) / DRAWS
    for _ in range(probes):
        v = white(x).sign()
        variance = variance + v * (_solved(product, metric, v, iterations) - metric(v)) / probes
    return variance.clamp_min(0).sqrt()


def _solved(product: HessianProduct, metric: Metric, right: Tensor, iterations: int) -> Tensor:
    """(∇²F)⁻¹ b of each image; where ∇²F turns out not to be positive, what was found before."""
    x, residual = torch.zeros_like(right), right
    direction = z = metric(residual)
    rho = dot(residual, z)
    going, stop = rho > 0, 1e-8 * rho
    for _ in range(iterations):
        image = product(direction)
        curvature = dot(direction, image)
        going = going & (curvature > 0) & (rho > stop)
        if not bool(going.any()):
            break
        step = expand(torch.where(going, rho / curvature, 0), x)
        x, residual = x + step * direction, residual - step * image
        z = metric(residual)
        previous, rho = rho, torch.where(going, dot(residual, z), rho)
        direction = z + expand(torch.where(going, rho / previous, 0), x) * direction
    return x
