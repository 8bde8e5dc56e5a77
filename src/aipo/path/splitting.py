"""A path in τ under any Gaussian-like data term: half-quadratic splitting with a prior that knows noise.

F(x) = D(x) + λR(x) is split in two: x explains the measurements and stays near a picture z, and z is what the
prior makes of x by one evaluation, the posterior mean of pictures with white noise of τ (Tweedie's formula):

    z = x + τ² ∇log p(x; τ),    x = argmin D(x) + ‖x − z‖²/(2ρτ'²),

τ' being the next τ. It falls from a multiple of what the surrogate's posterior leaves open, its deviation per
entry, to a smaller one. The data term's own step costs no evaluation of the prior. A prior that was told more
noise than there is may answer with anything; so fresh noise of a part of τ may be added before, and no entry
moves by more than a few τ.

Source: Geman & Yang 1995, Nonlinear image recovery with half-quadratic regularization; Zhang et al. 2017,
Learning deep CNN denoiser prior for image restoration; Zhu et al. 2023, Denoising diffusion models for
plug-and-play image restoration (the noise).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle, islice

import torch
from torch import Tensor

from aipo.basics.arrays import Images, PerImage, expand, per_image_sum
from aipo.basics.errors import InputError, Status
from aipo.likelihoods import Likelihood
from aipo.path.denoising import Denoising, denoised_state, restored, rounded
from aipo.path.problem import Problem
from aipo.path.starts import explaining
from aipo.path.state import State
from aipo.priors.prior import Prior

# An entry moves by so many τ at most. One in ten thousand normal values lies farther out.
FARTHEST = 4.0


@dataclass(frozen=True)
class SplittingOptions:
    """How a path in τ runs.

    Args:
        steps: evaluations of the prior, 2 or more.
        first: τ at the beginning, in units of the surrogate's posterior deviation per entry.
        last: τ at the end, in the same units, at most `first`; τ falls geometrically.
        ratio: ρ, the variance that the data term's step allows in units of τ².
        kick: fresh noise before every step but the last, in units of τ, 0 or more.
        views: the end is the mean over so many views, or over all that the prior knows if these are fewer;
            the other steps go through the views in turn.

    Raises:
        InputError: a number out of range.
    """

    steps: int = 8
    first: float = 2.5
    last: float = 0.7
    ratio: float = 4.0
    kick: float = 0.0
    views: int = 2

    def __post_init__(self):
        if self.steps < 2 or self.views < 1 or not 0 < self.last <= self.first:
            raise InputError(
                f"steps = {self.steps}, views = {self.views}, first = {self.first}, last = {self.last}; use "
                "2 or more steps, 1 or more views, and 0 < last <= first"
            )
        if self.ratio <= 0 or self.kick < 0:
            raise InputError(f"ratio = {self.ratio}, kick = {self.kick}; use a positive ratio, 0 or more")

    def described(self) -> str:
        """What is done, as the beginning of a sentence."""
        return (
            f"In {self.steps} steps of falling τ the prior's posterior mean under white noise and the "
            "measurements take turns"
        )

    def cost(self, views: int, copies: int) -> int:
        """Evaluations for each image and its copies, under a prior of so many views."""
        return self.steps * copies + min(self.views, views) - 1


def splitting(
    problem: Problem,
    likelihood: Likelihood,
    prior: Prior,
    options: SplittingOptions,
    copies: int = 1,
    spent: Callable[[int], None] = lambda images: None,
) -> Iterator[State]:
    """The states: the surrogate's picture, and what the prior makes at every step; all at λ = 1.

    Args:
        problem: of the batch, with draws of its metric.
        likelihood: of the batch.
        prior: knows noise.
        options: the steps.
        copies: of each image, as one batch after the other. Only the images themselves are seen in several
            views at the end, because every view answers a perturbation about alike.
        spent: called with the number of pictures after every evaluation of the prior.
    """
    count = len(likelihood) // copies
    pictures = split(problem, likelihood, prior, options, copies, spent)
    for index, (x, evaluations) in enumerate(pictures):
        status = Status.DENOISED if index else Status.CONVERGED
        yield denoised_state(index, x, likelihood, prior, count, evaluations, status)


def split(
    problem: Problem,
    likelihood: Likelihood,
    prior: Prior,
    options: SplittingOptions,
    copies: int = 1,
    spent: Callable[[int], None] = lambda images: None,
) -> Iterator[tuple[Images, Tensor]]:
    """The pictures of `splitting`, and the evaluations spent on each, (B,)."""
    assert isinstance(prior, Denoising)
    count, generator = len(likelihood) // copies, torch.Generator().manual_seed(0)
    x = problem.start(torch.ones_like(likelihood.noise_level))
    evaluations = torch.zeros(len(x), dtype=torch.long, device=x.device)
    yield x, evaluations
    levels = _levels(_left_open(problem, likelihood, x), options, prior.loudest)
    fitting = [view for view in prior.views if view.reach < min(x.shape[2:])]
    views = cycle(fitting)
    for step, tau in enumerate(levels):
        end = step + 1 == len(levels)
        kick = 0 if end else options.kick * torch.randn(x.shape[1:], generator=generator).to(x)
        noisy, (first, *others) = x + expand(tau, x) * kick, islice(views, options.views if end else 1)
        z = _within(restored(prior, noisy, tau, first), noisy, tau)
        spent(len(z))
        seen, own = [z[:count]], (noisy[:count], tau[:count])
        for view in others[: len(fitting) - 1]:
            seen.append(_within(restored(prior, *own, view), *own))
            spent(count)
        z = z + (torch.stack(seen).mean(0) - z[:count]).repeat(copies, 1, 1, 1)
        evaluations = evaluations + 1
        evaluations[:count] += len(seen) - 1
        yield z, evaluations
        if not end:
            x = _near(likelihood, z, options.ratio * levels[step + 1] ** 2)


def _left_open(problem: Problem, likelihood: Likelihood, like: Images) -> PerImage:
    """The deviation per entry of the surrogate's posterior, by one draw, (B,).

    Of a mixture of colours that of what was measured, because the others stay as wide as they were.
    """
    assert problem.noise is not None
    white = torch.Generator().manual_seed(1)

    def normal(values: Tensor) -> Tensor:
        one = torch.randn(values.shape[1:], generator=white, dtype=torch.float64)
        return one.to(values).expand_as(values)

    drawn = problem.noise(like.new_ones(len(like)), normal)
    operator = likelihood.operator
    scale = operator.row_scale() if operator.kept() is None else None
    if scale is not None:
        drawn = operator.linear.forward(drawn) / scale**0.5
    return drawn.flatten(1).square().mean(1).sqrt()


def _levels(deviation: PerImage, options: SplittingOptions, loudest: float) -> Tensor:
    """τ of every step, (steps, B)."""
    fall = torch.linspace(0, 1, options.steps).to(deviation)[:, None]
    levels = deviation * options.first * (options.last / options.first) ** fall
    return torch.stack([rounded(level) for level in levels]).clamp_max(loudest)


def _within(restored: Images, noisy: Images, tau: PerImage) -> Images:
    """What a step gives, each entry no farther than `FARTHEST` τ from where it was."""
    farthest = FARTHEST * expand(tau, noisy)
    return noisy + (restored - noisy).nan_to_num(0.0).clamp(-farthest, farthest)


def _near(likelihood: Likelihood, z: Images, variance: PerImage) -> Images:
    """argmin D(x) + ‖x − z‖²/(2 variance), from z on."""

    def distance(x: Images, indices: Tensor) -> PerImage:
        return per_image_sum((x - z[indices]) ** 2) / (2 * variance[indices])

    def metric(gradient: Tensor) -> Tensor:
        return expand(variance.repeat(len(gradient) // len(z)), gradient) * gradient

    return explaining(likelihood, distance, z, metric)
