"""Where a chain begins if the prior knows noise: nearer to its mean than the surrogate's picture is."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from aipo.basics.arrays import Images
from aipo.gaussian.surrogate import Filtering
from aipo.likelihoods import Gaussian, Likelihood
from aipo.path.denoising import Denoising
from aipo.path.problem import Problem
from aipo.path.splitting import SplittingOptions, split
from aipo.posterior.chain import sampling_problem
from aipo.posterior.message_passing import ROUNDS, message_passing
from aipo.priors.prior import Prior
from aipo.selection.structure import knows_noise

# After bent measurements τ falls until the measurements decide. Fresh noise makes what is given to the prior
# look like what it was trained with.
BENT = SplittingOptions(steps=12, first=2.5, last=0.25, ratio=3.0, kick=0.5, views=1)

# The surrogate's picture explains the measurements if its misfit is at most this; that of the truth is 1.
EXPLAINED = 2.0


@dataclass(frozen=True)
class Begin:
    """How a first picture is found.

    Attributes:
        most: evaluations of the prior for each image at most.
        picture: (the chain's problem, likelihood, what is called with the number of pictures after every
            evaluation) -> pictures (B, C, H, W), and the evaluations spent on each, (B,).
    """

    most: int
    picture: Callable[[Problem, Likelihood, Callable[[int], None]], tuple[Images, Tensor]]


def beginning(likelihood: Likelihood, prior: Prior, alike: bool) -> Begin | None:
    """Message passing after random sensing, splitting after bent measurements, if the prior knows noise.

    Elsewhere, and for signs alone, None: the surrogate's picture is as good a beginning (dev/LOG.md).

    Args:
        likelihood: in its simplest spelling.
        alike: whether the measurements are `isotropic`.
    """
    if not knows_noise(prior):
        return None
    assert isinstance(prior, Denoising)
    if alike and likelihood.gaussian() is likelihood:
        surrogate = getattr(prior, "surrogate", None)
        assert isinstance(surrogate, Filtering)
        return Begin(2 * ROUNDS, partial(_passed, prior, surrogate))
    bent = likelihood.operator.linear is not likelihood.operator
    return Begin(BENT.steps, partial(_unbent, prior)) if bent and not likelihood.rough else None


def _passed(
    prior: Denoising,
    surrogate: Filtering,
    problem: Problem,
    likelihood: Likelihood,
    spent: Callable[[int], None],
) -> tuple[Images, Tensor]:
    assert isinstance(likelihood, Gaussian)
    return message_passing(likelihood, prior, surrogate, spent)


def _unbent(
    prior: Prior, problem: Problem, likelihood: Likelihood, spent: Callable[[int], None]
) -> tuple[Images, Tensor]:
    """The surrogate's pictures, and in place of those that do not explain the measurements better ones."""
    first = problem.start(torch.ones_like(likelihood.noise_level))
    evaluations = torch.zeros(len(first), dtype=torch.long, device=first.device)
    astray = (~(likelihood.misfit(first) <= EXPLAINED)).nonzero().squeeze(1)
    if len(astray) == 0:
        return first, evaluations
    if len(astray) < len(first):  # preparing a problem can be slow
        likelihood = likelihood.select(astray)
        problem = sampling_problem(likelihood, prior)
    *_, (better, counted) = split(problem, likelihood, prior, BENT, spent=spent)
    return first.index_copy(0, astray, better), evaluations.index_copy(0, astray, counted)
