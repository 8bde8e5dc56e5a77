"""Parts of a batch, and batches on another device: nothing that was found out before goes with them."""

import pickle
from collections.abc import Callable
from copy import deepcopy
from functools import cached_property

import pytest
import torch
from elsewhere import elsewhere
from noise_models import MODELS, measured, pictures
from random_flows import make, rand
from torch import Tensor
from torch.utils._pytree import tree_leaves

from aipo.gaussian import StationaryGaussian
from aipo.likelihoods import Coloured, FlowNoise, Gaussian, Likelihood, measure
from aipo.operators import Grey, Identity
from aipo.priors import FlowPrior

SHAPE = (1, 4, 6)


def spectrum() -> Tensor:
    rows, columns = torch.fft.fftfreq(4).double()[:, None], torch.fft.fftfreq(6).double()
    return 0.01 / (0.1 + rows**2 + columns**2)


def noise_flow() -> FlowPrior:
    """A density of noise with weights, which have to be where the measurements are."""
    return FlowPrior(make("glow", "fixed", 1, 1, SHAPE[1:]), StationaryGaussian.fit(rand(40, *SHAPE)), {})


LIKELIHOODS: dict[str, Callable[[], Likelihood]] = {
    "gaussian": lambda: measure(Identity(SHAPE), pictures(3, SHAPE), 0.1, torch.Generator().manual_seed(0)),
    "coloured": lambda: Coloured(Identity(SHAPE), pictures(3, SHAPE), spectrum()),
    "flow": lambda: FlowNoise(Identity(SHAPE), pictures(3, SHAPE), noise_flow()),
    **{name: lambda model=model: measured(model, pictures(3)) for name, model in MODELS.items()},
}
every_likelihood = pytest.mark.parametrize("create", LIKELIHOODS.values(), ids=LIKELIHOODS)


def told(likelihood: Likelihood) -> dict[str, list[Tensor]]:
    """Everything that a likelihood can be asked, of the same pictures."""
    x = pictures(3, likelihood.operator.shape).to(likelihood.y)[: len(likelihood)]
    white = torch.sin(torch.arange(likelihood.y[0].numel())).reshape(likelihood.y[0].shape).to(x)
    near, probe = likelihood.gaussian(), likelihood.stein(white.expand_as(likelihood.y))
    answers = {
        "energy": likelihood(x),
        "moments": likelihood.moments(x),
        "precision": likelihood.precision(x),
        "misfit": likelihood.misfit(x),
        "noise level": likelihood.noise_level,
        "gaussian": (near.y, near.sigma, near(x)),
        "stein": () if probe is None else (probe.y, probe.probe, probe.trace),
        "simulated": likelihood.simulate(x, torch.Generator().manual_seed(0)),
    }
    return {question: tree_leaves(answer) for question, answer in answers.items()}


@every_likelihood
def test_on_another_device_it_tells_the_same(create):
    likelihood = create()
    here = told(likelihood)  # what it keeps for later is kept now
    with elsewhere() as device:
        there = told(likelihood.to(device))
        for question, answers in there.items():
            assert all(answer.device.type == device for answer in answers), question
        there = {question: [answer.cpu() for answer in answers] for question, answers in there.items()}
    torch.testing.assert_close(there, here, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(told(likelihood), here, rtol=0, atol=0)  # and stays itself


@every_likelihood
def test_a_part_tells_what_a_batch_of_the_part_tells(create):
    likelihood = create()
    told(likelihood)
    first = torch.tensor([0])
    found, fresh = told(likelihood.select(first)), told(create().select(first))
    torch.testing.assert_close(found, fresh, rtol=0, atol=0)


@every_likelihood
def test_pickled_it_tells_the_same(create):
    likelihood = create()
    before = told(likelihood)
    torch.testing.assert_close(told(pickle.loads(pickle.dumps(likelihood))), before, rtol=0, atol=0)


class Remembering(Gaussian):
    """A user's own, which keeps what it once found out of its batch."""

    @cached_property
    def brightness(self) -> Tensor:
        return self.y.flatten(1).mean(1)


def test_what_a_likelihood_of_the_users_own_keeps_is_made_anew():
    first = Remembering(Identity((1, 2, 2)), rand(2, 1, 2, 2), torch.tensor([0.1, 0.2]))
    kept = first.brightness
    second = first.select(torch.tensor([1]))
    assert torch.equal(second.brightness, kept[1:]) and first.brightness is kept
    assert len(first.append(first.y).brightness) == 4
    through = first.through(Grey((3, 2, 2)))
    assert "brightness" not in vars(through) and torch.equal(through.brightness, kept)
    copied = deepcopy(first)
    assert torch.equal(copied.brightness, kept)
