"""A path followed, to its end or until a criterion has seen enough, and what it found."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from aipo.basics.arrays import Images, PerImage
from aipo.basics.errors import Status
from aipo.likelihoods import Likelihood
from aipo.path.latents import in_latents
from aipo.path.objective import objective
from aipo.path.options import PathOptions
from aipo.path.problem import Problem
from aipo.path.state import State
from aipo.path.trace import Trace
from aipo.priors import Prior
from aipo.reconstruction.result import Reconstruction
from aipo.selection.criteria import Criterion, Tracker
from aipo.selection.defaults import automatic

PathWatch = Callable[[State], None] | None

# States without improvement after which a criterion has passed its minimum.
PATIENCE = 3


def trace(likelihood: Likelihood, prior: Prior, options: PathOptions | None = None, copies: int = 1) -> Trace:
    """The path itself, as an iterator of states.

    Args:
        likelihood: D, of a batch of measurements.
        prior: R; its `surrogate` gives start and metric unless the options say otherwise.
        options: weights, predictor and corrector; by default `automatic(operator, prior)`.
        copies: of each image in the batch, see `Trace`.
    """
    options = options or automatic(likelihood.operator, prior)
    return Trace(problem_of(likelihood, prior, options), options, copies)


def problem_of(likelihood: Likelihood, prior: Prior, options: PathOptions) -> Problem:
    """D + λR from the start, in the metric and over the coordinates of these options."""
    pictures = objective(likelihood, prior, options.start, options.metric)
    return in_latents(pictures, likelihood, prior) if options.coordinates == "latents" else pictures


def followed(tracer: Trace, watch: PathWatch) -> list[State]:
    """Every state, each shown to the watcher."""
    path = []
    for state in tracer:
        path.append(state)
        if watch:
            watch(state)
    return path


def select(
    criterion: Criterion, likelihood: Likelihood, prior: Prior, options: PathOptions, watch: PathWatch
) -> Reconstruction:
    """Follow the path until the criterion has passed its minimum for every image; keep the best state."""
    count = len(likelihood)
    batch = criterion.batch()
    copies = len(batch) // count
    tracer = trace(batch, prior, options, copies)
    tracker, path = Tracker(PATIENCE), []
    evaluations = torch.zeros(0)
    for state in tracer:
        accepted = state.accepted.reshape(-1, count).all(0)
        tracker.add(torch.where(accepted, criterion(state.x), torch.inf))
        path.append(_first(state, count))
        evaluations = state.evaluations.reshape(-1, count).sum(0)
        if watch:
            watch(state)
        finished = tracker.finished() & ~criterion.early(state.x)
        if bool(finished.all()):
            break
        tracer.retire(finished.repeat(copies))
    assert tracker.best is not None
    values = torch.stack(tracker.values)
    return reconstruction(
        tracer.problem, path, tracker.best, evaluations, criterion.name, values, likelihood, prior, copies
    )


def _first(state: State, count: int) -> State:
    """The state of the measurements themselves, without the criterion's copies."""
    fields = {name: value[:count] for name, value in vars(state).items() if isinstance(value, Tensor)}
    return replace(state, **fields)


@torch.no_grad()
def _start(problem: Problem, weight: PerImage, copies: int) -> Images:
    """The picture that a path, with copies of each image behind them, would begin with at these weights."""
    return problem.picture(problem.start(weight.repeat(copies)))[: len(weight)]


def reconstruction(
    problem: Problem,
    path: list[State],
    index: Tensor,
    evaluations: Tensor,
    criterion: str,
    values: Tensor,
    likelihood: Likelihood,
    prior: Prior,
    copies: int = 1,
) -> Reconstruction:
    """The chosen state of each image; the problem may have copies of the images behind them."""
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
        start=_start(problem, weight, copies),
        path=path,
        chosen=index,
        shares=torch.nn.functional.one_hot(index, len(path)).T.to(weight)[..., None, None],
        problem=problem,
        likelihood=likelihood,
        prior=prior,
    )
