"""The problem that a path is followed through, prepared as its options say."""

from aipo.likelihoods import Likelihood
from aipo.path.latents import in_latents
from aipo.path.objective import objective
from aipo.path.options import PathOptions
from aipo.path.problem import Problem
from aipo.priors.prior import Prior


def prepared(likelihood: Likelihood, prior: Prior, options: PathOptions) -> Problem:
    """D + λR from the start, in the metric and over the coordinates of these options."""
    pictures = objective(likelihood, prior, options.start, options.metric)
    return in_latents(pictures, likelihood, prior) if options.coordinates == "latents" else pictures
