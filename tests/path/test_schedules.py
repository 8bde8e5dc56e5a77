"""Which points a path has: schedules, presets, and options that are refused."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aipo.basics.errors import InputError
from aipo.path.options import PathOptions, ending
from aipo.path.predictors import warm
from aipo.path.problem import Deformation
from aipo.path.schedules import gaussian_to_prior, geometric, paper, smoothing, uniform
from aipo.path.solvers.descent import GradientDescent
from aipo.path.step_control import StepControl


@given(st.floats(1e-3, 1e3), st.integers(1, 50))
def test_uniform_is_the_papers_schedule(last, count):
    weights = uniform(last, count)
    assert weights == pytest.approx([last * i / count for i in range(count + 1)])
    assert weights[0] == 0 and weights[-1] == pytest.approx(last)
    PathOptions(weights)


@given(st.floats(1e-3, 1), st.floats(2, 1e3), st.integers(2, 50))
def test_geometric_has_one_ratio_after_zero(first, last, count):
    zero, *weights = geometric(first, last, count)
    assert zero == 0 and len(weights) == count
    assert weights[0] == pytest.approx(first) and weights[-1] == pytest.approx(last)
    ratios = [b / a for a, b in pairwise(weights)]
    assert ratios == pytest.approx([(last / first) ** (1 / (count - 1))] * (count - 1))
    PathOptions((zero, *weights))


def test_a_geometric_path_of_one_weight_goes_straight_to_the_end():
    assert geometric(0.1, 4.0, 1) == (0.0, 4.0)


@pytest.mark.parametrize(
    "weights",
    [(), (-0.1, 1.0), (0.0, 0.0), (1.0, 0.0), (1.0, -1.0), (math.nan,), (0.0, math.nan), (0.0, math.inf)],
)
def test_weights_that_are_no_path_are_refused(weights):
    with pytest.raises(InputError, match="weights must be positive"):
        PathOptions(weights)


@pytest.mark.parametrize("evaluations", [0, -3])
def test_a_corrector_without_evaluations_is_refused(evaluations):
    with pytest.raises(InputError, match=f"evaluations = {evaluations}"):
        PathOptions((0.0, 1.0), evaluations=evaluations)


def test_an_unknown_start_is_refused():
    with pytest.raises(InputError, match="somewhere"):
        PathOptions((0.0, 1.0), start="somewhere")  # type: ignore[arg-type]


def test_the_paper_preset_is_the_papers_algorithm():
    options = paper(last=2.0, count=4, steps=7, step=0.3)
    assert options.weights == (0.0, 0.5, 1.0, 1.5, 2.0)
    assert options.predictor is warm
    assert options.solver == GradientDescent(0.3)
    assert (options.evaluations, options.tolerance, options.start) == (7, 0.0, "measurement")


@pytest.mark.parametrize("stiffness", [0.0, -1.0, math.inf, math.nan])
def test_stiffness_must_be_positive(stiffness):
    with pytest.raises(InputError, match="stiffness"):
        PathOptions((1.0,), stiffness=stiffness)


@pytest.mark.parametrize("make", [lambda: uniform(1.0, 0), lambda: geometric(0.1, 1.0, 0)])
def test_a_path_has_weights(make):
    with pytest.raises(InputError, match="count"):
        make()


@pytest.mark.parametrize("ends", [(0.0, 1.0), (1.0, 1.0), (2.0, 1.0)])
def test_a_geometric_path_goes_up_from_above_zero(ends):
    with pytest.raises(InputError, match="first"):
        geometric(*ends, 3)


def test_smoothing_ends_at_the_prior_itself():
    options = smoothing(tau=0.8, count=4, steps=3, weight=2.0)
    taus = [deformation.tau for deformation in options.deformations]
    assert taus == pytest.approx([0.8, 0.45, 0.2, 0.05, 0.0])
    assert options.weights == (2.0,) * 5 and options.evaluations == 3
    assert {deformation.share for deformation in options.deformations} == {1.0}


def test_gaussian_to_prior_ends_at_the_prior_itself():
    options = gaussian_to_prior(count=4, weight=0.5)
    assert [deformation.share for deformation in options.deformations] == [0.25, 0.5, 0.75, 1.0]
    assert options.weights == (0.5,) * 4
    assert {deformation.tau for deformation in options.deformations} == {0.0}


@pytest.mark.parametrize("preset", [smoothing, gaussian_to_prior])
def test_deforming_presets_need_points(preset):
    with pytest.raises(InputError, match="count"):
        preset(count=0)


def test_every_weight_has_its_deformation_or_none_has():
    with pytest.raises(InputError, match="1 deformations for 2 weights"):
        PathOptions((0.5, 1.0), deformations=(Deformation(),))


@pytest.mark.parametrize("changes", [{"tau": -0.1}, {"tau": math.inf}, {"share": 1.5}, {"share": -0.5}])
def test_impossible_deformations_are_refused(changes):
    with pytest.raises(InputError, match=next(iter(changes))):
        Deformation(**changes)


def test_a_controlled_path_must_rise():
    with pytest.raises(InputError, match="falls"):
        PathOptions((2.0, 1.0), control=StepControl())


def test_a_path_ends_where_asked():
    assert ending(PathOptions((0.0, 0.5, 1.0, 2.0)), 1.5).weights == (0.0, 0.5, 1.0, 1.5)
    assert ending(PathOptions((0.0, 0.5, 1.0, 2.0)), 1.0).weights == (0.0, 0.5, 1.0)
    falling = PathOptions((4.0, 2.0, 1.0, 0.5), evaluations=30)
    assert ending(falling, 0.5) == falling
    assert ending(falling, 1.5) == replace(falling, weights=(4.0, 2.0, 1.5), evaluations=40)
    assert ending(falling, 8.0) == replace(falling, weights=(8.0,), evaluations=120)
    deformed = ending(smoothing(count=2, weight=1.0), 0.3)
    assert deformed.weights == pytest.approx((0.3,) * 3)
    assert deformed.deformations == smoothing(count=2).deformations
