"""Follow a plan: a path until its criterion has seen enough, or a chain to its end."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from aipo.basics.arrays import Images, PerImage
from aipo.basics.errors import Status
from aipo.likelihoods import Likelihood
from aipo.path.denoising import Denoising
from aipo.path.objective import objective
from aipo.path.options import PathOptions
from aipo.path.prepare import prepared
from aipo.path.problem import Problem
from aipo.path.splitting import SplittingOptions, splitting
from aipo.path.state import State
from aipo.path.trace import Trace
from aipo.path.tweedie import TweedieOptions, tweedie
from aipo.posterior.chain import Samples, chain, sampling_problem
from aipo.posterior.langevin import Draw, LangevinOptions
from aipo.priors.checks import check_inputs
from aipo.priors.prior import Prior
from aipo.reconstruction.progress import Forecast, Progress, forecast
from aipo.selection.criteria import Criterion, Tracker, last_accepted
from aipo.selection.defaults import path_to_minima
from aipo.selection.plans import Plan

Watch = Callable[[State | Draw], None]

# After so many states without improvement a criterion has passed its minimum.
PATIENCE = 3


@dataclass(frozen=True)
class Followed:
    """What was found by following a plan, for B measurements and K states.

    Attributes:
        problem: the problem that the path solves.
        pictures: those of every state, (B or more, C, H, W): of the B measurements, and behind them of the
            criterion's copies.
        path: the states of the B measurements alone.
        values: the criterion at every state, (K, B).
        chosen: the state that the criterion chose for each image, (B,).
        evaluations: spent on each image, its copies included, (B,).
        counted: makes a further problem tell its evaluations to the same progress.
        drawn: the chain, if the only state is its mean and its draws are the posterior's.
    """

    problem: Problem
    pictures: list[Images]
    path: list[State]
    values: Tensor
    chosen: Tensor
    evaluations: Tensor
    counted: Callable[[Problem], Problem]
    drawn: Samples | None = None

    @property
    def weights(self) -> Tensor:
        """λ of every state, (K, B)."""
        return torch.stack([state.weight for state in self.path])

    @property
    def usable(self) -> Tensor:
        """States of λ > 0 that each image reached before it was finished, (K, B) bool.

        Its later states depend on the other images of the batch.
        """
        steps = torch.arange(len(self.path), device=self.chosen.device)[:, None]
        reached = torch.isfinite(self.values) & (steps <= self.chosen + PATIENCE)
        return (reached & (self.weights > 0)) | (steps == self.chosen)

    @torch.no_grad()
    def start(self) -> Images:
        """The picture with which the path would begin at each image's chosen weight, (B, C, H, W)."""
        count = len(self.chosen)
        weight = self.weights.gather(0, self.chosen[None])[0]
        copies = len(self.pictures[0]) // count
        return self.problem.picture(self.problem.start(weight.repeat(copies)))[:count]


def trace(
    likelihood: Likelihood,
    prior: Prior,
    options: PathOptions | None = None,
    copies: int = 1,
) -> Trace:
    """The path itself, as an iterator of states.

    Args:
        likelihood: D, of a batch of measurements.
        prior: R; its `surrogate` gives start and metric unless the options say otherwise.
        options: weights, predictor and corrector; by default those of the path from which "sure" and
            "discrepancy" choose a state.
        copies: number of copies of each image, see `Trace`.
    """
    check_inputs(likelihood, prior)
    simplest = likelihood.simplest()
    options = options or path_to_minima(simplest.operator, prior)
    return Trace(prepared(simplest, prior, options), options, copies)


def follow(
    planned: Plan,
    likelihood: Likelihood,
    prior: Prior,
    watch: Watch | None = None,
    progress: Progress | None = None,
) -> Followed:
    """Follow a plan.

    Args:
        planned: the plan for this likelihood and prior.
        likelihood: in its simplest spelling.
        watch: called with every state of a path and every draw of a chain.
        progress: called after every evaluation, see `Progress`.
    """
    tell = progress or (lambda done, expected: None)
    if isinstance(planned.options, LangevinOptions):
        return _chain(planned, planned.options, likelihood, prior, watch, tell)
    if isinstance(planned.options, TweedieOptions | SplittingOptions):
        return _denoised(planned.criterion, planned.options, likelihood, prior, watch, tell)
    return _path(planned, planned.options, likelihood, prior, watch, tell)


def exact_form(prior: Prior) -> Prior:
    """The prior in full precision: `prior.exact` if there is one, else the prior itself."""
    return getattr(prior, "exact", prior)


@torch.no_grad()
def energies(image: Images, likelihood: Likelihood, prior: Prior) -> tuple[PerImage, PerImage]:
    """D and R of pictures (B, C, H, W), nats, one picture at a time."""
    return likelihood(image), torch.cat([prior.energy(x) for x in image.split(1)])


def _path(
    planned: Plan,
    options: PathOptions,
    likelihood: Likelihood,
    prior: Prior,
    watch: Watch | None,
    tell: Progress,
) -> Followed:
    criterion, count = planned.criterion, len(likelihood)
    batch = criterion.batch()
    problem = prepared(batch, prior, options)
    least = len(options.weights) if criterion.ends else PATIENCE + 2
    ahead = forecast(tell, options, len(batch), least, count * planned.guard.each)
    tracer = Trace(ahead.watched(problem), options, len(batch) // count)
    tracker, whole = Tracker(PATIENCE), []
    for state in tracer:
        whole.append(state)
        accepted = state.accepted.reshape(-1, count).all(0)
        tracker.add(torch.where(accepted, criterion(state.x), torch.inf))
        if watch:
            watch(state)
        ahead.reached(int(tracker.best().max()), PATIENCE)
        finished = tracker.finished() & ~criterion.early(state.x)
        if bool(finished.all()):
            break
        tracer.retire(finished.repeat(len(batch) // count))
    path, values = [_first(state, count) for state in whole], torch.stack(tracker.values)
    exact = exact_form(prior)
    if exact is not prior and criterion.ends:
        path.append(_final_steps(prepared(likelihood, exact, options), options, path))
        whole, values = path, torch.cat((values, values[-1:]))
        if watch:
            watch(path[-1])
    evaluations = whole[-1].evaluations.reshape(-1, count).sum(0)
    chosen, values = criterion.choose(path, values)
    ahead.ended(int(chosen.max()))
    pictures = [state.x for state in whole]
    return Followed(problem, pictures, path, values, chosen, evaluations, ahead.watched)


def _denoised(
    criterion: Criterion,
    options: TweedieOptions | SplittingOptions,
    likelihood: Likelihood,
    prior: Prior,
    watch: Watch | None,
    tell: Progress,
) -> Followed:
    """Noise over whole pictures, removed in a few steps."""
    batch, count = criterion.batch(), len(likelihood)
    copies = len(batch) // count
    assert isinstance(prior, Denoising)
    done, expected = 0, count * options.cost(len(prior.views), copies)

    def spent(images: int) -> None:
        nonlocal done
        done += images
        tell(done, max(done, expected))

    if isinstance(options, TweedieOptions):
        problem = objective(batch, prior)
        states = list(tweedie(problem, batch, prior, options, copies, spent))
    else:
        problem = sampling_problem(batch, prior)
        states = list(splitting(problem, batch, prior, options, copies, spent))
    path = [_first(state, count) for state in states]
    for state in path:
        if watch:
            watch(state)
    values = torch.stack(
        [torch.where(state.accepted[:count], criterion(state.x), torch.inf) for state in states]
    )
    chosen, values = criterion.choose(path, values)
    evaluations = states[-1].evaluations.reshape(-1, count).sum(0)
    pictures = [state.x for state in states]
    return Followed(problem, pictures, path, values, chosen, evaluations, lambda problem: problem)


def _first(state: State, count: int) -> State:
    """The state of the measurements themselves, without the criterion's copies."""
    fields = {name: value[:count] for name, value in vars(state).items() if isinstance(value, Tensor)}
    return replace(state, **fields)


def _final_steps(exact: Problem, options: PathOptions, path: list[State]) -> State:
    """One more correction of the path's last accepted point, at the path's last weight, in full precision.

    Args:
        exact: the path's problem, with the prior in full precision.
        options: those of the path.
        path: its states so far.
    """
    last = last_accepted(path)
    images = torch.stack([state.x for state in path])[last, torch.arange(len(last), device=last.device)]
    start = exact.coordinates(images)
    only = replace(
        options, weights=options.weights[-1:], deformations=options.deformations[-1:], control=None
    )
    state = next(Trace(replace(exact, start=lambda weight: start), only))
    return replace(state, index=len(path), evaluations=path[-1].evaluations + state.evaluations)


def _chain(
    planned: Plan,
    options: LangevinOptions,
    likelihood: Likelihood,
    prior: Prior,
    watch: Watch | None,
    tell: Progress,
) -> Followed:
    """The mean of a chain, as a path of one state. Only at λ = 1 and T = 1 does the chain know the spread."""
    problem = sampling_problem(likelihood, prior)
    # Every chain evaluates the prior at each step, and where it starts.
    images = options.chains * len(likelihood)
    begin, count = planned.begin, len(likelihood)
    before = 0 if begin is None else begin.most
    each = images * (options.evaluations + 1) + count * (before + planned.guard.each)
    ahead = Forecast(tell, 1, each, least=1)
    start, spent = (None, 0) if begin is None else begin.picture(problem, likelihood, ahead.spent)
    drawn = chain(
        ahead.watched(problem), likelihood, weight=planned.weight, options=options, start=start, watch=watch
    )
    weight = torch.full((len(likelihood),), planned.weight).to(likelihood.y)
    data, energy = energies(drawn.mean, likelihood, prior)
    evaluations = torch.full_like(weight, drawn.evaluations + 1).long() + spent
    state = State(
        index=0,
        weight=weight,
        x=drawn.mean,
        data_energy=data,
        prior_energy=energy,
        objective=data + weight * energy,
        decrement=torch.full_like(weight, torch.nan),
        evaluations=evaluations,
        status=_ended(drawn, options, torch.isfinite(data + energy)),
        accepted=torch.ones_like(weight, dtype=torch.bool),
    )
    values, chosen = torch.full((1, len(weight)), torch.nan), torch.zeros_like(evaluations)
    posterior = drawn if options.temperature == planned.weight == 1 else None
    return Followed(problem, [drawn.mean], [state], values, chosen, evaluations, ahead.watched, posterior)


def _ended(drawn: Samples, options: LangevinOptions, finite: Tensor) -> Tensor:
    """Statuses of the means, (B,); that one chain agrees with itself does not say that others would."""
    if options.temperature < 1:
        status = torch.full_like(finite, int(Status.AVERAGED), dtype=torch.long)
    else:
        agreeing = drawn.agree if drawn.chains > 1 else torch.zeros_like(drawn.agree)
        status = torch.where(agreeing, int(Status.AGREEING), int(Status.DRAWN))
    return torch.where(finite, status, int(Status.DIVERGED))
