"""Where a chain begins if the prior knows noise: nearer to its mean than the surrogate's picture is."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from aipo.basics.arrays import Images
from aipo.gaussian.surrogate import Filtering
from aipo.likelihoods import Gaussian, Likelihood
from aipo.path.tweedie import Denoising
from aipo.posterior.message_passing import ROUNDS, message_passing
from aipo.priors.prior import Prior


@dataclass(frozen=True)
class Begin:
    """How a first picture is found.

    Attributes:
        most: evaluations of the prior for each image at most.
        picture: (likelihood, what is called with the number of pictures after every evaluation) -> pictures
            (B, C, H, W), and the evaluations spent on each, (B,).
    """

    most: int
    picture: Callable[[Likelihood, Callable[[int], None]], tuple[Images, Tensor]]


def beginning(likelihood: Likelihood, prior: Prior) -> Begin | None:
    """Message passing after random sensing, if the prior knows noise; else None.

    Args:
        likelihood: in its simplest spelling, of measurements that are `isotropic`.
    """
    surrogate = getattr(prior, "surrogate", None)
    if not isinstance(prior, Denoising) or prior.loudest == 0 or not isinstance(surrogate, Filtering):
        return None
    if likelihood.gaussian() is not likelihood:
        return None
    return Begin(2 * ROUNDS, partial(_passed, prior, surrogate))


def _passed(
    prior: Denoising, surrogate: Filtering, likelihood: Likelihood, spent: Callable[[int], None]
) -> tuple[Images, Tensor]:
    assert isinstance(likelihood, Gaussian)
    return message_passing(likelihood, prior, surrogate, spent)
