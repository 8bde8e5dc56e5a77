"""The metrics of solver and sampler, and the draws that belong to them."""

import pytest
import torch
from noise_models import MODELS, PRIOR, SHAPE, drawn, measured

from aipo.basics.arrays import White
from aipo.likelihoods import Gaussian, Heteroscedastic
from aipo.operators import Identity, Mask, gamma_curve
from aipo.path.objective import objective
from aipo.posterior.chain import sampling_problem

COUNT = 4000
PROBLEMS = {
    "path": objective,
    "path-data": lambda likelihood, prior: objective(likelihood, prior, metric="data"),
    "chain": sampling_problem,
}


@pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)
@pytest.mark.parametrize("name", ["gaussian", "heteroscedastic", "gamma"])
def test_draws_have_the_metric_for_covariance(name, problem):
    y = drawn(1)
    alone = Gaussian(Identity(SHAPE), y, 0.1) if name == "gaussian" else measured(MODELS[name], y)
    one, many = problem(alone, PRIOR), problem(alone.select(torch.zeros(COUNT, dtype=torch.long)), PRIOR)
    weight = torch.full((COUNT,), 0.7, dtype=torch.float64)
    basis = torch.eye(20, dtype=torch.float64).unflatten(1, SHAPE)
    dense = one.metric(weight[:1])(basis).flatten(1)
    assert torch.allclose(dense, dense.T, atol=1e-8) and float(torch.linalg.eigvalsh(dense).min()) > 0
    draws = many.noise(weight, White(list(range(COUNT)))).flatten(1)
    found = draws.T @ draws / COUNT
    spread = dense.diagonal().sqrt()
    assert ((found - dense) / (spread[:, None] * spread)).abs().max() < 0.1


@pytest.mark.parametrize("masked", [False, True])
def test_a_surer_value_takes_shorter_steps_and_no_other_does(masked):
    """Twenty times less noise at one value; what is not measured keeps its length."""
    kept = torch.ones(SHAPE, dtype=torch.bool)
    kept[0, 3, 4] = not masked
    operator = Mask(kept) if masked else Identity(SHAPE)
    sigma = torch.full(SHAPE, 0.2, dtype=torch.float64)
    sigma[0, 1, 1] = 0.01
    own = operator(sigma[None])[0]
    y = operator(drawn(1))
    even = Heteroscedastic(operator, y, own.square().reciprocal().mean().rsqrt().expand_as(own))
    uneven = Heteroscedastic(operator, y, own)
    weight = torch.full((1,), 1e-3, dtype=torch.float64)  # nothing but the noise tells
    at = torch.eye(20, dtype=torch.float64).unflatten(1, SHAPE)
    found = sampling_problem(uneven, PRIOR).metric(weight)(at).flatten(1).diagonal().reshape(SHAPE)
    before = sampling_problem(even, PRIOR).metric(weight)(at).flatten(1).diagonal().reshape(SHAPE)
    assert float(found[0, 1, 1]) == pytest.approx(0.01**2, rel=0.05)
    others = torch.ones(SHAPE, dtype=torch.bool)
    others[0, 1, 1] = False
    torch.testing.assert_close(found[others], before[others])


def test_bent_values_keep_the_metric_of_what_is_near_them():
    """What a value tells of f(x) is not what it tells of x."""
    bent = Gaussian(gamma_curve(Identity(SHAPE), 2.2), drawn(2).clamp(0.05, 1), 0.1)
    weight, v = torch.ones(2, dtype=torch.float64), drawn(2)
    expected = objective(bent, PRIOR).metric(weight)(v)
    torch.testing.assert_close(sampling_problem(bent, PRIOR).metric(weight)(v), expected)
