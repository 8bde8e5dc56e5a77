"""Likelihood and denoising error of one batch, and the gradient of both."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from random_flows import MULTISCALE, make, rand, randn
from torch import Tensor

from aipo.basics.derivatives import value_and_gradient
from aipo.flows import ConditionalFlow
from aipo.flows.training import loss as training_loss
from aipo.flows.training.batches import Batch
from aipo.flows.training.loss import Loss, limited, noisy_terms
from aipo.flows.training.options import TrainingOptions

SIZE, WEIGHT = (4, 8), 0.7
OPTIONS = TrainingOptions(told=0.5, denoising=WEIGHT)


def told(family: str) -> ConditionalFlow:
    flow = ConditionalFlow(deepcopy(make(family, "any", 1, 2, SIZE))).double()
    with torch.no_grad():
        flow.table += 0.2 * randn(*flow.table.shape, seed=5)
    return flow.requires_grad_(True)


def batch(count: int = 3) -> Batch:
    tau = torch.tensor([0.02, 0.1, 0.4], dtype=torch.float64)[:count]
    x, noise = rand(count, 1, *SIZE, seed=1), randn(count, 1, *SIZE, seed=2)
    return Batch(rand(3, 1, *SIZE), x + tau.view(-1, 1, 1, 1) * noise, tau, noise)


def errors(flow: ConditionalFlow, given: Batch) -> Tensor:
    """‖x − (y + τ² ∇log p)‖² / (d τ²), one picture after the other."""
    found = []
    for y, tau, noise in zip(*given[1:], strict=True):
        score = value_and_gradient(flow.at(float(tau)).log_prob, y[None])[1][0]
        found.append(((y - tau * noise) - (y + tau**2 * score)).square().mean() / tau**2)
    return torch.stack(found)


def test_the_loss_is_that_of_its_definition():
    flow, given = told("glow"), batch()
    terms = torch.cat([-flow.log_prob(given.pictures), -flow.log_prob(given.noisy, given.tau)]) / 32
    denoising = WEIGHT * errors(flow, given).clamp(max=1).sum() / 6
    torch.testing.assert_close(Loss(flow, OPTIONS)(given), (terms.mean() + denoising).detach())
    without = Loss(flow, replace(OPTIONS, denoising=0.0))(given)
    torch.testing.assert_close(without, terms.mean().detach())


@pytest.mark.parametrize("family", MULTISCALE)
def test_the_gradient_through_the_score_is_that_of_finite_differences(family, monkeypatch):
    """Along one direction of every weight; without the limit, whose gradient is meant to be another one."""
    monkeypatch.setattr(training_loss, "limited", lambda error, nothing: error)
    flow, given, length = told(family), batch(), 1e-6

    def value(parameter: Tensor, step: Tensor) -> float:
        with torch.no_grad():
            parameter += step
        found = noisy_terms(flow, given, WEIGHT).sum().item()
        with torch.no_grad():
            parameter -= step
        return found

    noisy_terms(flow, given, WEIGHT).sum().backward()
    for seed, (name, parameter) in enumerate(flow.named_parameters()):
        assert parameter.grad is not None, name
        direction = randn(*parameter.shape, seed=seed)
        ahead, behind = (value(parameter, sign * length * direction) for sign in (1, -1))
        expected = (ahead - behind) / (2 * length)
        assert float((parameter.grad * direction).sum()) == pytest.approx(expected, rel=1e-4, abs=1e-3), name


def test_an_error_larger_than_that_of_doing_nothing_counts_as_this():
    error = torch.tensor([0.5, 4.0, 800.0], requires_grad=True)
    value = limited(error, 4.0)
    assert value.tolist() == [0.5, 4.0, 4.0]
    value.sum().backward()
    assert error.grad is not None
    torch.testing.assert_close(error.grad, torch.tensor([1.0, 1.0, 0.005]))


def test_pictures_without_told_noise_are_fitted_by_likelihood_alone():
    flow, x = make("glow", "any", 1, 2, SIZE), rand(3, 1, *SIZE)
    none = batch(0)._replace(pictures=x)
    assert Loss(deepcopy(flow), OPTIONS)(none) == -flow.log_prob(x).mean() / 32


def test_a_batch_may_have_told_noise_only():
    flow, given = told("glow"), batch()
    only = given._replace(pictures=given.pictures[:0])
    expected = noisy_terms(flow, given, WEIGHT).mean() / 32
    torch.testing.assert_close(Loss(flow, OPTIONS)(only), expected.detach())
