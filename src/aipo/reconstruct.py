"""Likelihood + weight × prior → path → picture: the main public function."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from typing import Any, Literal

import torch
from torch import Tensor

from aipo.arrays import Images, PerImage, expand
from aipo.errors import InputError, Status
from aipo.likelihoods import Gaussian
from aipo.operators import Identity, LinearOperator, Mask
from aipo.path import State, Trace
from aipo.posterior import posterior
from aipo.priors import Prior
from aipo.problem import Deformation, Problem, Terms
from aipo.schedules import PathOptions, ending, geometric
from aipo.selection import Criterion, Discrepancy, Sure, Tracker
from aipo.solvers import Metric
from aipo.surrogates import Surrogate
from aipo.surrogates import energy as surrogate_energy

Weight = float | Literal["auto", "bayes", "sure", "discrepancy"]

# The weight at which the closed-form path is taken to begin: the limit λ → 0⁺ to working precision.
SMALLEST_WEIGHT = 1e-4

# Entries of x per call of the prior: bounds the memory that its gradient takes.
LARGEST_CHUNK = 500_000

# Steps of √2 in λ, few evaluations at each: the path carries solution and curvature from one to the next.
AUTOMATIC = PathOptions(geometric(0.2, 12.8, 13), evaluations=8, tolerance=0.5)

# In a hole only the prior speaks. Steps of the surrogate's width leave the flow's narrow valley there, and
# the hole turns dark before it comes back; a stiffer metric keeps steps small where nothing was measured.
AUTOMATIC_HOLES = replace(AUTOMATIC, evaluations=12, stiffness=200.0)

# States without improvement after which a criterion has passed its minimum.
PATIENCE = 3


@dataclass(frozen=True)
class Reconstruction:
    """The restored pictures and how they were found.

    Attributes:
        image: (B, C, H, W), not clipped to [0, 1].
        weight: the chosen λ, (B,).
        data_energy, prior_energy, objective: D, R and D + λR at the image, nats, (B,).
        evaluations: flow evaluations spent on each image, the criterion's copies included, (B,).
        status: how the search at the chosen weight ended, one per image.
        criterion: what chose the weight: "fixed", "sure" or "discrepancy".
        values: the criterion at every state of the path, (states, B); NaN where a weight was fixed.
        start: the closed-form picture at the chosen weight that the path would begin with there.
        path: every state visited, of the B measurements alone.
    """

    image: Images
    weight: PerImage
    data_energy: PerImage
    prior_energy: PerImage
    objective: PerImage
    evaluations: Tensor
    status: list[Status]
    criterion: str
    values: Tensor
    start: Images
    path: list[State]


def automatic(operator: LinearOperator) -> PathOptions:
    """How the path is followed where the user does not say."""
    incomplete = isinstance(operator, Mask) and operator.measurements < prod(operator.shape)
    return AUTOMATIC_HOLES if incomplete else AUTOMATIC


def trace(likelihood: Gaussian, prior: Prior, options: PathOptions | None = None) -> Trace:
    """The path itself, as an iterator of states.

    Args:
        likelihood: D, of a batch of measurements.
        prior: R; its `surrogate` gives start and metric unless the options say otherwise.
        options: weights, predictor and corrector; by default `automatic(likelihood.operator)`.
    """
    options = options or automatic(likelihood.operator)
    surrogate = getattr(prior, "surrogate", None) if options.start == "surrogate" else None
    if surrogate is None:
        start, metric = _measurement_geometry(likelihood)
    else:
        start, metric = _surrogate_geometry(likelihood, surrogate)
    return Trace(Problem(_terms(likelihood, prior, surrogate), start, metric), options)


def reconstruct(
    likelihood: Gaussian,
    prior: Prior,
    weight: Weight = "auto",
    options: PathOptions | None = None,
    watch: Callable[[State], None] | None = None,
) -> Reconstruction:
    """Restore pictures from their measurements.

    Args:
        likelihood: what was measured, (B, ...).
        prior: density of pictures.
        weight: λ, a positive number; "bayes" (λ = 1, the maximum a posteriori); "sure" or "discrepancy",
            which choose among the states of the path; "auto", SURE where every measured value is an entry of
            the picture (denoising, inpainting), the discrepancy principle where values mix entries.
        options: how the path is followed, by default `automatic(likelihood.operator)`. With a fixed λ it
            ends there. The discrepancy principle follows the path once where SURE follows it twice, so it
            may spend twice the evaluations at each weight.
        watch: called with every state, for progress bars.

    Raises:
        InputError: a weight that is none of these.
    """
    options = options or automatic(likelihood.operator)
    if weight == "auto":
        # What mixed measurements leave open, no estimate from them judges: the predictive risk is flat in λ.
        weight = "sure" if isinstance(likelihood.operator, Identity | Mask) else "discrepancy"
    if weight == "sure":
        return _select(Sure(likelihood), likelihood, prior, options, watch)
    if weight == "discrepancy":
        doubled = replace(options, evaluations=2 * options.evaluations)
        return _select(Discrepancy(likelihood), likelihood, prior, doubled, watch)
    fixed = 1.0 if weight == "bayes" else weight
    if isinstance(fixed, str) or not 0 < fixed < float("inf"):
        raise InputError(f"weight = {weight!r}; use auto, bayes, sure, discrepancy or a positive number")
    return _fixed(float(fixed), likelihood, prior, options, watch)


def _fixed(weight: float, likelihood: Gaussian, prior: Prior, options: PathOptions, watch) -> Reconstruction:
    """The path up to λ = weight; its last accepted state is the answer."""
    tracer = trace(likelihood, prior, ending(options, weight))
    path = []
    for state in tracer:
        path.append(state)
        if watch:
            watch(state)
    values = torch.full((len(path), len(likelihood)), torch.nan)
    accepted = torch.stack([state.accepted for state in path]).long()
    last = len(path) - 1 - accepted.flip(0).argmax(0)
    return _result(tracer, path, last, path[-1].evaluations, "fixed", values)


def _select(
    criterion: Criterion, likelihood: Gaussian, prior: Prior, options: PathOptions, watch
) -> Reconstruction:
    """Follow the path until the criterion has passed its minimum for every image; keep the best state."""
    count = len(likelihood)
    tracer = trace(criterion.batch(), prior, options)
    tracker, path = Tracker(PATIENCE), []
    evaluations = torch.zeros(0)
    for state in tracer:
        copies = state.accepted.reshape(-1, count).all(0)
        tracker.add(torch.where(copies, criterion(state.x), torch.inf))
        path.append(_first(state, count))
        evaluations = state.evaluations.reshape(-1, count).sum(0)
        if watch:
            watch(state)
        finished = tracker.finished()
        if bool(finished.all()):
            break
        tracer.retire(finished.repeat(len(state.x) // count))
    assert tracker.best is not None
    return _result(tracer, path, tracker.best, evaluations, criterion.name, torch.stack(tracker.values))


def _first(state: State, count: int) -> State:
    """The state of the measurements themselves, without the criterion's copies."""
    fields = {name: value[:count] for name, value in vars(state).items() if isinstance(value, Tensor)}
    return replace(state, **fields)


def _result(
    tracer: Trace, path: list[State], index: Tensor, evaluations: Tensor, criterion: str, values: Tensor
) -> Reconstruction:
    """The chosen state of each image; `tracer` may follow copies of the images behind them."""
    images = torch.arange(len(index), device=index.device)

    def pick(name: str) -> Tensor:
        return torch.stack([getattr(state, name) for state in path])[index, images]

    weight = pick("weight")
    return Reconstruction(
        image=pick("x"),
        weight=weight,
        data_energy=pick("data_energy"),
        prior_energy=pick("prior_energy"),
        objective=pick("objective"),
        evaluations=evaluations,
        status=[Status(int(value)) for value in pick("status")],
        criterion=criterion,
        values=values,
        start=tracer.problem.start(weight.repeat(tracer.count // len(index)))[: len(index)],
        path=path,
    )


def _terms(likelihood: Gaussian, prior: Prior, surrogate: Surrogate | None):
    def terms(x: Tensor, indices: Tensor, deformation: Deformation) -> Terms:
        data, data_gradient = _value_and_gradient(likelihood.select(indices), x)
        size = max(1, LARGEST_CHUNK // x[0].numel())
        energy = _deformed(prior, surrogate, deformation)
        energies, gradients = zip(
            *(_value_and_gradient(energy, chunk) for chunk in x.split(size)), strict=True
        )
        return Terms(data, torch.cat(energies), data_gradient, torch.cat(gradients))

    return terms


def _deformed(prior: Any, surrogate: Surrogate | None, deformation: Deformation):
    """R(x; τ, s) = s R(x; τ) + (1 − s) R_G(x); R_G without its constant."""
    share, tau = deformation.share, deformation.tau
    smooth = prior.energy if tau == 0 else partial(prior.energy, tau=tau)
    if share == 1:
        return smooth
    if surrogate is None:
        raise InputError(f"a share of {share} of the prior needs a Gaussian surrogate for the rest")
    return lambda x: share * smooth(x) + (1 - share) * surrogate_energy(surrogate, x)


def _value_and_gradient(energy: Callable[[Tensor], Tensor], x: Tensor) -> tuple[PerImage, Tensor]:
    x = x.detach().requires_grad_(True)
    with torch.enable_grad():
        value = energy(x)
        gradient = torch.autograd.grad(value.sum(), x)[0]
    return value.detach(), gradient


def _surrogate_geometry(likelihood: Gaussian, surrogate):
    """Start and metric from the prior's Gaussian surrogate, in closed form."""
    closed = posterior(likelihood.operator, surrogate)
    variance = likelihood.sigma**2

    def alpha(weight: PerImage) -> PerImage:
        return weight.to(variance).clamp_min(SMALLEST_WEIGHT) * variance

    # The predictor asks for the last weight again at every step; a solve can cost as much as an evaluation.
    latest: list[tuple[PerImage, Images]] = []

    def start(weight: PerImage) -> Images:
        for known, image in latest:
            if torch.equal(known, weight):
                return image
        image = closed.mode(likelihood.y, alpha(weight).expand(len(likelihood)))
        latest[:] = [*latest[-1:], (weight, image)]
        return image

    def metric(weight: PerImage) -> Metric:
        def apply(v: Tensor) -> Tensor:
            times = len(v) // len(variance)
            return expand(variance.repeat(times), v) * closed.metric(v, alpha(weight).repeat(times))

        return apply

    return start, metric


def _measurement_geometry(likelihood: Gaussian):
    """The paper's start A⁺y, and the step scale 1/L of the data term, L = ‖A‖²/σ²."""
    scale = likelihood.sigma**2 / likelihood.operator.norm_squared

    def start(weight: PerImage) -> Images:
        return likelihood.operator.pseudoinverse(likelihood.y)

    def metric(weight: PerImage) -> Metric:
        return lambda v: expand(scale.repeat(len(v) // len(scale)), v) * v

    return start, metric
