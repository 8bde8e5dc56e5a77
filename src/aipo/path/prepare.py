"""The problem that a path solves, prepared as the path's options say."""

from aipo.likelihoods import Likelihood
from aipo.path.latents import in_latents
from aipo.path.objective import objective
from aipo.path.options import PathOptions
from aipo.path.problem import Problem
from aipo.priors.prior import Prior


def prepared(likelihood: Likelihood, prior: Prior, options: PathOptions) -> Problem:
    """D + λR with the start, the metric and the coordinates of these options."""
    pictures = objective(likelihood, prior, options.start, options.metric)
    return in_latents(pictures, likelihood, prior) if options.coordinates == "latents" else pictures
