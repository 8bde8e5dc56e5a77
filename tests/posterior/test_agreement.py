"""Do chains agree? On posteriors where they do, where they are too short, and where they cannot."""

from dataclasses import replace

import pytest
import torch
from smooth_posterior import OPERATORS, PRIOR, closed_form, measured

from aipo import priors
from aipo.likelihoods import Gaussian
from aipo.operators import Identity
from aipo.posterior.chain import sample
from aipo.posterior.langevin import LangevinOptions


def test_chains_agree_on_a_gaussian_posterior():
    """And the effective size says how far the mean is off.

    Of 24 images the squared error times that size is 1 with a standard deviation of 0.4, on average of 0.08:
    the bound is six standard errors off.
    """
    likelihood, _ = measured(OPERATORS["inpaint"], 24)
    found = sample(likelihood, PRIOR, options=LangevinOptions(800, 200, step=0.5, chains=4))
    assert (found.rhat < 1.05).all() and found.agree.all()
    assert "R̂ of 4 chains" in found.verdict and "within 1.05: they agree" in found.verdict
    mean, std = closed_form(likelihood)
    squares = (found.mean - mean).square().flatten(1).sum(1) / std.square().sum()
    assert float((squares * found.effective).mean()) == pytest.approx(1, abs=0.5)


def test_a_short_chain_says_that_it_is_short():
    likelihood, _ = measured(OPERATORS["inpaint"], 6)
    found = sample(likelihood, PRIOR, options=LangevinOptions(60, 20, chains=4))
    assert (found.rhat > 1.05).all() and not found.agree.any()
    assert "above 1.05 in 6 of 6 images: use more" in found.verdict


@pytest.mark.parametrize(
    ("chains", "rhat", "said"),
    [
        (1, [1.01], "R̂ of one chain is at most 1.010, within 1.05: its halves agree; four chains would"),
        (4, [1.01, 1.05], "R̂ of 4 chains is at most 1.050, within 1.05: they agree."),
        (1, [1.2], "R̂ of one chain reaches 1.200, above 1.05: use more evaluations."),
        (4, [1.2, 1.0, torch.inf], "R̂ of 4 chains reaches inf, above 1.05 in 2 of 3 images: use more"),
    ],
)
def test_the_verdict_says_whose_rhat_is_too_large(chains, rhat, said):
    likelihood, _ = measured(OPERATORS["denoise"], len(rhat))
    found = sample(likelihood, PRIOR, 1, options=LangevinOptions(6, 2, chains=chains))
    assert replace(found, rhat=torch.tensor(rhat, dtype=torch.float64)).verdict.startswith(said)


def test_chains_in_two_modes_do_not_agree():
    """Two values as probable as each other, twenty standard deviations apart, that no chain walks between."""
    shape, count = (1, 1, 1), 40
    centres = torch.tensor([0.2, 0.8], dtype=torch.float64).reshape(2, *shape)
    prior = priors.Mixture(centres, 0.03**2 * torch.ones(2, 1, 1).double(), torch.ones(2).double())
    y = torch.linspace(0.4, 0.6, count, dtype=torch.float64).reshape(count, *shape)
    found = sample(Gaussian(Identity(shape), y, 1.0), prior, options=LangevinOptions(600, 100, chains=4))
    both = found.std.flatten() > 0.1
    assert int(both.sum()) > count / 4, "of 40 times four chains most are in both places"
    assert (found.rhat[both] > 1.5).all() and (found.effective[both] < 16).all()
