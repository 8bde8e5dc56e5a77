"""The path: predictors, the judge's verdicts, deformed priors, and its end against the closed form."""

import gc
from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from closed_form import (
    OPERATORS,
    SHAPE,
    Counted,
    WithoutSurrogate,
    WithSurrogate,
    dense,
    gaussian_prior,
    measurement,
    minimiser,
    relative,
)
from elsewhere import elsewhere
from path_problems import Parabolas, between, curved_problem, parabolas
from random_flows import make, rand
from torch import Tensor

from aipo import priors
from aipo.basics.errors import CheckpointError, InputError, Status
from aipo.gaussian import StationaryGaussian
from aipo.likelihoods import measure
from aipo.operators import Identity
from aipo.path.options import PathOptions
from aipo.path.predictors import cold, secant, shifted, warm
from aipo.path.problem import PLAIN, Deformation, Problem, Terms, reweighted, weighted
from aipo.path.schedules import paper, smoothing
from aipo.path.solvers.descent import Adam, GradientDescent
from aipo.path.solvers.lbfgs import LBFGS
from aipo.path.solvers.newton import NewtonCG
from aipo.path.solvers.solver import Metric, Point
from aipo.path.trace import Trace
from aipo.priors import FlowPrior
from aipo.reconstruction.follow import trace

operators = pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS)
EXACTLY = PathOptions((0.0, 0.3, 1.0, 2.5), evaluations=150, tolerance=1e-14)


def test_states_have_increasing_index_and_weight_and_the_minimisers_of_their_weights():
    model = parabolas()
    options = PathOptions((0.0, 0.5, 1.0, 3.0), warm, evaluations=30, tolerance=1e-18)
    states = list(Trace(model.problem(), options))
    assert [state.index for state in states] == [0, 1, 2, 3]
    for state, weight in zip(states, options.weights, strict=True):
        assert state.weight.tolist() == [weight] * 3
        assert torch.allclose(state.x, model.minimiser(state.weight), atol=1e-8)
        assert state.accepted.all()
        assert (state.status == Status.CONVERGED).all()


def test_the_energies_of_a_state_are_those_of_its_picture():
    model = parabolas()
    for state in Trace(model.problem(), PathOptions((0.0, 0.5, 1.0), warm, evaluations=2)):
        terms = model.terms(state.x, torch.arange(3), PLAIN)
        assert torch.allclose(state.data_energy, terms.data, rtol=1e-12)
        assert torch.allclose(state.prior_energy, terms.prior, rtol=1e-12)
        assert torch.allclose(state.objective, terms.data + state.weight * terms.prior, rtol=1e-12)


def test_a_state_sums_up_how_far_from_its_minimum_it_ended():
    """In the identity as metric half the squared gradient is expected, to the digits shown."""
    model = parabolas()
    options = PathOptions((0.0, 1.0), warm, GradientDescent(0.1), evaluations=1, tolerance=0.0)
    _, stopped = Trace(model.problem(), options)
    gradient = model.curvature[:, None, None, None] * stopped.x + stopped.x - model.y
    for phrase, left in zip(stopped.summary(), 0.5 * (gradient**2).flatten(1).sum(1), strict=True):
        words = phrase.split()
        assert (words[0], words[2:]) == ("budget:", ["nats", "to", "gain"])
        assert float(words[1].replace(",", "")) == pytest.approx(float(left), rel=0.06)
    _, converged = Trace(model.problem(), replace(options, solver=LBFGS(), evaluations=50, tolerance=1e-3))
    assert all(phrase.startswith("converged: ") for phrase in converged.summary())
    unknown = replace(converged, decrement=torch.full_like(converged.decrement, torch.nan))
    assert unknown.summary() == ["converged"] * 3


@pytest.mark.parametrize("predictor", [warm, cold, shifted, secant])
@pytest.mark.parametrize("first", [0.0, 0.2])
def test_evaluations_reported_are_evaluations_made(predictor, first):
    model = parabolas()
    for state in Trace(model.problem(), PathOptions((first, 0.5, 1.0, 3.0), predictor, tolerance=1e-6)):
        assert state.evaluations.tolist() == model.spent.tolist()


def test_a_path_that_begins_above_zero_is_minimised_there():
    model = parabolas()
    state = next(Trace(model.problem(), PathOptions((0.7,), evaluations=30, tolerance=1e-18)))
    assert torch.allclose(state.x, model.minimiser(state.weight), atol=1e-8)


def test_the_beginning_at_zero_costs_one_evaluation():
    model = parabolas()
    state = next(Trace(model.problem(), PathOptions((0.0, 1.0))))
    assert torch.equal(state.x, model.y)
    assert model.spent.tolist() == [1, 1, 1]


def test_predictors():
    x = torch.tensor([[[[5.0]]]])
    problem = Problem(terms=None, start=lambda w: 10 * w.reshape(-1, 1, 1, 1), metric=None)  # type: ignore[arg-type]
    old, new = torch.tensor([0.25]), torch.tensor([1.0])
    assert warm(problem, [(x, old)], new) is x
    assert cold(problem, [(x, old)], new).item() == 10.0
    assert shifted(problem, [(x, old)], new).item() == 5.0 + 10.0 - 2.5
    assert secant(problem, [(x, old)], new) is x
    assert secant(problem, [(x - 2, torch.tensor([0.0])), (x, old)], new).item() == 5.0 + 2.0 * 3


def test_the_secant_waits_for_the_second_weight_of_each_image():
    x = torch.tensor([5.0, 5.0]).reshape(2, 1, 1, 1)
    problem = Problem(terms=None, start=None, metric=None)  # type: ignore[arg-type]
    accepted = [(x - 1, torch.tensor([1.0, 0.5])), (x, torch.tensor([1.0, 1.0]))]
    assert secant(problem, accepted, torch.tensor([2.0, 2.0])).flatten().tolist() == [5.0, 7.0]


@pytest.mark.parametrize("predictor", [warm, cold, shifted, secant])
def test_the_predictor_gives_the_correctors_starting_point(predictor):
    """With steps too short to matter, the state is what was predicted."""
    prior = gaussian_prior()
    likelihood = measurement(OPERATORS["sensing"], prior)
    tracer = trace(likelihood, prior, PathOptions((0.0, 0.3, 0.5, 2.0), predictor, evaluations=4))
    *_, before, middle = [next(tracer) for _ in range(3)]
    tracer.options = replace(tracer.options, solver=GradientDescent(1e-15), evaluations=1, tolerance=0.0)
    end = next(tracer)
    accepted = [(before.x, before.weight), (middle.x, middle.weight)]
    expected = predictor(tracer.problem, accepted, end.weight)
    assert torch.allclose(end.x, expected, atol=1e-12)
    moved = (end.x - middle.x).abs().max()
    assert (moved < 1e-12) == (predictor is warm)


def test_a_path_that_begins_above_zero_takes_the_lower_of_two_starts():
    model = parabolas()
    weight = torch.full((3,), 0.7, dtype=torch.float64)
    near = model.minimiser(weight) + torch.tensor([0.0, 5.0, -5.0]).reshape(3, 1, 1, 1)
    limit = model.minimiser(weight) + 1
    problem = replace(model.problem(), start=lambda w: near if bool((w > 0).all()) else limit)
    state = next(Trace(problem, PathOptions((0.7,), warm, GradientDescent(0.0), 1, 0.0)))
    assert torch.equal(state.x, torch.stack((near[0], limit[1], limit[2])))
    assert state.evaluations.tolist() == [3, 3, 3]


def test_reweighting_costs_no_evaluation_and_gives_the_same_point():
    model = parabolas()
    x, one = model.y + 0.3, torch.ones(3, dtype=torch.float64)
    terms = model.terms(x, torch.arange(3), PLAIN)
    seen, expected = reweighted(weighted(x, terms, one), 2 * one), weighted(x, terms, 2 * one)
    assert torch.equal(seen.value, expected.value)
    assert torch.equal(seen.gradient, expected.gradient)
    assert model.spent.tolist() == [1, 1, 1]


# Gate 5: the path's end against the closed form.


@operators
def test_the_whole_path_of_a_gaussian_prior_is_the_closed_form(operator):
    prior = gaussian_prior()
    likelihood = measurement(operator, prior)
    for state in trace(likelihood, prior, EXACTLY):
        weight = max(float(state.weight[0]), 1e-4)  # the path's beginning stands for the limit λ → 0⁺
        assert relative(state.x, minimiser(likelihood, prior, weight)) <= 1e-6
        assert state.evaluations.max() <= 3 * (state.index + 1), "the closed form should need no search"


@operators
def test_gate_5_without_a_surrogate(operator):
    prior = gaussian_prior()
    likelihood = measurement(operator, prior)
    *_, end = trace(likelihood, WithoutSurrogate(prior), EXACTLY)
    assert relative(end.x, minimiser(likelihood, prior, 2.5)) <= 1e-6


@operators
@pytest.mark.parametrize("predictor", [warm, cold, shifted, secant])
def test_gate_5_with_a_wrong_surrogate(operator, predictor):
    prior = gaussian_prior()
    likelihood = measurement(operator, prior)
    wrong = WithSurrogate(prior, gaussian_prior(seed=7))
    begin, *_, end = trace(likelihood, wrong, replace(EXACTLY, predictor=predictor))
    expected = minimiser(likelihood, prior, 2.5)
    assert relative(end.x, expected) <= 1e-6
    assert relative(begin.x, expected) > 0.01 and end.evaluations.min() > 10, "there was work to do"


# Largest share of the start's excess objective left after 5 × 60 steps: λσ²Σ⁻¹, which alone acts on what was
# not measured, is small beside the data term that sets the step.
@pytest.mark.parametrize(("name", "left"), [("denoising", 1e-9), ("inpainting", 0.2), ("sensing", 0.6)])
def test_the_paper_preset_starts_at_the_pseudoinverse_and_approaches_the_closed_form(name, left):
    prior, operator = gaussian_prior(), OPERATORS[name]
    likelihood = measurement(operator, prior, sigma=0.1)
    begin, *_, end = trace(likelihood, prior, paper(last=1.0, count=5, steps=60))
    a_plus_y = (torch.linalg.pinv(dense(operator)) @ likelihood.y.flatten(1).T).T.unflatten(1, SHAPE)
    best = minimiser(likelihood, prior, 1.0)
    assert relative(begin.x, a_plus_y) < 1e-6
    assert relative(end.x, best) < relative(begin.x, best)
    begin_, end_, best_ = (likelihood(x) + prior.energy(x) for x in (begin.x, end.x, best))
    assert (end_ - best_ <= left * (begin_ - best_)).all()


@pytest.mark.parametrize(
    "solver", [LBFGS(), GradientDescent(0.5), Adam(0.01)], ids=lambda s: type(s).__name__
)
def test_no_point_of_the_path_ends_above_its_start(solver):
    """Gate 6, at every weight: warm starts make the start's objective known."""
    prior = gaussian_prior()
    likelihood = measurement(OPERATORS["sensing"], prior)
    wrong = WithSurrogate(prior, gaussian_prior(seed=7))
    states = list(trace(likelihood, wrong, PathOptions((0.0, 0.3, 1.0, 2.5), warm, solver, 15, 1e-6)))
    for before, after in pairwise(states):
        start = before.data_energy + after.weight * before.prior_energy
        assert (after.objective <= start + 1e-12 * start.abs()).all()


@pytest.mark.parametrize("predictor", [warm, cold, shifted, secant])
def test_a_batch_follows_the_paths_of_batches_of_one(predictor):
    """Images that need very different numbers of evaluations, at every weight."""
    prior = gaussian_prior()
    likelihood = measurement(OPERATORS["sensing"], prior)
    wrong = WithSurrogate(prior, gaussian_prior(seed=7))
    options = PathOptions((0.0, 0.3, 1.0, 2.5), predictor, evaluations=60, tolerance=1e-3)
    batch = list(trace(likelihood, wrong, options))
    assert len(set(batch[1].evaluations.tolist())) > 1
    for i in range(3):
        alone = trace(likelihood.select(torch.tensor([i])), wrong, options)
        for state, together in zip(alone, batch, strict=True):
            assert (int(state.evaluations), int(state.status)) == (
                together.evaluations[i],
                together.status[i],
            )
            assert torch.allclose(state.x[0], together.x[i], rtol=0, atol=1e-10)


# Retired and diverging images.


@pytest.mark.parametrize("predictor", [warm, cold, shifted, secant])
def test_a_retired_image_costs_nothing_more_and_the_others_do_not_notice(predictor):
    prior = gaussian_prior()
    likelihood = measurement(OPERATORS["sensing"], prior)
    wrong = WithSurrogate(prior, gaussian_prior(seed=7))
    options = PathOptions((0.0, 0.3, 1.0, 2.5), predictor, tolerance=1e-3)
    undisturbed = list(trace(likelihood, wrong, options))
    tracer = trace(likelihood, wrong, options)
    states = [next(tracer), next(tracer)]
    tracer.retire(torch.tensor([False, True, False]))
    states += list(tracer)
    for state in states[2:]:
        for name in ("x", "weight", "objective", "data_energy", "prior_energy", "evaluations"):
            assert torch.equal(getattr(state, name)[1], getattr(states[1], name)[1]), name
    for state, reference in zip(states, undisturbed, strict=True):
        assert torch.allclose(state.x[[0, 2]], reference.x[[0, 2]], rtol=0, atol=1e-10)
        assert state.evaluations[[0, 2]].tolist() == reference.evaluations[[0, 2]].tolist()


def test_retiring_every_image_ends_the_spending():
    model = parabolas()
    tracer = Trace(model.problem(), PathOptions((0.0, 0.5, 1.0), cold))
    next(tracer)
    tracer.retire(torch.ones(3, dtype=torch.bool))
    assert len(list(tracer)) == 2
    assert model.spent.tolist() == [1, 1, 1]


class Broken(WithSurrogate):
    """NaN for bright pictures."""

    def energy(self, x: Tensor) -> Tensor:
        energy = super().energy(x)
        return torch.where(x.flatten(1).mean(1) > 2, torch.nan, energy)


@pytest.mark.parametrize("solver", [LBFGS(), GradientDescent(0.5), Adam()], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("predictor", [warm, cold, shifted, secant])
def test_a_nan_energy_makes_that_image_diverge_and_no_other(predictor, solver):
    prior = gaussian_prior()
    likelihood = measurement(OPERATORS["denoising"], prior)
    likelihood.y[1] += 5
    options = PathOptions((0.0, 0.3, 1.0), predictor, solver, 10, 1e-8)
    healthy = list(trace(likelihood, prior, options))
    for state, reference in zip(trace(likelihood, Broken(prior, prior), options), healthy, strict=True):
        assert state.accepted.tolist() == [True, False, True]
        assert state.status[1] == Status.DIVERGED
        assert torch.equal(state.status[[0, 2]], reference.status[[0, 2]])
        assert torch.allclose(state.x[[0, 2]], reference.x[[0, 2]], rtol=0, atol=1e-10)


def test_after_a_rejected_point_the_path_goes_on_from_the_last_accepted_one():
    class Breakable(Parabolas):
        broken = False

        def terms(self, x: Tensor, indices: Tensor, deformation: Deformation = PLAIN) -> Terms:
            terms = super().terms(x, indices, deformation)
            return replace(terms, prior=torch.where((indices == 1) & self.broken, torch.nan, terms.prior))

    model = Breakable(parabolas().y, torch.ones(3, dtype=torch.float64))
    moving = replace(model.problem(), start=lambda weight: model.y * (1 + weight).reshape(-1, 1, 1, 1))
    tracer = Trace(moving, PathOptions((0.0, 0.5, 1.0, 2.0), cold, evaluations=30, tolerance=1e-18))
    begin, good = next(tracer), next(tracer)
    model.broken = True
    bad = next(tracer)
    model.broken = False
    tracer.options = replace(tracer.options, predictor=shifted, evaluations=1, solver=GradientDescent(0.0))
    last = next(tracer)
    assert [state.accepted[1].item() for state in (begin, good, bad, last)] == [True, True, False, True]
    assert torch.allclose(last.x[1], good.x[1] + model.y[1] * (2.0 - 0.5))
    assert torch.allclose(last.x[0], bad.x[0] + model.y[0] * (2.0 - 1.0))


def test_a_search_that_ends_in_nan_is_not_accepted_though_its_point_is_finite():
    class Walled(Parabolas):
        """NaN wherever the first image has gone down to 0.9 y."""

        def terms(self, x: Tensor, indices: Tensor, deformation: Deformation = PLAIN) -> Terms:
            terms = super().terms(x, indices, deformation)
            beyond = (indices == 0) & (x < 0.9 * self.y[indices]).flatten(1).any(1)
            return replace(terms, prior=torch.where(beyond, torch.nan, terms.prior))

    model = Walled(parabolas().y, torch.ones(3, dtype=torch.float64))
    options = PathOptions((0.0, 1.0, 2.0), warm, GradientDescent(0.2), 20, 1e-12)
    for state in list(Trace(model.problem(), options))[1:]:
        assert state.status[0] == Status.DIVERGED
        assert state.accepted.tolist() == [False, True, True]
        assert torch.isfinite(state.x).all()


@pytest.mark.parametrize(("predictor", "cost"), [(warm, 1), (cold, 2), (shifted, 2)])
def test_a_warm_start_costs_no_evaluation_of_its_own(predictor, cost):
    model = parabolas()
    list(Trace(model.problem(), PathOptions((0.0, 1.0), predictor, evaluations=1, tolerance=0.0)))
    assert model.spent.tolist() == [1 + cost] * 3


@pytest.mark.parametrize("predictor", [warm, cold, shifted, secant])
def test_the_evaluations_reported_are_the_priors(predictor):
    prior = gaussian_prior()
    likelihood = measurement(OPERATORS["inpainting"], prior)
    counted = Counted(WithSurrogate(prior, priors.Gaussian(prior.mean, torch.eye(24, dtype=torch.float64))))
    for state in trace(likelihood, counted, PathOptions((0.0, 0.3, 1.0, 2.5), predictor, tolerance=1e-6)):
        assert int(state.evaluations.sum()) == counted.images


def test_the_metric_is_taken_at_a_stiffer_prior():
    """The surrogate is the prior here: at stiffness 1 one Newton step arrives, at 4 it falls short."""
    prior = gaussian_prior()
    likelihood = measurement(OPERATORS["denoising"], prior)
    exact = minimiser(likelihood, prior, 1.0)
    moved = likelihood.y.reshape(exact.shape)

    def error(stiffness: float) -> float:
        options = PathOptions((1.0,), solver=GradientDescent(1.0), evaluations=1, stiffness=stiffness)
        problem = trace(likelihood, prior, options).problem
        state = next(Trace(replace(problem, start=lambda weight: moved), options))
        return relative(state.x, exact)

    assert error(1.0) < 1e-6  # the metric is in single precision
    assert error(4.0) > 1e-3


def test_a_trace_that_has_not_begun_retires_nothing():
    prior = gaussian_prior()
    with pytest.raises(InputError, match="first state"):
        trace(measurement(OPERATORS["denoising"], prior), prior, EXACTLY).retire(torch.tensor([True]))


SAVED = PathOptions((0.0, 0.1, 0.3, 0.6, 1.0), evaluations=3, tolerance=1e-12)
DEFORMED = replace(smoothing(tau=1.0, count=4, steps=3), tolerance=1e-12)


@pytest.mark.parametrize("options", [SAVED, DEFORMED], ids=["weights", "smoothing"])
@pytest.mark.parametrize("stop", [1, 2, 4])
def test_a_saved_trace_resumes_to_the_same_bits(options, stop, tmp_path):
    whole = list(Trace(curved_problem(), options))
    first = Trace(curved_problem(), options)
    for _ in range(stop):
        next(first)
    first.save(tmp_path / "trace.safetensors")
    second = Trace(curved_problem(), options)
    second.resume(tmp_path / "trace.safetensors")
    rest = list(second)
    assert [state.index for state in rest] == [state.index for state in whole[stop:]]
    for state, expected in zip(rest, whole[stop:], strict=True):
        assert torch.equal(state.x, expected.x) and torch.equal(state.objective, expected.objective)
        assert torch.equal(state.evaluations, expected.evaluations)
        assert torch.equal(state.status, expected.status)


def test_a_trace_of_something_else_is_refused(tmp_path):
    path = tmp_path / "trace.safetensors"
    tracer = Trace(curved_problem(), SAVED)
    with pytest.raises(InputError, match="first state"):
        tracer.save(path)
    next(tracer)
    next(tracer)
    tracer.save(path)
    with pytest.raises(CheckpointError, match="other options"):
        Trace(curved_problem(), replace(SAVED, evaluations=4)).resume(path)
    with pytest.raises(CheckpointError, match="other measurements"):
        trace(*between(-0.7), SAVED).resume(path)
    with pytest.raises(CheckpointError, match="other measurements"):
        prior = gaussian_prior()
        trace(measurement(OPERATORS["denoising"], prior), prior, SAVED).resume(path)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(CheckpointError, match=r"trace\.safetensors"):
        Trace(curved_problem(), SAVED).resume(path)


def test_a_retired_image_stays_retired_after_resuming(tmp_path):
    model = parabolas()
    tracer = Trace(model.problem(), SAVED)
    next(tracer)
    tracer.retire(torch.tensor([True, False, False]))
    tracer.save(tmp_path / "trace.safetensors")
    resumed = Trace(model.problem(), SAVED)
    resumed.resume(tmp_path / "trace.safetensors")
    last = list(resumed)[-1]
    assert last.weight.tolist() == [0.0, 1.0, 1.0]


@pytest.mark.parametrize("there_first", [False, True], ids=["from-here", "from-there"])
def test_a_saved_trace_goes_on_on_another_device(there_first, tmp_path):
    """Its file holds no device; the problem's is where it goes on."""
    path, options = tmp_path / "trace.safetensors", replace(SAVED, predictor=secant)

    def on(device: str) -> Trace:
        prior = FlowPrior(make("glow", "fixed", 3, 1, (8, 8)), StationaryGaussian.fit(rand(8, 3, 8, 8)), {})
        likelihood = measure(Identity((3, 8, 8)), rand(2, 3, 8, 8), 0.1, torch.Generator().manual_seed(0))
        return trace(likelihood.to(device), prior.to(device), options)

    whole = list(on("cpu"))
    with elsewhere() as device:
        first, second = (device, "cpu") if there_first else ("cpu", device)
        begun, resumed = on(first), on(second)
        for _ in range(3):
            next(begun)
        begun.save(path)
        resumed.resume(path)
        rest = list(resumed)
        assert all(state.x.device.type == second for state in rest)
        pictures = [state.x.cpu() for state in rest]
    for picture, state in zip(pictures, whole[3:], strict=True):
        assert torch.allclose(picture, state.x, rtol=0, atol=1e-6)


# What a path keeps.


class Watched(Parabolas):
    """Counts the tensors of its pictures' shape that are alive at every twelfth evaluation."""

    def __init__(self):
        y = torch.rand(2, 1, 5, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        super().__init__(y, torch.tensor([0.5, 4.0], dtype=torch.float64))
        self.most, self.places = 0, []

    def terms(self, x: Tensor, indices: Tensor, deformation: Deformation = PLAIN) -> Terms:
        self.places.append(x[:, 0, 0, 0].tolist())
        if len(self.places) % 12 == 0:  # it takes a while
            alive = sum(type(o) is Tensor and o.shape[1:] == x.shape[1:] for o in gc.get_objects())
            self.most = max(self.most, alive)
        return super().terms(x, indices, deformation)


@pytest.mark.parametrize(
    "solver",
    [GradientDescent(1e-3), Adam(1e-4), NewtonCG(smallest_step=1e-30), LBFGS(memory=3)],
    ids=lambda solver: type(solver).__name__,
)
def test_what_a_path_keeps_does_not_grow_with_its_evaluations(solver):
    """A point that is kept holds four tensors, so points kept from 11 evaluations more would be 44."""

    def most(evaluations: int, weights: int) -> int:
        model = Watched()
        rising = tuple(0.1 * k for k in range(1, weights + 1))
        for _ in Trace(model.problem(), PathOptions(rising, cold, solver, evaluations, 0.0)):
            pass  # states are the result, and the caller's to keep
        return model.most

    assert 0 < most(24, 4) < most(13, 2) + 12


class Told(GradientDescent):
    """Remembers at which places of the first image it was told that the path had been."""

    history = 40

    def __init__(self, told: list[list[float]]):
        super().__init__(1e-3)
        object.__setattr__(self, "told", told)

    def init(self, point: Point, metric: Metric, history: Iterable[Point] = ()):
        self.told.append([float(place.x[0, 0, 0, 0]) for place in history])  # type: ignore[attr-defined]
        return super().init(point, metric)


def test_a_solver_is_told_of_as_many_places_as_it_asks_for():
    told: list[list[float]] = []
    model = Watched()
    options = PathOptions((0.0, 0.5, 1.0, 1.5), warm, Told(told), 30, 0.0)
    list(Trace(model.problem(), options))
    visited = [place[0] for place in model.places]
    assert [len(places) for places in told] == [0, 31, 40]
    assert told[1] == visited[:31] and told[2] == visited[21:61]
    assert (LBFGS(memory=40).history, Adam().history) == (40, 0)


def test_of_another_prior_energy_a_solver_is_told_nothing():
    told: list[list[float]] = []
    options = replace(DEFORMED, solver=Told(told))
    assert len(set(options.deformations)) == len(options.deformations)
    list(Trace(curved_problem(), options))
    assert told == [[]] * len(told) and len(told) > 1
