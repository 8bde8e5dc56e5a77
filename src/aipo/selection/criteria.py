"""Which weight on the path to keep, judged without the true picture.

A criterion gives every state of the path a number per image; the smallest wins. Both judge any state,
converged or not, because they look at the map from measurement to picture, not at optimality.
"""

from typing import Protocol

import torch
from torch import Tensor

from aipo.basics.arrays import Images, Measurements, PerImage, content_seed, dot
from aipo.basics.errors import InputError
from aipo.likelihoods import Likelihood


class Criterion(Protocol):
    """Judges pictures on the path; smaller is better."""

    name: str

    def batch(self) -> Likelihood:
        """The likelihood whose path must be followed: the measurements, and copies that are needed."""
        ...

    def __call__(self, x: Images) -> PerImage:
        """Value for each of the B measurements, from the pictures of the whole batch."""
        ...

    def early(self, x: Images) -> Tensor:
        """Which of the B measurements' paths must go on, whatever the values so far, (B,) bool."""
        ...


class Discrepancy:
    """|misfit − 1|: the residual should be as large as the noise (Morozov 1966).

    For Gaussian noise the misfit is ‖y − A x‖² / (m σ²), for other noise Pearson's statistic.

    Args:
        likelihood: of B measurements.
        falls: whether λ falls along the path, so that the misfit does.
    """

    name = "discrepancy"

    def __init__(self, likelihood: Likelihood, falls: bool = False):
        self.likelihood, self.falls = likelihood, falls

    def batch(self) -> Likelihood:
        return self.likelihood

    def __call__(self, x: Images) -> PerImage:
        return (self.likelihood.misfit(x) - 1).abs()

    def early(self, x: Images) -> Tensor:
        misfit = self.likelihood.misfit(x)
        return misfit > 1 if self.falls else misfit < 1


class Sure:
    """Stein's unbiased estimate of the predictive risk ‖A x − A x_true‖²/m, by one Monte-Carlo probe.

    risk = (‖A x(y) − y‖² − tr Σ + 2 tr ΣJ)/m with Σ the noise's covariance and J the Jacobian of y → A x(y);
    tr ΣJ = E[b·(A x(y + εb) − A x(y))/ε] with b ~ N(0, Σ), ε = 0.2: the path is followed a second time from
    y + εb. tr ΣJ is kept within [0, tr Σ], where it must lie for a map that shrinks noise. The probe's seed
    comes from the measurement itself. Under Poisson noise Σ is taken from y, and the estimate is PURE.

    Raises:
        InputError: noise of which no such estimate is known.

    Source: Stein 1981; Ramani, Blu & Unser 2008; Eldar 2009 for general linear A.
    """

    epsilon = 0.2

    def __init__(self, likelihood: Likelihood):
        stein = likelihood.stein(torch.stack([_white(y) for y in likelihood.y]))
        if stein is None:
            raise InputError(
                f"Stein's estimate does not hold for {type(likelihood).__name__} noise; use weight='auto' or "
                "'discrepancy'"
            )
        self.likelihood, self.stein, self.name = likelihood, stein, stein.name

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


def _white(y: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(content_seed(y))
    return torch.randn(y.shape, generator=generator).to(y)


def l_curve(residual_squared: Tensor, prior_energy: Tensor, weights: Tensor, usable: Tensor) -> Tensor:
    """How far each state lies from the chord of the curve (log ‖y − A x‖², R), negative below it.

    The curve falls steeply while noise is removed and slowly once texture goes; its corner is the point
    farthest below the chord between its ends, both axes scaled to one. R itself takes the place of its
    logarithm, as a negative log-density may be negative.

    Args:
        residual_squared, prior_energy: of K states, (K, B).
        weights: their λ, rising or falling, (K, B).
        usable: (K, B) bool; the others get infinity.

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


class Tracker:
    """The best state so far for each image, and whether the criterion has clearly passed its minimum.

    Args:
        patience: states without improvement after which an image is finished.
    """

    def __init__(self, patience: int):
        self.patience = patience
        self.values: list[PerImage] = []
        self.best: Tensor | None = None

    def add(self, value: PerImage) -> Tensor:
        """Record the newest state's value; which images just reached their best, (B,) bool."""
        value = torch.where(torch.isfinite(value), value, torch.inf)
        self.values.append(value)
        if self.best is None:
            self.best = torch.zeros(len(value), dtype=torch.long, device=value.device)
            return torch.ones(len(value), dtype=torch.bool, device=value.device)
        improved = value < torch.stack(self.values[:-1]).min(0).values
        self.best = torch.where(improved, len(self.values) - 1, self.best)
        return improved

    def finished(self) -> Tensor:
        """(B,) bool."""
        assert self.best is not None
        return len(self.values) - 1 - self.best >= self.patience
