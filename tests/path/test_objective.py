"""D + λR as a problem: gradients, Hessian products and deformed priors of a real flow."""

import pytest
import torch
from closed_form import OPERATORS, WithoutSurrogate, gaussian_prior, measurement, minimiser
from path_problems import FLOW_SHAPE as SHAPE
from path_problems import between, flow_problem
from torch import Tensor

from aipo.basics.errors import InputError
from aipo.gaussian import energy as surrogate_energy
from aipo.operators import GaussianSensing, Identity, Mask
from aipo.path.objective import objective
from aipo.path.problem import PLAIN, Deformation

HALF = Deformation(share=0.5)
ALL = torch.arange(2)


@pytest.mark.parametrize("deformation", [PLAIN, HALF], ids=["prior", "half"])
@pytest.mark.parametrize(
    "operator",
    [
        Identity(SHAPE),
        Mask(torch.arange(64).reshape(1, 8, 8) % 3 > 0, channels=3),
        GaussianSensing(SHAPE, 60),
    ],
    ids=["denoising", "inpainting", "sensing"],
)
def test_hessian_products_are_differences_of_gradients(operator, deformation):
    problem, _, _, x = flow_problem(operator)
    weight = torch.tensor([0.3, 2.0], dtype=torch.float64)

    def gradient(place: Tensor) -> Tensor:
        terms = problem.terms(place, ALL, deformation)
        return terms.data_gradient + weight[:, None, None, None] * terms.prior_gradient

    assert problem.hessian is not None
    v = torch.randn_like(x)
    product = problem.hessian(x, weight, deformation)(v)
    difference = (gradient(x + 1e-5 * v) - gradient(x - 1e-5 * v)) / 2e-5
    assert torch.allclose(product, difference, rtol=1e-5, atol=1e-5 * float(product.abs().max()))


def test_hessian_products_of_large_batches_hold_one_graph_at_a_time(monkeypatch):
    _, prior, likelihood, x = flow_problem(Identity(SHAPE))
    weight, v = torch.tensor([0.3, 2.0], dtype=torch.float64), torch.randn_like(x)
    sizes: list[int] = []

    class Counted(WithoutSurrogate):
        def energy(self, x: Tensor) -> Tensor:
            sizes.append(len(x))
            return super().energy(x)

    def product() -> Tensor:
        problem = objective(likelihood, Counted(prior))
        assert problem.hessian is not None
        return problem.hessian(x, weight, PLAIN)(v)

    whole = product()
    monkeypatch.setattr("aipo.path.objective.LARGEST_CHUNK", 2000)
    assert torch.allclose(product(), whole, rtol=1e-9)
    assert sizes == [2, 1, 1]


def test_a_share_of_the_prior_is_mixed_with_its_surrogate():
    problem, prior, _, x = flow_problem(Identity(SHAPE))
    for share in (0.0, 0.25, 1.0):
        mixed = problem.terms(x, ALL, Deformation(share=share)).prior
        expected = share * prior.energy(x) + (1 - share) * surrogate_energy(prior.surrogate, x)
        assert torch.allclose(mixed, expected)


def test_smoothing_asks_the_prior_for_tau():
    likelihood, prior = between(0.4)
    x = torch.full((1, 1, 1, 2), 0.2, dtype=torch.float64)
    terms = objective(likelihood, prior).terms(x, torch.tensor([0]), Deformation(tau=0.6))
    assert torch.equal(terms.prior, prior.energy(x, tau=0.6))
    assert not torch.equal(terms.prior, prior.energy(x))


def test_a_prior_without_smoothed_energies_is_refused_for_them():
    problem, _, _, x = flow_problem(Identity(SHAPE))
    with pytest.raises(InputError, match="tau"):
        problem.terms(x, ALL, Deformation(tau=0.1))


def test_mixing_without_a_surrogate_is_refused():
    likelihood = measurement(OPERATORS["denoising"], gaussian_prior())
    problem = objective(likelihood, WithoutSurrogate(gaussian_prior()))
    with pytest.raises(InputError, match="surrogate"):
        problem.terms(problem.start(torch.ones(3)), torch.arange(3), HALF)


@pytest.mark.parametrize("start", ["surrogate", "measurement"])
@pytest.mark.parametrize("metric", ["surrogate", "data"])
def test_start_and_metric_are_chosen_each_on_its_own(start, metric):
    prior = gaussian_prior()
    likelihood = measurement(OPERATORS["inpainting"], prior)
    problem = objective(likelihood, prior, start, metric)
    weight = torch.full((3,), 0.5, dtype=torch.float64)
    closed = minimiser(likelihood, prior, 0.5)
    expected = closed if start == "surrogate" else likelihood.operator.pseudoinverse(likelihood.y)
    assert torch.allclose(problem.start(weight), expected, rtol=1e-6)
    v = torch.ones_like(closed)
    if metric == "data":
        scale = (likelihood.sigma**2)[:, None, None, None]
        assert torch.allclose(problem.metric(weight)(v), scale * v)
    else:
        gradient = (
            likelihood.operator.adjoint(likelihood.operator(v)) / (likelihood.sigma**2)[:, None, None, None]
        )
        precision = torch.linalg.inv(prior.root @ prior.root.T)
        curved = gradient + 0.5 * (v.flatten(1) @ precision).reshape(v.shape)
        assert torch.allclose(problem.metric(weight)(curved), v, rtol=1e-4)
