"""Gaussian surrogates: factor, precision and covariance agree; fits recover densities that are known."""

import pickle
from copy import deepcopy
from itertools import product

import pytest
import torch
from elsewhere import elsewhere
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import multivariate_normal
from torch import Tensor

from aipo.basics.errors import InputError
from aipo.gaussian import (
    VARIANCE_FLOOR,
    LowRankGaussian,
    LowRankStationary,
    StationaryGaussian,
    Surrogate,
    energy,
    log_prob,
)
from aipo.priors import Gaussian

Shape = tuple[int, int, int]


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def low_rank(shape: Shape, rank: int = 3) -> LowRankGaussian:
    n = torch.Size(shape).numel()
    return LowRankGaussian(randn(*shape), randn(n, rank, seed=1), 0.1 + randn(n, seed=2).square())


def photo_like(channels: int, grid: int) -> Tensor:
    """Power 1/(f² + f₀²), as of photographs, falling faster along one axis; (C, G, G)."""
    frequency = torch.fft.fftfreq(grid, dtype=torch.float64)
    squares = frequency[:, None] ** 2 + 2 * frequency**2
    return torch.stack([0.01 / (squares + 0.01 * (1 + channel)) for channel in range(channels)])


def stationary(shape: Shape, grid: int = 8) -> StationaryGaussian:
    channels = shape[0]
    colours = torch.linalg.qr(randn(channels, channels, seed=3))[0]
    return StationaryGaussian(randn(channels), colours, photo_like(channels, grid))


def textured(shape: Shape, rank: int = 3) -> LowRankStationary:
    texture, n = stationary(shape), torch.Size(shape).numel()
    power = texture.power(randn(1, *shape))
    return LowRankStationary(randn(*shape), randn(n, rank, seed=1), texture.colours, power)


def full(shape: Shape) -> Gaussian:
    n = torch.Size(shape).numel()
    root = randn(n, n, seed=4) / n**0.5
    return Gaussian(randn(*shape), root @ root.T + 0.1 * torch.eye(n))


SURROGATES = {
    "low-rank": low_rank,
    "stationary": stationary,
    "low-rank-stationary": textured,
    "full": full,
}
every_surrogate = pytest.mark.parametrize("make", SURROGATES.values(), ids=SURROGATES)
shapes = st.tuples(st.sampled_from([1, 3]), st.integers(2, 9), st.integers(2, 9))


def unit_pictures(shape: Shape) -> Tensor:
    n = torch.Size(shape).numel()
    return torch.eye(n, dtype=torch.float64).reshape(n, *shape)


def covariance_of(surrogate: Surrogate, shape: Shape) -> Tensor:
    """Σ = F Fᵀ as a matrix."""
    columns = surrogate.factor(surrogate.factor_adjoint(unit_pictures(shape)))
    return columns.flatten(1)


def precision_of(surrogate: Surrogate, shape: Shape) -> Tensor:
    return surrogate.precision(unit_pictures(shape)).flatten(1)


def identity_error(surrogate: Surrogate, shape: Shape) -> float:
    """Largest entry of Σ Σ⁻¹ − I."""
    product = covariance_of(surrogate, shape) @ precision_of(surrogate, shape)
    return float((product - torch.eye(len(product))).abs().max())


@every_surrogate
@settings(max_examples=10, deadline=None)
@given(shape=shapes, batch=st.integers(1, 3))
def test_factor_and_its_adjoint(make, shape, batch):
    surrogate = make(shape)
    v = randn(batch, *shape, seed=5)
    u = randn(*surrogate.factor_adjoint(v).shape, seed=6)
    left = (surrogate.factor(u) * v).flatten(1).sum(1)
    right = (u * surrogate.factor_adjoint(v)).flatten(1).sum(1)
    assert surrogate.factor(u).shape == v.shape
    assert (left - right).abs().max() <= 1e-10


@every_surrogate
@settings(max_examples=10, deadline=None)
@given(shape=shapes)
def test_precision_inverts_the_covariance(make, shape):
    assert identity_error(make(shape), shape) <= 1e-10


@pytest.mark.parametrize("size", [(6, 6), (5, 7)], ids=str)
def test_fitted_surrogates_keep_float64_accuracy_where_their_storage_allows(size):
    pictures = 0.5 + 0.1 * randn(40, 3, *size)
    assert identity_error(LowRankGaussian.fit(pictures, rank=4), (3, *size)) <= 1e-10
    # Its colour directions are stored in float32, and orthogonal only that far.
    crops = 0.5 + 0.1 * randn(40, 3, 8, 8)
    assert identity_error(StationaryGaussian.fit(crops), (3, *size)) <= 1e-6


@every_surrogate
def test_float32_results_are_those_of_float64(make):
    surrogate, v = make((3, 5, 6)), randn(2, 3, 5, 6)
    u = surrogate.factor_adjoint(v)
    for function, argument in (
        (surrogate.precision, v),
        (surrogate.factor_adjoint, v),
        (surrogate.factor, u),
    ):
        single = function(argument.float())
        assert single.dtype == torch.float32
        torch.testing.assert_close(single.double(), function(argument), rtol=1e-4, atol=1e-4)


@every_surrogate
def test_energy_is_the_log_density_without_its_constant(make):
    shape = (3, 3, 4)
    surrogate, x = make(shape), randn(4, *shape, seed=5)
    mean = surrogate.mean_like(x).expand(1, *shape).flatten()
    density = multivariate_normal(mean.numpy(), covariance_of(surrogate, shape).numpy())  # type: ignore[arg-type]
    differences = density.logpdf(mean.numpy()) - density.logpdf(x.flatten(1).numpy())
    torch.testing.assert_close(energy(surrogate, x), torch.from_numpy(differences), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("make", [low_rank, textured])
@pytest.mark.parametrize("shape", [(3, 3, 4), (1, 4, 5)], ids=str)
def test_log_density_with_its_constant(make, shape):
    surrogate, x = make(shape), randn(4, *shape, seed=5)
    covariance = covariance_of(surrogate, shape).numpy()
    density = multivariate_normal(surrogate.mean.flatten().numpy(), covariance)  # type: ignore[arg-type]
    expected = torch.from_numpy(density.logpdf(x.flatten(1).numpy()))
    torch.testing.assert_close(log_prob(surrogate, x), expected, rtol=1e-9, atol=1e-9)


# Low rank.


def test_low_rank_covariance_is_loadings_plus_variances():
    surrogate = low_rank((3, 2, 4))
    expected = surrogate.loadings @ surrogate.loadings.T + surrogate.variances.diag()
    torch.testing.assert_close(covariance_of(surrogate, (3, 2, 4)), expected)


def test_low_rank_fit_recovers_a_known_density():
    shape, count = (3, 4, 5), 20_000
    truth = LowRankGaussian(0.5 + 0.1 * randn(*shape), 0.3 * randn(60, 2, seed=1), torch.full((60,), 1e-3))
    pictures = truth.mean + truth.factor(randn(count, 62, seed=7))
    fitted = LowRankGaussian.fit(pictures, rank=2)
    expected, actual = covariance_of(truth, shape), covariance_of(fitted, shape)
    assert (fitted.mean - truth.mean).abs().max() <= 5 * (expected.diagonal().max() / count) ** 0.5
    assert torch.linalg.matrix_norm(actual - expected) <= 0.03 * torch.linalg.matrix_norm(expected)


def test_low_rank_fit_keeps_the_variance_of_every_pixel():
    pictures = 0.5 + randn(200, 3, 4, 5) * (0.05 + randn(3, 4, 5, seed=1).abs())
    fitted = LowRankGaussian.fit(pictures, rank=5)
    variances = pictures.flatten(1).var(0, correction=0)
    torch.testing.assert_close(
        covariance_of(fitted, (3, 4, 5)).diagonal(), variances, rtol=1e-5, atol=0, check_dtype=False
    )


@pytest.mark.parametrize("value", [0.0, 0.5])
def test_constant_pictures_still_give_a_proper_density(value):
    fitted = LowRankGaussian.fit(torch.full((8, 1, 4, 4), value), rank=3)
    assert float(fitted.variances.min()) == pytest.approx(VARIANCE_FLOOR)
    assert torch.isfinite(energy(fitted, torch.rand(2, 1, 4, 4))).all()
    crops = StationaryGaussian.fit(torch.full((8, 1, 4, 4), value))
    assert float(crops.spectrum.min()) == pytest.approx(VARIANCE_FLOOR)


# Stationary.


def draw(surrogate: StationaryGaussian, shape: Shape, count: int) -> Tensor:
    noise = randn(count, *shape, seed=8)
    return surrogate.mean_like(noise) + surrogate.factor(noise)


@pytest.mark.parametrize("grid", [7, 8])
def test_spectrum_at_the_grids_own_size_is_the_spectrum(grid):
    surrogate = stationary((3, grid, grid), grid)
    power = surrogate.power(randn(1, 3, grid, grid))
    torch.testing.assert_close(power, surrogate.spectrum[:, :, : grid // 2 + 1], rtol=1e-12, atol=0)


@pytest.mark.parametrize("size", [(16, 8), (5, 9), (3, 32)], ids=str)
def test_flat_spectra_are_white_at_every_size(size):
    surrogate = StationaryGaussian(torch.zeros(3), torch.eye(3), torch.full((3, 8, 8), 0.25))
    v = randn(2, 3, *size)
    torch.testing.assert_close(surrogate.covariance(v), 0.25 * v)
    torch.testing.assert_close(surrogate.precision(v), 4 * v)


@pytest.mark.parametrize("size", [(24, 18), (15, 31)], ids=str)
def test_interpolated_spectra_follow_the_frequency(size):
    # A fine grid of a smooth spectrum: other sizes see the same power at the same frequency.
    surrogate = StationaryGaussian(torch.zeros(1), torch.eye(1), photo_like(1, 64))
    rows, columns = (torch.fft.fftfreq(size[0]).double(), torch.fft.rfftfreq(size[1]).double())
    expected = 0.01 / (rows[:, None] ** 2 + 2 * columns**2 + 0.01)
    torch.testing.assert_close(surrogate.power(randn(1, 1, *size))[0], expected, rtol=0.03, atol=0)


@settings(max_examples=10, deadline=None)
@given(shape=shapes)
def test_stationary_covariance_is_the_same_everywhere(shape):
    surrogate, v = stationary(shape), randn(1, *shape)
    moved = torch.roll(surrogate.covariance(v), (1, 2), (2, 3))
    torch.testing.assert_close(surrogate.covariance(torch.roll(v, (1, 2), (2, 3))), moved)
    torch.testing.assert_close(surrogate.covariance(v), surrogate.factor(surrogate.factor_adjoint(v)))


@pytest.mark.parametrize("grid", [7, 8])
def test_fit_to_white_noise_is_flat(grid):
    # The relative deviation of each power is 1/√count; a real transform halves it at most.
    fitted = StationaryGaussian.fit(0.5 + 0.2 * randn(4000, 3, grid, grid))
    torch.testing.assert_close(fitted.mean, torch.full((3,), 0.5), rtol=0, atol=1e-2)
    relative = fitted.spectrum / 0.04 - 1
    assert abs(relative.mean()) <= 0.01
    assert relative.abs().max() <= 5 * (2 / 4000) ** 0.5


def test_fit_recovers_a_known_spectrum_and_colours():
    # Crops of far larger pictures, so that the crops are not periodic.
    truth = StationaryGaussian(torch.tensor([0.2, 0.4, 0.6]), COLOURS, photo_like(3, 64) * POWERS)
    pictures = draw(truth, (3, 64, 64), 200)
    crops = torch.cat([pictures[:, :, i : i + 32, j : j + 32] for i in (0, 32) for j in (0, 32)])
    fitted = StationaryGaussian.fit(crops)
    torch.testing.assert_close(fitted.mean.double(), truth.mean.double(), rtol=0, atol=0.05)
    overlap = (fitted.colours.double() @ COLOURS.T).abs()
    torch.testing.assert_close(overlap, torch.eye(3, dtype=torch.float64).flip(0), rtol=0, atol=0.05)
    like = randn(1, 3, 32, 32)
    ratio = fitted.power(like).flip(0) / truth.power(like)
    far = ratio[:, 2:-1, 2:]  # a window of 32 pixels smears the peak at the lowest frequencies
    assert abs(far.mean() - 1) <= 0.05
    assert (far - 1).abs().max() <= 0.5


COLOURS = torch.linalg.qr(randn(3, 3, seed=9))[0]
POWERS = torch.tensor([1.0, 0.3, 0.05], dtype=torch.float64)[:, None, None]


def test_fitted_spectra_are_positive_and_belong_to_real_pictures():
    spectrum = StationaryGaussian.fit(0.5 + 0.1 * randn(5, 3, 7, 7)).spectrum
    assert float(spectrum.min()) >= VARIANCE_FLOOR * (1 - 1e-6)
    torch.testing.assert_close(spectrum, spectrum.flip(1, 2).roll((1, 1), (1, 2)))


def test_spectra_of_many_sizes_take_a_bounded_memory(monkeypatch):
    """A service sees pictures of every size; a spectrum that made room for others comes back the same."""
    small = 100_000
    monkeypatch.setattr("aipo.gaussian.stationary.LARGEST_POWERS", small)
    surrogate = StationaryGaussian.fit(torch.rand(20, 3, 16, 16, generator=torch.Generator().manual_seed(0)))
    first = surrogate.power(randn(1, 3, 32, 32)).clone()
    for side in range(33, 73):
        surrogate.power(randn(1, 3, side, side))
    kept = sum(power.nbytes for power in surrogate._power._kept.values())
    assert kept <= small + 8 * 3 * 72 * 37 and len(surrogate._power) >= 1
    assert torch.equal(surrogate.power(randn(1, 3, 32, 32)), first)


def test_power_follows_newly_loaded_weights():
    surrogate, other = stationary((3, 8, 8)), stationary((3, 8, 8))
    other.spectrum *= 2
    v = randn(1, 3, 6, 7)
    before = surrogate.power(v)
    surrogate.load_state_dict(other.state_dict())
    torch.testing.assert_close(surrogate.power(v), 2 * before)


# Low rank and stationary.


def test_textured_covariance_is_loadings_plus_texture():
    shape = (3, 4, 5)
    surrogate, texture = textured(shape), stationary(shape)
    expected = surrogate.loadings @ surrogate.loadings.T + covariance_of(texture, shape)
    torch.testing.assert_close(covariance_of(surrogate, shape), expected)
    torch.testing.assert_close(surrogate.covariance(unit_pictures(shape)).flatten(1), expected)


@pytest.mark.parametrize("make", [low_rank, stationary, textured])
def test_wiener_filter_is_that_of_the_covariance(make):
    shape, noise = (3, 4, 5), torch.tensor([1e-3, 0.1, 3.0], dtype=torch.float64)
    surrogate, v = make(shape), randn(3, *shape, seed=5)
    covariance = covariance_of(surrogate, shape)
    torch.testing.assert_close(surrogate.covariance(v).flatten(1), v.flatten(1) @ covariance)
    for i, level in enumerate(noise):
        whole = covariance + level * torch.eye(len(covariance))
        expected = covariance @ torch.linalg.solve(whole, v[i].flatten())
        torch.testing.assert_close(surrogate.wiener(v, noise)[i].flatten(), expected)


@pytest.mark.parametrize("make", [low_rank, stationary, textured])
def test_components_and_rest_make_up_the_covariance(make):
    shape, noise = (3, 4, 5), torch.tensor([0.0, 0.1, 3.0], dtype=torch.float64)
    surrogate, v = make(shape), randn(3, *shape, seed=5)
    columns = surrogate.components(v).flatten(1)
    rest = covariance_of(surrogate, shape) - columns.T @ columns
    for i, level in enumerate(noise):
        expected = torch.linalg.solve(rest + level * torch.eye(len(rest)), v[i].flatten())
        torch.testing.assert_close(surrogate.inverse_rest(v, noise)[i].flatten(), expected)


@pytest.mark.parametrize("make", [low_rank, stationary, textured])
def test_copies_take_nothing_along_that_belongs_elsewhere(make):
    """What was prepared on one device is prepared anew on another, and by a pickled or deep copy."""
    shape, noise = (3, 4, 5), torch.tensor([0.1, 0.3], dtype=torch.float64)
    surrogate, v = make(shape), randn(2, *shape)
    expected = [surrogate.precision(v), surrogate.wiener(v, noise), surrogate.factor_adjoint(v)]
    for copied in (deepcopy(surrogate), pickle.loads(pickle.dumps(surrogate))):
        assert len(pickle.dumps(copied)) == len(pickle.dumps(make(shape)))
        torch.testing.assert_close(copied.precision(v), expected[0], rtol=0, atol=0)
        with elsewhere() as device:
            there, w, level = copied.to(device), v.to(device), noise.to(device)
            found = [there.precision(w), there.wiener(w, level), there.factor_adjoint(w)]
            assert all(value.device.type == device for value in found)
            torch.testing.assert_close([value.cpu() for value in found], expected)


def test_textured_fit_recovers_outlines_and_texture():
    shape, count = (1, 6, 8), 20_000
    texture = stationary(shape)
    power = 0.02 * texture.power(randn(1, *shape))
    truth = LowRankStationary(0.5 + 0.1 * randn(*shape), randn(48, 2, seed=1), texture.colours, power)
    pictures = truth.mean + truth.factor(randn(count, 50, seed=7))
    fitted = LowRankStationary.fit(pictures, rank=2)
    expected, actual = covariance_of(truth, shape), covariance_of(fitted, shape)
    assert torch.linalg.matrix_norm(actual - expected) <= 0.03 * torch.linalg.matrix_norm(expected)
    rest = precision_of(fitted, shape) - precision_of(truth, shape)
    assert torch.linalg.matrix_norm(rest) <= 0.5 * torch.linalg.matrix_norm(precision_of(truth, shape))


def test_new_weights_replace_what_was_prepared_from_the_old():
    one, other, v = textured((3, 4, 5)), textured((3, 4, 5)), randn(2, 3, 4, 5)
    other.loadings.mul_(2)
    before = one.precision(v)
    one.load_state_dict(other.state_dict())
    assert torch.equal(one.precision(v), other.precision(v)) and not torch.equal(one.precision(v), before)


def test_parts_that_do_not_fit_are_refused():
    good = textured((3, 4, 5))
    with pytest.raises(InputError, match=r"power \(3, 4, 5\)"):
        LowRankStationary(good.mean, good.loadings, good.colours, torch.ones(3, 4, 5))


@pytest.mark.parametrize("make", [stationary, textured])
@pytest.mark.parametrize("shape", [(3, 4, 5), (1, 5, 4)], ids=str)
def test_averaged_inverse_is_the_mean_over_all_places(make, shape):
    """Of the matrix itself, moved to each place of the picture, and of its mirror images."""
    surrogate, noise, (channels, height, width) = make(shape), 0.3, shape
    covariance = covariance_of(surrogate, shape)
    inverse = torch.linalg.inv(covariance + noise * torch.eye(len(covariance), dtype=torch.float64))
    moved = inverse.reshape(*shape, *shape)
    kernel = torch.zeros(channels, channels, height, width, dtype=torch.float64)
    for row, column in product(range(height), range(width)):
        kernel += moved.roll((-row, -column), (1, 2))[:, :, :, :, row, column].movedim(3, 1)
    expected = torch.fft.rfft2(kernel / (height * width)).real
    found = surrogate.averaged_inverse(randn(1, *shape), noise).permute(2, 3, 0, 1)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
