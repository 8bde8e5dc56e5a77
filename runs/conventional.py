"""The conventional methods, which hold λ fixed: their problems and starting points, for fair comparisons.

They run through the same `Trace`, solvers and evaluation counter as the path:

    Trace(in_latents(likelihood, prior, z), PathOptions((1.0,), warm, Adam(0.05), evaluations=300))

Sources: Bora et al. 2017 (CSGM), Asim et al. 2020 (GlowIP), Whang et al. 2021 (maximum a posteriori).
"""

from dataclasses import replace

import torch
from torch import Tensor

from aipo.basics.arrays import Images, PerImage, dot
from aipo.likelihoods import Likelihood
from aipo.path.latents import latent_terms
from aipo.path.objective import objective
from aipo.path.problem import Problem
from aipo.priors import FlowPrior, Prior


def in_pictures(likelihood: Likelihood, prior: Prior, start: Images) -> Problem:
    """D(x) + λR(x) from any picture, with the data term's own scale as metric."""
    return replace(objective(likelihood, prior, "measurement", "data"), start=lambda weight: start)


def in_latents(likelihood: Likelihood, prior: FlowPrior, start: Tensor) -> Problem:
    """D(G(z)) + λ‖z‖²/2 over the latent z (CSGM, GlowIP): the penalty is not the density of x.

    Args:
        start: z, (B, C, H, W).
    """

    def generate(z: Tensor) -> tuple[Images, PerImage]:
        return prior.decode(z), 0.5 * dot(z, z)

    return Problem(latent_terms(likelihood, generate), lambda weight: start, lambda weight: lambda v: v)


def in_latents_by_density(likelihood: Likelihood, prior: FlowPrior, start: Tensor) -> Problem:
    """D(G(z)) + λR(G(z)) over the latent z: the same objective as in pictures, in other coordinates."""
    terms = latent_terms(likelihood, prior.generate)
    return Problem(terms, lambda weight: start, lambda weight: lambda v: v)


def grey(likelihood: Likelihood) -> Images:
    """The constant 0.5."""
    return torch.full((len(likelihood), *likelihood.operator.shape), 0.5).to(likelihood.y)


def random(likelihood: Likelihood, seed: int = 0) -> Images:
    """Uniform noise in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    shape = (1, *likelihood.operator.shape)
    return torch.rand(shape, generator=generator).to(likelihood.y).expand(len(likelihood), -1, -1, -1).clone()


def null_space(likelihood: Likelihood, seed: int = 0) -> Images:
    """A⁺y plus noise in the null space of A: consistent with the data, nothing else (GlowIP)."""
    noise = random(likelihood, seed)
    near = likelihood.gaussian()  # its operator is linear, and y stands for a measurement of that
    operator = near.operator.linear
    return operator.pseudoinverse(near.y) + noise - operator.pseudoinverse(operator(noise))
