"""Closed-form posteriors against dense linear algebra, for every operator under every surrogate."""

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from surrogates import (
    ALPHAS,
    SHAPE,
    SURROGATES,
    Shape,
    centre_hole,
    dense_mode,
    full,
    hessian,
    low_rank,
    metric_of,
    randn,
    random_mask,
    relative,
    standard,
    stationary,
    textured,
)

from aipo import gaussian as forms
from aipo.basics.errors import InputError
from aipo.gaussian import (
    Filtered,
    Iterative,
    LowRankGaussian,
    MaskedLowRank,
    MaskedStationary,
    Spectral,
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
    Mask,
    Stack,
    gaussian_kernel,
)


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
FILTERING = ("low-rank", "stationary", "low-rank-stationary")
PAIRS = list(product(OPERATORS, SURROGATES))
every_pair = pytest.mark.parametrize(("operator", "surrogate"), PAIRS, ids=str)


def approximate(operator: str, surrogate: str) -> bool:
    """Whether the metric only approximates the inverse, by design."""
    return surrogate.endswith("stationary") and operator in ("random-mask", "hole")


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


def test_each_structure_has_its_form():
    assert isinstance(posterior(Identity(SHAPE), stationary(SHAPE)), MaskedStationary)
    assert isinstance(posterior(centre_hole(SHAPE), low_rank(SHAPE)), MaskedLowRank)
    assert isinstance(posterior(GaussianSensing(SHAPE, 9), low_rank(SHAPE)), Spectral)
    assert isinstance(posterior(Identity(SHAPE), full(SHAPE)), Spectral)
    assert isinstance(posterior(Grey(SHAPE), textured(SHAPE)), Filtered)


@pytest.mark.parametrize("surrogate", SURROGATES)
def test_equal_problems_have_equal_forms(surrogate):
    """However a picture that is measured entry by entry is spelled."""
    everything, kept = Identity(SHAPE), random_mask(SHAPE)
    whole = Mask(torch.ones(SHAPE, dtype=torch.bool))
    spelled = {
        everything: (whole, Composition(everything), Stack(everything), Composition(whole)),
        kept: (Composition(kept), Composition(everything, kept), Stack(kept)),
    }
    gaussian, x = SURROGATES[surrogate](SHAPE), randn(len(ALPHAS), *SHAPE)
    for plain, others in spelled.items():
        expected = posterior(plain, gaussian)
        for operator in others:
            found = posterior(operator, gaussian)
            assert type(found) is type(expected)
            assert type(found.for_sampling()) is type(expected.for_sampling())
            torch.testing.assert_close(
                found.mode(operator(x), ALPHAS), expected.mode(plain(x), ALPHAS), rtol=1e-9, atol=1e-9
            )


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


@pytest.mark.parametrize(
    ("surrogate", "iterative"), [*product(SURROGATES, [False]), *product(FILTERING, [True])], ids=str
)
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
    "blurred": blur,
    "blurred and cropped": lambda shape: Composition(Blur(shape, gaussian_kernel(0.7)), centre_hole(shape)),
    "downsampling": lambda shape: Downsampling(shape, 2),
    "sensing": lambda shape: GaussianSensing(shape, torch.Size(shape).numel() // 2, seed=6),
}


def refuse(*_):
    raise AssertionError("eigenvectors of a large matrix take minutes")


@pytest.mark.parametrize("operator", MANY)
@pytest.mark.parametrize("surrogate", FILTERING)
def test_many_measurements_are_solved_for_by_iterations(monkeypatch, operator, surrogate):
    monkeypatch.setattr(forms, "LARGEST_SPECTRAL", 10)
    monkeypatch.setattr(torch.linalg, "eigh", refuse)
    forward, gaussian = MANY[operator]((3, 8, 8)), SURROGATES[surrogate]((3, 8, 8))
    closed = posterior(forward, gaussian)
    assert isinstance(closed, Filtered if operator == "blurred" and surrogate != "low-rank" else Iterative)
    y = randn(len(ALPHAS), *forward.measurement_shape)
    for i, (mode, alpha) in enumerate(zip(closed.mode(y, ALPHAS), ALPHAS.tolist(), strict=True)):
        assert relative(mode, dense_mode(forward, gaussian, y[i], alpha)) < 1e-6
    for alpha in ALPHAS.tolist():
        metric = metric_of(closed, alpha)
        np.testing.assert_allclose(metric, metric.T, atol=1e-9 * np.abs(metric).max())
        assert np.linalg.eigvalsh(metric).min() > 0


@pytest.mark.parametrize("operator", ["identity", "hole", *MANY])
def test_too_many_measurements_for_a_surrogate_that_knows_too_little_are_refused(monkeypatch, operator):
    monkeypatch.setattr(forms, "LARGEST_SPECTRAL", 10)
    monkeypatch.setattr(torch.linalg, "eigh", refuse)
    forward = (OPERATORS | MANY)[operator]((3, 8, 8))
    with pytest.raises(InputError, match=f"{forward.measurements} measurements of 192 values"):
        posterior(forward, full((3, 8, 8)))


@pytest.mark.parametrize(("kind", "many"), [("identity", False), ("hole", False), ("blurred", True)])
def test_every_image_of_a_batch_keeps_what_belongs_to_its_noise(monkeypatch, kind, many):
    """Forty levels of noise: nothing is made anew when they come again."""
    if many:
        monkeypatch.setattr(forms, "LARGEST_SPECTRAL", 10)
    v, alpha = randn(40, *SHAPE), torch.logspace(-3, 1, 40)
    for surrogate in FILTERING:
        closed = posterior((OPERATORS | MANY)[kind](SHAPE), SURROGATES[surrogate](SHAPE)).for_sampling()
        first = closed.metric(v, alpha)
        with monkeypatch.context() as patched:
            for name in ("cholesky", "inv", "eigh"):
                patched.setattr(torch.linalg, name, refuse)
            assert torch.equal(closed.metric(v, alpha), first)
