"""AIPO: images from noisy, incomplete measurements, with a normalizing-flow prior.

A measurement y = f(x) + e has many explanations; aipo finds the one that minimises D(x) + λ R(x), with the
data energy D = −log p(y | x), the prior energy R = −log p_G(x) of a normalizing flow, and λ along a path.
"""

from importlib import import_module
from typing import Any

from aipo import flows, likelihoods, moved, operators, priors
from aipo.path.options import PathOptions
from aipo.path.schedules import gaussian_to_prior, paper, smoothing
from aipo.posterior.chain import Samples, sample
from aipo.posterior.langevin import LangevinOptions
from aipo.priors import load_prior
from aipo.reconstruction.branches import Branches, best_of
from aipo.reconstruction.follow import trace
from aipo.reconstruction.reconstruct import reconstruct
from aipo.reconstruction.result import Reconstruction
from aipo.selection.plans import Plan, plan

__version__ = "0.1.0"
__all__ = [
    "Branches",
    "LangevinOptions",
    "PathOptions",
    "Plan",
    "Reconstruction",
    "Samples",
    "best_of",
    "flows",
    "gaussian_to_prior",
    "likelihoods",
    "load_prior",
    "operators",
    "paper",
    "plan",
    "priors",
    "reconstruct",
    "sample",
    "smoothing",
    "trace",
]

moved.install()


def __getattr__(name: str) -> Any:
    """Imported when first asked for: deepinv, an optional extra, and modules under their old names."""
    if name == "from_deepinv":
        return import_module("aipo.deepinv").from_deepinv
    if name == "deepinv" or name in moved.MOVED:
        return import_module(f"aipo.{name}")
    raise AttributeError(f"module 'aipo' has no attribute {name!r}")
