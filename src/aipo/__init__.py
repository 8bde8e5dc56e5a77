"""AIPO: images from noisy, incomplete measurements, with a normalizing-flow prior.

A measurement y = f(x) + e has many explanations; aipo finds the one that minimises D(x) + λ R(x), with the
data energy D = −log p(y | x), the prior energy R = −log p_G(x) of a normalizing flow, and λ along a path.
"""

from importlib import import_module
from typing import Any

from aipo import flows, likelihoods, operators, priors
from aipo.operators import check as testing
from aipo.path.options import PathOptions
from aipo.path.schedules import gaussian_to_prior, paper, smoothing
from aipo.posterior.chain import LangevinOptions, Samples, sample
from aipo.priors import foreign, load_prior
from aipo.reconstruction.branches import Branches, best_of
from aipo.reconstruction.follow import trace
from aipo.reconstruction.reconstruct import reconstruct
from aipo.reconstruction.result import Reconstruction

__version__ = "0.1.0"
__all__ = [
    "Branches",
    "LangevinOptions",
    "PathOptions",
    "Reconstruction",
    "Samples",
    "best_of",
    "flows",
    "foreign",
    "gaussian_to_prior",
    "likelihoods",
    "load_prior",
    "operators",
    "paper",
    "priors",
    "reconstruct",
    "sample",
    "smoothing",
    "testing",
    "trace",
]


def __getattr__(name: str) -> Any:
    """`aipo.deepinv` and `aipo.from_deepinv`, imported when first asked for: deepinv is an optional extra."""
    if name == "deepinv":
        return import_module("aipo.deepinv")
    if name == "from_deepinv":
        return import_module("aipo.deepinv").from_deepinv
    raise AttributeError(f"module 'aipo' has no attribute {name!r}")
