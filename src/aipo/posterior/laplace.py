"""The spread around a minimiser, as if F were quadratic there: x ~ N(x*, (∇²F)⁻¹), Laplace's approximation.

Its variances are the diagonal of an inverse that is never formed. With M the metric, whose diagonal draws of
N(0, M) give without the prior,

    diag (∇²F)⁻¹ = diag M + E[v ⊙ ((∇²F)⁻¹ − M) v],   v of independent signs,

and (∇²F)⁻¹v by conjugate gradients on Hessian-vector products, with M as preconditioner.

Source: Hutchinson 1990, A stochastic estimator of the trace; Bekas, Kokiopoulou & Saad 2007 for diagonals.
"""

import torch
from torch import Tensor

from aipo.basics.arrays import PerImage, White
from aipo.basics.conjugate_gradients import conjugate_gradients
from aipo.basics.derivatives import HessianProduct
from aipo.basics.errors import InputError
from aipo.path.problem import PLAIN, Problem
from aipo.path.solvers.solver import Metric

# Draws of N(0, M) that its diagonal is taken from.
DRAWS = 200

# Relative residual of the conjugate gradients that is enough: probes scatter more.
TOLERANCE = 1e-4


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
    found = conjugate_gradients(
        lambda v: product(v.to(right.dtype)).double(),
        right,
        lambda v: metric(v.to(right.dtype)).double(),
        iterations,
        TOLERANCE,
    )
    return found.x.to(right.dtype)
