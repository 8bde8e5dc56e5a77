"""Coloured and learnt noise on filtered pictures is white noise behind one more filter."""

import pytest
import torch
from noise_models import PRIOR, SHAPE, Stripes, pictures
from torch import Tensor

from aipo.basics.derivatives import value_and_gradient
from aipo.likelihoods import Coloured, FlowNoise
from aipo.operators import (
    Blur,
    Composition,
    Curve,
    Downsampling,
    Filter,
    GaussianSensing,
    Identity,
    LinearOperator,
    gamma_curve,
    gaussian_kernel,
)
from aipo.path.objective import objective


def bands(height: int = 4, width: int = 5) -> Tensor:
    rows, columns = torch.fft.fftfreq(height).double()[:, None], torch.fft.fftfreq(width).double()
    return 0.01 / (0.05 + rows**2 + columns**2)


class Neighbours(LinearOperator):
    """A user's own blur: the mean of every value and the one to its right."""

    shape = measurement_shape = SHAPE

    def forward(self, x: Tensor) -> Tensor:
        return (x + x.roll(-1, -1)) / 2

    def adjoint(self, y: Tensor) -> Tensor:
        return (y + y.roll(1, -1)) / 2


BLUR = Blur(SHAPE, gaussian_kernel(0.6)[1:-1, 1:-1])
FILTERS = {
    "identity": Identity(SHAPE),
    "blur": BLUR,
    "own blur": Neighbours(),
    "composition": Composition(BLUR, Neighbours()),
}
every_filter = pytest.mark.parametrize("operator", FILTERS.values(), ids=FILTERS)


@every_filter
def test_the_near_likelihood_is_the_same_density(operator):
    """But for its constant, which knows no power."""
    likelihood, x = Coloured(operator, pictures(3), bands()), pictures(3).flip(-1)
    near, constant = likelihood.gaussian(), 0.5 * float(bands().log().sum())
    torch.testing.assert_close(near(x), likelihood(x) - constant, rtol=1e-9, atol=1e-9)


@every_filter
def test_a_path_begins_at_the_minimum(operator):
    """Of D + λR under a Gaussian prior, at every λ."""
    likelihood = Coloured(operator, pictures(2), bands())
    weight = torch.tensor([0.5, 3.0], dtype=torch.float64)
    start = objective(likelihood, PRIOR).start(weight)
    gradient = value_and_gradient(lambda x: likelihood(x) + weight * PRIOR.energy(x), start)[1]
    away = value_and_gradient(lambda x: likelihood(x) + weight * PRIOR.energy(x), start + 0.1)[1]
    assert float(gradient.abs().max()) < 1e-6 * float(away.abs().max())


@pytest.mark.parametrize("operator", [Downsampling((1, 4, 10), 2), gamma_curve(Identity((1, 2, 5)), 2.2)])
def test_other_instruments_have_white_noise_of_the_average_power_near_them(operator):
    y, power = pictures(2, (1, 2, 5)), bands(2, 5)
    near = Coloured(operator, y, power).gaussian()
    assert near.operator is operator.linear
    if not isinstance(operator, Curve):
        torch.testing.assert_close(near.sigma, power.mean().sqrt().expand(2))


class Waves:
    """A density of coloured noise about 0.2."""

    def log_prob(self, e: Tensor) -> Tensor:
        return -Coloured(Identity(SHAPE), e, bands())(torch.full_like(e, 0.2))

    def sample(self, count: int) -> Tensor:
        mean = torch.full((count, *SHAPE), 0.2, dtype=torch.float64)
        generator = torch.Generator().manual_seed(0)
        return Coloured(Identity(SHAPE), mean, bands()).simulate(mean, generator)


@every_filter
def test_learnt_noise_is_whitened_as_its_samples_are_coloured(operator):
    """All frequencies are equally strong then; before, their powers differ by a factor of nine."""
    density, x = Waves(), pictures(2000)
    noise = density.sample(4000)
    likelihood = FlowNoise(operator, operator(x) + noise[2000:], density, noise[:2000])
    near = likelihood.gaussian()
    power = torch.fft.fft2(near.y - near.operator(x), norm="ortho").abs().square().mean((0, 1))
    assert float(power.min()) > 0.8 and float(power.max()) < 1.2


def test_learnt_noise_on_single_numbers_has_a_mean_and_a_variance():
    sensing = GaussianSensing(SHAPE, 9)
    draws = 0.3 + 0.1 * torch.randn(4000, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = sensing(pictures(2))
    near = FlowNoise(sensing, y, Stripes(), draws).gaussian()
    assert near.operator is sensing
    torch.testing.assert_close(near.y, y - 0.3, rtol=0, atol=0.01)
    torch.testing.assert_close(near.sigma, torch.full((2,), 0.1, dtype=torch.float64), rtol=0.05, atol=0)


def test_a_filter_that_changes_nothing_is_left_out():
    near = Coloured(Identity(SHAPE), pictures(1), bands()).gaussian()
    assert type(near.operator) is Filter
