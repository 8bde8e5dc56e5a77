"""deepinv's noise models as likelihoods."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from aipo.basics.errors import InputError
from aipo.deepinv.loading import load
from aipo.likelihoods import Gamma, Gaussian, Laplace, Likelihood, LogGamma, Poisson, PoissonGaussian, Rician
from aipo.operators import Curve, LinearOperator, Operator

dinv = load()

# Why some noise models have no density to descend, and what to use instead.
_REFUSED = {
    "ZeroNoise": "without noise the density is a point; set physics.noise_model = GaussianNoise(sigma)",
    "UniformNoise": "its density is flat with a cliff; use GaussianNoise(a/√3), of the same variance",
    "UniformGaussianNoise": "σ is drawn anew for each image; use GaussianNoise with the σ of each",
    "SaltPepperNoise": "part of it is a point mass; mask the values 0 and 1 away with Inpainting",
}


def likelihood_of(noise: Any, operator: Operator, y: Tensor) -> Likelihood:
    """The likelihood of y under a noise model.

    Raises:
        InputError: the noise model has no density, or is not known.
    """
    name = type(noise).__name__
    if name not in _KNOWN:
        reason = _REFUSED.get(name, "write a Likelihood for it (docs/likelihoods.md)")
        raise InputError(f"{name} has no density that aipo knows: {reason}")
    return _KNOWN[name](noise, operator, y)


def _gaussian(noise: Any, operator: Operator, y: Tensor) -> Likelihood:
    return Gaussian(operator, y, _parameter(noise.sigma, y))


def _poisson(noise: Any, operator: Operator, y: Tensor) -> Likelihood:
    gain = _parameter(noise.gain, y)
    scaled = y if bool(noise.normalize) else y * gain.reshape(-1, *[1] * (y.ndim - 1))
    return Poisson(operator, scaled, 1 / gain)


def _poisson_gaussian(noise: Any, operator: Operator, y: Tensor) -> Likelihood:
    return PoissonGaussian(operator, y, 1 / _parameter(noise.gain, y), _parameter(noise.sigma, y))


def _log_poisson(noise: Any, operator: Operator, y: Tensor) -> Likelihood:
    """Counts N₀ exp(−μ y), whose rate is N₀ exp(−μ u)."""
    mu, count = float(noise.mu), float(noise.N0)
    if not isinstance(operator, LinearOperator):
        raise InputError("LogPoissonNoise is taken behind a linear physics only")
    # Beyond exp(−μ u) = 1 and below a thousandth of a count nothing is measured.
    curve = Curve(
        operator,
        lambda u: torch.exp(-mu * u),
        lambda v: -torch.log(v.clamp(1e-3 / count, 10.0)) / mu,
    )
    return Poisson(curve, torch.exp(-mu * y), count)


def _parameter(value: Tensor, y: Tensor) -> Tensor:
    """One number for each image, (B,)."""
    return value.detach().to(y).reshape(-1).expand(len(y))


_KNOWN: dict[str, Callable[[Any, Operator, Tensor], Likelihood]] = {
    "GaussianNoise": _gaussian,
    "PoissonNoise": _poisson,
    "PoissonGaussianNoise": _poisson_gaussian,
    "LogPoissonNoise": _log_poisson,
    "LaplaceNoise": lambda noise, operator, y: Laplace(operator, y, _parameter(noise.b, y)),
    "GammaNoise": lambda noise, operator, y: Gamma(operator, y, _parameter(noise.l, y)),
    "FisherTippettNoise": lambda noise, operator, y: LogGamma(operator, y, _parameter(noise.l, y)),
    "RicianNoise": lambda noise, operator, y: Rician(operator, y, _parameter(noise.sigma, y)),
}
