"""Draws from posteriors that are known: means, spreads and intervals; and where steps must give way."""

from dataclasses import replace

import pytest
import torch
from smooth_posterior import OPERATORS, PRIOR, SHAPE, Narrow, closed_form, measured
from torch import Tensor

from aipo.likelihoods import Laplace
from aipo.operators import Identity
from aipo.posterior.chain import sample
from aipo.posterior.langevin import LangevinOptions

LONG = LangevinOptions(evaluations=3000, burn_in=200, step=0.5)


@pytest.mark.parametrize("weight", [1.0, 0.4])
@pytest.mark.parametrize("name", OPERATORS)
def test_a_gaussian_posterior_is_drawn_exactly_at_any_step(name, weight):
    """Mean and spread within what 2,800 correlated draws allow, though the step is a half.

    A mean is off by 0.02 standard deviations and a spread by 4 %; over the 120 values the average of the
    spreads is off by 0.5 %.
    """
    likelihood, _ = measured(OPERATORS[name], 6)
    found = sample(likelihood, PRIOR, weight=weight, options=LONG)
    mean, std = closed_form(likelihood, weight)
    assert float(((found.mean - mean) / std).square().mean().sqrt()) < 0.04
    assert float((found.std / std - 1).square().mean().sqrt()) < 0.06
    assert float((found.std / std).mean()) == pytest.approx(1, abs=0.02)


def test_ninety_percent_intervals_hold_ninety_percent_of_the_truth():
    """Pictures that the prior drew: with the right model the interval is exactly calibrated.

    The share in 500 pictures, whose values are correlated, is known to 0.005; that of the exact intervals in
    the same pictures has the same luck, so a chain's may differ from it by 0.003 for want of draws.
    """
    likelihood, x = measured(OPERATORS["sense"], 500)
    found = sample(likelihood, PRIOR, options=LangevinOptions(evaluations=700, burn_in=100, step=0.5))
    mean, std = closed_form(likelihood)
    exact = replace(found, mean=mean, std=std.expand_as(mean))
    shares = {}
    for coverage in (0.5, 0.9):
        for name, own in (("chain", found), ("exact", exact)):
            lower, upper = own.interval(coverage)
            shares[name] = float(((lower < x) & (x < upper)).double().mean())
        assert shares["chain"] == pytest.approx(shares["exact"], abs=0.015)
    assert shares["chain"] == pytest.approx(0.9, abs=0.03)
    error = (found.mean - x).square().mean()
    assert float(error) == pytest.approx(float((mean - x).square().mean()), rel=0.05)


def test_where_the_metric_is_too_wide_the_step_gives_way():
    likelihood, _ = measured(OPERATORS["inpaint"], 4)
    found = sample(likelihood, Narrow(), options=LangevinOptions(evaluations=4000, burn_in=500))
    _, std = closed_form(likelihood, prior=Narrow.own)
    assert float((found.std / std).mean()) == pytest.approx(1, abs=0.15)


class Walled(Narrow):
    """No density outside a box, like a flow that explodes off its data."""

    def energy(self, x: Tensor) -> Tensor:
        inside = (x.flatten(1) - 0.5).abs().amax(1) < 0.6
        return torch.where(inside, PRIOR.energy(x), torch.nan)


def test_a_chain_turns_back_where_the_energy_is_not_finite():
    likelihood, _ = measured(OPERATORS["denoise"], 8)
    inside = likelihood.select(((likelihood.y - 0.5).abs().flatten(1).amax(1) < 0.55).nonzero()[:, 0])
    found = sample(inside, Walled(), options=LangevinOptions(step=0.5))
    assert torch.isfinite(found.objectives).all() and torch.isfinite(found.mean).all()
    assert float((found.images - 0.5).abs().max()) <= 0.6
    assert float(found.objectives.diff(dim=0).abs().gt(0).double().mean()) > 0.5, "it goes on moving"


def test_a_prior_without_surrogate_is_drawn_in_the_data_terms_metric():
    class Plain:
        def energy(self, x: Tensor) -> Tensor:
            return PRIOR.energy(x)

    likelihood, _ = measured(OPERATORS["denoise"], 3)
    found = sample(likelihood, Plain(), options=LONG)
    assert float((found.std / closed_form(likelihood)[1]).mean()) == pytest.approx(1, abs=0.1)


def test_noise_that_is_not_gaussian_is_sampled_too():
    """The share in 250 pictures is known to 0.006, and the interval is that of a normal distribution."""
    _, x = measured(OPERATORS["denoise"], 250)
    y = Laplace(Identity(SHAPE), x, 0.07).simulate(x, torch.Generator().manual_seed(1))
    found = sample(Laplace(Identity(SHAPE), y, 0.07), PRIOR, options=LangevinOptions(900, 100))
    lower, upper = found.interval()
    assert float(((lower < x) & (x < upper)).double().mean()) == pytest.approx(0.9, abs=0.04)
