"""Mixtures of the path's pictures: better than any single λ, and no further evaluation is needed.

The picture of a small λ (noise is left) and that of a large λ (texture is gone) have different errors, so a
mixture is often nearer to the truth than each of them. Where Stein's estimate can judge, the shares are
those with the lowest estimated risk.

The estimate also holds for a mixture of maps y → x_k(y) with fixed shares, because its Jacobian is linear in
them:

    risk(a) = (‖Σ a_k A x_k − y‖² − tr Σ + 2 Σ a_k tr ΣJ_k)/m,   a ≥ 0, Σ a_k = 1.

This is a convex quadratic. Where Stein's estimate cannot judge, the chosen state is averaged with the states
whose λ is not far below its own.

Source: Leung & Barron 2006, Information theory and mixing least-squares regressions (mixing by unbiased
estimates of the risk); Blu & Luisier 2007, The SURE-LET approach (linear expansions of denoisers).
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from aipo.basics.arrays import Images, Measurements, expand
from aipo.operators import Operator
from aipo.selection.components import EVERYWHERE, colours, of_colour
from aipo.selection.criteria import Sure
from aipo.selection.structure import whole_pixels

# Where no estimate tells the shares, states whose λ is at least this part of the chosen one are averaged.
AVERAGED_FROM = 0.25

# The risk of the whole picture, counted as so many entries, is added to that of each place, because a place
# may have few measured entries or none.
BORROWED = 100

# So many entries of every map are in double precision at a time.
AT_ONCE = 2**20


def sure_shares(sure: Sure, pictures: Sequence[Images], usable: Tensor, where: Tensor) -> Tensor:
    """The part of each picture in the mixture of lowest estimated risk, component by component.

    Args:
        sure: the estimate for B measurements.
        pictures: K batches (2B, C, H, W): pictures of the measurements, and behind them those of `sure`'s
            copies.
        usable: (K, B) bool, at least one per image; the other pictures get no share.
        where: how far each pixel belongs to each of P places, (B, P, H, W); `EVERYWHERE` for mixed
            measurements, which have no place.

    Returns:
        (K, B, colours, P), never negative, with sum 1 over the pictures.
    """
    operator, count = sure.likelihood.operator, usable.shape[1]
    hues, where = colours(operator), where.to(pictures[0]).expand(count, -1, -1, -1)
    maps = [sure.residual_and_response(x) for x in pictures]
    borrowed = BORROWED / operator.measurements
    found = torch.zeros(*usable.shape, hues, where.shape[1]).to(pictures[0])
    for image in range(count):
        kept = usable[:, image].nonzero().squeeze(1)
        own = torch.stack([torch.stack(maps[int(k)])[:, image] for k in kept], 1)
        residuals, responses = (_in_place(operator, part, hues) for part in own)
        probe = _in_place(operator, sure.stein.probe[image : image + 1], hues)
        for hue in range(hues):
            r, j, b = (of_colour(values, hue, hues) for values in (residuals, responses, probe))
            found[kept, image, hue] = _lowest(r, j, b, where[image], borrowed).to(found)
    return found


def _lowest(residuals: Tensor, responses: Tensor, probe: Tensor, where: Tensor, borrowed: float) -> Tensor:
    """Shares of lowest risk of K maps in each of P places, (K, P).

    Args:
        residuals, responses: of each map, (K, C, H, W).
        probe: (1, C, H, W).
        where: (P, H, W).
        borrowed: the part of the whole picture's risk that is added to the risk of each place.
    """
    risks = [_risk(residuals, responses, probe, near) for near in where]
    grams, excesses = (np.stack(part) for part in zip(*risks, strict=True))
    parts = [
        lowest_on_simplex(gram + borrowed * grams.sum(0), excess + borrowed * excesses.sum(0))
        for gram, excess in zip(grams, excesses, strict=True)
    ]
    return torch.from_numpy(np.stack(parts, 1))


def _in_place(operator: Operator, values: Measurements, hues: int) -> Tensor:
    """Measured entries at their places in the picture, and zero elsewhere; mixed values as they are.

    If colours are judged separately, pixels do not count if only some of their channels are measured.
    """
    kept = operator.kept()
    if kept is None:
        return values.flatten(1)[:, None, None]
    placed = operator.linear.adjoint(values)
    return placed if hues == 1 else placed * whole_pixels(kept).to(placed)


def _risk(residuals: Tensor, responses: Tensor, probe: Tensor, near: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """G (K, K) and l (K,) of the risk aᵀGa + 2lᵀa of mixtures of K maps, with `near` as weight of entries.

    Args:
        residuals, responses: of each map, (K, C, H, W).
        probe: (1, C, H, W).
        near: (H, W).
    """
    rows = (residuals * near.sqrt()).flatten(1)
    gram = torch.zeros(len(rows), len(rows), dtype=torch.float64, device=rows.device)
    for chunk in rows.split(AT_ONCE, 1):
        gram += chunk.double() @ chunk.double().T
    excess = (responses * (probe * near)).flatten(1).sum(1).double()
    noise = (probe.square() * near).sum().double()
    return gram.cpu().numpy(), excess.clamp_min(0).minimum(noise).cpu().numpy()


def near_shares(chosen: Tensor, weights: Tensor, usable: Tensor) -> Tensor:
    """Equal parts of the chosen picture and of the usable ones whose λ is not far below its own.

    Args:
        chosen: index of each image's picture, (B,).
        weights: λ of each, (K, B).
        usable: (K, B) bool.

    Returns:
        (K, B, 1, 1), never negative, with sum 1 for each image. All components are treated alike.
    """
    steps = torch.arange(len(usable), device=usable.device)[:, None]
    own = weights.gather(0, chosen[None])
    near = (weights <= own) & (weights > (1 - 1e-4) * AVERAGED_FROM * own)
    taken = near & usable | (steps == chosen)
    return (taken / taken.sum(0))[..., None, None]


def mixture(pictures: Sequence[Images], part: Tensor, where: Tensor = EVERYWHERE) -> Images:
    """A mixture of the first B images of each batch.

    Args:
        pictures: K batches (B or more, C, H, W).
        part: the part of each batch in every component, (K, B, colours, P).
        where: how far each pixel belongs to each of P places, (B, P, H, W).
    """
    count, hues = part.shape[1:3]
    where = where.to(part)
    total = torch.zeros_like(pictures[0][:count])
    for a, x in zip(part, pictures, strict=True):
        taken = expand(a.flatten(1).sum(1) > 0, total)
        for hue in range(hues):
            share = (a[:, hue, :, None, None] * where).sum(1, keepdim=True)
            # A picture without a share may have diverged, and 0 · NaN is NaN.
            total = total + torch.where(taken, share * of_colour(x[:count], hue, hues), 0)
    return total


def lowest_on_simplex(gram: np.ndarray, linear: np.ndarray) -> np.ndarray:
    """The minimiser of aᵀGa + 2lᵀa over a ≥ 0, Σa = 1, for a positive semidefinite G (K, K) and l (K,)."""
    from scipy.optimize import minimize  # only here: it is slow to import

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
