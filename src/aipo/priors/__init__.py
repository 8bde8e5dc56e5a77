"""Priors: densities of images as energies R(x) = −log p(x), in nats per image."""

from aipo.priors.closed import Gaussian, Mixture
from aipo.priors.flow_prior import Fitted, FlowPrior
from aipo.priors.foreign import Foreign, freia
from aipo.priors.library import FAMILIES, SURROGATES, build_flow, bundled_priors, load_prior
from aipo.priors.prior import Prior

__all__ = [
    "FAMILIES",
    "SURROGATES",
    "Fitted",
    "FlowPrior",
    "Foreign",
    "Gaussian",
    "Mixture",
    "Prior",
    "build_flow",
    "bundled_priors",
    "freia",
    "load_prior",
]
