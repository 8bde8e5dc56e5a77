"""How a path is followed where the user does not say: for the picture, and for the objective alone.

The numbers were found on pictures that no table is judged by (dev/LOG.md).
"""

from dataclasses import replace

from aipo.likelihoods import Likelihood
from aipo.operators import Operator
from aipo.path.latents import has_latents
from aipo.path.options import PathOptions
from aipo.path.predictors import warm
from aipo.path.schedules import geometric
from aipo.path.solvers.descent import Adam
from aipo.path.solvers.lbfgs import LBFGS
from aipo.priors.prior import Prior
from aipo.selection.structure import has_holes, keeps_means, loses_entries

# Steps of √2 in λ, few evaluations at each: the path carries solution and curvature from one to the next.
AUTOMATIC = PathOptions(geometric(0.2, 12.8, 13), evaluations=8, tolerance=0.5)

# In a hole only the prior speaks. Steps as long as the surrogate is wide leave the flow's narrow valley
# there, and the hole turns dark before it comes back. Steps of the noise's own scale, the same everywhere,
# stay in it, wherever the surrogate knows texture and so makes a start that is near.
AUTOMATIC_HOLES = replace(AUTOMATIC, evaluations=12, metric="data")

# Pictures of one size are small, so a flow for them can afford more evaluations. Where its surrogate is of
# low rank without texture, that metric, made stiffer, is the better one in holes; where lost entries are
# scattered their neighbours determine them, and it serves as it is.
AUTOMATIC_SMALL = replace(AUTOMATIC, evaluations=24)
AUTOMATIC_SMALL_HOLES = replace(AUTOMATIC_SMALL, stiffness=20.0)

# Mixed measurements leave a flow flat valleys with sharp bends, in which L-BFGS goes astray and Adam, with
# many evaluations at few weights, does not. Only the prior decides what they leave open: under a large λ it
# does so soon, under a small one hardly ever, so λ falls.
AUTOMATIC_SMALL_MIXED = PathOptions(
    (4.0, 2.0, 1.0, 0.5, 0.25), solver=Adam(0.005), evaluations=64, metric="data"
)

# Under a flow for any size half as many steps, twice as long, are enough.
AUTOMATIC_MIXED = replace(AUTOMATIC_SMALL_MIXED, solver=Adam(0.01), evaluations=32)

# Noisy photographs: as where measurements are mixed, with fewer weights and smaller steps. These states stop
# short of the minima; mixed, they make a better picture than minima do.
AUTOMATIC_NOISY = replace(AUTOMATIC_MIXED, weights=(2.0, 1.0, 0.5, 0.25), solver=Adam(0.007))

# λσ² above which the prior rules the curvature of F, so that the flow's latents are the better coordinates;
# below it the data term rules, and its own scale is the metric.
LATENT_FROM = 0.002


def path_to_minima(operator: Operator, prior: Prior) -> PathOptions:
    """The path for criteria that take one state of it, which should be near a minimum of F(·; λ).

    Args:
        operator: in its simplest spelling (`aipo.operators.simplest`).
        prior: its surrogate tells whether it is for any size, and whether it knows texture.
    """
    surrogate = getattr(prior, "surrogate", None)
    textured, kept = bool(getattr(surrogate, "textured", False)), operator.kept()
    if kept is not None and loses_entries(kept):
        if textured:
            return AUTOMATIC_HOLES
        return AUTOMATIC_SMALL_HOLES if has_holes(kept) else AUTOMATIC_SMALL
    if textured and kept is None and keeps_means(operator):
        # The surrogate knows how strongly each frequency is held, so L-BFGS in its metric does not go astray.
        return AUTOMATIC
    if any_size(prior):
        return AUTOMATIC if kept is not None else AUTOMATIC_MIXED
    if surrogate is None or surrogate is prior:
        return AUTOMATIC  # nothing is known of its valleys, or it has none: one step is the solution
    return AUTOMATIC_SMALL if kept is not None else AUTOMATIC_SMALL_MIXED


def path_to_mix(operator: Operator, prior: Prior, judged: bool) -> PathOptions:
    """The path whose states are mixed.

    Args:
        operator: in its simplest spelling.
        judged: whether Stein's estimate chooses the shares.
    """
    kept = operator.kept()
    if judged and any_size(prior) and kept is not None and not loses_entries(kept):
        return AUTOMATIC_NOISY
    return path_to_minima(operator, prior)


def direct(likelihood: Likelihood, prior: Prior, weight: float, evaluations: int = 150) -> PathOptions:
    """One minimisation at one λ, in the coordinates and the metric that lower F fastest.

    It is for whoever wants the objective's minimum; paths give better pictures (docs/method.md).

    Args:
        likelihood: its operator and noise level decide.
        evaluations: budget.
    """
    operator = likelihood.simplest().operator
    options = PathOptions((weight,), warm, LBFGS(memory=20), evaluations, 1e-3, stiffness=10.0)
    kept = operator.kept()
    if kept is None:
        return options
    if loses_entries(kept):
        return replace(options, metric="data") if any_size(prior) else options
    if weight * float(likelihood.noise_level.min()) ** 2 < LATENT_FROM:
        return replace(options, metric="data")
    if has_latents(prior, operator.shape):
        # Latents do not know the data term's scale: the first step is kept short.
        return replace(options, coordinates="latents", solver=LBFGS(memory=40, first_step=1e-3))
    return options


def any_size(prior: Prior) -> bool:
    """Whether the prior's surrogate is for pictures of any size."""
    return None in getattr(getattr(prior, "surrogate", None), "shape", ())
