"""How the path is followed where the user does not say: for the picture, and for the objective alone.

Found on pictures that no table is judged by (dev/LOG.md).
"""

from dataclasses import replace
from math import prod

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from aipo.gaussian import LowRankStationary
from aipo.likelihoods import Gaussian, Likelihood
from aipo.operators import Composition, Downsampling, Identity, LinearOperator, Mask, Operator
from aipo.path.options import PathOptions
from aipo.path.predictors import warm
from aipo.path.schedules import geometric
from aipo.path.solvers.descent import Adam
from aipo.path.solvers.lbfgs import LBFGS
from aipo.priors import FlowPrior, Prior

# Steps of √2 in λ, few evaluations at each: the path carries solution and curvature from one to the next.
AUTOMATIC = PathOptions(geometric(0.2, 12.8, 13), evaluations=8, tolerance=0.5)

# In a hole only the prior speaks. Steps of the surrogate's width leave the flow's narrow valley there, and
# the hole turns dark before it comes back: the noise's own scale, the same everywhere, keeps them small,
# wherever the surrogate knows texture and so makes a start that is near.
AUTOMATIC_HOLES = replace(AUTOMATIC, evaluations=12, metric="data")

# Pictures of one size are small, so a flow for them can afford more evaluations. Where its surrogate is of
# low rank without texture, that metric, made stiffer, is the better one in holes; where lost entries are
# scattered their neighbours hold them, and it serves as it is.
AUTOMATIC_SMALL = replace(AUTOMATIC, evaluations=24)
AUTOMATIC_SMALL_HOLES = replace(AUTOMATIC_SMALL, stiffness=20.0)

# Mixed measurements under such a flow leave it flat valleys with sharp bends, in which L-BFGS goes astray and
# Adam, with many evaluations at few weights, does not. What they leave open only the prior decides: under a
# large λ that is soon found, under a small one hardly ever, so λ falls.
AUTOMATIC_SMALL_MIXED = PathOptions(
    (4.0, 2.0, 1.0, 0.5, 0.25), solver=Adam(0.005), evaluations=64, metric="data"
)

# Under a flow for any size half as many steps, twice as long, are enough.
AUTOMATIC_MIXED = replace(AUTOMATIC_SMALL_MIXED, solver=Adam(0.01), evaluations=32)

# Noisy photographs: as where measurements are mixed, with fewer weights and smaller steps.
AUTOMATIC_NOISY = replace(AUTOMATIC_MIXED, weights=(2.0, 1.0, 0.5, 0.25), solver=Adam(0.007))

# Mean distance of lost entries to the nearest measured one, in pixels, above which they form holes.
HOLE_FROM = 1.5

# λσ² above which the prior rules the curvature of F, so that the flow's latents are the better coordinates;
# below it the data term rules, and its own scale is the metric.
LATENT_FROM = 0.002


def automatic(operator: Operator, prior: Prior) -> PathOptions:
    """How the path is followed where the user does not say."""
    textured = _any_size(prior) or isinstance(getattr(prior, "surrogate", None), LowRankStationary)
    if isinstance(operator, Mask) and _loses_entries(operator):
        if textured:
            return AUTOMATIC_HOLES
        return AUTOMATIC_SMALL_HOLES if _has_holes(operator) else AUTOMATIC_SMALL
    if textured and _loses_detail(operator):
        # The surrogate knows how strongly each frequency is held, so L-BFGS in its metric does not go astray.
        return AUTOMATIC
    mixing = not isinstance(operator, Identity | Mask)
    if _any_size(prior):
        return AUTOMATIC_MIXED if mixing else AUTOMATIC
    if not isinstance(prior, FlowPrior):
        return AUTOMATIC
    return AUTOMATIC_SMALL_MIXED if mixing else AUTOMATIC_SMALL


def for_mixtures(likelihood: Likelihood, prior: Prior) -> PathOptions:
    """How the path is followed whose states "auto" mixes, where the user does not say.

    For noisy photographs a path of few weights, whose states stop short of the minima: mixed, they make a
    better picture than minima do.
    """
    if isinstance(likelihood, Gaussian) and isinstance(likelihood.operator, Identity) and _any_size(prior):
        return AUTOMATIC_NOISY
    return automatic(likelihood.operator, prior)


def direct(likelihood: Likelihood, prior: Prior, weight: float, evaluations: int = 150) -> PathOptions:
    """One minimisation at one λ, in the coordinates and the metric that lower F fastest.

    For whoever wants the objective's minimum; the paths of `automatic` give better pictures (docs/method.md).

    Args:
        likelihood: its operator and noise level decide.
        evaluations: budget.
    """
    operator = likelihood.operator
    options = PathOptions((weight,), warm, LBFGS(memory=20), evaluations, 1e-3, stiffness=10.0)
    if isinstance(operator, Mask) and _loses_entries(operator):
        return replace(options, metric="data") if _any_size(prior) else options
    if not isinstance(operator, Identity):
        return options
    if weight * float(likelihood.noise_level.min()) ** 2 < LATENT_FROM:
        return replace(options, metric="data")
    if _has_latents(prior, operator):
        # Latents do not know the data term's scale: the first step is kept short.
        return replace(options, coordinates="latents", solver=LBFGS(memory=40, first_step=1e-3))
    return options


def residual_tells(operator: Operator) -> bool:
    """Whether a picture x is as good as its A x is, so that an estimate of the error of A x judges it.

    Of entries it is, and of a blur, which leaves open only what is finer than itself.
    """
    if isinstance(operator, Identity | Mask):
        return True
    gram = operator.gram() if isinstance(operator, LinearOperator) else None
    return gram is not None and _keeps_colours(gram) and _is_local(gram, operator.shape)


def _is_local(gram: Tensor, shape: tuple[int, int, int]) -> bool:
    """Whether AᵀA carries a point no farther than a quarter of the picture, as blurs do."""
    _, height, width = shape
    spread = torch.fft.irfft2(gram, s=(height, width), dim=(0, 1)).square().sum((2, 3))
    rows = torch.fft.fftfreq(height).abs()[:, None] <= 0.25
    near = rows & (torch.fft.fftfreq(width).abs() <= 0.25)
    return float(spread[~near.to(spread.device)].sum()) < 1e-6 * float(spread.sum())


def _keeps_colours(gram: Tensor) -> bool:
    """Whether the mean of every colour is measured."""
    held = torch.linalg.eigvalsh(gram[0, 0])
    return float(held.min()) > 0.01 * float(held.max())


def _loses_detail(operator: Operator) -> bool:
    """Whether the mean of every colour is measured, and what is not is finer, or some of the frequencies."""
    if isinstance(operator, Composition):
        return all(_loses_detail(part) for part in operator.operators)
    if isinstance(operator, Downsampling):
        return True
    gram = operator.gram() if isinstance(operator, LinearOperator) else None
    return gram is not None and _keeps_colours(gram)


def _any_size(prior: Prior) -> bool:
    return isinstance(prior, FlowPrior) and None in prior.shape


def _loses_entries(mask: Mask) -> bool:
    return mask.measurements < prod(mask.shape)


def _has_holes(mask: Mask) -> bool:
    lost = ~mask.mask.cpu().numpy()
    distance = np.asarray(distance_transform_edt(lost, sampling=(sum(lost.shape), 1, 1)))  # within channels
    return float(distance[lost].mean()) > HOLE_FROM


def _has_latents(prior: Prior, operator: Operator) -> bool:
    return isinstance(prior, FlowPrior) and all(side % prior.flow.factor == 0 for side in operator.shape[1:])
