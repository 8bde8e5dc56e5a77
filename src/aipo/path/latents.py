"""The same objective over the latent z of the picture, x = G(z): D(G(z)) + λR(G(z)).

The change of coordinates neither adds nor removes a minimum, but it changes the curvature. Over z the prior
energy is nearly ½‖z‖², with the same curvature in every direction. Over x it is thousands of times stiffer
in one direction than in another. In exchange, the data term is worse conditioned over z.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from aipo.basics.arrays import Images, PerImage, expand
from aipo.basics.errors import InputError
from aipo.likelihoods import Likelihood
from aipo.path.objective import LARGEST_CHUNK
from aipo.path.problem import PLAIN, Deformation, Problem, Terms
from aipo.path.solvers.solver import Metric


def in_latents(pictures: Problem, likelihood: Likelihood, prior: Any) -> Problem:
    """The problem over latents. It starts at the latents of the picture with which `pictures` starts.

    One evaluation is one pass from z to x and back. A starting point takes one more pass, without gradient,
    to be encoded; this pass is not counted.

    Raises:
        InputError: the prior has no flow, or its flow would have to extend the pictures by reflection.
    """
    shape = likelihood.operator.shape
    if not has_latents(prior, shape):
        raise InputError(
            f"{type(prior).__name__} has no latents for pictures of {shape[1]} × {shape[2]}; use a flow "
            "whose factor divides both sides, or coordinates = pictures"
        )

    encode = torch.no_grad()(prior.encode)

    def start(weight: PerImage) -> Tensor:
        return encode(pictures.start(weight))

    def metric(weight: PerImage) -> Metric:
        return lambda v: v / expand(weight.repeat(len(v) // len(weight)), v)

    return replace(
        pictures,
        terms=latent_terms(likelihood, prior.generate),
        start=start,
        metric=metric,
        hessian=None,
        noise=None,
        picture=prior.decode,
        coordinates=encode,
    )


def has_latents(prior: Any, shape: tuple[int, int, int]) -> bool:
    """Whether the prior has latents of pictures (C, H, W): its flow's factor must divide both sides."""
    asked = getattr(prior, "has_latents", None)
    return asked is not None and asked(shape)


def latent_terms(likelihood: Likelihood, generate: Callable[[Tensor], tuple[Images, PerImage]]):
    """The terms D and penalty over z, from a function z -> (x, penalty)."""

    def one(z: Tensor, own: Likelihood) -> Terms:
        z = z.detach().requires_grad_(True)
        with torch.enable_grad():
            x, penalty = generate(z)
            data = own(x)
            data_gradient = torch.autograd.grad(data.sum(), z, retain_graph=True)[0]
            gradient = torch.autograd.grad(penalty.sum(), z)[0]
        return Terms(data.detach(), penalty.detach(), data_gradient, gradient, x.detach())

    def terms(z: Tensor, indices: Tensor, deformation: Deformation) -> Terms:
        if deformation != PLAIN:
            raise InputError("a path that deforms the prior has no latents; use coordinates = pictures")
        size = max(1, LARGEST_CHUNK // z[0].numel())
        parts = [
            one(chunk, likelihood.select(own))
            for chunk, own in zip(z.split(size), indices.split(size), strict=True)
        ]
        return Terms(*(torch.cat([getattr(part, name) for part in parts]) for name in vars(parts[0])))

    return terms
