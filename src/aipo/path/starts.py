"""Where a path begins: the solution under the prior's Gaussian surrogate, or the paper's A⁺y.

Under Gaussian noise and a linear operator the surrogate's solution has a closed form. Other likelihoods use
the solution under the Gaussian likelihood near them. If none is near (signs alone were measured), the start
is the minimum of D + λR_G. That problem is convex if D is, and costs no evaluation of the flow.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from aipo.basics.arrays import Images, PerImage
from aipo.basics.derivatives import value_and_gradient
from aipo.gaussian import Posterior, Surrogate
from aipo.gaussian import energy as surrogate_energy
from aipo.likelihoods import Gaussian, Likelihood
from aipo.path.solvers.lbfgs import LBFGS
from aipo.path.solvers.minimise import minimise
from aipo.path.solvers.solver import Metric, Point

# The closed-form path begins at this weight, which is the limit λ → 0⁺ to working precision.
SMALLEST_WEIGHT = 1e-4

# The budget of `explaining`, and its tolerance in nats.
EVALUATIONS, TOLERANCE = 40, 0.1

# Weights (B,), or one weight for all -> the pictures with which the path begins there.
Start = Callable[[PerImage], Images]


def measurement_start(near: Gaussian) -> Start:
    """The paper's start A⁺y."""
    return lambda weight: near.operator.linear.pseudoinverse(near.y)


def closed_start(near: Gaussian, closed: Posterior) -> Start:
    """The surrogate's own solution, in closed form."""
    variance = near.sigma**2
    return _remembered(lambda weight: closed.mode(near.y, alpha(weight, variance)))


def solved_start(
    likelihood: Likelihood, surrogate: Surrogate, begin: Start, metric: Callable[[PerImage], Metric]
) -> Start:
    """The surrogate's solution under the likelihood itself, found from that under the Gaussian near it."""

    def start(weight: PerImage) -> Images:
        first = begin(weight)
        weights = weight.to(first).clamp_min(SMALLEST_WEIGHT).expand(len(first))

        def regulariser(x: Images, indices: Tensor) -> PerImage:
            return weights[indices] * surrogate_energy(surrogate, x)

        return explaining(likelihood, regulariser, first, metric(weights))

    return _remembered(start)


def explaining(
    likelihood: Likelihood, regulariser: Callable[[Images, Tensor], PerImage], first: Images, metric: Metric
) -> Images:
    """argmin D(x) + regulariser(x) without the prior, from `first` on.

    Args:
        regulariser: (pictures, their indices among `first`) -> nats.
        metric: scales the gradient.
    """

    def energy(x: Tensor, indices: Tensor) -> Point:
        own = likelihood.select(indices)
        return Point(x, *value_and_gradient(lambda x: own(x) + regulariser(x, indices), x), {})

    everyone = torch.arange(len(first), device=first.device)
    active = torch.ones_like(everyone, dtype=torch.bool)
    begun = energy(first, everyone)
    return minimise(energy, begun, LBFGS(), metric, EVALUATIONS, TOLERANCE, active).point.x


def alpha(weight: PerImage, variance: PerImage) -> PerImage:
    """λσ²."""
    return weight.to(variance).clamp_min(SMALLEST_WEIGHT) * variance


def _remembered(start: Start) -> Start:
    """Remember two starts: the predictor asks for the last one again at every step, and a solve is slow."""
    latest: list[tuple[list[float], Images]] = []

    def remembering(weight: PerImage) -> Images:
        asked = weight.tolist()
        for known, image in latest:
            if known == asked:
                return image
        image = start(weight)
        latest[:] = [*latest[-1:], (asked, image)]
        return image

    return remembering
