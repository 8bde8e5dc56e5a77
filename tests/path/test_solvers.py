"""Inner solvers: every problem × every solver × two metrics, and the formulas of each one."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import PROBLEMS, Problem, identity
from torch import Tensor

from aipo.basics.errors import Status
from aipo.path.solvers.descent import Adam, GradientDescent
from aipo.path.solvers.lbfgs import LBFGS, LBFGSState
from aipo.path.solvers.minimise import minimise
from aipo.path.solvers.newton import NewtonCG
from aipo.path.solvers.solver import Metric, Point, Solver

FINITE = [problem for problem in PROBLEMS if problem.name != "walled"]
problems = pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.name)
finite_problems = pytest.mark.parametrize("problem", FINITE, ids=lambda problem: problem.name)
exact = pytest.mark.parametrize("exact", [False, True], ids=["identity", "inverse-hessian"])
# Largest F − F* allowed at the end; Adam's constant rate keeps it moving.
SOLVERS = {"descent": 1e-4, "adam": 1e-3, "lbfgs": 1e-12, "newton": 1e-9}
solvers = pytest.mark.parametrize("name", SOLVERS)


def make(name: str, problem: Problem, exact: bool) -> Solver:
    if name == "lbfgs":
        return LBFGS()
    if name == "newton":
        return NewtonCG(difference=1e-7)
    return (
        Adam(0.02)
        if name == "adam"
        else GradientDescent(problem.newton_step if exact else 1 / problem.curvature)
    )


def metric_of(problem: Problem, exact: bool) -> Metric:
    return problem.exact_metric() if exact else identity


def follow(solver: Solver, problem: Problem, metric: Metric, steps: int) -> Iterator:
    """The states of a solver, until nothing more can be gained."""
    state = solver.init(problem.evaluate(problem.starts), metric)
    yield state
    for _ in range(steps):
        if bool((state.decrement < 1e-30).all()):
            return
        state = solver.update(state, problem.evaluate(solver.propose(state)), metric)
        yield state


@problems
@solvers
@exact
def test_reaches_the_known_minimum_and_ends_below_its_start(problem, name, exact):
    steps = {"lbfgs": 60, "newton": 200}.get(name, 900)
    *_, last = follow(make(name, problem, exact), problem, metric_of(problem, exact), steps)
    assert (last.status == Status.RUNNING).all() or (
        name in ("lbfgs", "newton") and not (last.status == 4).any()
    )
    assert (problem.gap(last.point) <= SOLVERS[name]).all()
    assert (last.point.value <= problem.evaluate(problem.starts).value).all()


@problems
@exact
def test_the_objective_of_lbfgs_never_rises(problem, exact):
    values = [state.point.value for state in follow(LBFGS(), problem, metric_of(problem, exact), 60)]
    rises = torch.stack(values).diff(dim=0)
    assert rises.max() <= 1e-14 * (1 + values[0].abs().max())


@problems
@solvers
def test_the_point_kept_is_always_finite(problem, name):
    """Also where trials step over the wall of NaN."""
    for state in follow(make(name, problem, False), problem, identity, 40):
        assert state.point.finite().all()
        assert torch.allclose(state.point.value, problem.evaluate(state.point.x).value, rtol=1e-12)


@pytest.mark.parametrize(
    "solver", [GradientDescent(), Adam(), LBFGS(), NewtonCG()], ids=lambda s: type(s).__name__
)
def test_a_start_that_is_not_finite_has_diverged(solver):
    problem = PROBLEMS[-1]
    start = problem.evaluate(torch.tensor([[9.0, 0.0], [1.0, 0.0]], dtype=torch.float64))
    assert solver.init(start, identity).status.tolist() == [Status.DIVERGED, Status.RUNNING]


@pytest.mark.parametrize("solver", [GradientDescent(40.0), Adam(40.0)], ids=lambda s: type(s).__name__)
def test_a_step_into_nan_is_refused_and_reported(solver):
    problem = PROBLEMS[-1]
    start, after = list(follow(solver, problem, identity, 1))
    assert torch.equal(after.point.x, start.point.x)
    assert (after.status == Status.DIVERGED).all()


@finite_problems
@exact
def test_the_decrement_is_half_the_squared_gradient_in_the_metric(problem, exact):
    metric = metric_of(problem, exact)
    for name in SOLVERS:
        for state in follow(make(name, problem, exact), problem, metric, 5):
            g = state.point.gradient
            assert torch.allclose(state.decrement, 0.5 * (g * metric(g)).sum(1), rtol=1e-12)


def test_a_newton_step_solves_a_quadratic_and_its_decrement_is_exact():
    problem = PROBLEMS[0]
    start, end = list(follow(GradientDescent(1.0), problem, problem.exact_metric(), 1))
    assert torch.allclose(start.decrement, problem.gap(start.point), rtol=1e-12)
    assert torch.allclose(end.point.x, problem.minimiser, atol=1e-12)


@finite_problems
def test_gradient_descent_takes_the_papers_step(problem):
    step = 0.5 / problem.curvature
    first, second = list(follow(GradientDescent(step), problem, identity, 1))
    expected = problem.starts - step * first.point.gradient
    assert torch.allclose(second.point.x, expected, rtol=1e-12)


@finite_problems
def test_adam_is_torch_adam(problem):
    x = problem.starts.clone().requires_grad_(True)
    reference = torch.optim.Adam([x], lr=0.05)
    states = follow(Adam(0.05), problem, identity, 25)
    for state in states:
        assert torch.allclose(state.point.x, x.detach(), rtol=1e-9, atol=1e-12)
        reference.zero_grad()
        problem.energy(x).sum().backward()
        reference.step()


def dense_inverse_hessian(state: LBFGSState, image: int, metric: Tensor) -> Tensor:
    """Nocedal & Wright, equation 6.17, from the pairs that the state remembers."""
    pairs = [
        (state.steps[i][image], state.changes[i][image])
        for i in range(len(state.steps))
        if state.curvature[i, image] > 0
    ]
    h = metric
    if pairs:
        s, y = pairs[-1]
        h = (s @ y) / (y @ metric @ y) * metric
    one = torch.eye(len(metric), dtype=metric.dtype)
    for s, y in pairs:
        rho = 1 / (s @ y)
        h = (one - rho * torch.outer(s, y)) @ h @ (one - rho * torch.outer(y, s)) + rho * torch.outer(s, s)
    return h


@finite_problems
def test_the_two_loop_recursion_is_the_dense_bfgs_matrix(problem):
    n = problem.starts.shape[1]
    metric = torch.diag(torch.linspace(0.01, 0.02, n, dtype=torch.float64))
    states = list(follow(LBFGS(memory=3), problem, lambda v: v @ metric, 8))
    for state in states:
        for i, gradient in enumerate(state.point.gradient):
            expected = -dense_inverse_hessian(state, i, metric) @ gradient
            assert torch.allclose(state.direction[i], expected, rtol=1e-6, atol=1e-10)
    assert (states[-1].curvature > 0).any(), "no pair was ever learnt, so nothing was tested"


@pytest.mark.parametrize("problem", FINITE[:2], ids=lambda problem: problem.name)
def test_lbfgs_learns_from_a_history_what_it_would_have_learnt_on_the_way(problem):
    def short(v: Tensor) -> Tensor:
        return 0.005 * v

    *before, walked = follow(LBFGS(), problem, short, 4)
    history = [start_with_nan(before[0].point), *(state.point for state in before)]
    begun, fresh = (LBFGS().init(walked.point, short, points) for points in (history, []))
    assert torch.allclose(begun.direction, walked.direction, rtol=1e-6, atol=1e-12)
    assert not torch.allclose(begun.direction, fresh.direction, rtol=1e-6, atol=1e-12)


def start_with_nan(point: Point) -> Point:
    return replace(point, gradient=torch.full_like(point.gradient, torch.nan))


@problems
@exact
def test_every_step_of_lbfgs_goes_downhill_by_armijos_share(problem, exact):
    states = list(follow(LBFGS(), problem, metric_of(problem, exact), 30))
    for before, after in pairwise(states):
        slope = (before.point.gradient * before.direction).sum(1)
        assert torch.allclose(before.slope, slope, rtol=1e-9)
        assert (slope <= 0).all()
        moved = (after.point.x != before.point.x).any(1)
        promised = 1e-4 * before.step * slope - 1e-14 * (1 + before.point.value.abs())
        assert (
            after.point.value <= before.point.value + torch.where(moved, 0.99 * promised, 0) + 1e-13
        ).all()


def test_a_line_search_that_finds_nothing_forgets_the_history_and_then_stalls():
    problem = PROBLEMS[0]
    *_, state = follow(LBFGS(), problem, identity, 6)
    assert (state.curvature > 0).any()
    nowhere = replace(state.point, value=torch.full_like(state.point.value, torch.nan))
    solver, seen_fresh = LBFGS(), False
    for _ in range(12):
        state = solver.update(state, nowhere, identity)
        seen_fresh |= bool((state.curvature == 0).all() and (state.status == Status.RUNNING).all())
    assert seen_fresh
    assert (state.status == Status.STALLED).all()


@settings(deadline=None, max_examples=20, derandomize=True)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 12), log_condition=st.floats(0, 4))
def test_lbfgs_solves_random_quadratics(seed, n, log_condition):
    generator = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64))[0]
    hessian = basis @ torch.diag(torch.logspace(0, log_condition, n, dtype=torch.float64)) @ basis.T
    target, start = torch.randn(2, 1, n, generator=generator, dtype=torch.float64)

    def energy(x: Tensor) -> Tensor:
        return 0.5 * torch.einsum("bi,ij,bj->b", x - target, hessian, x - target)

    problem = Problem("random", energy, start, target, 10**log_condition)
    *_, last = follow(LBFGS(), problem, identity, 150)
    assert problem.gap(last.point) <= 1e-8 * problem.gap(problem.evaluate(start)).clamp_min(1e-12)


def a_point(values: list[float]) -> Point:
    v = torch.tensor(values)
    return Point(v[:, None].expand(-1, 2), v, -v[:, None].expand(-1, 2), {"data": 10 * v})


def test_where_takes_every_field_image_by_image():
    mixed = a_point([1, 2, 3]).where(torch.tensor([True, False, True]), a_point([4, torch.nan, 6]))
    assert torch.isnan(mixed.value).tolist() == [False, True, False]
    kept = a_point([1, 2, 3]).where(torch.tensor([True, False, True]), a_point([4, 5, 6]))
    assert equal(kept, a_point([1, 5, 3]))


def test_put_replaces_the_named_images_only():
    assert equal(a_point([1, 2, 3]).put(torch.tensor([2, 0]), a_point([7, 8])), a_point([8, 2, 7]))


def equal(a: Point, b: Point) -> bool:
    fields = (a.x, b.x), (a.value, b.value), (a.gradient, b.gradient), (a.info["data"], b.info["data"])
    return all(torch.equal(left, right) for left, right in fields)


def test_lbfgs_without_a_scale_starts_with_a_short_step():
    curvature = torch.tensor([1.0, 1e8], dtype=torch.float64)

    def energy(x: Tensor, indices: Tensor) -> Point:
        gradient = curvature[indices][:, None] * x
        return Point(x, 0.5 * (gradient * x).sum(1), gradient, {})

    start = energy(torch.ones(2, 4, dtype=torch.float64), torch.arange(2))
    solver = LBFGS(first_step=1e-3)
    state = solver.init(start, lambda v: v)
    step = (solver.propose(state) - start.x).norm(dim=1)
    assert torch.allclose(step, torch.full_like(step, 1e-3 * 2))
    everyone = torch.ones(2, dtype=torch.bool)
    found = minimise(energy, start, solver, lambda v: v, 4, 0.0, everyone)
    assert (found.point.value < 1e-12 * start.value).all()
    lost = minimise(energy, start, LBFGS(), lambda v: v, 4, 0.0, everyone)
    assert lost.point.value[1] == start.value[1]  # four trials were all too long
