"""Draws from the density ∝ exp(−F(x; λ)/T) by Langevin dynamics with momentum, in the metric of the solvers.

At λ = 1 and temperature T = 1 that density is the posterior p(x | y). A step is half a kick by −M∇F, half a
drift, friction and fresh noise of the metric, half a drift, half a kick (BAOAB). Where F is quadratic with
inverse Hessian M the draws have T times its covariance exactly, whatever the step. Where F is stiffer in some
directions than the metric says, a step widens the draws there; it is therefore made only as long as its
energy error allows. There is no Metropolis step, because in ten thousand dimensions it would accept only
steps ten times as short.

Source: Leimkuhler & Matthews 2013, Rational construction of stochastic numerical methods for molecular
sampling; the energy error per dimension that sets the step: Robnik & Seljak 2024, Fluctuation without
dissipation.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from aipo.basics.arrays import PerImage, White, dot, expand
from aipo.basics.errors import InputError
from aipo.path.problem import PLAIN, Problem

# The burn-in aims at the first squared energy error of a step, per dimension, nats². A step whose error is
# beyond the second is not taken.
ERROR, LARGEST_ERROR = 4e-3, 9.0


@dataclass(frozen=True)
class LangevinOptions:
    """How the chains of each image are run.

    Args:
        evaluations: of the prior, for each chain; each is one step.
        burn_in: first steps, which count for nothing.
        step: h, at most; a direction whose curvature is the metric's inverse turns once in 2π/h steps. The
            burn-in shortens it for each chain.
        friction: γ, per unit of time; 2 is the critical damping of such a direction.
        chains: of each image, run side by side and pooled. R̂ of one chain compares its halves only; four
            tell whether what a chain finds depends on its start.
        temperature: T, in (0, 1]. Draws of a cold chain lie nearer to the mode, √T as far from it, so that
            fewer of them tell their mean.
        seed: 0 or more; the same seed gives the same chains, another one other chains. Each image's noise
            follows from its measurement (at T = 1), the seed and the number of the chain, whatever else is in
            its batch.

    Raises:
        InputError: a value out of range.
    """

    evaluations: int = 400
    burn_in: int = 60
    step: float = 0.15
    friction: float = 0.3
    chains: int = 1
    temperature: float = 1.0
    seed: int = 0

    def __post_init__(self):
        if not 0 <= self.burn_in < self.evaluations:
            raise InputError(
                f"burn_in = {self.burn_in} of {self.evaluations} evaluations leaves nothing to average; use "
                "more evaluations or a shorter burn-in"
            )
        if not 0 < self.step < 1 or not 0 < self.friction < math.inf:
            raise InputError(
                f"step = {self.step}, friction = {self.friction}; use a step in (0, 1), a positive friction"
            )
        if not 0 < self.temperature <= 1:
            raise InputError(f"temperature = {self.temperature}; use 1 for the posterior, or less, above 0")
        if self.chains < 1 or self.seed < 0:
            raise InputError(
                f"chains = {self.chains}, seed = {self.seed}; use 1 or more chains, and a seed of 0 or more"
            )


@dataclass(frozen=True)
class Draw:
    """A state of every chain: how many came before it, x (chains, B, ...), and F there, nats, (chains, B)."""

    index: int
    x: Tensor
    objective: Tensor


def langevin(
    problem: Problem, start: Tensor, weight: PerImage, options: LangevinOptions, whites: Sequence[White]
) -> Iterator[Draw]:
    """The chains of every image from their starts on, burn-in included.

    A step whose energy error is far too large, or not finite, is not taken: the chain stays where it is, its
    momentum reversed, which leads away from what stopped it, and its step a fifth shorter.

    Args:
        problem: its `noise` is needed.
        start: where the chains begin, (chains, B, ...).
        weight: λ of each image, (B,).
        whites: for each chain, the noise of every image.

    Raises:
        InputError: a problem over latents, or one without noise of its metric.
    """
    if problem.noise is None:
        raise InputError("this problem has no draws of its metric; sample over pictures, not latents")
    chains, images = start.shape[:2]
    draw, metric, width = problem.noise, problem.metric(weight), math.sqrt(options.temperature)
    # A metric takes several batches one behind the other, and so do the terms.
    indices, weights = torch.arange(images, device=start.device).repeat(chains), weight.repeat(chains)

    def place(x: Tensor) -> _Place:
        terms = problem.terms(x, indices, PLAIN)
        gradient = terms.data_gradient + expand(weights, x) * terms.prior_gradient
        return _Place(x, terms.data + weights * terms.prior, gradient, metric(gradient))

    def noise() -> Tensor:
        return width * torch.cat([draw(weight, white) for white in whites])

    here, velocity, step = place(start.flatten(0, 1)), noise(), torch.full_like(weights, options.step)
    for index in range(options.evaluations):
        ahead, after, error = _stepped(here, velocity, step, options.friction, noise(), place)
        taken = error < LARGEST_ERROR  # false for NaN
        here = ahead.where(taken, here)
        velocity = torch.where(expand(taken, velocity), after, -velocity)
        if index < options.burn_in:
            # The error of a step grows with the sixth power of its length; a single one says little of it.
            longer = (ERROR / error.nan_to_num(torch.inf)).clamp(1e-3, 1e3) ** 0.04
            step = (step * longer).clamp_max(options.step)
        step = torch.where(taken, step, 0.8 * step)
        yield Draw(index, here.x.view_as(start), here.value.view(chains, images))


def _stepped(
    here: "_Place",
    velocity: Tensor,
    step: PerImage,
    friction: float,
    noise: Tensor,
    place: Callable[[Tensor], "_Place"],
) -> tuple["_Place", Tensor, PerImage]:
    """Place and velocity after a step, and its squared energy error per dimension, (B,)."""
    h = expand(step, velocity)
    kept = torch.exp(-friction * h)
    work, velocity = _kicked(here, velocity, step)
    middle = here.x + h / 2 * velocity
    velocity = kept * velocity + (1 - kept**2).sqrt() * noise
    ahead = place(middle + h / 2 * velocity)
    more, velocity = _kicked(ahead, velocity, step)
    return ahead, velocity, (ahead.value - here.value + work + more) ** 2 / velocity[0].numel()


@dataclass(frozen=True)
class _Place:
    """x, F, ∇F and M∇F there."""

    x: Tensor
    value: PerImage
    gradient: Tensor
    force: Tensor

    def where(self, chosen: Tensor, other: "_Place") -> "_Place":
        wide = expand(chosen, self.x)
        return _Place(
            torch.where(wide, self.x, other.x),
            torch.where(chosen, self.value, other.value),
            torch.where(wide, self.gradient, other.gradient),
            torch.where(wide, self.force, other.force),
        )


def _kicked(place: _Place, velocity: Tensor, step: PerImage) -> tuple[PerImage, Tensor]:
    """What half a kick changes of the kinetic energy ½ vᵀM⁻¹v, (B,), and the velocity after it."""
    work = -step / 2 * dot(velocity, place.gradient) + step**2 / 8 * dot(place.gradient, place.force)
    return work, velocity - expand(step, velocity) / 2 * place.force
