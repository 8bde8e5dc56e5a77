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
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from aipo.basics.arrays import Images, PerImage
from aipo.basics.errors import InputError, Status
from aipo.likelihoods import Likelihood
from aipo.path.objective import LARGEST_CHUNK
from aipo.path.problem import Problem
from aipo.path.state import State
from aipo.priors.prior import Prior
from aipo.priors.views import View

# What a step leaves is not white. A later step takes noise to be so much stronger than what was put back.
WIDER = 1.2


@runtime_checkable
class Denoising(Protocol):
    """A prior that restores pictures with white noise by one evaluation.

    Attributes:
        loudest: the standard deviation of the strongest noise that it knows; 0 if it knows none.
        views: how a picture may be seen, the first time as it is.
    """

    @property
    def loudest(self) -> float: ...
    @property
    def views(self) -> tuple[View, ...]: ...
    def denoise(self, y: Images, sigma: float, view: View = ...) -> Images: ...


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
    kept = near.operator.kept()
    assert kept is not None
    sigma, count = near.sigma, len(likelihood) // copies
    evaluations = torch.zeros_like(sigma, dtype=torch.long)
    x = problem.start(torch.ones_like(sigma))
    y = torch.where(kept.to(x.device), near.operator.linear.adjoint(near.y), x)
    yield _state(0, x, likelihood, prior, count, evaluations, Status.CONVERGED)
    fitting = [view for view in prior.views if view.reach < min(y.shape[2:])]
    views = cycle(fitting)
    for index, step in enumerate(options.steps, 1):
        noisy = step.part * y + (1 - step.part) * x
        left = sigma if step.part == 1 else WIDER * step.part * sigma
        first, *others = islice(views, min(step.views, len(fitting)))
        x = _restored(prior, noisy, left, first)
        spent(len(y))
        seen = [x[:count]]
        for view in others:
            seen.append(_restored(prior, noisy[:count], left[:count], view))
            spent(count)
        x = x + (torch.stack(seen).mean(0) - x[:count]).repeat(copies, 1, 1, 1)
        evaluations = evaluations + 1
        evaluations[:count] += len(others)
        yield _state(index, x, likelihood, prior, count, evaluations, Status.DENOISED)


def _state(
    index: int,
    x: Images,
    likelihood: Likelihood,
    prior: Prior,
    count: int,
    evaluations: Tensor,
    status: Status,
) -> State:
    """A state; R is known of the first `count` images alone, because nobody asks for that of copies."""
    finite = torch.isfinite(x).flatten(1).all(1)
    with torch.no_grad():
        data, known = likelihood(x), torch.cat([prior.energy(part) for part in x[:count].split(1)])
    energy = torch.cat((known, torch.full_like(data[count:], torch.nan)))
    return State(
        index=index,
        weight=torch.ones_like(data),
        x=x,
        data_energy=data,
        prior_energy=energy,
        objective=data + energy,
        decrement=torch.full_like(data, torch.nan),
        evaluations=evaluations,
        status=torch.where(finite, int(status), int(Status.DIVERGED)),
        accepted=finite,
    )


def _restored(prior: Denoising, y: Images, sigma: PerImage, view: View) -> Images:
    """The posterior mean as one view tells it, of pictures with noise of their own strength each."""
    found, size = torch.empty_like(y), max(1, LARGEST_CHUNK // y[0].numel())
    for strength in sigma.unique():
        for indices in (sigma == strength).nonzero().squeeze(1).split(size):
            found[indices] = prior.denoise(y[indices], float(strength), view)
    return found
