"""D + λR of a likelihood and a prior, as a problem that a path can be followed through."""

from functools import partial
from inspect import signature
from typing import Any, Literal

import torch
from torch import Tensor

from aipo.arrays import Images, PerImage, expand
from aipo.derivatives import HessianProduct, hessian_product, value_and_gradient
from aipo.errors import InputError
from aipo.likelihoods import Gaussian, Likelihood
from aipo.posterior import Posterior, posterior
from aipo.priors import Prior
from aipo.problem import Deformation, Problem, Terms
from aipo.solvers import Metric
from aipo.surrogates import Surrogate
from aipo.surrogates import energy as surrogate_energy

# The weight at which the closed-form path is taken to begin: the limit λ → 0⁺ to working precision.
SMALLEST_WEIGHT = 1e-4

# Entries of x per call of the prior: bounds the memory that its gradient takes.
LARGEST_CHUNK = 500_000


def objective(
    likelihood: Likelihood,
    prior: Prior,
    start: Literal["surrogate", "measurement"] = "surrogate",
    metric: Literal["surrogate", "data"] = "surrogate",
    closed: Posterior | None = None,
) -> Problem:
    """Energies, start and metric of a batch.

    Args:
        likelihood: D; the Gaussian one near it gives start and metric.
        prior: R; its `surrogate`, where it has one, gives start and metric in closed form.
        start: "measurement" for the paper's start A⁺y.
        metric: "data" for the data term's own scale.
        closed: the surrogate's posterior under this operator where it is at hand; preparing it can be slow.
    """
    surrogate = getattr(prior, "surrogate", None)
    near = likelihood.gaussian()
    begin, scale, noise = _measurement_start(near), _data_metric(near), _data_noise(near)
    if surrogate is not None and "surrogate" in (start, metric):
        closed = closed or posterior(near.operator.linear, surrogate)
        begin = _surrogate_start(near, closed) if start == "surrogate" else begin
        if metric == "surrogate":
            scale, noise = _surrogate_metric(near, closed), _surrogate_noise(near, closed)
    hessian = _hessian(likelihood, prior, surrogate)
    return Problem(_terms(likelihood, prior, surrogate), begin, scale, hessian, noise)


def _terms(likelihood: Likelihood, prior: Prior, surrogate: Surrogate | None):
    def terms(x: Tensor, indices: Tensor, deformation: Deformation) -> Terms:
        data, data_gradient = value_and_gradient(likelihood.select(indices), x)
        size = max(1, LARGEST_CHUNK // x[0].numel())
        energy = _deformed(prior, surrogate, deformation)
        energies, gradients = zip(
            *(value_and_gradient(energy, chunk) for chunk in x.split(size)), strict=True
        )
        return Terms(data, torch.cat(energies), data_gradient, torch.cat(gradients))

    return terms


def _hessian(likelihood: Likelihood, prior: Prior, surrogate: Surrogate | None):
    def product_at(x: Tensor, weight: PerImage, deformation: Deformation) -> HessianProduct:
        own = likelihood.select(torch.arange(len(x), device=x.device))
        energy = _deformed(prior, surrogate, deformation)
        return hessian_product(lambda x: own(x) + weight * energy(x), x)

    return product_at


def _deformed(prior: Any, surrogate: Surrogate | None, deformation: Deformation):
    """R(x; τ, s) = s R(x; τ) + (1 − s) R_G(x); R_G without its constant."""
    share, tau = deformation.share, deformation.tau
    if tau > 0 and "tau" not in signature(prior.energy).parameters:
        raise InputError(
            f"{type(prior).__name__} has no energy(x, tau), so it cannot be smoothed; use a path in λ"
        )
    smooth = prior.energy if tau == 0 else partial(prior.energy, tau=tau)
    if share == 1:
        return smooth
    if surrogate is None:
        raise InputError(f"a share of {share} of the prior needs a Gaussian surrogate for the rest")
    if share == 0:
        return partial(surrogate_energy, surrogate)
    return lambda x: share * smooth(x) + (1 - share) * surrogate_energy(surrogate, x)


def _alpha(weight: PerImage, variance: PerImage) -> PerImage:
    return weight.to(variance).clamp_min(SMALLEST_WEIGHT) * variance


def _surrogate_start(likelihood: Gaussian, closed: Posterior):
    """The surrogate's own solution, in closed form."""
    variance = likelihood.sigma**2
    # The predictor asks for the last weight again at every step; a solve can cost as much as an evaluation.
    latest: list[tuple[PerImage, Images]] = []

    def start(weight: PerImage) -> Images:
        for known, image in latest:
            if torch.equal(known, weight):
                return image
        image = closed.mode(likelihood.y, _alpha(weight, variance))
        latest[:] = [*latest[-1:], (weight, image)]
        return image

    return start


def _surrogate_metric(likelihood: Gaussian, closed: Posterior):
    """(AᵀA/σ² + λΣ⁻¹)⁻¹."""
    variance = likelihood.sigma**2

    def metric(weight: PerImage) -> Metric:
        own = variance[: len(weight)]  # a criterion's copies stand behind the images themselves

        def apply(v: Tensor) -> Tensor:
            times = len(v) // len(own)
            return expand(own.repeat(times), v) * closed.metric(v, _alpha(weight, own).repeat(times))

        return apply

    return metric


def _surrogate_noise(likelihood: Gaussian, closed: Posterior):
    """Draws of N(0, metric)."""

    def noise(weight: PerImage, white) -> Images:
        sigma = likelihood.sigma[: len(weight)]
        like = torch.zeros(len(weight), *likelihood.operator.shape).to(sigma)
        return expand(sigma, like) * closed.noise(like, _alpha(weight, sigma**2), white)

    return noise


def _measurement_start(likelihood: Gaussian):
    """The paper's start A⁺y."""

    def start(weight: PerImage) -> Images:
        return likelihood.operator.linear.pseudoinverse(likelihood.y)

    return start


def _data_metric(likelihood: Gaussian):
    """The step scale 1/L of the data term, L = ‖A‖²/σ², the same for every entry, measured or not."""
    scale = likelihood.sigma**2 / likelihood.operator.linear.norm_squared

    def metric(weight: PerImage) -> Metric:
        own = scale[: len(weight)]
        return lambda v: expand(own.repeat(len(v) // len(own)), v) * v

    return metric


def _data_noise(likelihood: Gaussian):
    """Draws of N(0, metric)."""
    root = likelihood.sigma / likelihood.operator.linear.norm_squared**0.5

    def noise(weight: PerImage, white) -> Images:
        own = root[: len(weight)]
        like = torch.zeros(len(weight), *likelihood.operator.shape).to(own)
        return expand(own, like) * white(like)

    return noise
