"""The default chain for the best picture, and the default paths to minima.

The numbers were found on pictures that no table uses (dev/LOG.md).
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
from aipo.path.splitting import SplittingOptions
from aipo.posterior.langevin import LangevinOptions
from aipo.priors.prior import Prior
from aipo.selection.structure import has_holes, keeps_means, loses_entries

# The best picture is near the posterior mean. A chain at λ = 1 needs hundreds of draws to tell it, because
# each lies far from it. Draws at a quarter of the temperature lie half as far. Their mean leans towards the
# mode, which is too smooth, and half the weight makes up for that. One rule for every operator and noise; it
# needs a surrogate that knows texture.
COLD = LangevinOptions(evaluations=98, burn_in=28, step=0.5, friction=0.1, temperature=0.25)
COLD_WEIGHT = 0.5

# A chain of a larger picture takes minutes. Steps of splitting are nearly as good for a quarter of its cost
# (dev/LOG.md). What measurements leave open is settled by a τ that falls until they decide.
LARGE = 2**17
STEPS = SplittingOptions(steps=24, first=2.0, last=0.25, ratio=3.0, kick=0.6, views=1)

# λ grows by factors of √2, with few evaluations at each weight, because the path carries solution and
# curvature from one weight to the next.
AUTOMATIC = PathOptions(geometric(0.2, 12.8, 13), evaluations=8, tolerance=0.5)

# In a hole only the prior decides. Steps as long as the surrogate is wide leave the flow's narrow valley
# there, and the hole turns dark before it comes back. Steps of the noise's own scale, the same everywhere,
# stay in the valley if the start is near, as it is where the surrogate knows texture.
AUTOMATIC_HOLES = replace(AUTOMATIC, evaluations=12, metric="data")

# Pictures of one size are small, so a flow for them can afford more evaluations. If its surrogate is of low
# rank without texture, the surrogate's metric is the better one. Holes need it stiffer. Scattered lost
# entries are determined by their neighbours, and for them it serves as it is.
AUTOMATIC_SMALL = replace(AUTOMATIC, evaluations=24)
AUTOMATIC_SMALL_HOLES = replace(AUTOMATIC_SMALL, stiffness=20.0)

# Under mixed measurements F has flat valleys with sharp bends. L-BFGS goes astray in them; Adam, with many
# evaluations at few weights, does not. Only the prior decides what such measurements leave open. It decides
# soon under a large λ and hardly ever under a small one, so λ falls.
AUTOMATIC_SMALL_MIXED = PathOptions(
    (4.0, 2.0, 1.0, 0.5, 0.25), solver=Adam(0.005), evaluations=64, metric="data"
)

# Under a flow for any size half as many steps, twice as long, are enough.
AUTOMATIC_MIXED = replace(AUTOMATIC_SMALL_MIXED, solver=Adam(0.01), evaluations=32)

# Above this λσ² the prior dominates the curvature of F, and the flow's latents are the better coordinates.
# Below it the data term dominates, and its own scale is the metric.
LATENT_FROM = 0.002


def path_to_minima(operator: Operator, prior: Prior) -> PathOptions:
    """The path for criteria that choose one of its states, which should be near a minimum of F(·; λ).

    Args:
        operator: in its simplest spelling (`aipo.operators.simplest`).
        prior: its surrogate tells whether the prior is for any size, and whether the surrogate knows texture.
    """
    surrogate = getattr(prior, "surrogate", None)
    textured, kept = knows_texture(prior), operator.kept()
    if kept is not None and loses_entries(kept):
        if textured:
            return AUTOMATIC_HOLES
        return AUTOMATIC_SMALL_HOLES if has_holes(kept) else AUTOMATIC_SMALL
    if textured and kept is None and keeps_means(operator):
        # The surrogate knows how well each frequency is determined: L-BFGS does not go astray in its metric.
        return AUTOMATIC
    if any_size(prior):
        return AUTOMATIC if kept is not None else AUTOMATIC_MIXED
    if surrogate is None or surrogate is prior:
        return AUTOMATIC  # its valleys are unknown, or it is Gaussian and one step is the solution
    return AUTOMATIC_SMALL if kept is not None else AUTOMATIC_SMALL_MIXED


def direct(likelihood: Likelihood, prior: Prior, weight: float, evaluations: int = 150) -> PathOptions:
    """One minimisation at one λ, in the coordinates and the metric that lower F fastest.

    Use it if you want the minimum of the objective; paths give better pictures (docs/method.md).

    Args:
        likelihood: its operator and its noise level decide about coordinates and metric.
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
        # The metric over latents does not know the data term's scale, so the first step is kept short.
        return replace(options, coordinates="latents", solver=LBFGS(memory=40, first_step=1e-3))
    return options


def is_large(operator: Operator) -> bool:
    """Whether pictures have so many pixels that a chain takes minutes."""
    _, height, width = operator.shape
    return height * width > LARGE


def knows_texture(prior: Prior) -> bool:
    """Whether the prior's surrogate knows texture, and is a metric for chains therefore.

    In the metric of a surrogate of low rank alone draws are too wide wherever nothing is measured.
    """
    return bool(getattr(getattr(prior, "surrogate", None), "textured", False))


def any_size(prior: Prior) -> bool:
    """Whether the prior's surrogate is for pictures of any size."""
    return None in getattr(getattr(prior, "surrogate", None), "shape", ())
