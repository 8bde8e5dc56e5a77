"""Gaussian surrogates N(μ, Σ) of a prior, and everything that has a closed form under them.

A surrogate is fitted to the training pictures and stored with the prior. It gives the path its first picture
and the solver its metric. Each one offers the mean, a factor F with Σ = F Fᵀ, and products with Σ⁻¹:

- `LowRankGaussian` for pictures of one size: Σ = W Wᵀ + diag(d);
- `StationaryGaussian` for any size: Σ = S, diagonal in the Fourier domain of three decorrelated colours;
- `LowRankStationary` for pictures of one size with texture: Σ = W Wᵀ + S.

With x ~ N(μ, Σ), y = A x + e, white noise e of standard deviation σ, and α = λσ², the minimiser of
‖y − A x‖²/2 + α/2 ‖x − μ‖²_{Σ⁻¹}, which is σ² (D + λR) but for a constant, is

    x = μ + (AᵀA + αΣ⁻¹)⁻¹ Aᵀ (y − A μ)

and (AᵀA + αΣ⁻¹)⁻¹ is the metric of the solvers. α is one number per image, and one preparation serves
every α, because the weight λ changes along the path. Forms of the inverse, by structure:

- `MaskedStationary`: A observes entries one by one, Σ is diagonal in the Fourier domain, alone or with W Wᵀ;
- `Hole`: the same for draws, exact, where few entries are missing;
- `LargeHole`: the same for draws, by conjugate gradients, where many are;
- `MaskedLowRank`: the same A, Σ = W Wᵀ + diag(d) (Woodbury's identity);
- `Filtered`: A treats every place alike (blur, frequencies, colours), Σ as for `MaskedStationary`;
- `Spectral`: any other linear A, by the eigenvectors of A Σ Aᵀ (m × m);
- `Iterative`: any linear A with more measurements than that allows, by conjugate gradients.
"""

from math import prod

from aipo.basics.errors import InputError
from aipo.gaussian.closed_form import Noise, Posterior, unsolved
from aipo.gaussian.filtered import Filtered
from aipo.gaussian.general import Iterative, Spectral
from aipo.gaussian.holes import Hole
from aipo.gaussian.low_rank import LowRankGaussian
from aipo.gaussian.low_rank_stationary import LowRankStationary
from aipo.gaussian.masked import LargeHole, MaskedLowRank, MaskedStationary
from aipo.gaussian.stationary import StationaryGaussian
from aipo.gaussian.surrogate import (
    VARIANCE_FLOOR,
    Filtering,
    Independent,
    Surrogate,
    Textured,
    energy,
    log_prob,
)
from aipo.operators import LinearOperator

__all__ = [
    "VARIANCE_FLOOR",
    "Filtered",
    "Hole",
    "Iterative",
    "LargeHole",
    "LowRankGaussian",
    "LowRankStationary",
    "MaskedLowRank",
    "MaskedStationary",
    "Noise",
    "Posterior",
    "Spectral",
    "StationaryGaussian",
    "Surrogate",
    "energy",
    "log_prob",
    "posterior",
    "unsolved",
]

# Measurements up to which the eigenvectors of an m × m matrix are found in a minute or two, and entries m · n
# up to which what belongs to them fits in memory.
LARGEST_SPECTRAL, LARGEST_FACTOR = 4096, 50_000_000


def posterior(operator: LinearOperator, surrogate: Surrogate) -> Posterior:
    """The form of the closed-form posterior that fits the operator's and the surrogate's structure.

    Raises:
        InputError: there are too many measurements for the only form that fits.
    """
    kept = operator.kept()
    if kept is not None and isinstance(surrogate, Textured):
        return MaskedStationary(operator, surrogate, kept)
    if kept is not None and isinstance(surrogate, Independent):
        return MaskedLowRank(operator, surrogate, kept)
    gram = operator.gram()
    if gram is not None and isinstance(surrogate, Textured):
        return Filtered(operator, surrogate, gram)
    m = operator.measurements
    if m <= LARGEST_SPECTRAL and m * prod(operator.shape) <= LARGEST_FACTOR:
        return Spectral(operator, surrogate)
    if isinstance(surrogate, Filtering):
        return Iterative(operator, surrogate)
    raise InputError(
        f"{m} measurements of {prod(operator.shape)} values are too many for the prior's surrogate, which "
        "has no `wiener`; give the prior another one, such as LowRankStationary.fit(pictures, rank=64)"
    )
