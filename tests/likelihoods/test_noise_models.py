"""Every noise model against SciPy's densities, by simulation, and through a whole reconstruction."""

import math

import numpy as np
import pytest
import torch
from noise_models import MODELS, PRIOR, SHAPE, Stripes, drawn, every_model, measured, pictures
from scipy import stats
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from aipo.basics.errors import InputError
from aipo.likelihoods import (
    Clipped,
    Coloured,
    FlowNoise,
    Gamma,
    Gaussian,
    Heteroscedastic,
    Laplace,
    OneBit,
    Poisson,
    Quantised,
    StudentT,
)
from aipo.likelihoods.intervals import log_interval
from aipo.operators import GaussianSensing, Identity, Magnitude, Stack, gamma_curve, haze
from aipo.reconstruction.reconstruct import reconstruct


@every_model
def test_energy_is_minus_the_log_density_with_every_constant(model):
    x = pictures(6)
    likelihood = measured(model, x)
    expected = -model.log_density(likelihood.y.numpy(), x.numpy()).reshape(6, -1).sum(1)
    np.testing.assert_allclose(likelihood(x).numpy(), expected, rtol=1e-9)


@every_model
def test_simulated_noise_has_the_moments_and_a_misfit_of_one(model):
    """4,000 measurements of one picture: mean within 5 standard errors, variance within a fifth.

    Of one bit the misfit is 1 for pictures as spread as photographs are, not for each.
    """
    x = pictures(1).expand(4000, *SHAPE)
    likelihood = measured(model, x)
    mean, variance = (moment[0] for moment in likelihood.moments(x[:1].expand(4000, *SHAPE)))
    error = (variance / 4000).sqrt()
    assert ((likelihood.y.mean(0) - mean).abs() / error).max() < 5
    assert (likelihood.y.var(0) / variance - 1).abs().max() < 0.2
    if model is MODELS["one-bit"]:
        x = 0.5 + 0.25 * torch.randn(4000, *SHAPE, generator=torch.Generator().manual_seed(3)).double()
        likelihood = measured(model, x)
    assert float(likelihood.misfit(x).mean()) == pytest.approx(1, abs=0.03)


@every_model
def test_precision_is_the_information_of_a_value_or_less(model):
    """Of 20,000 simulated values; of those that tell u by their mean alone it is all there is."""
    x = pictures(1)
    many = x.expand(20_000, *SHAPE)
    likelihood = measured(model, many)
    place = many.clone().requires_grad_()
    slope = torch.autograd.grad(likelihood(place).sum(), place)[0]
    information = slope.square().mean(0)
    precision = likelihood.precision(many)[0]
    ratio = precision / information
    assert (precision > 0).all() and ratio.max() < 1.1
    if model in [MODELS[name] for name in ("heteroscedastic", "poisson", "gamma", "one-bit")]:
        assert ratio.min() > 0.9


@pytest.mark.parametrize("name", ["poisson", "gamma"])
def test_the_dark_is_as_sure_as_the_least_light(name):
    """Where a value has left the noise model's domain its steps must not grow again."""
    likelihood = measured(MODELS[name], pictures(3))
    dark, darker = (torch.full_like(likelihood.y, value) for value in (-0.2, -0.5))
    assert torch.equal(likelihood.precision(dark), likelihood.precision(darker))
    assert (likelihood.precision(dark) > likelihood.precision(pictures(3))).all()


@every_model
def test_gradients_and_hessian_products_are_those_of_the_energy(model):
    x = pictures(2)
    likelihood = measured(model, x)
    place = (x + 0.003).requires_grad_()
    assert gradcheck(likelihood, (place,))
    if model is not MODELS["laplace"]:  # whose gradient is constant between corners
        assert gradgradcheck(likelihood, (place,))


@every_model
def test_part_of_a_batch_and_twice_a_batch(model):
    x = pictures(4)
    likelihood = measured(model, x)
    part = likelihood.select(torch.tensor([2, 0]))
    assert type(part) is type(likelihood)
    torch.testing.assert_close(part(x[[2, 0]]), likelihood(x)[[2, 0]], rtol=1e-12, atol=0)
    twice = likelihood.append(likelihood.y.flip(0))
    expected = torch.cat((likelihood(x), likelihood(x)))
    torch.testing.assert_close(
        twice(torch.cat((x, x.flip(0)))), torch.cat((expected[:4], expected[:4].flip(0)))
    )
    with pytest.raises(InputError, match="append"):
        likelihood.append(likelihood.y[:2])


@every_model
def test_the_gaussian_near_it_has_noise_of_about_that_size(model):
    x = pictures(200)
    likelihood = measured(model, x)
    near = likelihood.gaussian()
    assert type(near) is Gaussian and near.operator is likelihood.operator
    found = float(near.misfit(x).mean())
    # One-bit and clipped measurements know little of u; a metric needs the size of the noise to a few times.
    assert (0.2 if model is MODELS["clipped"] else 0.5) < found < (5 if model is MODELS["one-bit"] else 2)


@every_model
def test_parameters_must_be_positive_numbers(model):
    x = pictures(2)
    likelihood = measured(model, x)
    for bad in (torch.full_like(x, torch.nan), x[:0], x[:, :, :3]):
        with pytest.raises(InputError):
            model.make(likelihood.operator, bad)
    for name in type(likelihood).per_image:
        if name != "background":
            broken = [getattr(likelihood, n) * (0 if n == name else 1) for n in type(likelihood).per_image]
            shared = [getattr(likelihood, n) for n in type(likelihood).shared]
            with pytest.raises(InputError, match=name):
                type(likelihood)(likelihood.operator, likelihood.y, *shared, *broken)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda a, y: Poisson(a, y + 0.013, 20.0), "whole counts"),
        (lambda a, y: Poisson(a, y - 1, 20.0), "whole counts"),
        (lambda a, y: Poisson(a, y, 20.0, -1.0), "background = -1"),
        (lambda a, y: StudentT(a, y, 2.0, 0.1), r"freedom = 2\.0"),
        (lambda a, y: Gamma(a, y - 1, 8.0), "positive under speckle"),
        (lambda a, y: Quantised(a, y + 0.04, 0.1, 0.1), "multiple of step"),
        (lambda a, y: Clipped(a, y, 0.5, 0.7, 0.1), "range"),
        (lambda a, y: Clipped(a, y, 0.7, 0.3, 0.1), "range"),
        (lambda a, y: OneBit(a, y + 0.5, 0.5, 0.1), "one-bit"),
        (lambda a, y: OneBit(a, y + 1, math.nan, 0.1), "threshold = nan"),
        (lambda a, y: Heteroscedastic(a, y, torch.ones(3)), r"\(3,\)"),
        (lambda a, y: Coloured(a, y, torch.ones(3, 3)), r"\(3, 3\)"),
        (lambda a, y: Coloured(a, y, torch.zeros(4, 5)), "positive"),
        (lambda a, y: Coloured(a, y, 1.0 + torch.arange(20.0).reshape(4, 5)), "opposite"),
    ],
)
def test_impossible_measurements_are_refused(make, named):
    with pytest.raises(InputError, match=named):
        make(Identity(SHAPE), torch.zeros(2, *SHAPE, dtype=torch.float64))


@pytest.mark.parametrize("name", ["poisson", "gamma"])
def test_energies_go_on_rising_where_the_density_ends(name):
    """Finite, falling towards the positive numbers, without a step or a corner at the joint."""
    likelihood = measured(MODELS[name], pictures(3))
    joint = (0.5 - 1.5) / 20 if name == "poisson" else 0.01
    u = torch.linspace(-2, joint - 1e-9, 50, dtype=torch.float64)
    energies = torch.stack([likelihood.energies(torch.full_like(likelihood.y, float(v))) for v in u])
    assert torch.isfinite(energies).all()
    assert (energies.diff(dim=0)[:-25] < 0).all() and (energies.diff(n=2, dim=0) > 0).all()

    def gradient(v: float) -> Tensor:
        at = torch.full_like(likelihood.y, v).requires_grad_()
        return torch.autograd.grad(likelihood.energies(at).sum(), at)[0]

    torch.testing.assert_close(gradient(joint - 1e-9), gradient(joint + 1e-9), rtol=1e-4, atol=1e-3)


def test_intervals_are_accurate_in_both_tails():
    a = torch.tensor([-40.0, -8.0, -0.1, 3.0, 8.0, 38.0], dtype=torch.float64)
    b = a + 0.5
    # By symmetry the interval is looked at where its probability is small, and SciPy's logcdf exact.
    mirrored = [
        (-high, -low) if low > 0 else (low, high) for low, high in zip(a.tolist(), b.tolist(), strict=True)
    ]
    upper, lower = (stats.norm.logcdf([ends[side] for ends in mirrored]) for side in (1, 0))
    expected = upper + np.log1p(-np.exp(lower - upper))
    np.testing.assert_allclose(log_interval(a, b).numpy(), expected, rtol=1e-10)


def spectrum() -> Tensor:
    frequency = (
        torch.fft.fftfreq(4, dtype=torch.float64)[:, None] ** 2
        + torch.fft.fftfreq(5, dtype=torch.float64) ** 2
    )
    return 0.01 / (0.05 + frequency)


def test_coloured_noise_is_a_gaussian_with_that_covariance():
    x, power = pictures(300), spectrum()
    operator = Identity(SHAPE)
    y = Coloured(operator, torch.zeros_like(x), power).simulate(x, torch.Generator().manual_seed(0))
    likelihood = Coloured(operator, y, power)
    units = torch.eye(20, dtype=torch.float64).reshape(20, *SHAPE)
    root = torch.fft.ifft2(power.sqrt() * torch.fft.fft2(units)).real.flatten(1).numpy()
    covariance = root @ root.T
    residual = (y - x).flatten(1).numpy()
    expected = -stats.multivariate_normal.logpdf(residual, np.zeros(20), covariance)
    np.testing.assert_allclose(likelihood(x).numpy(), expected, rtol=1e-9)
    np.testing.assert_allclose(residual.T @ residual / 300, covariance, atol=0.25 * covariance.max())
    assert float(likelihood.misfit(x).mean()) == pytest.approx(1, abs=0.05)
    near, constant = likelihood.gaussian(), 0.5 * float(power.log().sum())
    torch.testing.assert_close(near(x), likelihood(x) - constant, rtol=1e-9, atol=1e-9)
    assert gradcheck(likelihood.select(torch.tensor([0])), (x[:1].clone().requires_grad_(),))


def test_learnt_noise_is_the_density_of_the_residual():
    x = pictures(50)
    blank = FlowNoise(Identity(SHAPE), torch.zeros_like(x), Stripes())
    likelihood = FlowNoise(Identity(SHAPE), blank.simulate(x, torch.Generator().manual_seed(1)), Stripes())
    torch.testing.assert_close(likelihood(x), -Stripes().log_prob(likelihood.y - x))
    assert float(likelihood.misfit(x).mean()) == pytest.approx(1, abs=0.1)
    near = likelihood.gaussian()
    assert likelihood.nearest()[1] == pytest.approx(0.05, rel=0.1)
    assert float(near.misfit(x).mean()) == pytest.approx(1, abs=0.1), "the mean of the noise is taken off"
    torch.testing.assert_close(likelihood.select(torch.tensor([3]))(x[3:4]), likelihood(x)[3:4])
    single = FlowNoise(Identity(SHAPE), likelihood.y.float(), Stripes(), 1e3 * likelihood.draws.float())
    assert torch.isfinite(single.gaussian().y).all(), "strong draws in single precision have an even spectrum"
    with pytest.raises(InputError, match="draws"):
        FlowNoise(Identity((1, 3, 5)), torch.zeros(1, 1, 3, 5, dtype=torch.float64), Stripes())


@every_model
def test_a_whole_reconstruction_lowers_the_error(model):
    """Under the prior that pictures come from; the report says what chose the weight."""
    x = drawn(8).clamp(0.1, 0.95)
    likelihood = measured(model, x)
    restored = reconstruct(likelihood, PRIOR)
    assert restored.criterion == ("sure" if isinstance(likelihood, Heteroscedastic) else "discrepancy")
    guess = likelihood.gaussian().y
    assert (restored.image - x).square().mean() < 0.8 * (guess - x).square().mean()


@pytest.mark.parametrize(
    "operator",
    [
        gamma_curve(Identity(SHAPE), 2.2),
        haze(Identity(SHAPE), 0.4),
        Magnitude(Stack(*(GaussianSensing(SHAPE, 20, seed=k) for k in range(3)))),
    ],
    ids=["gamma", "haze", "magnitude"],
)
@pytest.mark.parametrize("noise", ["gaussian", "laplace"])
def test_bent_measurements_are_restored(operator, noise):
    """Nearer to the truth than the straightened measurement, or the prior's mean."""
    x = drawn(6).clamp(0.05, 0.95)
    y = operator(x)
    make = (
        (lambda y: Gaussian(operator, y, 0.05))
        if noise == "gaussian"
        else (lambda y: Laplace(operator, y, 0.04))
    )
    likelihood = make(make(y).simulate(x, torch.Generator().manual_seed(0)))
    assert likelihood.gaussian().operator is operator.linear
    restored = reconstruct(likelihood, PRIOR)
    assert restored.criterion == "discrepancy"
    assert (restored.image - x).square().mean() < 0.5 * (x - 0.5).square().mean()


def test_sure_is_for_gaussian_noise():
    likelihood = measured(MODELS["laplace"], pictures(1))
    with pytest.raises(InputError, match="does not hold for Laplace noise"):
        reconstruct(likelihood, PRIOR, "sure")


def test_one_bit_sensing_recovers_the_picture_up_to_noise():
    """Signs of many mixtures, at a known noise level: nearer to the truth than the prior's mean."""
    x = drawn(4)
    operator = GaussianSensing(SHAPE, 20, seed=0)
    y = OneBit(operator, torch.ones(4, 20, dtype=torch.float64), 0.0, 0.1).simulate(
        x, torch.Generator().manual_seed(1)
    )
    restored = reconstruct(OneBit(operator, y, 0.0, 0.1), PRIOR, 1.0)
    assert (restored.image - x).square().mean() < (0.5 - x).square().mean()


@pytest.mark.parametrize("name", ["poisson", "poisson-gaussian"])
def test_pure_chooses_the_weight_where_it_is_asked_for(name):
    x = drawn(8).clamp(0.1, 0.95)
    likelihood = measured(MODELS[name], x)
    restored = reconstruct(likelihood, PRIOR, "sure")
    assert restored.criterion == "pure" and "PURE" in restored.reason
    assert (restored.image - x).square().mean() < 0.8 * (likelihood.gaussian().y - x).square().mean()
