"""D + λR of a likelihood and a prior, as the problem that a path solves."""

from functools import partial
from inspect import signature
from typing import Any, Literal

import torch
from torch import Tensor

from aipo.basics.arrays import PerImage
from aipo.basics.derivatives import HessianProduct, hessian_product, value_and_gradient
from aipo.basics.errors import InputError
from aipo.gaussian import Posterior, Surrogate, posterior
from aipo.gaussian import energy as surrogate_energy
from aipo.likelihoods import Likelihood
from aipo.path.metric import data_scale, surrogate_scale
from aipo.path.problem import Deformation, Problem, Terms
from aipo.path.starts import closed_start, measurement_start, solved_start
from aipo.priors import Prior

# Entries of x in one call of the prior at most: this bounds the memory that its gradient takes.
LARGEST_CHUNK = 500_000

# The graph of Hessian products takes so many times the memory of an evaluation.
HESSIANS_GRAPH = 10


def objective(
    likelihood: Likelihood,
    prior: Prior,
    start: Literal["surrogate", "measurement"] = "surrogate",
    metric: Literal["surrogate", "data"] = "surrogate",
    closed: Posterior | None = None,
) -> Problem:
    """Energies, start and metric of a batch.

    Args:
        likelihood: D; the Gaussian likelihood near it gives start and metric.
        prior: R; if it has a `surrogate`, that gives start and metric in closed form.
        start: "measurement" for the paper's start A⁺y.
        metric: "data" for the data term's own scale.
        closed: the surrogate's posterior under this operator, if it is prepared already; that can be slow.
    """
    surrogate = getattr(prior, "surrogate", None)
    near = likelihood.gaussian()
    begin, scale = measurement_start(near), data_scale(near)
    if surrogate is not None and "surrogate" in (start, metric):
        closed = closed or posterior(near.operator.linear, surrogate)
        known = surrogate_scale(near, closed)
        scale = known if metric == "surrogate" else scale
        if start == "surrogate":
            begin = closed_start(near, closed)
            begin = solved_start(likelihood, surrogate, begin, known.metric) if likelihood.rough else begin
    hessian = _hessian(likelihood, prior, surrogate)
    return Problem(
        _terms(likelihood, prior, surrogate),
        begin,
        scale.metric,
        hessian,
        scale.noise,
        residuals={} if closed is None else closed.residuals,
    )


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
        energy = _deformed(prior, surrogate, deformation)
        size = max(1, LARGEST_CHUNK // HESSIANS_GRAPH // x[0].numel())
        chunks = torch.arange(len(x), device=x.device).split(size)
        parts = [(indices, likelihood.select(indices)) for indices in chunks]

        def of(indices: Tensor, own: Likelihood) -> HessianProduct:
            return hessian_product(lambda x: own(x) + weight[indices] * energy(x), x[indices])

        if len(parts) == 1:
            return of(*parts[0])
        # All graphs together would fill the memory, so every product builds them anew, one at a time.
        return lambda v: torch.cat([of(indices, own)(v[indices]) for indices, own in parts])

    return product_at


def _deformed(prior: Any, surrogate: Surrogate | None, deformation: Deformation):
    """R(x; τ, s) = s R(x; τ) + (1 − s) R_G(x), with R_G without its constant."""
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
