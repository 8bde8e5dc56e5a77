"""The conventional methods, which hold λ fixed: their problems and starting points, for fair comparisons.

They run through the same `Trace`, solvers and evaluation counter as the path:

    Trace(in_latents(likelihood, prior, z), PathOptions((1.0,), warm, Adam(0.05), evaluations=300))

Sources: Bora et al. 2017 (CSGM), Asim et al. 2020 (GlowIP), Whang et al. 2021 (maximum a posteriori).
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from aipo.arrays import Images, PerImage
from aipo.likelihoods import Gaussian
from aipo.objective import objective
from aipo.priors import FlowPrior, Prior
from aipo.problem import Deformation, Problem, Terms


def in_pictures(likelihood: Gaussian, prior: Prior, start: Images) -> Problem:
    """D(x) + λR(x) from any picture, with the data term's own scale as metric."""
    return replace(objective(likelihood, prior, "measurement"), start=lambda weight: start)


def in_latents(likelihood: Gaussian, prior: FlowPrior, start: Tensor) -> Problem:
    """D(G(z)) + λ‖z‖²/2 over the latent z (CSGM, GlowIP): the penalty is not the density of x.

    Args:
        start: z, (B, C, H, W).
    """
    return _latent(likelihood, prior, start, lambda z, x: 0.5 * (z**2).flatten(1).sum(1))


def in_latents_by_density(likelihood: Gaussian, prior: FlowPrior, start: Tensor) -> Problem:
    """D(G(z)) + λR(G(z)) over the latent z: the same objective as in pictures, in other coordinates.

    One evaluation passes the flow twice, there and back; it is counted once, in this method's favour.
    """
    return _latent(likelihood, prior, start, lambda z, x: prior.energy(x))


def _latent(
    likelihood: Gaussian, prior: FlowPrior, start: Tensor, penalty: Callable[[Tensor, Tensor], PerImage]
) -> Problem:
    def terms(z: Tensor, indices: Tensor, deformation: Deformation) -> Terms:
        z = z.detach().requires_grad_(True)
        with torch.enable_grad():
            x = prior.decode(z)
            data, energy = likelihood.select(indices)(x), penalty(z, x)
            data_gradient = torch.autograd.grad(data.sum(), z, retain_graph=True)[0]
            energy_gradient = torch.autograd.grad(energy.sum(), z)[0]
        return Terms(data.detach(), energy.detach(), data_gradient, energy_gradient)

    return Problem(terms, lambda weight: start, lambda weight: lambda v: v)


def grey(likelihood: Gaussian) -> Images:
    """The constant 0.5."""
    return torch.full((len(likelihood), *likelihood.operator.shape), 0.5).to(likelihood.y)


def random(likelihood: Gaussian, seed: int = 0) -> Images:
    """Uniform noise in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    shape = (1, *likelihood.operator.shape)
    return torch.rand(shape, generator=generator).to(likelihood.y).expand(len(likelihood), -1, -1, -1).clone()


def null_space(likelihood: Gaussian, seed: int = 0) -> Images:
    """A⁺y plus noise in the null space of A: consistent with the data, nothing else (GlowIP)."""
    noise = random(likelihood, seed)
    operator = likelihood.operator
    return operator.pseudoinverse(likelihood.y) + noise - operator.pseudoinverse(operator(noise))
