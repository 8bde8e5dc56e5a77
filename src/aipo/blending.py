"""Pictures of the path mixed: better than any single λ, for no evaluation more.

Between the picture of a small λ (noise is left) and that of a large one (texture is gone) errors are not the
same, so a mixture is often nearer than each. Where Stein's estimate can judge, the shares are those of the
lowest estimated risk.

The estimate is exact for a mixture of maps y → x_k(y) with fixed shares, as the Jacobian is linear in them:

    risk(a) = (‖Σ a_k A x_k − y‖² − tr Σ + 2 Σ a_k tr ΣJ_k)/m,   a ≥ 0, Σ a_k = 1.

That is a convex quadratic with one minimum. Elsewhere the chosen point is averaged with those whose λ is not
far below its own.

Source: Leung & Barron 2006, Information theory and mixing least-squares regressions (mixing by unbiased
estimates of the risk); Blu & Luisier 2007, The SURE-LET approach (linear expansions of denoisers).
"""

from collections.abc import Sequence

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from aipo.arrays import Images, expand
from aipo.selection import Sure

# Where no estimate can tell the shares, states are averaged whose λ is at least this part of the chosen one.
AVERAGED_FROM = 0.25


def sure_shares(sure: Sure, pictures: Sequence[Images], usable: Tensor) -> Tensor:
    """What part each picture has in the mixture of lowest estimated risk.

    Args:
        sure: of B measurements.
        pictures: K batches of maps of the measurements and, behind them, of `sure`'s copies, (2B, C, H, W).
        usable: (K, B) bool, at least one per image; the others get no share.

    Returns:
        (K, B), never negative, with sum 1 for each image.
    """
    residuals, excesses = zip(*(sure.residual_and_excess(x) for x in pictures), strict=True)
    linear = torch.stack(excesses).double()
    found = torch.zeros(usable.shape, dtype=pictures[0].dtype, device=usable.device)
    for image in range(usable.shape[1]):
        kept = usable[:, image].nonzero().squeeze(1)
        own = torch.stack([residuals[int(k)][image].flatten() for k in kept]).double()
        part = lowest_on_simplex((own @ own.T).cpu().numpy(), linear[kept, image].cpu().numpy())
        found[kept, image] = torch.from_numpy(part).to(found)
    return found


def near_shares(chosen: Tensor, weights: Tensor, usable: Tensor) -> Tensor:
    """Equal parts of the chosen picture, (B,), and of the usable ones whose λ is not far below its own.

    Args:
        weights: λ of each, (K, B).
        usable: (K, B) bool.

    Returns:
        (K, B), never negative, with sum 1 for each image.
    """
    steps = torch.arange(len(usable), device=usable.device)[:, None]
    own = weights.gather(0, chosen[None])
    near = (weights <= own) & (weights > (1 - 1e-4) * AVERAGED_FROM * own)
    taken = near & usable | (steps == chosen)
    return taken / taken.sum(0)


def mixture(pictures: Sequence[Images], part: Tensor) -> Images:
    """Σ_k part_k · picture_k of the first B images of each batch; part is (K, B)."""
    total = torch.zeros_like(pictures[0][: part.shape[1]])
    for a, x in zip(part, pictures, strict=True):
        # A picture without share may be one that diverged, and 0 · NaN is NaN.
        total = total + torch.where(expand(a > 0, total), expand(a, total) * x[: len(a)], 0)
    return total


def lowest_on_simplex(gram: np.ndarray, linear: np.ndarray) -> np.ndarray:
    """The minimiser of aᵀGa + 2lᵀa over a ≥ 0, Σa = 1, for a positive semidefinite G (K, K) and l (K,)."""
    count = len(linear)
    if count == 1:
        return np.ones(1)
    scale = max(np.abs(gram).max(), np.abs(linear).max(), np.finfo(float).tiny)
    gram, linear = gram / scale, linear / scale
    single = np.eye(count)[np.argmin(gram.diagonal() + 2 * linear)]
    found = minimize(
        lambda a: a @ gram @ a + 2 * linear @ a,
        single,
        jac=lambda a: 2 * (gram @ a + linear),
        method="SLSQP",
        bounds=[(0.0, 1.0)] * count,
        constraints={"type": "eq", "fun": lambda a: a.sum() - 1, "jac": np.ones_like},
        options={"ftol": 1e-14, "maxiter": 500},
    )
    part = np.clip(found.x, 0, None)
    part = part / part.sum() if part.sum() > 0 else single
    value = [a @ gram @ a + 2 * linear @ a for a in (part, single)]
    return part if value[0] <= value[1] else single
