"""Progress is told after every evaluation, and the forecast is near from the first few on."""

import pytest
import torch

from aipo import load_prior
from aipo.likelihoods import measure
from aipo.operators import GaussianSensing, Identity, block_mask
from aipo.path.problem import PLAIN, Problem, Terms
from aipo.posterior.langevin import LangevinOptions
from aipo.reconstruction.progress import Forecast
from aipo.reconstruction.reconstruct import reconstruct

SHAPE = (3, 16, 16)
TASKS = {
    "a noisy photograph": (Identity(SHAPE), 0.1, "auto"),
    "a hole": (block_mask(SHAPE, 5), 0.02, "auto"),
    "sensing": (GaussianSensing(SHAPE, 192, seed=0), 0.02, "auto"),
    "a given weight": (Identity(SHAPE), 0.1, 1.0),
}


def told(operator, sigma, weight, **options) -> tuple[list[tuple[int, int]], int]:
    """What progress was told, and the evaluations that the result says it took."""
    prior = load_prior("photos")
    x = prior.sample(1, SHAPE[1:]).clamp(0, 1)
    likelihood = measure(operator, x, sigma, torch.Generator().manual_seed(0))
    found: list[tuple[int, int]] = []
    result = reconstruct(likelihood, prior, weight, progress=lambda *now: found.append(now), **options)
    return found, int(result.evaluations[0])


@pytest.mark.parametrize("task", TASKS)
def test_every_evaluation_moves_the_bar_and_the_end_is_foreseen(task):
    found, evaluations = told(*TASKS[task])
    done, expected = (torch.tensor(column).double() for column in zip(*found, strict=True))
    assert (done.diff() > 0).all() and (done <= expected).all()
    # The energies of the picture are one more, and those of a mean whose hole is guarded another one.
    assert evaluations - (2 if task == "a hole" else 1) <= done[-1] <= evaluations
    known = done > 0.1 * done[-1]
    assert ((expected[known] / done[-1] - 1).abs() <= 0.3).all()


@pytest.mark.parametrize("best", range(2, 6))
def test_a_path_of_usual_length_is_foreseen_after_its_first_states(best):
    done, expected = zip(*told_by(states=14, best=best, patience=3, each=12), strict=True)
    whole = done[-1]
    assert whole == 12 * (best + 4)
    early = [abs(ahead / whole - 1) for now, ahead in zip(done, expected, strict=True) if now > 0.1 * whole]
    assert max(early) <= 0.3


@pytest.mark.parametrize("chains", [1, 3])
def test_chains_tell_every_draw(chains):
    found, _ = told(Identity(SHAPE), 0.1, "mean", chain=LangevinOptions(30, 10, chains=chains))
    assert [done for done, _ in found] == [chains * k for k in range(1, 32)]
    assert {expected for _, expected in found} == {31 * chains}


def test_a_path_that_goes_on_past_its_usual_end_is_never_over_before_it_is():
    found = told_by(states=10, best=9, patience=3, each=5)
    assert all(done <= expected for done, expected in found)
    assert found[-1] == (50, 50)


def told_by(states: int, best: int, patience: int, each: int) -> list[tuple[int, int]]:
    """What is told along a path whose criterion falls until `best`, and ends `patience` states after it."""
    found: list[tuple[int, int]] = []
    forecast = Forecast(lambda *now: found.append(now), states, each, least=2 + patience)
    nothing = Terms(*torch.zeros(4, 1))
    problem = Problem(lambda *_: nothing, lambda weight: weight, lambda weight: lambda v: v)
    counted = forecast.watched(problem)
    for state in range(min(states, best + 1 + patience)):
        for _ in range(each):
            counted.terms(torch.zeros(1), torch.zeros(1), PLAIN)
        forecast.reached(best=min(state, best), patience=patience)
    return found
