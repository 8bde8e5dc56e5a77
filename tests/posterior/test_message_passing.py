"""Random sensing: estimates that take turns end near the posterior mean, known for a Gaussian prior."""

import pytest
import torch
from surrogates import Itself, stationary
from torch import Tensor

from aipo.gaussian import posterior
from aipo.likelihoods import Gaussian, Laplace, measure
from aipo.operators import (
    Blur,
    FourierMask,
    GaussianSensing,
    Grey,
    Identity,
    block_mask,
    cartesian_mask,
    gaussian_kernel,
)
from aipo.posterior.message_passing import GAUSSIAN_ROUNDS, ROUNDS, message_passing
from aipo.priors.views import PLAIN, View
from aipo.reconstruction.reconstruct import reconstruct
from aipo.selection.beginning import beginning
from aipo.selection.structure import isotropic

SHAPE = (3, 16, 16)
SENSING = GaussianSensing(SHAPE, 384, seed=0)


class Knowing(Itself):
    """A Gaussian prior that removes white noise exactly; the strongest noise that it knows can be set."""

    views = (PLAIN,)

    def __init__(self, surrogate, loudest: float = 1.0):
        super().__init__(surrogate)
        self.loudest, self.asked = loudest, 0

    def denoise(self, y: Tensor, sigma: float, view: View = PLAIN) -> Tensor:
        self.asked += len(y)
        mean = self.surrogate.mean_like(y)
        return mean + self.surrogate.wiener(y - mean, torch.full((len(y),), sigma**2).to(y))


def pictures(count: int) -> Tensor:
    surrogate = stationary(SHAPE)
    white = torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return surrogate.mean_like(white) + surrogate.factor(white)


def sensed(count: int = 4) -> tuple[Gaussian, Tensor]:
    x = pictures(count)
    return measure(SENSING, x, 0.02, torch.Generator().manual_seed(1)), x


def ignored(images: int) -> None:
    pass


def test_it_ends_near_the_posterior_mean():
    likelihood, x = sensed(8)
    prior = Knowing(stationary(SHAPE))
    found, evaluations = message_passing(likelihood, prior, prior.surrogate, ignored)
    best = posterior(SENSING, prior.surrogate).mode(likelihood.y, likelihood.sigma**2)
    errors = [
        float((image - x).square().mean()) for image in (found, best, SENSING.pseudoinverse(likelihood.y))
    ]
    assert errors[0] < 1.15 * errors[1] and errors[1] < 0.5 * errors[2]
    assert int(evaluations.max()) <= 2 * ROUNDS


def test_every_image_is_as_if_it_were_alone():
    likelihood, _ = sensed(3)
    prior = Knowing(stationary(SHAPE))
    together, spent = message_passing(likelihood, prior, prior.surrogate, ignored)
    for k in range(3):
        only = likelihood.select(torch.tensor([k]))
        alone, own = message_passing(only, prior, prior.surrogate, ignored)
        torch.testing.assert_close(together[k : k + 1], alone, rtol=1e-3, atol=1e-3)
        assert spent[k] == own[0]


def test_evaluations_are_counted():
    likelihood, _ = sensed(3)
    prior, told = Knowing(stationary(SHAPE)), []
    _, evaluations = message_passing(likelihood, prior, prior.surrogate, told.append)
    assert sum(told) == prior.asked == int(evaluations.sum()) > 0


def test_a_denoiser_that_makes_things_worse_is_not_followed():
    class Wrong(Knowing):
        def denoise(self, y: Tensor, sigma: float, view: View = PLAIN) -> Tensor:
            return y + torch.nan

    likelihood, x = sensed()
    prior = Wrong(stationary(SHAPE))
    found, evaluations = message_passing(likelihood, prior, prior.surrogate, ignored)
    deaf, none = message_passing(likelihood, Knowing(prior.surrogate, 1e-6), prior.surrogate, ignored)
    assert torch.equal(found, deaf) and evaluations.tolist() == 4 * [2] and not none.any()
    assert GAUSSIAN_ROUNDS > 1 and float((found - x).square().mean()) < float(x.var())


def test_only_random_mixtures_see_every_pattern_alike():
    shape = (3, 32, 32)
    for operator in (GaussianSensing(shape, 200), GaussianSensing((1, 28, 28), 100), SENSING):
        assert isotropic(operator)
    for operator in (
        Identity(shape),
        block_mask(shape, 9),
        Blur(shape, gaussian_kernel(1.0)),
        Grey(shape),
        FourierMask(shape, cartesian_mask((32, 32), 0.3)),
    ):
        assert not isotropic(operator)


def test_a_chain_begins_there_if_the_prior_knows_noise():
    likelihood, _ = sensed(2)
    knowing, deaf = Knowing(stationary(SHAPE)), Knowing(stationary(SHAPE), 0.0)
    laplace = Laplace(SENSING, likelihood.y, 0.02)
    assert beginning(likelihood, knowing, alike=True) is not None
    assert beginning(likelihood, deaf, alike=True) is None
    assert beginning(laplace, knowing, alike=True) is None
    told: list[tuple[int, int]] = []
    found = reconstruct(likelihood, knowing, progress=lambda done, expected: told.append((done, expected)))
    assert found.evaluations.max() <= 100 + 2 * ROUNDS and "chain" in found.reason
    assert all(done <= expected for done, expected in told)
    assert int(found.evaluations.sum()) - 2 == told[-1][0]


@pytest.mark.parametrize("temperature", [0.25, 1.0])
def test_draws_are_as_wide_as_the_temperature_says(temperature):
    from aipo import LangevinOptions, sample

    x = torch.full((64, 1, 4, 4), 0.5, dtype=torch.float64)
    prior = Itself(stationary((1, 4, 4)))
    likelihood = measure(Identity((1, 4, 4)), x, 1.0, torch.Generator().manual_seed(0))
    options = LangevinOptions(evaluations=300, burn_in=100, temperature=temperature)
    drawn = sample(likelihood, prior, 1, options=options)
    closed = posterior(likelihood.operator, prior.surrogate)
    modes = closed.mode(likelihood.y, likelihood.sigma**2)
    basis = torch.eye(16, dtype=torch.float64).reshape(16, 1, 4, 4)
    spread = (likelihood.sigma[0] ** 2 * closed.metric(basis, torch.ones(16).double())).flatten(1).diagonal()
    expected = temperature * float(spread.mean())
    if temperature < 1:  # every image has the same noise, so time alone averages
        assert float(drawn.std.square().mean()) == pytest.approx(expected, rel=0.35)
    else:
        assert float(drawn.std.square().mean()) == pytest.approx(expected, rel=0.15)
    assert float((drawn.mean - modes).square().mean()) < expected
