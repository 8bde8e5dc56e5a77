"""White noise over the whole picture: the simplest path, whose first step arrives.

The prior tells the density p(·; σ) of pictures with that noise, so one step of length σ² from y down the
energy R(·; σ) ends in the posterior mean. The path has two states: the closed form of the prior's surrogate,
and the posterior mean.

Source: Tweedie's formula (Robbins 1956; Efron 2011); `aipo.flows.posterior_mean`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch

from aipo.basics.arrays import Images, PerImage
from aipo.basics.errors import InputError, Status
from aipo.likelihoods import Likelihood
from aipo.path.objective import LARGEST_CHUNK
from aipo.path.problem import Problem
from aipo.path.state import State
from aipo.priors.prior import Prior
from aipo.priors.views import View


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
    def energy(self, x: Images) -> PerImage: ...


@dataclass(frozen=True)
class TweedieOptions:
    """How white noise over the whole picture is removed at once.

    Args:
        views: the mean is taken over so many views of the picture, as far as the prior knows as many; each
            costs one evaluation.

    Raises:
        InputError: no view.
    """

    views: int = 4

    def __post_init__(self):
        if self.views < 1:
            raise InputError(f"views = {self.views}; at least one, the picture as it is, is needed")

    def described(self) -> str:
        """What is done, as the beginning of a sentence."""
        return "the prior knows noise of this strength and gives the posterior mean at once (Tweedie)"


def at_once(likelihood: Likelihood, prior: Prior) -> bool:
    """Whether the noise is white, over the whole picture, and of a strength that the prior knows.

    Args:
        likelihood: in its simplest spelling.
    """
    if not isinstance(prior, Denoising) or likelihood.gaussian() is not likelihood:
        return False
    kept = likelihood.operator.kept()
    whole = kept is not None and bool(kept.all())
    return whole and float(likelihood.noise_level.max()) <= prior.loudest


def tweedie(
    problem: Problem,
    likelihood: Likelihood,
    prior: Prior,
    options: TweedieOptions,
    copies: int = 1,
    spent: Callable[[int], None] = lambda images: None,
) -> Iterator[State]:
    """The states: the surrogate's picture, then the posterior mean, both at λ = 1.

    Args:
        problem: of the batch.
        likelihood: of a batch for which `at_once` holds.
        prior: knows noise of that strength.
        options: how many views are taken.
        copies: of each image, as one batch after the other. Of those behind the first only the picture as it
            is is seen, because every view answers a perturbation about alike.
        spent: called with the number of pictures after every evaluation of the prior.
    """
    assert isinstance(prior, Denoising)
    near = likelihood.gaussian()
    y, sigma = near.operator.linear.pseudoinverse(near.y), near.sigma
    one, evaluations = torch.ones_like(sigma), torch.zeros(len(y), dtype=torch.long, device=y.device)
    count = len(y) // copies

    def state(index: int, x: Images, status: Status) -> State:
        data = likelihood(x)
        energy = torch.cat([_energies(prior, x[:count]), torch.full_like(one[count:], torch.nan)])
        return State(
            index=index,
            weight=one,
            x=x,
            data_energy=data,
            prior_energy=energy,
            objective=data + energy,
            decrement=torch.full_like(one, torch.nan),
            evaluations=evaluations,
            status=torch.where(torch.isfinite(x).flatten(1).all(1), int(status), int(Status.DIVERGED)),
            accepted=torch.isfinite(x).flatten(1).all(1),
        )

    yield state(0, problem.start(one), Status.CONVERGED)
    seen = [view for view in prior.views[: options.views] if view.reach < min(y.shape[2:])]
    restored = _restored(prior, y, sigma, seen[0])
    spent(len(y))
    views = [restored[:count]]
    for view in seen[1:]:
        views.append(_restored(prior, y[:count], sigma[:count], view))
        spent(count)
    moved = torch.stack(views).mean(0) - restored[:count]
    evaluations = evaluations + 1
    evaluations[:count] += len(seen) - 1
    yield state(1, restored + moved.repeat(copies, 1, 1, 1), Status.DENOISED)


def _restored(prior: Denoising, y: Images, sigma: PerImage, view: View) -> Images:
    """The posterior mean as one view tells it, of pictures with noise of their own strength each."""
    found, size = torch.empty_like(y), max(1, LARGEST_CHUNK // y[0].numel())
    for strength in sigma.unique():
        for indices in (sigma == strength).nonzero().squeeze(1).split(size):
            found[indices] = prior.denoise(y[indices], float(strength), view)
    return found


@torch.no_grad()
def _energies(prior: Denoising, x: Images) -> PerImage:
    return torch.cat([prior.energy(part) for part in x.split(1)])
