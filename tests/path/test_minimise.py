"""The inner loop: what each image costs, how each one ends, and that no image notices the others."""

import pytest
import torch
from problems import PROBLEMS, Problem, identity
from torch import Tensor

from aipo.basics.errors import Status
from aipo.path.solvers.descent import Adam, GradientDescent
from aipo.path.solvers.lbfgs import LBFGS
from aipo.path.solvers.minimise import Solution, minimise
from aipo.path.solvers.solver import Point, Solver

SOLVERS = [GradientDescent(0.01), Adam(0.05), LBFGS()]
solvers = pytest.mark.parametrize("solver", SOLVERS, ids=lambda solver: type(solver).__name__)
problems = pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.name)


class Recorded:
    """An energy that remembers which images each call asked for."""

    def __init__(self, evaluate):
        self.evaluate = evaluate
        self.calls: list[list[int]] = []

    def __call__(self, x: Tensor, indices: Tensor) -> Point:
        assert len(x) == len(indices)
        self.calls.append(indices.tolist())
        return self.evaluate(x, indices)

    def counts(self, images: int) -> list[int]:
        return [sum(image in call for call in self.calls) for image in range(images)]


def run(
    problem: Problem, solver: Solver, evaluations: int = 50, tolerance: float = 1e-10
) -> tuple[Solution, Recorded]:
    energy = Recorded(problem.evaluate)
    start = problem.evaluate(problem.starts)
    active = torch.ones(len(problem.starts), dtype=torch.bool)
    return minimise(energy, start, solver, identity, evaluations, tolerance, active), energy


# Four images of very different difficulty: the curvatures of a quadratic, one row per image; the last
# one lies within reach of a wall of NaN.
CURVATURES = torch.tensor([[1.0, 1.0], [1.0, 10.0], [1.0, 1000.0], [1.0, 50.0]], dtype=torch.float64)
STARTS = torch.tensor([[0.3, -0.2], [2.0, 1.0], [3.0, 3.0], [1.9, 0.4]], dtype=torch.float64)


def mixed(x: Tensor, indices: Tensor) -> Point:
    curvature = CURVATURES[indices]
    value = 0.5 * (curvature * x**2).sum(1) + 0.1 * (x**4).sum(1)
    outside = (indices == 3) & (x.norm(dim=1) > 2)
    value = torch.where(outside, torch.nan, value)
    return Point(x, value, curvature * x + 0.4 * x**3, {})


def solve_mixed(solver: Solver, images: list[int]) -> Solution:
    chosen = torch.tensor(images)
    active = torch.ones(len(images), dtype=torch.bool)
    start = mixed(STARTS[chosen], chosen)
    return minimise(lambda x, i: mixed(x, chosen[i]), start, solver, identity, 40, 1e-9, active)


@solvers
def test_a_batch_gives_what_batches_of_one_give(solver):
    batch = solve_mixed(solver, [0, 1, 2, 3])
    singles = [solve_mixed(solver, [i]) for i in range(4)]
    assert batch.evaluations.tolist() == [int(single.evaluations) for single in singles]
    assert batch.status.tolist() == [int(single.status) for single in singles]
    assert torch.allclose(batch.point.x, torch.cat([s.point.x for s in singles]), rtol=0, atol=1e-10)
    assert torch.allclose(batch.decrement, torch.cat([s.decrement for s in singles]), rtol=1e-8, atol=1e-12)


def test_the_mixed_batch_really_is_mixed():
    found = solve_mixed(LBFGS(), [0, 1, 2, 3])
    assert len(set(found.evaluations.tolist())) >= 3


@problems
@solvers
def test_each_proposal_costs_one_evaluation_of_each_running_image(problem, solver):
    solution, energy = run(problem, solver)
    assert energy.counts(len(problem.starts)) == solution.evaluations.tolist()
    assert len(energy.calls) == solution.evaluations.max() <= 50


def test_images_that_finished_are_not_evaluated_again():
    energy = Recorded(mixed)
    images = torch.arange(4)
    active = torch.ones(4, dtype=torch.bool)
    solution = minimise(energy, mixed(STARTS, images), LBFGS(), identity, 60, 1e-9, active)
    for image, spent in enumerate(solution.evaluations.tolist()):
        assert [image in call for call in energy.calls] == [i < spent for i in range(len(energy.calls))]
    assert solution.evaluations.min() < solution.evaluations.max()


@problems
@solvers
def test_the_objective_ends_no_higher_than_it_started(problem, solver):
    for evaluations in (1, 7, 50):
        solution, _ = run(problem, solver, evaluations)
        assert (solution.point.value <= problem.evaluate(problem.starts).value).all()


@pytest.mark.parametrize("solver", [GradientDescent(0.05), Adam(8.0)], ids=lambda s: type(s).__name__)
def test_steps_that_are_too_long_do_not_end_higher_either(solver):
    """η = 0.05 is beyond 2/L = 0.02, and Adam's first stride of 8 crosses the whole valley."""
    problem = PROBLEMS[0]
    for evaluations in (1, 7, 30, 1000):
        solution, _ = run(problem, solver, evaluations)
        assert (solution.point.value <= problem.evaluate(problem.starts).value).all()


@problems
@solvers
def test_every_field_of_the_point_belongs_to_its_x(problem, solver):
    solution, _ = run(problem, solver, evaluations=9)
    again = problem.evaluate(solution.point.x)
    torch.testing.assert_close(solution.point.value, again.value, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(solution.point.gradient, again.gradient, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(solution.point.info["square"], again.info["square"], rtol=1e-12, atol=1e-14)


@solvers
def test_inactive_images_are_left_where_they_are(solver):
    energy = Recorded(mixed)
    start = mixed(STARTS, torch.arange(4))
    active = torch.tensor([False, True, False, True])
    solution = minimise(energy, start, solver, identity, 20, 1e-9, active)
    assert torch.equal(solution.point.x[~active], STARTS[~active])
    assert torch.equal(solution.point.value[~active], start.value[~active])
    assert solution.evaluations[~active].tolist() == [0, 0]
    assert {image for call in energy.calls for image in call} == {1, 3}


def test_converged_when_the_expected_gain_is_below_the_tolerance():
    solution, _ = run(PROBLEMS[0], LBFGS(), tolerance=1e-6)
    assert (solution.status == Status.CONVERGED).all()
    assert (solution.decrement <= 1e-6).all()
    assert (solution.evaluations > 0).all()


def test_a_start_at_the_minimum_converges_without_an_evaluation():
    problem = PROBLEMS[0]
    energy = Recorded(problem.evaluate)
    start = problem.evaluate(problem.minimiser)
    solution = minimise(energy, start, LBFGS(), identity, 9, 0.0, torch.ones(2, dtype=torch.bool))
    assert (solution.status == Status.CONVERGED).all()
    assert energy.calls == []


@solvers
def test_budget_when_the_evaluations_run_out(solver):
    solution, _ = run(PROBLEMS[1], solver, evaluations=3)
    assert (solution.status == Status.BUDGET).all()
    assert solution.evaluations.tolist() == [3, 3]


def lying(x: Tensor, indices: Tensor) -> Point:
    """x² with a gradient of the wrong sign: every step along the search direction goes up."""
    return Point(x, (x**2).sum(1), -2 * x, {})


def lonely(x: Tensor, indices: Tensor) -> Point:
    """Finite nowhere but at x = 1."""
    return Point(x, torch.where((x == 1).all(1), 0.0, torch.nan), torch.ones_like(x), {})


@pytest.mark.parametrize("energy", [lying, lonely])
def test_stalled_when_no_step_lowers_the_objective(energy):
    ones = torch.ones(2, 1, dtype=torch.float64)
    start = energy(ones, torch.arange(2))
    solution = minimise(energy, start, LBFGS(), identity, 100, 1e-9, torch.ones(2, dtype=torch.bool))
    assert (solution.status == Status.STALLED).all()
    assert torch.equal(solution.point.x, ones)
    assert (solution.evaluations < 100).all()


@solvers
def test_diverged_when_the_start_is_not_finite(solver):
    problem = PROBLEMS[-1]
    start = problem.evaluate(torch.tensor([[1.0, 1.0], [9.0, 9.0]], dtype=torch.float64))
    energy = Recorded(problem.evaluate)
    solution = minimise(energy, start, solver, identity, 30, 1e-9, torch.ones(2, dtype=torch.bool))
    assert solution.status[1] == Status.DIVERGED != solution.status[0]
    assert energy.counts(2)[1] == 0


@pytest.mark.parametrize("solver", [GradientDescent(3.0), Adam(5.0)], ids=lambda s: type(s).__name__)
def test_diverged_when_a_plain_step_ends_in_nan(solver):
    solution, _ = run(PROBLEMS[-1], solver)
    assert (solution.status == Status.DIVERGED).all()
    assert solution.point.finite().all()
