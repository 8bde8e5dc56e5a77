"""How long steps are in each direction: the solvers' metric, and draws of N(0, metric).

A metric approximates (∇²F)⁻¹. The surrogate's metric knows the operator, the Gaussian surrogate and one
noise level. If noise differs between entries, the surer entries take shorter steps.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from aipo.basics.arrays import Images, PerImage, expand
from aipo.gaussian import Noise, Posterior
from aipo.likelihoods import Gaussian, Likelihood
from aipo.path.solvers.solver import Metric
from aipo.path.starts import alpha


@dataclass(frozen=True)
class Scale:
    """The metric of a batch at weights (B,) of its images, which a criterion's copies may follow.

    Attributes:
        metric: weights -> metric.
        noise: (weights, white noise) -> a draw of N(0, metric) for each image.
    """

    metric: Callable[[PerImage], Metric]
    noise: Callable[[PerImage, Noise], Tensor]


def surrogate_scale(near: Gaussian, closed: Posterior) -> Scale:
    """(AᵀA/σ² + λΣ⁻¹)⁻¹."""

    def metric(weight: PerImage) -> Metric:
        variance = near.sigma[: len(weight)] ** 2

        def apply(v: Tensor) -> Tensor:
            times = len(v) // len(variance)
            scaled = closed.metric(v, alpha(weight, variance).repeat(times))
            return expand(variance.repeat(times), v) * scaled

        return apply

    def noise(weight: PerImage, white: Noise) -> Images:
        sigma = near.sigma[: len(weight)]
        like = torch.zeros(len(weight), *near.operator.shape).to(sigma)
        return expand(sigma, like) * closed.noise(like, alpha(weight, sigma**2), white)

    return Scale(metric, noise)


def data_scale(near: Gaussian) -> Scale:
    """The step scale 1/L of the data term, L = ‖A‖²/σ², the same for every entry, measured or not."""
    length = near.sigma**2 / near.operator.linear.norm_squared

    def metric(weight: PerImage) -> Metric:
        own = length[: len(weight)]
        return lambda v: expand(own.repeat(len(v) // len(own)), v) * v

    def noise(weight: PerImage, white: Noise) -> Images:
        own = length[: len(weight)].sqrt()
        like = torch.zeros(len(weight), *near.operator.shape).to(own)
        return expand(own, like) * white(like)

    return Scale(metric, noise)


def uneven(likelihood: Likelihood, near: Gaussian) -> bool:
    """Whether entries are measured one by one and some of them may be surer than `near` says."""
    entrywise = near.operator is likelihood.operator and near.operator.kept() is not None
    return entrywise and near is not likelihood


def uneven_scale(likelihood: Likelihood, near: Gaussian, closed: Posterior, picture: Images) -> Scale:
    """The surrogate's scale, with shorter steps for entries that are surer than `near` says.

    If noise depends on the value, so does the value's precision. `picture` should therefore be near the
    posterior: if a dark value is too bright in it, the steps there are several times too long.
    """
    surer = likelihood.precision(picture) * expand(near.sigma**2, near.y)
    shorter = 1 - likelihood.operator.linear.adjoint(1 - surer.clamp_min(1) ** -0.5)
    return _narrower(surrogate_scale(near, closed), shorter)


def _narrower(scale: Scale, shorter: Images) -> Scale:
    """The metric c M c, where c ≤ 1 shortens the steps of each entry."""

    def metric(weight: PerImage) -> Metric:
        inner, own = scale.metric(weight), shorter[: len(weight)]

        def apply(v: Tensor) -> Tensor:
            c = own.repeat(len(v) // len(own), 1, 1, 1)
            return c * inner(c * v)

        return apply

    def noise(weight: PerImage, white: Noise) -> Images:
        return shorter[: len(weight)] * scale.noise(weight, white)

    return Scale(metric, noise)
