"""The metrics of solver and sampler, and the draws that belong to them."""

import pytest
import torch
from noise_models import MODELS, PRIOR, SHAPE, drawn, measured
from torch import Tensor

from aipo import priors
from aipo.basics.arrays import White
from aipo.likelihoods import Gamma, Gaussian, Heteroscedastic
from aipo.operators import Identity, LinearOperator, Mask, gamma_curve
from aipo.path.objective import objective
from aipo.posterior.chain import sampling_problem

# Draws, so that a bound of 0.1 on correlations is 4.5 standard errors off.
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


KEPT = torch.ones(SHAPE, dtype=torch.bool)
KEPT[0, 3, 4] = False


class Backwards(LinearOperator):
    """A user's own mask, which reads the measured entries from the last one to the first."""

    shape, measurement_shape = SHAPE, (19,)

    def forward(self, x: Tensor) -> Tensor:
        return Mask(KEPT).forward(x).flip(1)

    def adjoint(self, y: Tensor) -> Tensor:
        return Mask(KEPT).adjoint(y.flip(1))


@pytest.mark.parametrize("operator", [Identity(SHAPE), Mask(KEPT), Backwards()])
def test_a_surer_value_takes_shorter_steps_and_no_other_does(operator):
    """Twenty times less noise at one value; what is not measured keeps its length."""
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


def test_a_dark_values_steps_fit_its_own_posterior():
    """Speckle of 20 looks: the value's variance is about y²/20, and by the closed form's picture far more."""
    shape, dark = (1, 1, 4), torch.tensor([0.02, 0.03, 0.04, 0.05], dtype=torch.float64)
    y = torch.stack((dark, 0.6 + dark, 0.9 + dark, 1.1 + dark), 1).reshape(4, *shape)
    likelihood = Gamma(Identity(shape), y, 20.0)
    prior = priors.Gaussian(torch.full(shape, 0.5).double(), 0.04 * torch.eye(4).double())
    problem, weight = sampling_problem(likelihood, prior), torch.ones(4, dtype=torch.float64)
    first = torch.tensor([1.0, 0, 0, 0], dtype=torch.float64).expand(4, *shape)
    ratio = problem.metric(weight)(first)[:, 0, 0, 0] / (dark**2 / 20)
    assert (ratio > 0.4).all() and (ratio < 1.2).all()
    torch.testing.assert_close(problem.start(weight)[:, 0, 0, 0], dark, rtol=0.05, atol=0)
    assert (objective(likelihood, prior).start(weight)[:, 0, 0, 0] > 2 * dark).all()


def test_bent_values_keep_the_metric_of_what_is_near_them():
    """What a value tells of f(x) is not what it tells of x."""
    bent = Gaussian(gamma_curve(Identity(SHAPE), 2.2), drawn(2).clamp(0.05, 1), 0.1)
    weight, v = torch.ones(2, dtype=torch.float64), drawn(2)
    expected = objective(bent, PRIOR).metric(weight)(v)
    torch.testing.assert_close(sampling_problem(bent, PRIOR).metric(weight)(v), expected)
