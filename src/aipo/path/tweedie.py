"""White noise over a whole picture: a path that arrives in its first steps.

The prior tells the density p(·; σ) of pictures with that noise, so one step of length σ² from y down the
energy R(·; σ) ends in the posterior mean, if that density is exact. A learnt one restores less noise better,
so a second step begins where a part of the noise was put back. The states are the closed form of the prior's
surrogate and the end of every step; a criterion mixes them.

Source: Tweedie's formula (Robbins 1956; Efron 2011), see `aipo.flows.posterior_mean`; Milanfar 2013, A tour
of modern image filtering, on putting back what a filter took away.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle, islice

import torch

from aipo.basics.arrays import Images, expand
from aipo.basics.errors import InputError, Status
from aipo.likelihoods import Likelihood
from aipo.path.denoising import Denoising, denoised_state, restored
from aipo.path.problem import Problem
from aipo.path.state import State
from aipo.priors.prior import Prior

# What a step leaves is not white. A later step takes noise to be so much stronger than what was put back.
WIDER = 1.2


@dataclass(frozen=True)
class Step:
    """One step.

    Args:
        part: of the noise is in the picture that the step begins with, in (0, 1]; the rest was taken away by
            the steps before.
        views: the step's end is the mean over so many views, or over all that the prior knows if these are
            fewer; each costs one evaluation.

    Raises:
        InputError: a part or a number of views out of range.
    """

    part: float
    views: int

    def __post_init__(self):
        if not 0 < self.part <= 1 or self.views < 1:
            raise InputError(
                f"part = {self.part}, views = {self.views}; use a part in (0, 1], 1 or more views"
            )


@dataclass(frozen=True)
class TweedieOptions:
    """How white noise over a whole picture is removed.

    Args:
        steps: the first begins with all of the noise.
    """

    steps: tuple[Step, ...] = (Step(1.0, 1), Step(0.5, 2))

    def described(self) -> str:
        """What is done, as the beginning of a sentence."""
        count = len(self.steps)
        plural = "s" if count > 1 else ""
        return f"Noise of this strength is removed in {count} step{plural} by Tweedie's formula"

    def cost(self, views: int, copies: int) -> int:
        """Evaluations for each image and its copies, under a prior of so many views."""
        return sum(min(step.views, views) + copies - 1 for step in self.steps)


def tweedie(
    problem: Problem,
    likelihood: Likelihood,
    prior: Prior,
    options: TweedieOptions,
    copies: int = 1,
    spent: Callable[[int], None] = lambda images: None,
) -> Iterator[State]:
    """The states, all at λ = 1.

    Args:
        problem: of the batch.
        likelihood: white noise over whole pictures, or over whole ones but for a few scattered entries.
        prior: knows noise of that strength.
        options: the steps.
        copies: of each image, as one batch after the other. Those behind the first are seen in one view at
            every step, because every view answers a perturbation about alike.
        spent: called with the number of pictures after every evaluation of the prior.
    """
    assert isinstance(prior, Denoising)
    near = likelihood.gaussian()
    scale, linear = near.operator.row_scale(), near.operator.linear
    assert scale is not None
    sigma, count = near.sigma / scale**0.5, len(likelihood) // copies
    evaluations = torch.zeros_like(sigma, dtype=torch.long)
    x = problem.start(torch.ones_like(sigma))
    measured = linear.adjoint(near.y) / scale
    noise = torch.randn(x.shape[1:], generator=torch.Generator().manual_seed(0)).to(x)
    unseen = expand(sigma, x) * (noise - linear.adjoint(linear.forward(noise[None])) / scale)

    def noisy_of(x: Images) -> Images:
        """The measurements, and what they leave open as x has it, with noise of the same strength."""
        return measured + x - linear.adjoint(linear.forward(x)) / scale + unseen

    yield denoised_state(0, x, likelihood, prior, count, evaluations, Status.CONVERGED)
    fitting = [view for view in prior.views if view.reach < min(x.shape[2:])]
    views = cycle(fitting)
    for index, step in enumerate(options.steps, 1):
        noisy = step.part * noisy_of(x) + (1 - step.part) * x
        left = sigma if step.part == 1 else WIDER * step.part * sigma
        first, *others = islice(views, min(step.views, len(fitting)))
        x = restored(prior, noisy, left, first)
        spent(len(x))
        seen = [x[:count]]
        for view in others:
            seen.append(restored(prior, noisy[:count], left[:count], view))
            spent(count)
        x = x + (torch.stack(seen).mean(0) - x[:count]).repeat(copies, 1, 1, 1)
        evaluations = evaluations + 1
        evaluations[:count] += len(others)
        yield denoised_state(index, x, likelihood, prior, count, evaluations, Status.DENOISED)
