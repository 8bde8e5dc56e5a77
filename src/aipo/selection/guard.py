"""A guard for holes: where a prior does not know the picture, its filling gives way to a smooth one.

In a hole only the prior speaks, and a prior of other pictures fills it worse than a smooth filling does. How
far the prior can be trusted shows around the hole. A ring of measured entries is taken away and filled in
twice: by the same path as the hole, and by the smooth (harmonic) filling. With errors e and h of the two, the
mixture (1 − a) e + a h is smallest for

    a = −⟨e, h − e⟩ / ‖h − e‖².

The noise of the ring is in both errors alike, so it cancels on average. One ring tells a with a standard
error s, which the scatter between its parts shows. Before the ring is looked at, a lies around 0, as far as
pictures so untypical of the prior usually need: with spread t, Bayes' rule gives the share

    a t² / (t² + s²),   kept within [0, 1].

Source: Stone 1974, Cross-validatory choice and assessment of statistical predictions; Wolpert 1992, Stacked
generalization (mixing predictors by their errors on data that were taken away); Liang & Zeger 1986,
Longitudinal data analysis using generalized linear models (standard errors from clusters).
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from aipo.basics.arrays import Images, PerImage, expand
from aipo.likelihoods import Gaussian, Likelihood
from aipo.operators import Mask
from aipo.path.options import PathOptions
from aipo.path.prepare import prepared
from aipo.path.problem import Problem
from aipo.path.splitting import SplittingOptions, split
from aipo.path.trace import Trace
from aipo.posterior.chain import chain, sampling_problem
from aipo.posterior.langevin import LangevinOptions
from aipo.priors.prior import Prior
from aipo.selection.combine import picked
from aipo.selection.filling import harmonic
from aipo.selection.typical import untypical

# Lost entries at least so many pixels from measured ones of their own channel are the cores of holes, which
# reach `RIM` pixels farther. What is narrower, its neighbours determine.
DEEP, RIM = 2.5, 2

# Width of the ring, as a part of the hole's depth. A narrower one says little of the hole's middle, and a
# wider one leaves too little around it.
WIDTH = 0.2

# How far shares lie from 0, as a standard deviation: for usual pictures, and for each standard deviation that
# a picture is from those that the prior was trained on. Where that is not known, any share is as likely.
SPREAD, ANY = 0.15, 0.5

# The least part of the measured entries that must remain when the ring is taken away.
REMAINING = 0.25


@dataclass(frozen=True)
class Guarded:
    """Pictures whose holes are as much the prior's as their surroundings warrant.

    Attributes:
        image: (B, C, H, W); outside holes as it was.
        share: of the smooth filling in the holes, (B,); 0 where there are none.
        evaluations: of the prior, spent on each image, (B,).
    """

    image: Images
    share: PerImage
    evaluations: Tensor


Counted = Callable[[Problem], Problem]


class Guard(Protocol):
    """Looks after holes of restored pictures."""

    @property
    def each(self) -> int:
        """Evaluations at most for each image and each state of the path up to the chosen one."""
        ...

    def __call__(self, image: Images, chosen: Tensor, counted: Counted) -> Guarded:
        """Guard pictures.

        Args:
            image: restored, (B, C, H, W).
            chosen: the state of the path that was chosen for each, (B,).
            counted: makes a problem tell its evaluations, for progress.
        """
        ...


@dataclass(frozen=True)
class Unguarded:
    """Leaves pictures as they are: there is no hole, or λ was given and the prior's own filling is wanted."""

    each: int = 0

    def __call__(self, image: Images, chosen: Tensor, counted: Counted) -> Guarded:
        return Guarded(image, torch.zeros(len(image)).to(image), torch.zeros_like(chosen))


@dataclass(frozen=True)
class Holes:
    """Entries that were lost together, and measured ones around them.

    Attributes:
        hole: boolean (C, H, W).
        ring: boolean (C, H, W).
        kept: the measured entries, those of the ring among them.
        depth: distance of the deepest entry from measured ones, in pixels.
    """

    hole: Tensor
    ring: Tensor
    kept: Tensor
    depth: float


@dataclass(frozen=True)
class Refill:
    """Restores pictures as the ones whose holes are guarded were restored, but for the ring.

    Args:
        each: evaluations at most for each image and each state.
        again: (measurements, the chosen states, what counts evaluations) -> pictures (B, C, H, W), and the
            evaluations spent on each, (B,).
    """

    each: int
    again: Callable[[Gaussian, Tensor, Counted], tuple[Images, Tensor]]


def by_path(prior: Prior, options: PathOptions) -> Refill:
    """By each image's chosen state of a path."""

    def again(likelihood: Gaussian, chosen: Tensor, counted: Counted) -> tuple[Images, Tensor]:
        trace, states = Trace(counted(prepared(likelihood, prior, options)), options), []
        for state in islice(trace, int(chosen.max()) + 1):
            states.append(state)
            trace.retire(chosen <= state.index)
        return picked([state.x for state in states], chosen), states[-1].evaluations

    return Refill(options.evaluations + 1, again)


def by_chain(prior: Prior, options: LangevinOptions, weight: float) -> Refill:
    """By the mean of a chain."""

    def again(likelihood: Gaussian, chosen: Tensor, counted: Counted) -> tuple[Images, Tensor]:
        problem = counted(sampling_problem(likelihood, prior))
        drawn = chain(problem, likelihood, weight=weight, options=options)
        return drawn.mean, torch.full_like(chosen, drawn.evaluations)

    return Refill(options.chains * (options.evaluations + 1), again)


def by_splitting(prior: Prior, options: SplittingOptions) -> Refill:
    """By steps of half-quadratic splitting."""

    def again(likelihood: Gaussian, chosen: Tensor, counted: Counted) -> tuple[Images, Tensor]:
        *_, (picture, evaluations) = split(sampling_problem(likelihood, prior), likelihood, prior, options)
        return picture, evaluations

    return Refill(options.steps, again)


@dataclass(frozen=True)
class Stacked:
    """Mixes the holes of restored pictures with a smooth filling, as a ring around them says.

    Args:
        likelihood: of the measured entries.
        refill: restores pictures without the ring as these were restored.
        prior: R.
        holes: where they are.
    """

    likelihood: Gaussian
    refill: Refill
    prior: Prior
    holes: Holes

    @property
    def each(self) -> int:
        return self.refill.each

    def __call__(self, image: Images, chosen: Tensor, counted: Counted) -> Guarded:
        near, ring, place = self.likelihood, self.holes.ring, image.device
        measured = near.operator.linear.adjoint(near.y)
        rest = Mask(self.holes.kept & ~ring)
        without = Gaussian(rest, rest.forward(measured), near.sigma)
        predicted, evaluations = self.refill.again(without, chosen, counted)
        taken = ring.to(place)
        error = torch.where(taken, predicted - measured, 0)
        apart = torch.where(taken, harmonic(measured, ~rest.mask) - predicted, 0)
        share = stacked(error, apart, round(self.holes.depth), _spread(near, self.prior, image))
        smooth = harmonic(image, self.holes.hole)
        change = torch.where(self.holes.hole.to(place), smooth - image, 0)
        return Guarded(image + expand(share, image) * change, share, evaluations)


def smoothed(share: PerImage) -> list[str]:
    """A sentence if holes were mixed with a smooth filling; else none."""
    if not bool((share > 0).any()):
        return []
    most = f"{100 * float(share.max()):.0f} %"
    how = most if len(share) == 1 else f"up to {most}"
    return [
        f"holes are mixed with {how} of a smooth filling, because that predicts the measured pixels around "
        "them best"
    ]


def stacked(error: Images, apart: Images, cell: int, spread: PerImage) -> PerImage:
    """The share of a second predictor in a mixture of two, (B,), within [0, 1].

    Args:
        error: of the first predictor, where it can be judged; 0 elsewhere, (B, C, H, W).
        apart: the second one minus the first, likewise.
        cell: errors in square cells of so many pixels are taken as independent of those in other cells.
        spread: how far the share may lie from 0, as a standard deviation, (B,).
    """
    along, squared = (_in_cells(values, cell) for values in (-error * apart, apart.square()))
    whole = squared.sum(1).clamp_min(torch.finfo(apart.dtype).tiny)
    share = along.sum(1) / whole
    variance = (along - share[:, None] * squared).square().sum(1) / whole.square()
    return (share / (1 + variance / spread.square())).clamp(0, 1)


def _in_cells(values: Images, cell: int) -> Tensor:
    """Sums over square cells and channels, (B, cells)."""
    bottom, right = -values.shape[2] % cell, -values.shape[3] % cell
    whole = F.pad(values.sum(1, keepdim=True), (0, right, 0, bottom))
    return F.avg_pool2d(whole, cell, divisor_override=1).flatten(1)


def _spread(likelihood: Likelihood, prior: Prior, image: Images) -> PerImage:
    far = untypical(likelihood, prior, image)
    return torch.full_like(likelihood.noise_level, ANY) if far is None else SPREAD * (1 + far)


def guard(likelihood: Likelihood, refill: Refill, prior: Prior) -> Guard:
    """A guard where there are holes that can be judged by what was measured around them; else none.

    Args:
        likelihood: in its simplest spelling.
        refill: how pictures are restored.
        prior: R.
    """
    near = likelihood.gaussian()
    kept = near.operator.kept()
    holes = None if kept is None else find_holes(kept.cpu())
    return Unguarded() if holes is None else Stacked(near, refill, prior, holes)


def find_holes(kept: Tensor) -> Holes | None:
    """The holes among lost entries; None if there are none, or if too little is left around a ring.

    Args:
        kept: which entries are measured, boolean (C, H, W).
    """
    from scipy.ndimage import distance_transform_edt  # only here: it is slow to import

    lost = ~kept.numpy()
    seen = lost & kept.flatten(1).any(1).numpy()[:, None, None]  # a channel without any is no hole
    distance = np.stack([np.asarray(distance_transform_edt(channel)) for channel in seen])
    core = torch.from_numpy(distance >= DEEP)
    if not bool(core.any()):
        return None
    depth = float(distance.max())
    width = max(1, round(WIDTH * depth))
    ring = _grown(core, RIM + width) & kept
    if int(ring.sum()) > (1 - REMAINING) * int(kept.sum()):
        return None
    return Holes(_grown(core, RIM) & ~kept, ring, kept, depth)


def _grown(core: Tensor, steps: int) -> Tensor:
    """With all entries of the same channel that are so few steps away, across corners too."""
    from scipy.ndimage import binary_dilation  # only here: it is slow to import

    grown = binary_dilation(core.numpy(), np.ones((1, 3, 3), dtype=bool), iterations=steps)
    return torch.from_numpy(np.asarray(grown))
