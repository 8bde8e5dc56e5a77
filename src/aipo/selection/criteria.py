"""Criteria: which state of the path to keep, judged without the true picture.

A criterion gives every state a number per image, and the smallest wins. It judges any state, converged or
not, because it looks at the map from measurement to picture, not at optimality.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from aipo.basics.arrays import Images, Measurements, PerImage, dot
from aipo.basics.errors import InputError
from aipo.likelihoods import Likelihood
from aipo.path.state import State

# The seed of the probe. Nobody is likely to give the noise itself the same one.
PROBE = 7_211_389_023


class Criterion(Protocol):
    """Judges the states of a path; smaller is better.

    Attributes:
        name: what chose the weight, as a result tells it.
        ends: whether the path's end is the answer, whatever its states are.
    """

    name: str
    ends: bool

    def batch(self) -> Likelihood:
        """The likelihood whose path is followed: the measurements, then the copies that are needed."""
        ...

    def __call__(self, x: Images) -> PerImage:
        """Value for each of the B measurements, from pictures of the whole batch."""
        ...

    def early(self, x: Images) -> Tensor:
        """Whether each measurement's path must go on, whatever its values so far, (B,) bool."""
        ...

    def choose(self, path: Sequence[State], values: Tensor) -> tuple[Tensor, Tensor]:
        """The answer of each image, (B,), and the value of every state, (K, B).

        Args:
            path: states of the B measurements alone.
            values: of each state when it was reached, infinite where it was not accepted, (K, B).
        """
        ...


class Given:
    """The weight is given: the path's last accepted state is the answer.

    Args:
        likelihood: of B measurements.
    """

    name = "fixed"
    ends = True

    def __init__(self, likelihood: Likelihood):
        self.likelihood = likelihood

    def batch(self) -> Likelihood:
        return self.likelihood

    def __call__(self, x: Images) -> PerImage:
        return torch.full((len(self.likelihood),), torch.nan, device=x.device)

    def early(self, x: Images) -> Tensor:
        return torch.ones(len(self.likelihood), dtype=torch.bool, device=x.device)

    def choose(self, path: Sequence[State], values: Tensor) -> tuple[Tensor, Tensor]:
        return last_accepted(path), torch.full_like(values, torch.nan)


class Mean(Given):
    """For the posterior mean: the only state is the mean of a chain."""

    name = "mean"


class Discrepancy:
    """|misfit − 1|: the residual should be as large as the noise (Morozov 1966).

    For Gaussian noise the misfit is ‖y − A x‖² / (m σ²), for other noise Pearson's statistic.

    Args:
        likelihood: of B measurements.
        falls: whether λ, and with it the misfit, falls along the path.
    """

    name = "discrepancy"
    ends = False

    def __init__(self, likelihood: Likelihood, falls: bool = False):
        self.likelihood, self.falls = likelihood, falls

    def batch(self) -> Likelihood:
        return self.likelihood

    def __call__(self, x: Images) -> PerImage:
        return (self.likelihood.misfit(x) - 1).abs()

    def early(self, x: Images) -> Tensor:
        misfit = self.likelihood.misfit(x)
        return misfit > 1 if self.falls else misfit < 1

    def choose(self, path: Sequence[State], values: Tensor) -> tuple[Tensor, Tensor]:
        return smallest(values), values


class Sure:
    """Stein's unbiased estimate of the predictive risk ‖A x − A x_true‖²/m, by one Monte-Carlo probe.

    risk = (‖A x(y) − y‖² − tr Σ + 2 tr ΣJ)/m with Σ the noise's covariance and J the Jacobian of y → A x(y);
    tr ΣJ = E[b·(A x(y + εb) − A x(y))/ε] with b of covariance Σ: the path is followed a second time from
    y + εb. tr ΣJ is kept within [0, tr Σ], where it must lie for a map that shrinks noise. The
    probe b is the same for every image. Under Poisson noise Σ is taken from y, and the estimate is PURE.

    Args:
        likelihood: of B measurements.
        epsilon: ε. Paths that stop short need a large one, because rounding alone moves their states apart; a
            map that is one evaluation of the flow is known to rounding, and bends less over a small one.

    Raises:
        InputError: noise for which no such estimate is known.

    Source: Stein 1981; Ramani, Blu & Unser 2008; Eldar 2009 for general linear A.
    """

    ends = False

    def __init__(self, likelihood: Likelihood, epsilon: float = 0.2):
        stein = likelihood.stein(_white(likelihood))
        if stein is None:
            raise InputError(
                f"Stein's estimate does not hold for {type(likelihood).__name__} noise; use weight='auto' or "
                "'discrepancy'"
            )
        self.likelihood, self.stein, self.epsilon = likelihood, stein, epsilon
        self.name = "sure" if stein.exact else "pure"

    def batch(self) -> Likelihood:
        return self.likelihood.append(self.likelihood.y + self.epsilon * self.stein.probe)

    def __call__(self, x: Images) -> PerImage:
        (residual, response), m = self.residual_and_response(x), self.likelihood.operator.measurements
        excess = dot(self.stein.probe, response).clamp_min(0).minimum(self.stein.trace)
        return (dot(residual, residual) - self.stein.trace + 2 * excess) / m

    def residual_and_response(self, x: Images) -> tuple[Measurements, Measurements]:
        """A x(y) − y, and the answer to the probe b, (A x(y + εb) − A x(y))/ε; b times that is tr ΣJ."""
        image, perturbed = self.likelihood.operator(x).split(len(self.likelihood))
        return image - self.stein.y, (perturbed - image) / self.epsilon

    def early(self, x: Images) -> Tensor:
        return torch.zeros(len(self.likelihood), dtype=torch.bool, device=x.device)

    def choose(self, path: Sequence[State], values: Tensor) -> tuple[Tensor, Tensor]:
        return smallest(values), values


class LCurve:
    """The corner of the curve (log misfit, R), which only the whole path shows.

    Args:
        likelihood: of B measurements.
    """

    name = "l-curve"
    ends = False

    def __init__(self, likelihood: Likelihood):
        self.likelihood = likelihood

    def batch(self) -> Likelihood:
        return self.likelihood

    def __call__(self, x: Images) -> PerImage:
        return self.likelihood.misfit(x)

    def early(self, x: Images) -> Tensor:
        return torch.ones(len(self.likelihood), dtype=torch.bool, device=x.device)

    def choose(self, path: Sequence[State], values: Tensor) -> tuple[Tensor, Tensor]:
        usable = torch.stack([state.accepted & (state.weight > 0) for state in path])
        energies = torch.stack([state.prior_energy for state in path])
        distances = l_curve(values, energies, torch.stack([state.weight for state in path]), usable)
        return distances.argmin(0), distances


def _white(likelihood: Likelihood) -> Measurements:
    """White noise of random signs, the same for every image; an entry of the picture gets that of its place.

    Another probe gives other shares, and a photograph up to 0.2 dB better or worse (dev/LOG.md). If the
    probe depended on y, measurements that hardly differ would differ as much. The energy of signs is exactly
    the expected one. That of Gaussian numbers in a small picture may be a tenth larger, and tr ΣJ with it.
    """
    operator = likelihood.operator
    placed = operator.kept() is not None
    shape = operator.shape if placed else operator.measurement_shape
    normal = torch.randn(1, *shape, generator=torch.Generator().manual_seed(PROBE))
    white = normal.sign().to(likelihood.y)
    measured = operator.linear.forward(white) if placed else white
    return measured.expand(likelihood.y.shape)


def l_curve(residual_squared: Tensor, prior_energy: Tensor, weights: Tensor, usable: Tensor) -> Tensor:
    """How far each state lies from the chord of the curve (log ‖y − A x‖², R), negative below it.

    The curve falls steeply while noise is removed and slowly once texture goes; its corner is the point
    farthest below the chord between its ends, both axes scaled to one. R itself takes the place of its
    logarithm, as a negative log-density may be negative.

    Args:
        residual_squared, prior_energy: of K states, (K, B).
        weights: λ of each, rising or falling, (K, B).
        usable: (K, B) bool; the other states get infinity.

    Returns:
        (K, B); the smallest is the corner.

    Source: Hansen & O'Leary 1993, The use of the L-curve in regularization of discrete ill-posed problems.
    """
    misfit = residual_squared.clamp_min(torch.finfo(residual_squared.dtype).tiny).log()
    first = torch.where(usable, weights, torch.inf).argmin(0)[None]
    last = torch.where(usable, weights, -torch.inf).argmax(0)[None]
    across = (misfit - misfit.gather(0, first)) / (misfit.gather(0, last) - misfit.gather(0, first))
    down = (prior_energy - prior_energy.gather(0, last)) / (
        prior_energy.gather(0, first) - prior_energy.gather(0, last)
    )
    distance = across + down - 1
    # A curve of one point, or a flat one, has no corner: its last point stands.
    final = (torch.arange(len(usable), device=usable.device)[:, None] == last).to(distance)
    distance = torch.where(torch.isfinite(distance), distance, -final)
    return torch.where(usable, distance, torch.inf)


def last_accepted(path: Sequence[State]) -> Tensor:
    """The index of each image's last accepted state, (B,)."""
    accepted = torch.stack([state.accepted for state in path]).long()
    return len(path) - 1 - accepted.flip(0).argmax(0)


def smallest(values: Tensor) -> Tensor:
    """The index of each image's smallest value, of the first one if several are equal, (K, B) -> (B,)."""
    return (values == values.amin(0)).long().argmax(0)


class Tracker:
    """The best state so far for each image, and whether the criterion has clearly passed its minimum.

    Args:
        patience: states without improvement after which an image is finished.
    """

    def __init__(self, patience: int):
        self.patience = patience
        self.values: list[PerImage] = []

    def add(self, value: PerImage) -> None:
        """Record the newest state's value; one that is not finite never wins."""
        self.values.append(torch.where(torch.isfinite(value), value, torch.inf))

    def best(self) -> Tensor:
        """The index of each image's state with the smallest value so far, (B,)."""
        return smallest(torch.stack(self.values))

    def finished(self) -> Tensor:
        """Whether each image's criterion has passed its minimum, (B,) bool."""
        return len(self.values) - 1 - self.best() >= self.patience
