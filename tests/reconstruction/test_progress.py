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
    assert evaluations - 1 <= done[-1] <= evaluations  # the mixture's own energies are one more
    # After a tenth of the work the time left is foretold within 30 % of the whole.
    early = done > 0.1 * done[-1]
    assert ((expected[early] / done[-1] - 1).abs() <= 0.3).all()


def test_a_chain_tells_every_draw():
    found, _ = told(Identity(SHAPE), 0.1, "mean", chain=LangevinOptions(30, 10))
    assert [done for done, _ in found] == list(range(1, 32))
    assert {expected for _, expected in found} == {31}


def test_a_path_that_goes_on_past_its_usual_end_is_never_over_before_it_is():
    found: list[tuple[int, int]] = []
    forecast = Forecast(lambda *now: found.append(now), states=10, each=5, least=1)
    nothing = Terms(*torch.zeros(4, 1))
    problem = Problem(lambda *_: nothing, lambda weight: weight, lambda weight: lambda v: v)
    counted = forecast.watched(problem)
    for state in range(10):
        for _ in range(5):
            counted.terms(torch.zeros(1), torch.zeros(1), PLAIN)
        forecast.reached(best=state, patience=3)
    assert all(done <= expected for done, expected in found)
    assert found[-1] == (50, 50)
