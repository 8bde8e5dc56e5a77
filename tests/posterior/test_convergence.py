"""Split R̂ and effective sample size from running moments: against stored draws, and where they are known."""

import pytest
import torch
from torch import Tensor

from aipo.posterior.convergence import COVERED, Convergence, Moments


def told(draws: Tensor) -> Convergence:
    """What is known of draws (n, chains, B, ...) after one look at each."""
    found = Convergence(draws[0], len(draws))
    for draw in draws:
        found.add(draw)
    return found


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def autoregressive(count: int, *shape: int, kept: float) -> Tensor:
    """x_{t+1} = φ x_t + √(1 − φ²) ξ, of variance 1 from the first draw on."""
    fresh = normal(count, *shape)
    draws = [fresh[0]]
    for step in fresh[1:]:
        draws.append(kept * draws[-1] + (1 - kept**2) ** 0.5 * step)
    return torch.stack(draws)


@pytest.mark.parametrize("count", [100, 107])
def test_running_moments_are_those_of_the_stored_draws(count):
    draws = 3 + autoregressive(count, 3, 2, 20, kept=0.5)
    found = told(draws)
    torch.testing.assert_close(found.mean, draws.mean((0, 1)))
    torch.testing.assert_close(found.std, draws.transpose(0, 1).flatten(0, 1).std(0))
    moments = Moments(draws[0])
    for draw in draws:
        moments.add(draw)
    torch.testing.assert_close(moments.squares / (count - 1), draws.var(0))


def test_rhat_and_effective_size_are_those_of_the_stored_draws():
    """By their formulas, written for draws that are all at hand."""
    draws = autoregressive(120, 3, 2, 40, kept=0.5)
    halves = torch.cat((draws[:60], draws[60:]), 1)  # (60, 6, 2, 40)
    rhat = (59 / 60 + halves.mean(0).var(0) / halves.var(0).mean(0)).sqrt()
    effective = 6 * draws.flatten(0, 1).var(0).sum(1) / halves.mean(0).var(0).sum(1)
    found = told(draws)
    torch.testing.assert_close(found.rhat, rhat.sort(1).values[:, round(COVERED * 40) - 1])
    torch.testing.assert_close(found.effective, effective)


def test_independent_draws_agree_and_count_in_full():
    """2,000 values of eight halves each: their 14,000 degrees of freedom tell the size to 1.2 %.

    The 95 % quantile of R̂ is √(1 + (2.01 − 1)/500) = 1.001.
    """
    found = told(normal(1000, 4, 1, 2000))
    assert float(found.rhat) == pytest.approx(1.001, abs=3e-4)
    assert float(found.effective) == pytest.approx(4000, rel=0.06)


@pytest.mark.parametrize("kept", [0.5, 0.8])
def test_a_correlated_chain_counts_as_its_autocorrelation_says(kept):
    """(1 − φ)/(1 + φ) of the draws, to 1.2 % and half a percent for correlated halves."""
    found = told(autoregressive(2000, 4, 1, 2000, kept=kept))
    assert float(found.effective) == pytest.approx(8000 * (1 - kept) / (1 + kept), rel=0.07)


def test_a_single_chain_tells_its_effective_size_too():
    """2,000 values of two halves: 2,000 degrees of freedom, 3 %."""
    found = told(autoregressive(2000, 1, 1, 2000, kept=0.5))
    assert float(found.effective) == pytest.approx(2000 / 3, rel=0.17)


def test_chains_that_found_different_places_do_not_agree():
    """At −1 and 1 with a spread of 1: R̂ = √(1 + 4/3), and six draws tell as much; each alone looks well."""
    apart = normal(1000, 2, 1, 2000) + torch.tensor([-1.0, 1.0]).reshape(1, 2, 1, 1)
    found = told(apart)
    assert float(found.rhat) == pytest.approx((7 / 3) ** 0.5, rel=0.1)
    assert float(found.effective) == pytest.approx(6, rel=0.1)
    assert float(told(apart[:, :1]).rhat) < 1.01


def test_a_chain_that_drifts_disagrees_with_itself():
    drifting = normal(1000, 1, 1, 500) + torch.linspace(-2, 2, 1000).reshape(-1, 1, 1, 1)
    assert float(told(drifting).rhat) > 1.5


def test_values_that_never_move_tell_nothing():
    assert float(told(torch.ones(50, 2, 1, 10)).rhat) == torch.inf
    assert float(told(torch.ones(50, 2, 1, 10)).effective) == 0
    assert float(told(normal(1, 4, 1, 10)).rhat) == torch.inf, "one draw has no spread"


def test_an_image_is_judged_by_itself():
    draws = normal(60, 2, 3, 50)
    together, alone = told(draws), told(draws[:, :, 1:2])
    torch.testing.assert_close(together.rhat[1:2], alone.rhat)
    torch.testing.assert_close(together.effective[1:2], alone.effective)
