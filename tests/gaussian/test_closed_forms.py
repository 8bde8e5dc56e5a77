"""Closed-form posteriors against dense linear algebra, for every operator under every surrogate."""

from functools import partial
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from aipo import gaussian as forms
from aipo.basics.conjugate_gradients import conjugate_gradients
from aipo.gaussian import (
    Filtered,
    Hole,
    Iterative,
    LowRankGaussian,
    LowRankStationary,
    MaskedLowRank,
    MaskedStationary,
    Posterior,
    Spectral,
    StationaryGaussian,
    Surrogate,
    closed_form,
    posterior,
)
from aipo.operators import (
    Blur,
    Composition,
    Downsampling,
    FourierMask,
    GaussianSensing,
    Grey,
    Identity,
    LinearOperator,
    Mask,
    gaussian_kernel,
    mosaic,
)
from aipo.priors import Gaussian, load_prior

Shape = tuple[int, int, int]
SHAPE = (3, 6, 5)
ALPHAS = torch.tensor([1e-4, 0.03, 1.0, 40.0], dtype=torch.float64)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(scope="module")
def photographs() -> StationaryGaussian:
    """The surrogate of the bundled prior."""
    surrogate = load_prior("photos").surrogate
    assert isinstance(surrogate, StationaryGaussian)
    return surrogate


def low_rank(shape: Shape) -> LowRankGaussian:
    n = torch.Size(shape).numel()
    return LowRankGaussian(randn(*shape), randn(n, 3, seed=1), 0.1 + randn(n, seed=2).square())


def stationary(shape: Shape, dtype: torch.dtype = torch.float64) -> StationaryGaussian:
    """Power of photographs, 1/(f² + f₀²); stored in float32 as a fitted one, if so asked."""
    frequency = torch.fft.fftfreq(16, dtype=torch.float64)
    power = 0.01 / (frequency[:, None] ** 2 + frequency**2 + 0.005)
    colours = torch.linalg.qr(randn(shape[0], shape[0], seed=3))[0]
    spectrum = power * torch.tensor([1.0, 0.3, 0.1], dtype=torch.float64)[: shape[0], None, None]
    return StationaryGaussian(randn(shape[0]).to(dtype), colours.to(dtype), spectrum.to(dtype))


def textured(shape: Shape) -> LowRankStationary:
    texture, n = stationary(shape), torch.Size(shape).numel()
    power = texture.power(randn(1, *shape))
    return LowRankStationary(randn(*shape), randn(n, 3, seed=1), texture.colours, power)


def full(shape: Shape) -> Gaussian:
    n = torch.Size(shape).numel()
    root = randn(n, n, seed=4) / n**0.5
    return Gaussian(randn(*shape), root @ root.T + 0.1 * torch.eye(n))


def random_mask(shape: Shape) -> Mask:
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(5)) > 0.5
    mask[0, 0, 0] = True
    return Mask(mask)


def centre_hole(shape: Shape) -> Mask:
    _, height, width = shape
    mask = torch.ones(shape, dtype=torch.bool)
    mask[:, 1 + height // 4 : height - height // 4, 1 + width // 4 : width - width // 4] = False
    return Mask(mask)


def blur(shape: Shape) -> Blur:
    return Blur(shape, torch.tensor([[0.1, 0.7, 0.2]]))


OPERATORS = {
    "identity": Identity,
    "all": lambda shape: Mask(torch.ones(shape, dtype=torch.bool)),
    "random-mask": random_mask,
    "hole": centre_hole,
    "sensing": lambda shape: GaussianSensing(shape, 1 + torch.Size(shape).numel() // 3, seed=6),
    "blur": blur,
    "frequencies": lambda shape: FourierMask(shape, randn(*shape[1:], seed=7) > -0.3),
    "colours": lambda shape: Grey(shape) if shape[0] == 3 else blur(shape),
    "sensing-square": lambda shape: GaussianSensing(shape, torch.Size(shape).numel(), seed=6),
}
SURROGATES = {
    "low-rank": low_rank,
    "stationary": stationary,
    "low-rank-stationary": textured,
    "full": full,
}
PAIRS = list(product(OPERATORS, SURROGATES))
every_pair = pytest.mark.parametrize(("operator", "surrogate"), PAIRS, ids=str)


def approximate(operator: str, surrogate: str) -> bool:
    """Whether the metric only approximates the inverse, by design."""
    return surrogate.endswith("stationary") and operator in ("random-mask", "hole")


def unit_pictures(shape: Shape) -> Tensor:
    n = torch.Size(shape).numel()
    return torch.eye(n, dtype=torch.float64).reshape(n, *shape)


def hessian(operator: LinearOperator, surrogate: Surrogate, alpha: float) -> np.ndarray:
    """AᵀA + αΣ⁻¹ as a matrix, with Σ = F Fᵀ inverted by NumPy."""
    units = unit_pictures(operator.shape)
    matrix = operator(units).flatten(1).T.numpy()
    covariance = surrogate.factor(surrogate.factor_adjoint(units)).flatten(1).numpy()
    return matrix.T @ matrix + alpha * np.linalg.inv(covariance)


def metric_of(closed: Posterior, alpha: float) -> np.ndarray:
    units = unit_pictures(closed.operator.shape)
    return closed.metric(units, torch.full((len(units),), alpha, dtype=torch.float64)).flatten(1).numpy()


def dense_mode(operator: LinearOperator, surrogate: Surrogate, y: Tensor, alpha: float) -> np.ndarray:
    """argmin ‖y − A x‖²/2 + α/2 ‖x − μ‖²_{Σ⁻¹} of one measurement, by NumPy."""
    mean = surrogate.mean_like(y.new_zeros(1, *operator.shape)).expand(1, *operator.shape)
    right = operator.adjoint(y[None] - operator(mean)).flatten().numpy()
    return mean.flatten().numpy() + np.linalg.solve(hessian(operator, surrogate, alpha), right)


def relative(actual: Tensor, expected: np.ndarray) -> float:
    return float(np.linalg.norm(actual.detach().flatten().numpy() - expected) / np.linalg.norm(expected))


@every_pair
@settings(max_examples=4, deadline=None)
@given(
    channels=st.sampled_from([1, 3]),
    height=st.integers(3, 7),
    width=st.integers(3, 7),
    seed=st.integers(0, 1000),
)
def test_mode_is_the_dense_solution_for_every_alpha(operator, surrogate, channels, height, width, seed):
    shape = (channels, height, width)
    forward, gaussian = OPERATORS[operator](shape), SURROGATES[surrogate](shape)
    y = randn(len(ALPHAS), *forward.measurement_shape, seed=seed)
    modes = posterior(forward, gaussian).mode(y, ALPHAS)
    for i, alpha in enumerate(ALPHAS.tolist()):
        assert relative(modes[i], dense_mode(forward, gaussian, y[i], alpha)) <= 1e-6


@every_pair
def test_mode_in_float32_is_computed_in_float64(operator, surrogate):
    forward, gaussian = OPERATORS[operator](SHAPE), SURROGATES[surrogate](SHAPE)
    y = randn(len(ALPHAS), *forward.measurement_shape).float()
    modes = posterior(forward, gaussian).mode(y, ALPHAS.float())
    assert modes.dtype == torch.float32
    for i, alpha in enumerate(ALPHAS.float().tolist()):
        assert relative(modes[i].double(), dense_mode(forward, gaussian, y[i].double(), alpha)) <= 1e-6


@every_pair
def test_mode_is_the_mean_where_the_measurement_is_that_of_the_mean(operator, surrogate):
    forward, gaussian = OPERATORS[operator](SHAPE), SURROGATES[surrogate](SHAPE)
    mean = gaussian.mean_like(randn(1, *SHAPE)).expand(1, *SHAPE)
    y = torch.cat((forward(mean), randn(1, *forward.measurement_shape)))
    modes = posterior(forward, gaussian).mode(y, ALPHAS[1:3])
    torch.testing.assert_close(modes[:1], mean)
    assert relative(modes[1], dense_mode(forward, gaussian, y[1], ALPHAS[2].item())) <= 1e-6


@every_pair
def test_metric_is_symmetric_and_positive(operator, surrogate):
    closed = posterior(OPERATORS[operator](SHAPE), SURROGATES[surrogate](SHAPE))
    for alpha in ALPHAS.tolist():
        metric = metric_of(closed, alpha)
        assert abs(metric - metric.T).max() <= 1e-9 * abs(metric).max()
        assert np.linalg.eigvalsh(metric)[0] > 0


@pytest.mark.parametrize(("operator", "surrogate"), [p for p in PAIRS if not approximate(*p)], ids=str)
def test_metric_is_the_inverse(operator, surrogate):
    closed = posterior(OPERATORS[operator](SHAPE), SURROGATES[surrogate](SHAPE))
    tolerance = 1e-6 if isinstance(closed, Spectral) else 1e-9  # Spectral keeps its basis in float32
    for alpha in ALPHAS.tolist():
        inverse = np.linalg.inv(hessian(closed.operator, closed.surrogate, alpha))
        assert np.linalg.norm(metric_of(closed, alpha) - inverse) <= tolerance * np.linalg.norm(inverse)


@pytest.mark.parametrize("operator", ["random-mask", "hole"])
@pytest.mark.parametrize("shape", [(1, 12, 9), (3, 6, 5)], ids=str)
def test_approximate_metric_bounds_the_inverse_from_above(operator, shape):
    # The compression of an inverse is never below the inverse of the compression, so that the spectrum of
    # metric · H begins at 1: no direction is taken for stiffer than it is.
    closed = posterior(OPERATORS[operator](shape), stationary(shape))
    for alpha in ALPHAS.tolist():
        matrix = hessian(closed.operator, closed.surrogate, alpha)
        spectrum = np.linalg.eigvals(metric_of(closed, alpha) @ matrix)
        assert abs(spectrum.imag).max() <= 1e-6 * abs(spectrum).max()
        assert spectrum.real.min() >= 1 - 1e-6
        inside = np.median(spectrum.real)
        assert inside <= 2  # most directions are exact or nearly so


@every_pair
def test_metric_is_linear_and_every_picture_has_its_own_alpha(operator, surrogate):
    closed = posterior(OPERATORS[operator](SHAPE), SURROGATES[surrogate](SHAPE))
    v, w = randn(4, *SHAPE, seed=7), randn(4, *SHAPE, seed=8)
    together = closed.metric(v, ALPHAS)
    torch.testing.assert_close(
        closed.metric(2 * v - w, ALPHAS), 2 * together - closed.metric(w, ALPHAS), rtol=1e-7, atol=1e-7
    )
    order = torch.tensor([3, 1, 1, 0])
    torch.testing.assert_close(closed.metric(v[order], ALPHAS[order]), together[order], rtol=1e-7, atol=1e-7)
    for i in range(4):
        alone = closed.metric(v[i : i + 1], ALPHAS[i : i + 1])
        torch.testing.assert_close(alone[0], together[i], rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("operator", ["identity", "hole"])
def test_surrogates_stored_in_float32_reach_the_same_gate(operator):
    forward, gaussian = OPERATORS[operator](SHAPE), stationary(SHAPE, torch.float32)
    y = randn(len(ALPHAS), *forward.measurement_shape)
    modes = posterior(forward, gaussian).mode(y, ALPHAS)
    for i, alpha in enumerate(ALPHAS.tolist()):
        assert relative(modes[i], dense_mode(forward, gaussian, y[i], alpha)) <= 1e-5


@pytest.mark.parametrize("alpha", [1e-8, 1e-6, 1e-5])
def test_spectral_metric_in_float32_keeps_its_curvature_where_noise_is_weak(alpha):
    # σ = 0.01 and λ = 0.1, say: directions in which the data are stiff have curvature 10⁶ times α and more.
    shape = (3, 8, 8)
    strong = LowRankGaussian(torch.zeros(shape), 0.3 * randn(192, 8, seed=1), torch.full((192,), 1e-3))
    closed = posterior(GaussianSensing(shape, 48, seed=6), strong)
    matrix = hessian(closed.operator, strong, alpha)
    stiff = strong.factor(randn(16, 200)).flatten(1).numpy() @ matrix
    for direction in (stiff, randn(16, 192).numpy()):
        v = torch.from_numpy(direction).float()
        expected = (v.double().numpy() * np.linalg.solve(matrix, v.double().numpy().T).T).sum(1)
        product = closed.metric(v.reshape(16, *shape), torch.full((16,), alpha)).flatten(1)
        np.testing.assert_allclose((v * product).sum(1).numpy(), expected, rtol=1e-3)


def standard():
    """White noise, the same in every test."""
    generator = torch.Generator().manual_seed(0)
    return lambda like: torch.randn(like.shape, generator=generator, dtype=like.dtype)


def test_each_structure_has_its_form():
    assert isinstance(posterior(Identity(SHAPE), stationary(SHAPE)), MaskedStationary)
    assert isinstance(posterior(centre_hole(SHAPE), low_rank(SHAPE)), MaskedLowRank)
    assert isinstance(posterior(GaussianSensing(SHAPE, 9), low_rank(SHAPE)), Spectral)
    assert isinstance(posterior(Identity(SHAPE), full(SHAPE)), Spectral)
    assert isinstance(posterior(Grey(SHAPE), textured(SHAPE)), Filtered)


@pytest.mark.parametrize("kind", ["identity", "random-mask", "sensing"])
def test_draws_have_the_posteriors_mean_and_covariance(kind):
    """exp(−F) with F = D + λR is a Gaussian of covariance (AᵀA/σ² + λΣ⁻¹)⁻¹ around the mode."""
    shape, sigma, weight, count = (1, 2, 3), 0.3, 2.0, 40_000
    operator, surrogate = OPERATORS[kind](shape), low_rank(shape)
    closed = posterior(operator, surrogate)
    y = randn(1, *operator.measurement_shape, seed=8)
    alpha, noise = torch.full((count,), weight * sigma**2), torch.full((count,), sigma)
    draws = closed.sample(y.expand(count, *y.shape[1:]), alpha, noise, standard())
    a = torch.eye(6, dtype=torch.float64).unflatten(1, shape)
    a = operator.forward(a).flatten(1).T
    w, d = surrogate.loadings.double(), surrogate.variances.double()
    hessian = a.T @ a / sigma**2 + weight * torch.linalg.inv(w @ w.T + torch.diag(d))
    root = torch.linalg.cholesky(hessian)
    white = (draws - closed.mode(y, alpha[:1])).flatten(1) @ root
    assert torch.allclose(white.mean(0), torch.zeros(6, dtype=torch.float64), atol=0.03)
    assert torch.allclose(white.T @ white / count, torch.eye(6, dtype=torch.float64), atol=0.04)


@pytest.mark.parametrize("iterative", [False, True])
@pytest.mark.parametrize("surrogate", SURROGATES)
@pytest.mark.parametrize("kind", OPERATORS)
def test_noise_has_the_metric_as_covariance(monkeypatch, kind, surrogate, iterative):
    if iterative:
        monkeypatch.setattr(forms, "LARGEST_SPECTRAL", 0)
    shape, alpha, count = (1, 2, 3), 0.3, 60_000
    closed = posterior(OPERATORS[kind](shape), SURROGATES[surrogate](shape))
    like = torch.zeros(count, *shape, dtype=torch.float64)
    drawn = closed.noise(like, torch.full((count,), alpha).double(), standard()).flatten(1)
    expected = torch.from_numpy(metric_of(closed, alpha))
    root = torch.linalg.cholesky(expected)
    white = torch.linalg.solve_triangular(root, drawn.T, upper=False)
    assert torch.allclose(white @ white.T / count, torch.eye(6, dtype=torch.float64), atol=0.04)


@pytest.mark.parametrize("surrogate", ["stationary", "low-rank-stationary"])
@pytest.mark.parametrize("kind", ["random-mask", "hole"])
def test_for_draws_few_missing_entries_are_exact(kind, surrogate):
    """Metric and mode against dense algebra: a wider metric would throw the chains off."""
    operator, gaussian = OPERATORS[kind](SHAPE), SURROGATES[surrogate](SHAPE)
    closed = posterior(operator, gaussian).for_sampling()
    assert isinstance(closed, Hole)
    y = randn(len(ALPHAS), *operator.measurement_shape)
    for i, (mode, alpha) in enumerate(zip(closed.mode(y, ALPHAS), ALPHAS.tolist(), strict=True)):
        assert relative(mode, dense_mode(operator, gaussian, y[i], alpha)) < 1e-6
        metric, expected = metric_of(closed, alpha), np.linalg.inv(hessian(operator, gaussian, alpha))
        np.testing.assert_allclose(metric, expected, atol=1e-6 * np.abs(expected).max())


def test_which_form_draws_are_made_in(monkeypatch):
    assert isinstance(posterior(Identity(SHAPE), textured(SHAPE)).for_sampling(), MaskedStationary)
    assert isinstance(posterior(GaussianSensing(SHAPE, 9), textured(SHAPE)).for_sampling(), Spectral)
    monkeypatch.setattr("aipo.gaussian.masked.LARGEST_HOLE", 3)
    assert isinstance(posterior(random_mask(SHAPE), textured(SHAPE)).for_sampling(), Iterative)


@pytest.mark.parametrize(
    ("name", "surrogate"), [("random-mask", low_rank), ("sensing", low_rank), ("colours", textured)]
)
def test_what_a_form_gives_an_image_does_not_depend_on_its_batch(name, surrogate):
    """To the bit, in the single precision of the solvers: they amplify every difference."""
    closed = posterior(OPERATORS[name](SHAPE), surrogate(SHAPE))
    v, alpha = randn(7, *SHAPE, seed=8).float(), torch.logspace(-3, 1, 7)
    y = closed.operator(v)
    batch, modes = closed.metric(v, alpha), closed.mode(y, alpha)
    for i in range(7):
        assert torch.equal(closed.metric(v[i : i + 1], alpha[i : i + 1])[0], batch[i])
        assert torch.equal(closed.mode(y[i : i + 1], alpha[i : i + 1])[0], modes[i])


MANY = {
    "blurred and cropped": lambda shape: Composition(Blur(shape, gaussian_kernel(0.7)), centre_hole(shape)),
    "downsampling": lambda shape: Downsampling(shape, 2),
    "sensing": lambda shape: GaussianSensing(shape, torch.Size(shape).numel() // 2, seed=6),
}


@pytest.mark.parametrize("operator", MANY)
@pytest.mark.parametrize("surrogate", ["stationary", "low-rank-stationary"])
def test_many_measurements_are_solved_for_by_iterations(monkeypatch, operator, surrogate):
    monkeypatch.setattr(forms, "LARGEST_SPECTRAL", 10)
    forward, gaussian = MANY[operator]((3, 8, 8)), SURROGATES[surrogate]((3, 8, 8))
    closed = posterior(forward, gaussian)
    assert isinstance(closed, Iterative)
    y = randn(len(ALPHAS), *forward.measurement_shape)
    for i, (mode, alpha) in enumerate(zip(closed.mode(y, ALPHAS), ALPHAS.tolist(), strict=True)):
        assert relative(mode, dense_mode(forward, gaussian, y[i], alpha)) < 1e-6
    for alpha in ALPHAS.tolist():
        metric = metric_of(closed, alpha)
        np.testing.assert_allclose(metric, metric.T, atol=1e-9 * np.abs(metric).max())
        assert np.linalg.eigvalsh(metric).min() > 0


def test_a_mosaic_is_solved_however_weak_its_noise(photographs):
    """Missing entries scattered all over: the metric as preconditioner left 4e-4 after 400 iterations."""
    operator, alphas = mosaic((3, 48, 48)), torch.tensor([1e-6, 1e-4, 1e-2], dtype=torch.float64)
    closed = posterior(operator, photographs)
    closed.mode(randn(3, *operator.measurement_shape), alphas)
    assert closed.residual <= 1e-9


@pytest.mark.parametrize("make", [mosaic, random_mask, centre_hole])
def test_modes_with_missing_entries_of_photographs_are_the_dense_solutions(photographs, make):
    operator = make((3, 12, 13))
    y = randn(2, *operator.measurement_shape)
    closed = posterior(operator, photographs)
    for i, alpha in enumerate((1e-4, 1e-2)):
        mode = closed.mode(y[i : i + 1], torch.tensor([alpha], dtype=torch.float64))
        assert relative(mode, dense_mode(operator, photographs, y[i], alpha)) <= 1e-6


def test_a_mode_that_is_not_solved_is_told_once(monkeypatch, caplog):
    operator, gaussian = random_mask(SHAPE), stationary(SHAPE)
    y, alpha = randn(1, *operator.measurement_shape), torch.tensor([1e-4], dtype=torch.float64)
    closed = posterior(operator, gaussian)
    closed.mode(y, alpha)
    assert closed.residual <= 1e-9 and not caplog.records
    monkeypatch.setattr(closed_form, "conjugate_gradients", partial(conjugate_gradients, iterations=2))
    hasty = posterior(operator, gaussian)
    for _ in range(2):
        hasty.mode(y, alpha)
    assert hasty.residual > 1e-4
    (record,) = caplog.records
    assert record.name == "aipo" and f"{hasty.residual:.1e}" in record.getMessage()
    direct = posterior(operator, low_rank(SHAPE))
    direct.mode(y, alpha)
    assert direct.residual == 0
