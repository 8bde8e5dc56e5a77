"""Likelihood + weight × prior → path → picture: the main public function."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from aipo.arrays import Images, PerImage
from aipo.blending import mixture, recent_shares, sure_shares
from aipo.certificate import Certificate, certify
from aipo.defaults import automatic
from aipo.errors import InputError, Status
from aipo.latents import in_latents
from aipo.likelihoods import Gaussian, Likelihood
from aipo.objective import objective
from aipo.operators import Identity, Mask
from aipo.path import Trace
from aipo.priors import Prior
from aipo.problem import Problem
from aipo.schedules import PathOptions, ending
from aipo.selection import Criterion, Discrepancy, Sure, Tracker, l_curve
from aipo.state import State

Weight = float | Literal["auto", "bayes", "sure", "discrepancy", "l-curve"]

# States without improvement after which a criterion has passed its minimum.
PATIENCE = 3


@dataclass(frozen=True)
class Reconstruction:
    """The restored pictures and how they were found.

    Attributes:
        image: (B, C, H, W), not clipped to [0, 1].
        weight: the chosen λ, (B,); for a mixture that of the best single state.
        data_energy, prior_energy, objective: D, R and D + λR at the image, nats, (B,).
        evaluations: flow evaluations spent on each image, the criterion's copies included, (B,).
        status: how the search at the chosen weight ended, one per image.
        criterion: what chose the weight: "fixed", "sure", "discrepancy" or "l-curve".
        values: the criterion at every state of the path, (states, B); NaN where a weight was fixed.
        start: the closed-form picture at the chosen weight that the path would begin with there.
        path: every state visited, of the B measurements alone.
        chosen: which of them is the answer, for a mixture the best single one, (B,).
        shares: what part each state has in the image, (states, B).
        problem: what the path was followed through.
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
    chosen: Tensor
    shares: Tensor
    problem: Problem

    @cached_property
    def certificate(self) -> Certificate:
        """Whether the assumptions of the paper's theorem held on the path (25 evaluations a state).

        Raises:
            InputError: a path over latents, whose curvature is not that of F over pictures.
        """
        return certify(self.problem, self.path, self.chosen)


def trace(likelihood: Likelihood, prior: Prior, options: PathOptions | None = None, copies: int = 1) -> Trace:
    """The path itself, as an iterator of states.

    Args:
        likelihood: D, of a batch of measurements.
        prior: R; its `surrogate` gives start and metric unless the options say otherwise.
        options: weights, predictor and corrector; by default `automatic(operator, prior)`.
        copies: of each image in the batch, see `Trace`.
    """
    options = options or automatic(likelihood.operator, prior)
    pictures = objective(likelihood, prior, options.start, options.metric)
    if options.coordinates == "latents":
        return Trace(in_latents(pictures, likelihood, prior), options, copies)
    return Trace(pictures, options, copies)


def reconstruct(
    likelihood: Likelihood,
    prior: Prior,
    weight: Weight = "auto",
    options: PathOptions | None = None,
    watch: Callable[[State], None] | None = None,
) -> Reconstruction:
    """Restore pictures from their measurements.

    Args:
        likelihood: what was measured, (B, ...).
        prior: density of pictures.
        weight: λ, a positive number; "bayes" (λ = 1, the maximum a posteriori); "sure", "discrepancy" or
            "l-curve", which choose one state of the path; "auto", which mixes its states: where every
            measured value is an entry of the picture (denoising, inpainting) and noise is Gaussian so that
            SURE is lowest, and elsewhere the state of the discrepancy principle, in equal parts with those of
            half its λ or more.
        options: how the path is followed, by default `automatic(operator, prior)`. With a fixed λ it
            ends there. The other criteria follow the path once where SURE follows it twice, so they may
            spend twice the evaluations at each weight; the L-curve takes the whole path.
        watch: called with every state, for progress bars.

    Raises:
        InputError: a weight that is none of these.
    """
    options = options or automatic(likelihood.operator, prior)
    if weight == "auto":
        return _auto(likelihood, prior, options, watch)
    if weight == "sure":
        if not isinstance(likelihood, Gaussian):
            raise InputError(
                f"SURE needs Gaussian noise, not {type(likelihood).__name__}; "
                "use weight='auto' or 'discrepancy'"
            )
        return _select(Sure(likelihood), likelihood, prior, options, watch)
    if weight == "discrepancy":
        return _select(Discrepancy(likelihood), likelihood, prior, _doubled(options), watch)
    if weight == "l-curve":
        return _corner(likelihood, prior, _doubled(options), watch)
    fixed = 1.0 if weight == "bayes" else weight
    if isinstance(fixed, str) or not 0 < fixed < float("inf"):
        raise InputError(
            f"weight = {weight!r}; use auto, bayes, sure, discrepancy, l-curve or a positive number"
        )
    return _fixed(float(fixed), likelihood, prior, options, watch)


def _fixed(
    weight: float, likelihood: Likelihood, prior: Prior, options: PathOptions, watch
) -> Reconstruction:
    """The path up to λ = weight; its last accepted state is the answer."""
    tracer = trace(likelihood, prior, ending(options, weight))
    path = _followed(tracer, watch)
    values = torch.full((len(path), len(likelihood)), torch.nan)
    accepted = torch.stack([state.accepted for state in path]).long()
    last = len(path) - 1 - accepted.flip(0).argmax(0)
    return _result(tracer, path, last, path[-1].evaluations, "fixed", values)


def _corner(likelihood: Likelihood, prior: Prior, options: PathOptions, watch) -> Reconstruction:
    """The whole path, and the corner of its L-curve."""
    tracer = trace(likelihood, prior, options)
    path = _followed(tracer, watch)
    residuals = torch.stack([likelihood.misfit(state.x) for state in path])
    energies = torch.stack([state.prior_energy for state in path])
    usable = torch.stack([state.accepted & (state.weight > 0) for state in path])
    values = l_curve(residuals, energies, usable)
    return _result(tracer, path, values.argmin(0), path[-1].evaluations, "l-curve", values)


def _followed(tracer: Trace, watch) -> list[State]:
    """Every state, each shown to the watcher."""
    path = []
    for state in tracer:
        path.append(state)
        if watch:
            watch(state)
    return path


def _select(
    criterion: Criterion, likelihood: Likelihood, prior: Prior, options: PathOptions, watch
) -> Reconstruction:
    """Follow the path until the criterion has passed its minimum for every image; keep the best state."""
    count = len(likelihood)
    batch = criterion.batch()
    tracer = trace(batch, prior, options, copies=len(batch) // count)
    tracker, path = Tracker(PATIENCE), []
    evaluations = torch.zeros(0)
    for state in tracer:
        copies = state.accepted.reshape(-1, count).all(0)
        tracker.add(torch.where(copies, criterion(state.x), torch.inf))
        path.append(_first(state, count))
        evaluations = state.evaluations.reshape(-1, count).sum(0)
        if watch:
            watch(state)
        finished = tracker.finished() & ~criterion.early(state.x)
        if bool(finished.all()):
            break
        tracer.retire(finished.repeat(len(state.x) // count))
    assert tracker.best is not None
    return _result(tracer, path, tracker.best, evaluations, criterion.name, torch.stack(tracker.values))


def _doubled(options: PathOptions) -> PathOptions:
    """For criteria that follow the path once where SURE follows it twice."""
    return replace(options, evaluations=2 * options.evaluations)


def _auto(likelihood: Likelihood, prior: Prior, options: PathOptions, watch) -> Reconstruction:
    """The states of the path mixed."""
    # What mixed measurements leave open, no estimate from them judges: the predictive risk is flat in λ.
    if isinstance(likelihood, Gaussian) and isinstance(likelihood.operator, Identity | Mask):
        return _mixed_by_sure(likelihood, prior, options, watch)
    single = _select(Discrepancy(likelihood), likelihood, prior, _doubled(options), watch)
    weights = torch.stack([state.weight for state in single.path])
    return _mixed(single, recent_shares(single.chosen, weights, _usable(single)), likelihood, prior)


def _mixed_by_sure(likelihood: Gaussian, prior: Prior, options: PathOptions, watch) -> Reconstruction:
    sure = Sure(likelihood)
    pictures: list[Images] = []

    def collect(state: State) -> None:
        pictures.append(state.x)  # with the copies, which a reconstruction does not keep
        if watch:
            watch(state)

    single = _select(sure, likelihood, prior, options, collect)
    return _mixed(single, sure_shares(sure, pictures, _usable(single)), likelihood, prior)


def _usable(single: Reconstruction) -> Tensor:
    """States of λ > 0 that each image reached before it was finished, (states, B) bool.

    What it did later depends on the others of the batch.
    """
    steps = torch.arange(len(single.path), device=single.chosen.device)[:, None]
    positive = torch.stack([state.weight > 0 for state in single.path])
    reached = torch.isfinite(single.values) & (steps <= single.chosen + PATIENCE)
    return (reached & positive) | (steps == single.chosen)


def _mixed(single: Reconstruction, part: Tensor, likelihood: Likelihood, prior: Prior) -> Reconstruction:
    """The mixture in place of the single state, with its own energies."""
    image = mixture([state.x for state in single.path], part)
    with torch.no_grad():
        data, energy = likelihood(image), torch.cat([prior.energy(x) for x in image.split(1)])
    return replace(
        single,
        image=image,
        data_energy=data,
        prior_energy=energy,
        objective=data + single.weight * energy,
        evaluations=single.evaluations + 1,
        shares=part,
    )


def _first(state: State, count: int) -> State:
    """The state of the measurements themselves, without the criterion's copies."""
    fields = {name: value[:count] for name, value in vars(state).items() if isinstance(value, Tensor)}
    return replace(state, **fields)


@torch.no_grad()
def _start(problem: Problem, weight: PerImage, count: int) -> Images:
    """The picture that a path of `count` images, copies included, would begin with at these weights."""
    return problem.picture(problem.start(weight.repeat(count // len(weight))))[: len(weight)]


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
        start=_start(tracer.problem, weight, tracer.count),
        path=path,
        chosen=index,
        shares=torch.nn.functional.one_hot(index, len(path)).T.to(weight),
        problem=tracer.problem,
    )
