"""Holes: what lies around them says how far a prior is trusted inside."""

import pytest
import torch
from elsewhere import elsewhere
from torch import Tensor

from aipo.basics.arrays import dot
from aipo.gaussian import LowRankGaussian, posterior
from aipo.likelihoods import Gaussian, measure
from aipo.operators import GaussianSensing, Identity, Mask, block_mask, random_mask
from aipo.path.options import PathOptions
from aipo.priors import Gaussian as GaussianPrior
from aipo.reconstruction.reconstruct import reconstruct
from aipo.selection.filling import harmonic
from aipo.selection.guard import Guarded, by_path, guard, smoothed

SIDE, HOLE, SIGMA = 16, 6, 0.02
SHAPE = (1, SIDE, SIDE)
OPERATOR = block_mask(SHAPE, HOLE)
INSIDE = ~OPERATOR.mask
# Pictures per claim: the standard error of a mean of squared errors is then about a twentieth of it.
COUNT = 200
MODE = PathOptions((1.0,), evaluations=4)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def positions() -> Tensor:
    """(row, column) of every pixel, (n, 2)."""
    side = torch.arange(SIDE, dtype=torch.float64)
    return torch.cartesian_prod(side, side)


class Telling(GaussianPrior):
    """A Gaussian that tells how untypical a picture is: the mean and variance of d² ~ χ²(n) are n and 2n."""

    def untypical(self, x: Tensor, error: Tensor) -> Tensor:
        apart = x - self.mean
        squared = dot(apart, self.precision(apart))
        return ((squared - apart[0].numel()) / (2 * apart[0].numel()) ** 0.5).clamp_min(0)


def world(length: float, pattern: float) -> Telling:
    """Smooth pictures around waves of this amplitude."""
    where = positions()
    covariance = 0.04 * torch.exp(-torch.cdist(where, where) / length) + 1e-6 * torch.eye(len(where))
    mean = 0.5 + pattern * (where[:, 0] * 1.5).sin() * (where[:, 1] * 1.5).sin()
    return Telling(mean.reshape(SHAPE), covariance)


def drawn(prior: GaussianPrior, count: int = COUNT, seed: int = 0) -> Tensor:
    white = torch.randn(count, *SHAPE, generator=generator(seed), dtype=torch.float64)
    return prior.mean + prior.factor(white)


def filled_by(prior: GaussianPrior, likelihood: Gaussian) -> Tensor:
    return posterior(OPERATOR, prior.surrogate).mode(likelihood.y, likelihood.sigma**2)


def guarded(image: Tensor, likelihood: Gaussian, prior) -> Guarded:
    """As a path that ends at λ = 1 would be; a Gaussian prior's own path is solved in one step."""
    chosen = torch.zeros(len(image), dtype=torch.long, device=image.device)
    return guard(likelihood, by_path(prior, MODE), prior)(image, chosen, lambda problem: problem)


def error(image: Tensor, truth: Tensor) -> float:
    """Mean squared error in the hole."""
    return float((image - truth)[:, INSIDE].square().mean())


WAVES, PLAIN = world(8.0, 0.3), world(8.0, 0.0)


@pytest.mark.parametrize("prior", [WAVES, PLAIN])
def test_pictures_that_the_prior_knows_stay_its_own(prior):
    """5 % of the squared error in the hole is 0.2 dB there, and less than 0.05 dB of the whole picture."""
    truth = drawn(prior)
    likelihood = measure(OPERATOR, truth, SIGMA, generator(1))
    image = filled_by(prior, likelihood)
    found = guarded(image, likelihood, prior)
    assert error(found.image, truth) <= 1.05 * error(image, truth)


def test_pictures_of_another_world_are_filled_much_better_than_by_the_prior_and_about_as_well_as_smoothly():
    """The prior has five times the error of a smooth filling; 30 % are left of that gap at most."""
    truth = drawn(PLAIN)
    likelihood = measure(OPERATOR, truth, SIGMA, generator(1))
    image = filled_by(WAVES, likelihood)
    smooth = error(harmonic(image, INSIDE), truth)
    assert error(image, truth) > 4 * smooth, "the problem is no test"
    assert error(guarded(image, likelihood, WAVES).image, truth) <= 1.3 * smooth


def test_a_prior_that_is_wrong_is_told_from_one_that_is_right():
    """Of 200 pictures at least 90 %."""
    for truth, wrong in ((drawn(PLAIN), True), (drawn(WAVES), False)):
        likelihood = measure(OPERATOR, truth, SIGMA, generator(1))
        found = guarded(filled_by(WAVES, likelihood), likelihood, WAVES)
        assert ((found.share > 0.5) == wrong).double().mean() > 0.9


def test_the_sentence_names_the_largest_share():
    assert smoothed(torch.zeros(2)) == []
    assert "are mixed with 40 % of a smooth filling" in smoothed(torch.tensor([0.4]))[0]
    assert "up to 70 %" in smoothed(torch.tensor([0.0, 0.7]))[0]


def test_only_the_hole_changes_and_each_picture_by_itself():
    truth = drawn(PLAIN, 9)
    likelihood = measure(OPERATOR, truth, SIGMA, generator(1))
    image = filled_by(WAVES, likelihood)
    found = guarded(image, likelihood, WAVES)
    assert torch.equal(found.image[:, ~INSIDE], image[:, ~INSIDE])
    assert (found.image != image)[:, INSIDE].any(1).all()
    alone = guarded(image[4:5], likelihood.select(torch.tensor([4])), WAVES)
    assert torch.allclose(alone.image, found.image[4:5], atol=1e-6)
    assert torch.allclose(alone.share, found.share[4:5], atol=1e-6)


@pytest.mark.parametrize(
    "operator",
    [
        Identity(SHAPE),
        random_mask(SHAPE, 0.5),
        GaussianSensing(SHAPE, 60),
        block_mask(SHAPE, 14),  # what a ring would leave is no picture
        block_mask(SHAPE, 1),
    ],
)
def test_nothing_changes_where_there_is_no_hole_or_nothing_around_it(operator):
    image = drawn(PLAIN, 2)
    found = guarded(image, measure(operator, image, SIGMA, generator(1)), WAVES)
    assert torch.equal(found.image, image) and not found.share.any()
    assert not found.evaluations.any()


@pytest.mark.parametrize("weight", ["auto", "sure", 1.0])
def test_only_the_automatic_weight_is_guarded_and_the_result_tells(weight):
    truth = drawn(PLAIN, 3)
    likelihood = measure(OPERATOR, truth, SIGMA, generator(1))
    found = reconstruct(likelihood, WAVES, weight)
    assert bool((found.smooth > 0.5).all()) == (weight == "auto")
    assert any("smooth filling" in remark for remark in found.remarks) == (weight == "auto")
    torch.testing.assert_close(found.data_energy, likelihood(found.image))
    torch.testing.assert_close(found.prior_energy, WAVES.energy(found.image))


def test_entries_lost_beside_a_hole_do_not_count_as_one():
    """Scattered entries are filled by the prior, and the share is about that of the hole alone."""
    truth = drawn(PLAIN, 40)
    scattered = torch.rand(SHAPE, generator=generator(2)) < 0.03
    operator = Mask(OPERATOR.mask & ~scattered)
    whole = measure(OPERATOR, truth, SIGMA, generator(1))
    likelihood = Gaussian(operator, operator.forward(OPERATOR.adjoint(whole.y)), SIGMA)
    image = posterior(operator, WAVES.surrogate).mode(likelihood.y, likelihood.sigma**2)
    found = guarded(image, likelihood, WAVES)
    assert torch.equal(found.image[:, operator.mask], image[:, operator.mask])
    lone = scattered & ~INSIDE
    assert torch.equal(found.image[:, lone], image[:, lone])
    alike = guarded(filled_by(WAVES, whole), whole, WAVES)
    assert abs(float((found.share - alike.share).mean())) < 0.1


def test_a_slope_is_filled_exactly_and_extremes_lie_at_the_border():
    where = positions()
    slope = (0.1 + 0.02 * where[:, 0] + 0.03 * where[:, 1]).reshape(1, *SHAPE)
    assert torch.allclose(harmonic(slope * OPERATOR.mask, INSIDE), slope, atol=1e-12)
    x = torch.rand(3, *SHAPE, generator=generator(), dtype=torch.float64)
    filled = harmonic(x, INSIDE)
    assert torch.equal(filled[:, ~INSIDE], x[:, ~INSIDE])
    assert (filled[:, INSIDE] > x.amin()).all() and (filled[:, INSIDE] < x.amax()).all()


def test_channels_are_filled_each_by_itself():
    x = torch.rand(2, 3, SIDE, SIDE, generator=generator(), dtype=torch.float64)
    unknown = torch.stack(
        [INSIDE[0], torch.ones(SIDE, SIDE, dtype=torch.bool), random_mask(SHAPE, 0.5).mask[0]]
    )
    filled = harmonic(x, unknown)
    assert torch.equal(filled[:, 1], x[:, 1]), "a channel of which nothing is known"
    for channel in (0, 2):
        alone = harmonic(x[:, channel : channel + 1], unknown[channel : channel + 1])
        assert torch.allclose(filled[:, channel : channel + 1], alone, atol=1e-12)


def test_a_prior_that_does_not_tell_is_guarded_too():
    """Twice the smooth filling's error at most, where the prior's own filling has five times."""
    truth, silent = drawn(PLAIN), GaussianPrior(WAVES.mean, WAVES.root @ WAVES.root.T)
    likelihood = measure(OPERATOR, truth, SIGMA, generator(1))
    image = filled_by(WAVES, likelihood)
    found = guarded(image, likelihood, silent)
    assert error(found.image, truth) <= 2 * error(harmonic(image, INSIDE), truth)
    truth = drawn(WAVES)
    likelihood = measure(OPERATOR, truth, SIGMA, generator(1))
    image = filled_by(WAVES, likelihood)
    assert error(guarded(image, likelihood, silent).image, truth) <= 1.2 * error(image, truth)


class Quadratic(torch.nn.Module):
    """A prior whose energy, surrogate and all are on one device."""

    def __init__(self):
        super().__init__()
        self.surrogate = LowRankGaussian.fit(drawn(PLAIN, 40).float(), rank=8)

    def energy(self, x: Tensor) -> Tensor:
        apart = x - self.surrogate.mean_like(x)
        return 0.5 * dot(apart, self.surrogate.precision(apart))


def test_pictures_on_another_device_stay_there():
    truth, prior = drawn(PLAIN, 2).float(), Quadratic()
    likelihood = measure(OPERATOR, truth, SIGMA, generator(1))
    here = guarded(truth, likelihood, prior)
    with elsewhere() as device:
        there = guarded(truth.to(device), likelihood.to(device), prior.to(device))
        assert there.image.device.type == there.share.device.type == torch.device(device).type
        assert torch.allclose(there.image.cpu(), here.image, atol=1e-3)
