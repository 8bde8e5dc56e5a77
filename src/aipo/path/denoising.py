"""What every step has in common that a prior makes by removing white noise."""

from math import log
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from aipo.basics.arrays import Images, PerImage
from aipo.basics.errors import Status
from aipo.likelihoods import Likelihood
from aipo.path.objective import LARGEST_CHUNK
from aipo.path.state import State
from aipo.priors.prior import Prior
from aipo.priors.views import View

# Where a level of noise need not be exact it is rounded to a power of this, because a flow is prepared for
# every level.
LEVEL = 1.04


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


def denoised_state(
    index: int,
    x: Images,
    likelihood: Likelihood,
    prior: Prior,
    count: int,
    evaluations: Tensor,
    status: Status,
) -> State:
    """A state at λ = 1; R is known of the first `count` images alone: nobody asks for that of copies."""
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


def restored(prior: Denoising, y: Images, sigma: PerImage, view: View) -> Images:
    """The posterior mean as one view tells it, of pictures with noise of their own strength each."""
    found, size = torch.empty_like(y), max(1, LARGEST_CHUNK // y[0].numel())
    for strength in sigma.unique():
        for indices in (sigma == strength).nonzero().squeeze(1).split(size):
            found[indices] = prior.denoise(y[indices], float(strength), view)
    return found


def rounded(tau: PerImage) -> PerImage:
    """Levels of noise near these, of which there are few."""
    return torch.tensor([LEVEL ** round(log(level) / log(LEVEL)) for level in tau.tolist()]).to(tau)
