"""The posterior mean as a reconstruction, and the posterior around one."""

import pytest
import torch
from smooth_posterior import OPERATORS, PRIOR, closed_form, measured
from torch import Tensor

from aipo.basics.errors import Status
from aipo.posterior.langevin import LangevinOptions
from aipo.reconstruction.certificate import Verdict
from aipo.reconstruction.reconstruct import reconstruct


def test_a_reconstruction_knows_its_mean_spread_and_draws():
    """40 pictures: chains of 400 steps find spreads to 5 %, on average to 0.8 %, and 2 % too small."""
    likelihood, x = measured(OPERATORS["denoise"], 40)
    result = reconstruct(likelihood, PRIOR, "mean")
    assert result.criterion == "mean" and result.evaluations.tolist() == 40 * [402]
    assert result.posterior is result.drawn and torch.equal(result.image, result.posterior.mean)
    torch.testing.assert_close(result.data_energy, likelihood(result.image))
    mean, std = closed_form(likelihood)
    assert float(((result.image - mean) / std).square().mean()) < 0.1
    assert float((result.std / std).mean()) == pytest.approx(1, abs=0.1)
    fixed = reconstruct(likelihood, PRIOR, "bayes")
    assert fixed.drawn is None and fixed.samples(3).shape == (3, *x.shape)
    assert float((fixed.std / std).mean()) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize(
    ("options", "status"),
    [
        (LangevinOptions(400, 20, 0.5, chains=4), Status.AGREEING),
        (LangevinOptions(400, 20, 0.5), Status.DRAWN),
        (LangevinOptions(30, 20, 0.5, chains=4), Status.DRAWN),
    ],
    ids=["several long chains", "one long chain", "several short chains"],
)
def test_only_several_chains_can_agree(options, status):
    """R̂ of four is 1.01 at most after 400 steps, and 2 after 30; one chain knows no other."""
    likelihood, _ = measured(OPERATORS["denoise"], 3)
    found = reconstruct(likelihood, PRIOR, "mean", chain=options)
    assert found.drawn is not None and found.status == [status] * 3
    assert found.remarks == [found.drawn.verdict]
    assert reconstruct(likelihood, PRIOR, "bayes").remarks == []


def test_a_mean_without_an_energy_has_diverged():
    class Nowhere:
        surrogate = PRIOR

        def energy(self, x: Tensor) -> Tensor:
            return torch.full((len(x),), torch.nan).to(x) + 0 * x.flatten(1).sum(1)

    likelihood, _ = measured(OPERATORS["denoise"], 2)
    found = reconstruct(likelihood, Nowhere(), "mean", chain=LangevinOptions(30, 20, chains=4))
    assert found.status == [Status.DIVERGED] * 2


def test_the_certificate_of_a_mean_says_that_it_is_no_minimum():
    likelihood, _ = measured(OPERATORS["denoise"], 2)
    certificate = reconstruct(likelihood, PRIOR, "mean", chain=LangevinOptions(60, 20, chains=4)).certificate
    assert certificate.verdict == [Verdict.UNCONVERGED] * 2
    assert all("its end is no minimum." in reason for reason in certificate.reason)


@pytest.mark.parametrize("status", Status)
def test_every_status_says_what_to_do(status):
    assert status.remedy.endswith(".")
