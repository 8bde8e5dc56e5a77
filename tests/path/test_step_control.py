"""The step in λ: growth, rejection and rollback, the budget, copies in step, and saved traces."""

from dataclasses import replace

import pytest
import torch
from closed_form import OPERATORS, WithSurrogate, gaussian_prior, measurement
from hypothesis import given, settings
from hypothesis import strategies as st
from path_problems import Parabolas, curved_problem, parabolas
from torch import Tensor

from aipo.basics.errors import InputError, Status
from aipo.path.options import PathOptions
from aipo.path.predictors import cold, secant, shifted, warm
from aipo.path.problem import PLAIN, Deformation, Terms
from aipo.path.schedules import smoothing
from aipo.path.solvers.descent import GradientDescent
from aipo.path.state import State
from aipo.path.step_control import StepControl
from aipo.path.trace import Trace
from aipo.reconstruction.follow import trace
from aipo.reconstruction.reconstruct import reconstruct

OPTIONS = PathOptions((0.0, 0.1, 3.0), warm, evaluations=30, tolerance=1e-18, control=StepControl())


def weights(states: list[State], image: int) -> list[float]:
    return [float(state.weight[image]) for state in states if state.accepted[image]]


def test_every_image_reaches_the_last_weight_and_its_minimiser_there():
    model = parabolas()
    states = list(Trace(model.problem(), OPTIONS))
    last = states[-1]
    assert last.weight.tolist() == [3.0] * 3
    assert torch.allclose(last.x, model.minimiser(last.weight), atol=1e-8)
    for image in range(3):
        assert weights(states, image)[:2] == [0.0, 0.1]
        assert weights(states, image) == sorted(weights(states, image))
    assert last.evaluations.tolist() == model.spent.tolist()


def test_steps_grow_where_the_corrector_arrives_early_and_not_where_it_runs_out():
    easy = list(Trace(parabolas().problem(), replace(OPTIONS, evaluations=200)))
    hard = list(Trace(parabolas().problem(), replace(OPTIONS, evaluations=1, tolerance=0.0)))
    ratios = [b / a for a, b in zip(weights(hard, 0)[1:-1], weights(hard, 0)[2:-1], strict=False)]
    assert ratios == pytest.approx([1.5] * len(ratios)) and len(ratios) > 3
    assert weights(easy, 0)[2] / weights(easy, 0)[1] == pytest.approx(1.5**2, rel=0.01)
    assert len(easy) < len(hard)


class Fragile(Parabolas):
    """NaN for the second image while its weight's minimiser is more than `reach` from the last good place."""

    good: Tensor
    reach = torch.inf

    def terms(self, x: Tensor, indices: Tensor, deformation: Deformation = PLAIN) -> Terms:
        terms = super().terms(x, indices, deformation)
        far = (indices == 1) & ((x - self.good[indices]).flatten(1).norm(dim=1) > self.reach)
        return replace(terms, prior=torch.where(far, torch.nan, terms.prior))


def test_a_rejected_step_goes_back_and_is_tried_again_at_half_its_length():
    model = Fragile(parabolas().y, torch.ones(3, dtype=torch.float64))
    model.good = model.y.clone()
    problem = replace(model.problem(), start=lambda w: model.y / (1 + w.double()).reshape(-1, 1, 1, 1))
    tracer = Trace(problem, replace(OPTIONS, predictor=cold, control=StepControl(ratio=4.0)))
    first, second = next(tracer), next(tracer)
    model.good[1], model.reach = second.x[1], 0.5 * float((second.x[1] - model.y[1] / 1.4).norm())
    third, fourth = next(tracer), next(tracer)
    assert [bool(state.accepted[1]) for state in (first, second, third, fourth)] == [True, True, False, True]
    assert third.status[1] == Status.DIVERGED and third.weight[1] == pytest.approx(0.4)
    assert fourth.weight[1] == pytest.approx(0.1 * 2.0)
    assert third.accepted[[0, 2]].all() and fourth.weight[0] > third.weight[0]


def test_a_point_higher_than_staying_is_rejected():
    model = parabolas()
    away = torch.tensor([0.0, 30.0, 0.0], dtype=torch.float64).reshape(3, 1, 1, 1)
    problem = replace(model.problem(), start=lambda w: model.y + away * bool((w > 0.1).any()))
    options = replace(OPTIONS, predictor=cold, solver=GradientDescent(1e-9), evaluations=1)
    states = list(Trace(problem, options))
    assert [bool(state.accepted[1]) for state in states[:4]] == [True, True, False, False]
    assert states[2].objective[1] > states[1].objective[1]
    assert all(state.accepted[0] and state.accepted[2] for state in states[:4])
    assert states[-1].weight[1] < 0.11, "rejected to the smallest step, the image ended there"


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 120), st.sampled_from([warm, cold, shifted, secant]))
def test_no_image_spends_more_than_its_budget(budget, predictor):
    model = parabolas()
    options = replace(OPTIONS, predictor=predictor, evaluations=7, control=StepControl(budget=budget))
    states = list(Trace(model.problem(), options))
    assert int(model.spent.max()) <= budget
    assert states[-1].evaluations.tolist() == model.spent.tolist()


def mismatched():
    prior = gaussian_prior()
    return measurement(OPERATORS["sensing"], prior), WithSurrogate(prior, gaussian_prior(seed=7))


CONTROLLED = PathOptions((0.0, 0.3, 2.5), evaluations=12, tolerance=1e-3, control=StepControl(budget=150))


@pytest.mark.parametrize("predictor", [warm, cold, shifted, secant])
def test_a_batch_takes_the_steps_of_batches_of_one(predictor):
    likelihood, prior = mismatched()
    options = replace(CONTROLLED, predictor=predictor)
    batch = list(trace(likelihood, prior, options))
    for i in range(3):
        alone = list(trace(likelihood.select(torch.tensor([i])), prior, options))
        for state, together in zip(alone, batch, strict=False):
            assert torch.allclose(state.weight[0], together.weight[i], rtol=1e-9)
            assert torch.allclose(state.x[0], together.x[i], rtol=0, atol=1e-9)
            assert bool(state.accepted[0]) == bool(together.accepted[i])
        for state in batch[len(alone) :]:
            assert torch.equal(state.x[i], batch[len(alone) - 1].x[i]), "finished, and left alone"


def test_copies_take_the_same_steps():
    likelihood, prior = mismatched()
    copies = likelihood.append(likelihood.y + 0.5 * likelihood.y.flip(1))
    apart, together = (list(trace(copies, prior, CONTROLLED, copies=count)) for count in (1, 2))
    assert any(not torch.equal(state.weight[:3], state.weight[3:]) for state in apart)
    for state in together:
        assert torch.equal(state.weight[:3], state.weight[3:])
        assert torch.equal(state.accepted[:3], state.accepted[3:])


@pytest.mark.parametrize("weight", ["sure", "discrepancy", 0.7, 0.2])
def test_controlled_paths_restore_pictures(weight):
    likelihood, prior = mismatched()
    found = reconstruct(likelihood, prior, weight, CONTROLLED)
    assert torch.isfinite(found.image).all()
    assert (found.evaluations <= 2 * 150).all()
    if isinstance(weight, float):
        assert torch.allclose(found.weight, torch.full_like(found.weight, weight))


@pytest.mark.parametrize("stop", [1, 2, 4])
def test_a_saved_trace_resumes_to_the_same_steps(stop, tmp_path):
    options = replace(CONTROLLED, weights=(0.0, 0.1, 1.0), evaluations=5)
    whole = list(Trace(curved_problem(), options))
    first, second = Trace(curved_problem(), options), Trace(curved_problem(), options)
    for _ in range(stop):
        next(first)
    first.save(tmp_path / "trace.safetensors")
    second.resume(tmp_path / "trace.safetensors")
    rest = list(second)
    assert len(rest) == len(whole) - stop > 0
    for state, expected in zip(rest, whole[stop:], strict=True):
        assert torch.equal(state.x, expected.x) and torch.equal(state.weight, expected.weight)


def test_adapted_ratios():
    control = StepControl(ratio=1.5, smallest=1.1, largest=3.0)
    ratio = torch.tensor([1.5, 1.5, 1.5, 1.5, 2.9, 1.15])
    accepted = torch.tensor([True, True, True, False, True, False])
    status = torch.tensor([Status.CONVERGED, Status.CONVERGED, Status.BUDGET, Status.DIVERGED, 1, 4])
    share = torch.tensor([0.5, 0.125, 1.0, 1.0, 0.1, 1.0])
    adapted = control.adapt(ratio, accepted, status, share)
    assert adapted.tolist() == pytest.approx([1.5, 1.5**2, 1.5, 1.5**0.5, 3.0, 1.1])
    assert control.ended(adapted, ~accepted | accepted).any().item() is False
    assert control.ended(torch.tensor([1.1, 1.2]), torch.tensor([False, False])).tolist() == [True, False]


@pytest.mark.parametrize(
    "fields", [{"ratio": 1.0}, {"smallest": 1.0}, {"ratio": 5.0}, {"largest": float("inf")}, {"budget": 1}]
)
def test_impossible_controls_are_refused(fields):
    with pytest.raises(InputError, match=r"ratio|budget"):
        StepControl(**fields)


def test_deformed_paths_have_their_own_points():
    with pytest.raises(InputError, match="control = None"):
        replace(smoothing(), control=StepControl())
