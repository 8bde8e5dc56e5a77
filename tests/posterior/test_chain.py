"""Draws from posteriors that are known, Gaussian ones exactly; and what happens off the data."""

import pickle
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from aipo import priors
from aipo.basics.arrays import White
from aipo.basics.errors import InputError
from aipo.likelihoods import Gamma, Gaussian, Laplace, Likelihood, Poisson
from aipo.operators import Composition, GaussianSensing, Identity, LinearOperator, Mask
from aipo.posterior.chain import sample, sampling_problem
from aipo.posterior.langevin import LangevinOptions
from aipo.posterior.laplace import laplace_std
from aipo.reconstruction.reconstruct import reconstruct

SHAPE = (1, 4, 5)
SIGMA = 0.1
LONG = LangevinOptions(evaluations=3000, burn_in=200, step=0.5)


def smooth_prior(scale: float = 0.2) -> priors.Gaussian:
    rows, columns = torch.meshgrid(torch.arange(4.0), torch.arange(5.0), indexing="ij")
    places = torch.stack((rows, columns), -1).reshape(20, 2).double()
    covariance = scale**2 * torch.exp(-0.5 * torch.cdist(places, places) ** 2 / 1.5**2)
    mean = torch.full(SHAPE, 0.5, dtype=torch.float64)
    return priors.Gaussian(mean, covariance + 1e-3 * torch.eye(20, dtype=torch.float64))


PRIOR = smooth_prior()
OPERATORS = {
    "denoise": Identity(SHAPE),
    "inpaint": Mask(torch.arange(20).reshape(SHAPE) % 3 > 0),
    "sense": GaussianSensing(SHAPE, 8, seed=0),
}


def problem(operator: LinearOperator, count: int) -> tuple[Gaussian, Tensor]:
    """Measurements of pictures that the prior drew, and those pictures."""
    generator = torch.Generator().manual_seed(0)
    u = torch.randn(count, 20, generator=generator, dtype=torch.float64)
    x = PRIOR.mean + PRIOR.factor(u)
    noise = SIGMA * torch.randn(count, *operator.measurement_shape, generator=generator, dtype=torch.float64)
    return Gaussian(operator, operator(x) + noise, SIGMA), x


def closed_form(likelihood: Gaussian, weight: float = 1.0) -> tuple[Tensor, Tensor]:
    """Mean, and standard deviations, of exp(−D − λR) under the Gaussian prior."""
    a = likelihood.operator(torch.eye(20, dtype=torch.float64).unflatten(1, SHAPE)).flatten(1).T
    precision = a.T @ a / SIGMA**2 + weight * torch.cholesky_inverse(PRIOR.root)
    covariance = torch.linalg.inv(precision)
    rest = likelihood.y.flatten(1) - PRIOR.mean.flatten() @ a.T
    mean = PRIOR.mean.flatten() + rest @ a @ covariance / SIGMA**2
    return mean.unflatten(1, SHAPE), covariance.diagonal().sqrt().reshape(SHAPE)


@pytest.mark.parametrize("weight", [1.0, 0.4])
@pytest.mark.parametrize("name", OPERATORS)
def test_a_gaussian_posterior_is_drawn_exactly_at_any_step(name, weight):
    """Mean and spread within what 2,800 correlated draws allow, though the step is a half.

    A mean is off by 0.02 standard deviations and a spread by 4 %; over the 120 values the average of the
    spreads is off by 0.5 %.
    """
    likelihood, _ = problem(OPERATORS[name], 6)
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
    likelihood, x = problem(OPERATORS["sense"], 500)
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


class Narrow:
    """A prior five times narrower than its surrogate says, as flows are in some directions."""

    surrogate = PRIOR

    def __init__(self):
        self._own = smooth_prior(0.04)

    def energy(self, x: Tensor) -> Tensor:
        return self._own.energy(x)


def test_where_the_metric_is_too_wide_the_step_gives_way():
    likelihood, _ = problem(OPERATORS["inpaint"], 4)
    found = sample(likelihood, Narrow(), options=LangevinOptions(evaluations=4000, burn_in=500))
    own = Narrow()._own
    a = likelihood.operator(torch.eye(20, dtype=torch.float64).unflatten(1, SHAPE)).T
    covariance = torch.linalg.inv(a.T @ a / SIGMA**2 + torch.cholesky_inverse(own.root))
    std = covariance.diagonal().sqrt().reshape(SHAPE)
    assert float((found.std / std).mean()) == pytest.approx(1, abs=0.15)


class Walled(Narrow):
    """No density outside a box, like a flow that explodes off its data."""

    def energy(self, x: Tensor) -> Tensor:
        inside = (x.flatten(1) - 0.5).abs().amax(1) < 0.6
        return torch.where(inside, PRIOR.energy(x), torch.nan)


def test_a_chain_turns_back_where_the_energy_is_not_finite():
    likelihood, _ = problem(OPERATORS["denoise"], 8)
    inside = likelihood.select(((likelihood.y - 0.5).abs().flatten(1).amax(1) < 0.55).nonzero()[:, 0])
    found = sample(inside, Walled(), options=LangevinOptions(step=0.5))
    assert torch.isfinite(found.objectives).all() and torch.isfinite(found.mean).all()
    assert float((found.images - 0.5).abs().max()) <= 0.6
    assert float(found.objectives.diff(dim=0).abs().gt(0).double().mean()) > 0.5, "it goes on moving"


def test_counts_of_photons_are_averaged_as_quadrature_does():
    """Poisson noise on 256 values that are independent under the prior, so that each has its quadrature.

    A spread is off by 0.08 in log, 0.005 on average; a mean by 0.06 of the spread, 0.004 on average. The
    bounds are more than ten standard errors off.
    """
    shape, std = (1, 8, 8), 0.2
    prior = priors.Gaussian(torch.full(shape, 0.5).double(), std**2 * torch.eye(64).double())
    generator = torch.Generator().manual_seed(0)
    x = 0.5 + std * torch.randn(4, *shape, generator=generator, dtype=torch.float64)
    y = Poisson(Identity(shape), torch.zeros_like(x), 20.0).simulate(x, generator)
    found = sample(Poisson(Identity(shape), y, 20.0), prior, options=LangevinOptions(2000, 200, step=0.2))
    mean, spread = by_quadrature(lambda y: Poisson(Identity((1, 1, 1)), y, 20.0), y, 0.5, std)
    assert float((found.std / spread).log().mean()) == pytest.approx(0, abs=0.08)
    assert float(((found.mean - mean) / spread).mean()) == pytest.approx(0, abs=0.06)


def test_dark_speckle_is_averaged_as_quadrature_does():
    """A dark value beside bright ones is far surer than they are: in their steps it would be thrown about.

    300 independent chains. The dark spread is off by 0.17 in log in each, on average by 0.01, and it is 0.045
    too small for want of draws; the mean is off by 0.14 of the spread, on average by 0.008. So the bounds are
    at least five standard errors off. In steps that fit the picture of the closed form, whose dark value is
    eight times too bright, the spread is on average 0.2 to 0.3 too large in log, and the mean 0.1 to 0.3 of
    the spread too bright.
    """
    shape, std, count = (1, 1, 4), 0.2, 300
    prior = priors.Gaussian(torch.full(shape, 0.5).double(), std**2 * torch.eye(4).double())
    dark = torch.linspace(0.02, 0.04, count, dtype=torch.float64)
    y = torch.stack((dark, 0.6 + dark, 0.9 + dark, 1.1 + dark), 1).reshape(count, *shape)
    found = sample(Gamma(Identity(shape), y, 20.0), prior, options=LangevinOptions(1600, 300))
    mean, spread = by_quadrature(lambda y: Gamma(Identity((1, 1, 1)), y, 20.0), y, 0.5, std)
    ratio = (found.std / spread).log().mean(0)
    error = ((found.mean - mean) / spread).mean(0)
    assert float(ratio.abs().max()) < 0.1 and float(error.abs().max()) < 0.1


def by_quadrature(
    of: Callable[[Tensor], Likelihood], y: Tensor, centre: float, std: float
) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of every value that y measures, under the prior N(centre, std²)."""
    grid = torch.linspace(-0.2, 1.8, 3001, dtype=torch.float64)
    likelihood = of(y.reshape(-1, 1, 1, 1))
    own = torch.stack([likelihood(u.expand(y.numel(), 1, 1, 1)) for u in grid], 1)
    log_density = -own - 0.5 * ((grid - centre) / std) ** 2
    density = torch.softmax(log_density, 1)
    mean = density @ grid
    spread = (density * (grid - mean[:, None]) ** 2).sum(1).sqrt()
    return mean.reshape(y.shape), spread.reshape(y.shape)


def test_an_image_gets_the_same_chain_alone_and_in_a_batch():
    likelihood, _ = problem(OPERATORS["sense"], 5)
    options = LangevinOptions(evaluations=60, burn_in=20)
    together = sample(likelihood, PRIOR, 2, options=options)
    alone = sample(likelihood.select(torch.tensor([3])), PRIOR, 2, options=options)
    torch.testing.assert_close(together.mean[3:4], alone.mean, rtol=0, atol=1e-8)
    torch.testing.assert_close(together.images[:, 3:4], alone.images, rtol=0, atol=1e-8)
    again = sample(likelihood, PRIOR, 2, options=options)
    assert torch.equal(again.mean, together.mean)


def test_a_seed_decides_the_chain():
    """Each of six images has other draws under another seed, and the same bits under the same."""
    likelihood, _ = problem(OPERATORS["sense"], 6)
    five, six = (LangevinOptions(evaluations=40, burn_in=20, seed=seed) for seed in (5, 6))
    first, again, other = (sample(likelihood, PRIOR, options=options) for options in (five, five, six))
    assert all(torch.equal(getattr(first, name), getattr(again, name)) for name in ("mean", "images"))
    apart = (first.images[-1] - other.images[-1]).abs().flatten(1).amax(1)
    assert (apart > 0.01).all(), "spreads are 0.1 to 0.2"
    alone = sample(likelihood.select(torch.tensor([3])), PRIOR, options=five)
    torch.testing.assert_close(first.images[:, 3:4], alone.images, rtol=0, atol=1e-8)


def test_chains_run_side_by_side_as_each_does_alone():
    likelihood, _ = problem(OPERATORS["inpaint"], 3)
    short = LangevinOptions(evaluations=40, burn_in=20)
    one, three = (sample(likelihood, PRIOR, k, 0.7, replace(short, chains=k)) for k in (1, 3))
    assert three.objectives.shape == (40, 3, 3) and three.images.shape == (3, 3, *SHAPE)
    assert one.evaluations == 41 and three.evaluations == 3 * 41
    torch.testing.assert_close(three.objectives[:, :1], one.objectives, rtol=0, atol=1e-7)
    torch.testing.assert_close(three.images[:1], one.images, rtol=0, atol=1e-8)
    apart = torch.cdist(three.images.transpose(0, 1).flatten(2), three.images.transpose(0, 1).flatten(2))
    assert (apart.flatten(1).sort(1).values[:, 3:] > 0.01).all(), "every chain is somewhere else"


def test_mean_and_spread_are_of_all_draws_of_all_chains():
    likelihood, _ = problem(OPERATORS["denoise"], 2)
    found = sample(likelihood, PRIOR, 80, options=LangevinOptions(evaluations=30, burn_in=10, chains=4))
    torch.testing.assert_close(found.mean, found.images.mean(0))
    torch.testing.assert_close(found.std, found.images.std(0))


@pytest.mark.parametrize("count", [1, 3, 20])
def test_pictures_are_spread_over_the_chain_and_end_with_its_last(count):
    seen = []
    likelihood, _ = problem(OPERATORS["denoise"], 1)
    options = LangevinOptions(evaluations=30, burn_in=10)
    found = sample(likelihood, PRIOR, count, options=options, watch=seen.append)
    kept = [next(draw.index for draw in seen if torch.equal(draw.x[0], image)) for image in found.images]
    assert kept == [9 + 20 * (k + 1) // count for k in range(count)]


def test_chains_agree_on_a_gaussian_posterior():
    """And the effective size says how far the mean is off.

    Of 24 images the squared error times that size is 1 with a standard deviation of 0.4, on average of 0.08:
    the bound is six standard errors off.
    """
    likelihood, _ = problem(OPERATORS["inpaint"], 24)
    found = sample(likelihood, PRIOR, options=LangevinOptions(800, 200, step=0.5, chains=4))
    assert (found.rhat < 1.05).all() and "within 1.05" in found.verdict
    mean, std = closed_form(likelihood)
    squares = (found.mean - mean).square().flatten(1).sum(1) / std.square().sum()
    assert float((squares * found.effective).mean()) == pytest.approx(1, abs=0.5)


def test_a_short_chain_says_that_it_is_short():
    likelihood, _ = problem(OPERATORS["inpaint"], 6)
    found = sample(likelihood, PRIOR, options=LangevinOptions(60, 20, chains=4))
    assert (found.rhat > 1.05).all() and "above 1.05 in 6 of 6 images" in found.verdict


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


def test_samples_are_pickled():
    likelihood, _ = problem(OPERATORS["sense"], 2)
    found = sample(likelihood, PRIOR, 2, options=LangevinOptions(evaluations=30, burn_in=10, chains=2))
    again = pickle.loads(pickle.dumps(found))
    assert all(torch.equal(*pair) for pair in zip(found.interval(), again.interval(), strict=True))
    assert again.verdict == found.verdict and torch.equal(again.images, found.images)


def test_equal_measurements_are_drawn_alike():
    """However their operator is spelled: speckle on single values, whose metric knows how sure each is."""
    plain = Gamma(Identity(SHAPE), torch.linspace(0.05, 1, 40, dtype=torch.float64).reshape(2, *SHAPE), 20.0)
    other = Gamma(Composition(Identity(SHAPE), Identity(SHAPE)), plain.y, 20.0)
    options = LangevinOptions(evaluations=40, burn_in=20)
    assert torch.equal(sample(other, PRIOR, options=options).mean, sample(plain, PRIOR, options=options).mean)


def test_a_reconstruction_knows_its_mean_spread_and_draws():
    """40 pictures: chains of 400 steps find spreads to 5 %, on average to 0.8 %, and 2 % too small."""
    likelihood, x = problem(OPERATORS["denoise"], 40)
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


def test_laplaces_approximation_is_exact_where_f_is_quadratic():
    """The metric is the inverse Hessian, so only the 200 draws for its diagonal scatter, each value by 5 %.

    The average over 30 images is off by 0.4 %.
    """
    for name in OPERATORS:
        likelihood, _ = problem(OPERATORS[name], 30)
        ratio = reconstruct(likelihood, PRIOR, "bayes").laplace_std / closed_form(likelihood)[1]
        assert float((ratio - 1).square().mean().sqrt()) < 0.07
        assert float(ratio.mean()) == pytest.approx(1, abs=0.02)


def test_laplaces_approximation_takes_curvature_from_the_prior_not_from_its_metric():
    likelihood, _ = problem(OPERATORS["inpaint"], 2)
    weight = torch.ones(2, dtype=torch.float64)
    found = laplace_std(
        sampling_problem(likelihood, Narrow()),
        likelihood.operator.linear.adjoint(likelihood.y),
        weight,
        [0, 1],
        400,
    )
    own = Narrow()._own
    a = likelihood.operator(torch.eye(20, dtype=torch.float64).unflatten(1, SHAPE)).T
    covariance = torch.linalg.inv(a.T @ a / SIGMA**2 + torch.cholesky_inverse(own.root))
    assert float((found / covariance.diagonal().sqrt().reshape(SHAPE)).mean()) == pytest.approx(1, abs=0.1)


def test_a_prior_without_surrogate_is_drawn_in_the_data_terms_metric():
    class Plain:
        def energy(self, x: Tensor) -> Tensor:
            return PRIOR.energy(x)

    likelihood, _ = problem(OPERATORS["denoise"], 3)
    found = sample(likelihood, Plain(), options=LONG)
    assert float((found.std / closed_form(likelihood)[1]).mean()) == pytest.approx(1, abs=0.1)


def test_noise_that_is_not_gaussian_is_sampled_too():
    """The share in 250 pictures is known to 0.006, and the interval is that of a normal distribution."""
    _, x = problem(OPERATORS["denoise"], 250)
    y = Laplace(Identity(SHAPE), x, 0.07).simulate(x, torch.Generator().manual_seed(1))
    found = sample(Laplace(Identity(SHAPE), y, 0.07), PRIOR, options=LangevinOptions(900, 100))
    lower, upper = found.interval()
    assert float(((lower < x) & (x < upper)).double().mean()) == pytest.approx(0.9, abs=0.04)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda lik: LangevinOptions(evaluations=10, burn_in=10), "burn_in = 10"),
        (lambda lik: LangevinOptions(step=0.0), r"step = 0\.0"),
        (lambda lik: LangevinOptions(friction=-1.0), r"friction = -1\.0"),
        (lambda lik: sample(lik, PRIOR, 0), "count = 0"),
        (lambda lik: sample(lik, PRIOR, 8, 0.0), r"weight = 0\.0"),
        (lambda lik: sample(lik, PRIOR, 9, options=LangevinOptions(6, 2, chains=2)), "between 1 and 8"),
        (lambda lik: LangevinOptions(seed=-1), "seed = -1"),
        (lambda lik: LangevinOptions(chains=0), "chains = 0"),
        (lambda lik: sample(lik, PRIOR).interval(1.5), r"coverage = 1\.5"),
    ],
)
def test_impossible_wishes_are_refused(make, named):
    likelihood, _ = problem(OPERATORS["denoise"], 1)
    with pytest.raises(InputError, match=named):
        make(likelihood)


def test_white_noise_of_an_image_comes_from_its_own_seed():
    like = torch.empty(3, 2, 5)
    together, alone = White([1, 2, 3])(like), White([2])(like[:1])
    assert torch.equal(together[1:2], alone)
    assert White([])(like[:0]).shape == (0, 2, 5)
