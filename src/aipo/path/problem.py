"""The problem that a path solves: minimise F(x; λ) = D(x) + λ R(x), with D and R as separate terms.

The gradients of D and R are kept separately. F at a place that was visited is therefore known at every λ,
and costs no other evaluation.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from aipo.basics.arrays import PerImage, expand
from aipo.basics.derivatives import HessianProduct
from aipo.basics.errors import InputError
from aipo.path.solvers.solver import Metric, Point


@dataclass(frozen=True)
class Terms:
    """The two energies and their gradients at x: D, R of shape (B,), gradients like x.

    `image` is the picture, (B, C, H, W), if x is in other coordinates.
    """

    data: PerImage
    prior: PerImage
    data_gradient: Tensor
    prior_gradient: Tensor
    image: Tensor | None = None


@dataclass(frozen=True)
class Deformation:
    """The prior energy that a point of the path uses: R(x; τ, s) = s R(x; τ) + (1 − s) R_G(x).

    Attributes:
        tau: τ, standard deviation of the noise that smooths the prior's density, p_τ = p ∗ N(0, τ² I).
        share: s, the share of the prior; the rest is the share of its Gaussian surrogate.
    """

    tau: float = 0.0
    share: float = 1.0

    def __post_init__(self):
        if not 0 <= self.tau < float("inf"):
            raise InputError(f"tau = {self.tau}; a standard deviation, 0 or more")
        if not 0 <= self.share <= 1:
            raise InputError(f"share = {self.share}; it lies between 0 (the surrogate) and 1 (the prior)")


PLAIN = Deformation()


@dataclass(frozen=True)
class Problem:
    """What the path needs to know about a model.

    Attributes:
        terms: (x, indices, deformation) -> energies and gradients of the images with these indices.
        start: weights (B,) -> the starting point at these weights; 0 means the limit λ → 0⁺. It is in the
            coordinates of `terms`, pictures or latents.
        metric: weights (B,) -> an approximation of the inverse Hessian of F(·; λ).
        hessian: (x, weights, deformation) -> v -> ∇²F(x; λ) v, for the first images of the batch; needed for
            certificates only.
        noise: (weights, white noise) -> a draw of N(0, metric) for each image; needed for sampling only.
        picture: x -> the picture, if x is in other coordinates.
        coordinates: a picture -> x.
        residuals: of what `start` and `metric` solve for by iterations, the worst relative residuals so far.
    """

    terms: Callable[[Tensor, Tensor, Deformation], Terms]
    start: Callable[[PerImage], Tensor]
    metric: Callable[[PerImage], Metric]
    hessian: Callable[[Tensor, PerImage, Deformation], HessianProduct] | None = None
    noise: Callable[[PerImage, Callable[[Tensor], Tensor]], Tensor] | None = None
    picture: Callable[[Tensor], Tensor] = lambda x: x
    coordinates: Callable[[Tensor], Tensor] = lambda picture: picture
    residuals: Mapping[str, float] = field(default_factory=dict)


def weighted(x: Tensor, terms: Terms, weight: PerImage) -> Point:
    """F = D + λR with its gradient; the point keeps the terms, so another λ costs no evaluation."""
    info = {
        "data": terms.data,
        "prior": terms.prior,
        "data_gradient": terms.data_gradient,
        "prior_gradient": terms.prior_gradient,
    }
    if terms.image is not None:
        info["image"] = terms.image
    gradient = terms.data_gradient + expand(weight, x) * terms.prior_gradient
    return Point(x, terms.data + weight * terms.prior, gradient, info)


def reweighted(point: Point, weight: PerImage) -> Point:
    """The same place at another λ."""
    return weighted(point.x, Terms(**point.info), weight)
