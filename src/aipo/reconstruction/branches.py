"""Several branches of a path as entries of one batch; the one that ends lowest is kept.

A single path follows one minimum. Branches start from different draws of the surrogate's posterior, so they
may follow different minima. Whether they meet says more about the end than a single path can.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from aipo.basics.arrays import Images, PerImage, White, content_seed
from aipo.basics.errors import InputError, Status
from aipo.gaussian import posterior
from aipo.likelihoods import Gaussian, Likelihood
from aipo.path.objective import objective
from aipo.path.options import PathOptions, ending
from aipo.path.state import State
from aipo.path.trace import Trace
from aipo.priors import Prior
from aipo.priors.checks import check_inputs
from aipo.reconstruction.certificate import UNFINISHED, Verdict
from aipo.selection.defaults import AUTOMATIC


@dataclass(frozen=True)
class Branches:
    """The ends of K branches (starting points × paths) of B images.

    Attributes:
        image: the end of the lowest branch, (B, C, H, W).
        objective: F there, nats, (B,).
        best: the index of that branch, (B,).
        images: every branch's end, (K, B, C, H, W).
        objectives: F at each, (K, B).
        evaluations: spent on each image, all branches together, (B,).
        status: how the lowest branch ended, one per image.
        verdict: whether the branches agree, one per image.
    """

    image: Images
    objective: PerImage
    best: Tensor
    images: Tensor
    objectives: Tensor
    evaluations: Tensor
    status: list[Status]
    verdict: list[Verdict]


def best_of(
    likelihood: Likelihood,
    prior: Prior,
    weight: float = 1.0,
    branches: int = 8,
    paths: Sequence[PathOptions] = (),
) -> Branches:
    """Minimise D + λR from the surrogate's mode and from `branches` − 1 draws of its posterior.

    Args:
        likelihood: D, of a batch of measurements.
        prior: R; it must have a `surrogate`.
        weight: λ at the path's end.
        branches: number of starting points; the measurement itself is their seed.
        paths: each of them is followed from every starting point, such as `smoothing()` for a prior that
            offers smoothed energies; by default `AUTOMATIC` alone. Their `start`, `metric` and `coordinates`
            are ignored: starting points and metric are the surrogate's, over pictures.

    Raises:
        InputError: a prior without surrogate, or fewer than one branch.
    """
    check_inputs(likelihood, prior)
    surrogate = getattr(prior, "surrogate", None)
    if surrogate is None or branches < 1:
        raise InputError(
            f"branches = {branches}; at least 1 is needed, and a prior with a Gaussian surrogate"
        )
    copies = torch.arange(len(likelihood), device=likelihood.y.device).repeat(branches)
    near = likelihood.gaussian()
    closed, alpha = posterior(near.operator.linear, surrogate), weight * near.sigma**2
    problem = objective(likelihood.select(copies), prior, closed=closed)
    modes = closed.mode(near.y, alpha)
    starts = torch.cat((modes[None], _draws(closed, near, alpha, branches - 1))).flatten(0, 1)
    offsets = starts - modes.repeat(branches, 1, 1, 1)
    branching = replace(problem, start=lambda w: problem.start(w) + offsets)
    ends = [list(Trace(branching, ending(options, weight)))[-1] for options in paths or [AUTOMATIC]]
    return lowest(ends, branches)


def _draws(closed, likelihood: Gaussian, alpha: PerImage, count: int) -> Tensor:
    """Draws of the surrogate's posterior, (count, B, C, H, W), for each image from its own seed."""
    images = []
    for y, a, sigma in zip(likelihood.y, alpha, likelihood.sigma, strict=True):
        white = White([content_seed(y) + k for k in range(count)])
        images.append(closed.sample(y.expand(count, *y.shape), a.expand(count), sigma.expand(count), white))
    return torch.stack(images, dim=1)


def lowest(ends: Sequence[State], branches: int) -> Branches:
    """The lowest end of each image.

    Args:
        ends: the last state of each path, with all images of one branch behind those of the branch before.
        branches: number of branches in each state.
    """

    def gather(name: str) -> Tensor:
        return torch.cat([getattr(end, name).unflatten(0, (branches, -1)) for end in ends])

    images, decrements = gather("x"), gather("decrement")
    objectives = torch.where(gather("accepted"), gather("objective"), torch.inf)
    best = objectives.argmin(0)
    status = gather("status").gather(0, best[None])[0]
    return Branches(
        image=images[best, torch.arange(len(best), device=best.device)],
        objective=objectives.min(0).values,
        best=best,
        images=images,
        objectives=objectives,
        evaluations=gather("evaluations").sum(0),
        status=[Status(int(value)) for value in status],
        verdict=_verdicts(objectives, decrements, status),
    )


def _verdicts(objectives: Tensor, decrements: Tensor, status: Tensor) -> list[Verdict]:
    """Branches agree if all are as low as the lowest, within twice the gain that their metric expects."""
    slack = 2 * decrements.max(0).values + 1e-6 * (1 + objectives.abs().amin(0))
    several = objectives.max(0).values - objectives.min(0).values > slack
    unfinished = torch.isin(status, torch.tensor(UNFINISHED, device=status.device))
    agreeing = torch.where(unfinished, int(Verdict.UNCONVERGED), int(Verdict.AGREEING))
    return [Verdict(int(value)) for value in torch.where(several, int(Verdict.SEVERAL), agreeing)]
