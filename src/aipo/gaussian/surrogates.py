"""Gaussian stand-ins N(μ, Σ) for a prior: where the path starts, and the curvature its solver assumes.

Fitted to the training pictures and stored with the prior. Each one offers the mean, a factor F with
Σ = F Fᵀ, and products with Σ and Σ⁻¹, on images (B, C, H, W):

- `LowRankGaussian` for pictures of one size: Σ = W Wᵀ + diag(d);
- `StationaryGaussian` for any size: Σ = S, diagonal in the Fourier domain of three decorrelated colours;
- `LowRankStationary` for pictures of one size with texture: Σ = W Wᵀ + S.
"""

from aipo.gaussian.low_rank import LowRankGaussian
from aipo.gaussian.low_rank_stationary import LowRankStationary
from aipo.gaussian.stationary import StationaryGaussian
from aipo.gaussian.surrogate import VARIANCE_FLOOR, Surrogate, energy, log_prob

__all__ = [
    "VARIANCE_FLOOR",
    "LowRankGaussian",
    "LowRankStationary",
    "StationaryGaussian",
    "Surrogate",
    "energy",
    "log_prob",
]
