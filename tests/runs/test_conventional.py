"""Conventional methods: their gradients, that coordinates do not change the objective, and their starts."""

import conventional
import pytest
import torch
from path_problems import flow_problem

from aipo.operators import GaussianSensing, Identity, Mask
from aipo.path.options import PathOptions
from aipo.path.predictors import warm
from aipo.path.problem import PLAIN
from aipo.path.solvers.lbfgs import LBFGS
from aipo.path.trace import Trace

SHAPE = (3, 8, 8)
ALL = torch.arange(2)
OPERATORS = {
    "denoising": Identity(SHAPE),
    "inpainting": Mask(torch.arange(64).reshape(1, 8, 8) % 3 > 0, channels=3),
    "sensing": GaussianSensing(SHAPE, 60),
}
operators = pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS)
latent = pytest.mark.parametrize("pose", [conventional.in_latents, conventional.in_latents_by_density])


@latent
def test_gradients_are_differences_of_values(pose):
    _, prior, likelihood, x = flow_problem(OPERATORS["sensing"])
    z = prior.encode(x).detach()
    problem = pose(likelihood, prior, z)
    terms = problem.terms(z, ALL, PLAIN)
    v = torch.randn_like(z)
    ahead, behind = (problem.terms(z + step * v, ALL, PLAIN) for step in (1e-5, -1e-5))
    for name in ("data", "prior"):
        difference = (getattr(ahead, name) - getattr(behind, name)) / 2e-5
        slope = (getattr(terms, f"{name}_gradient") * v).flatten(1).sum(1)
        assert torch.allclose(slope, difference, rtol=1e-5, atol=1e-4)


def test_the_density_has_the_same_objective_in_both_coordinates():
    problem, prior, likelihood, x = flow_problem(OPERATORS["inpainting"])
    z = prior.encode(x).detach()
    inside = conventional.in_latents_by_density(likelihood, prior, z).terms(z, ALL, PLAIN)
    outside = problem.terms(x, ALL, PLAIN)
    assert torch.allclose(inside.data, outside.data) and torch.allclose(inside.prior, outside.prior)


def test_the_penalty_is_half_the_squared_latent():
    _, prior, likelihood, x = flow_problem(OPERATORS["denoising"])
    z = prior.encode(x).detach()
    terms = conventional.in_latents(likelihood, prior, z).terms(z, ALL, PLAIN)
    assert torch.allclose(terms.prior, 0.5 * (z**2).flatten(1).sum(1))
    assert torch.allclose(terms.prior_gradient, z)
    assert torch.allclose(terms.data, likelihood(x))


@latent
def test_they_run_through_the_same_counter(pose):
    _, prior, likelihood, x = flow_problem(OPERATORS["denoising"])
    problem = pose(likelihood, prior, torch.zeros_like(x))
    state = next(Trace(problem, PathOptions((1.0,), warm, LBFGS(), 5, 0.0)))
    assert state.evaluations.tolist() == [6, 6]
    begin = problem.terms(torch.zeros_like(x), ALL, PLAIN)
    assert bool((state.objective < begin.data + begin.prior).all())


def test_pictures_start_where_told():
    _, prior, likelihood, _ = flow_problem(OPERATORS["denoising"])
    start = conventional.grey(likelihood)
    problem = conventional.in_pictures(likelihood, prior, start)
    assert torch.equal(problem.start(torch.ones(2)), start)


@operators
def test_starts(operator):
    _, _, likelihood, x = flow_problem(operator)
    assert (
        bool((conventional.grey(likelihood) == 0.5).all()) and conventional.grey(likelihood).shape == x.shape
    )
    noise = conventional.random(likelihood, seed=3)
    assert noise.shape == x.shape and noise.min() >= 0 and noise.max() <= 1
    assert torch.equal(noise, conventional.random(likelihood, seed=3))
    assert not torch.equal(noise, conventional.random(likelihood, seed=4))
    consistent = conventional.null_space(likelihood)
    minimal = operator.pseudoinverse(likelihood.y)
    assert torch.allclose(operator(consistent), operator(minimal), atol=1e-6)
    if operator.measurements < x[0].numel():
        assert consistent.norm() > minimal.norm()
