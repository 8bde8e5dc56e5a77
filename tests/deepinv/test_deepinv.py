"""deepinv both ways, with the real package: its physics against dense algebra, aipo in its own machinery."""

import sys
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from elsewhere import elsewhere
from random_flows import make, rand
from torch import Tensor

import aipo
from aipo import priors
from aipo.basics.errors import InputError
from aipo.basics.quality import psnr
from aipo.deepinv import ExplicitPrior, Reconstructor, from_deepinv
from aipo.deepinv.loading import load
from aipo.gaussian import StationaryGaussian
from aipo.likelihoods import Gaussian, Heteroscedastic, Poisson
from aipo.operators import Identity, Mask
from aipo.operators.check import check_operator
from aipo.path.options import PathOptions
from aipo.path.schedules import geometric
from aipo.posterior.langevin import LangevinOptions
from aipo.reconstruction.reconstruct import reconstruct
from aipo.selection.structure import residual_tells

dinv = load()
SIDE = 12
COLOUR, GREY, COMPLEX = (3, SIDE, SIDE), (1, SIDE, SIDE), (2, SIDE, SIDE)
SIGMA = 0.05
CONVERGED = PathOptions((1.0,), evaluations=300, tolerance=1e-5)


def noise() -> Any:
    return dinv.physics.GaussianNoise(SIGMA)


def kernel() -> Tensor:
    return dinv.physics.blur.gaussian_blur(sigma=(1.0, 0.7))[:, :, :3, :3]


def mri_mask() -> Tensor:
    lines = torch.zeros(1, 2, SIDE, SIDE)
    lines[..., ::2] = 1
    return lines


def seed() -> torch.Generator:
    return torch.Generator().manual_seed(0)


# Linear physics, each with the shape of the picture.
PHYSICS: dict[str, tuple[tuple[int, int, int], Callable[[], Any]]] = {
    "denoising": (COLOUR, lambda: dinv.physics.Denoising(noise())),
    "inpainting": (
        COLOUR,
        lambda: dinv.physics.Inpainting(COLOUR, mask=0.6, noise_model=noise(), rng=seed()),
    ),
    "demosaicing": (COLOUR, lambda: dinv.physics.Demosaicing((SIDE, SIDE), noise_model=noise())),
    "blur": (COLOUR, lambda: dinv.physics.Blur(filter=kernel(), padding="circular", noise_model=noise())),
    "blur-valid": (COLOUR, lambda: dinv.physics.Blur(filter=kernel(), padding="valid", noise_model=noise())),
    "blur-fft": (COLOUR, lambda: dinv.physics.BlurFFT(COLOUR, filter=kernel(), noise_model=noise())),
    "downsampling": (
        COLOUR,
        lambda: dinv.physics.Downsampling(COLOUR, filter=kernel(), factor=2, noise_model=noise()),
    ),
    "matlab": (COLOUR, lambda: dinv.physics.DownsamplingMatlab(factor=2, noise_model=noise())),
    "decolorize": (COLOUR, lambda: dinv.physics.Decolorize(noise_model=noise())),
    "sensing": (
        COLOUR,
        lambda: dinv.physics.CompressedSensing(m=90, img_size=COLOUR, rng=seed(), noise_model=noise()),
    ),
    "single-pixel": (
        (1, 16, 16),
        lambda: dinv.physics.SinglePixelCamera(m=90, img_size=(1, 16, 16), noise_model=noise(), rng=seed()),
    ),
    "structured": (
        GREY,
        lambda: dinv.physics.StructuredRandom(GREY, GREY, noise_model=noise(), rng=seed()),
    ),
    "tomography": (GREY, lambda: dinv.physics.Tomography(angles=30, img_width=SIDE, noise_model=noise())),
    "varying-blur": (
        COLOUR,
        lambda: dinv.physics.SpaceVaryingBlur(
            filters=torch.ones(1, 1, 2, 3, 3) / 9,
            multipliers=torch.ones(1, 1, 2, SIDE, SIDE) / 2,
            padding="valid",
            noise_model=noise(),
        ),
    ),
    "mri": (COMPLEX, lambda: dinv.physics.MRI(mask=mri_mask(), img_size=COMPLEX, noise_model=noise())),
    "pansharpen": (
        COLOUR,
        lambda: dinv.physics.Pansharpen(
            COLOUR, factor=2, filter=kernel(), noise_color=noise(), noise_gray=dinv.physics.GaussianNoise(0.1)
        ),
    ),
    "composed": (
        COLOUR,
        lambda: dinv.physics.compose(
            dinv.physics.Downsampling(COLOUR, filter=kernel(), factor=2),
            dinv.physics.Inpainting((3, 6, 6), mask=0.5, noise_model=noise(), rng=seed()),
        ),
    ),
}
every_physics = pytest.mark.parametrize("name", PHYSICS)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deepinv's own, on composing physics and on deprecations
        yield


def gaussian_prior(shape: tuple[int, int, int]) -> aipo.priors.Gaussian:
    """Neighbouring pixels and channels are alike."""
    axes = torch.meshgrid(*(torch.arange(float(side)) for side in shape), indexing="ij")
    places = torch.stack(axes, -1).flatten(0, -2).double()
    covariance = 0.2**2 * torch.exp(-0.5 * torch.cdist(places, places) ** 2 / 2**2)
    covariance += 1e-4 * torch.eye(len(places), dtype=torch.float64)
    return aipo.priors.Gaussian(torch.full(shape, 0.5, dtype=torch.float64), covariance)


def drawn(prior: aipo.priors.Gaussian, count: int) -> Tensor:
    u = torch.randn(count, len(prior.root), dtype=torch.float64, generator=seed())
    return (prior.mean + prior.factor(u)).float()


def values(y: Any) -> Tensor:
    parts = list(y) if isinstance(y, dinv.utils.TensorList) else [y]
    return torch.cat([part.flatten(1) for part in parts], 1)


def closed_form(measure: Callable, prior: aipo.priors.Gaussian, y: Tensor, sigma: Tensor) -> Tensor:
    """The posterior mean, by dense algebra."""
    units = torch.eye(len(prior.root)).unflatten(1, prior.mean.shape)
    matrix = torch.cat([values(measure(unit[None])) for unit in units]).T.double()
    gain = prior.root @ prior.root.T @ matrix.T
    inner = matrix @ gain + (sigma**2).diag()
    rest = torch.linalg.solve(inner, (y - matrix @ prior.mean.flatten()).T)
    return prior.mean + (gain @ rest).T.unflatten(1, prior.mean.shape)


@every_physics
def test_a_physics_ends_in_the_closed_form_of_its_dense_matrix(name):
    """The whole way, from deepinv's measurement to the path's end, beside linear algebra with deepinv's A."""
    shape, make = PHYSICS[name]
    physics, prior = make(), gaussian_prior(shape)
    y = physics(drawn(prior, 2))
    likelihood = from_deepinv(physics, y)
    found = reconstruct(likelihood, prior, 1.0, CONVERGED).image
    sigma = torch.full((values(y).shape[1],), SIGMA, dtype=torch.float64)
    if name == "pansharpen":
        sigma[-SIDE * SIDE :] = 0.1
    expected = closed_form(physics.A, prior, values(y).double(), sigma)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=2e-3)


@every_physics
def test_operators_from_physics_verify_themselves(name):
    """Adjoint, linearity and pseudoinverse to 1e-10, in double precision where the physics has it."""
    shape, make = PHYSICS[name]
    physics = make()
    y = physics(torch.rand(1, *shape))
    if name == "pansharpen":
        for part, own in zip(physics.physics_list, y, strict=True):
            check_operator(from_deepinv(part, own).operator)
    else:
        check_operator(from_deepinv(physics, y).operator)


@pytest.mark.parametrize(
    ("name", "everywhere_alike", "judged"),
    [
        ("blur", True, True),
        ("blur-fft", True, True),
        ("decolorize", True, False),
        ("mri", True, False),
        ("blur-valid", False, False),
        ("downsampling", False, False),
        ("sensing", False, False),
    ],
)
def test_a_physics_that_treats_every_place_alike_is_found_out(name, everywhere_alike, judged):
    shape, make = PHYSICS[name]
    physics = make()
    operator = from_deepinv(physics, physics(torch.rand(1, *shape))).operator
    gram = operator.linear.gram()
    assert (gram is not None) == everywhere_alike
    assert residual_tells(operator) == judged, "by SURE"
    if gram is not None:
        x = torch.rand(2, *shape)
        assert operator.linear.gram() is gram, "found out once"
        mixed = torch.einsum("hwij,bjhw->bihw", gram.to(torch.complex128), torch.fft.rfft2(x.double()))
        expected = operator.linear.adjoint(operator(x)).double()
        torch.testing.assert_close(torch.fft.irfft2(mixed, s=shape[1:]), expected, rtol=0, atol=1e-5)


def test_masks_and_noise_become_their_closed_forms():
    x = torch.rand(2, *COLOUR)
    assert type(from_deepinv(dinv.physics.Denoising(noise()), x).operator) is Identity
    for name in ("inpainting", "demosaicing"):
        physics = PHYSICS[name][1]()
        likelihood = from_deepinv(physics, physics(x))
        assert type(likelihood.operator) is Mask
        share = likelihood.operator.measurements / x[0].numel()
        assert share == pytest.approx(float(physics.mask.float().mean()), abs=1e-6)
    each = from_deepinv(dinv.physics.Denoising(dinv.physics.GaussianNoise(torch.tensor([0.1, 0.3]))), x)
    assert isinstance(each, Gaussian)
    torch.testing.assert_close(each.sigma, torch.tensor([0.1, 0.3]))
    pan = PHYSICS["pansharpen"][1]()
    assert isinstance(from_deepinv(pan, pan(x)), Heteroscedastic)


@pytest.mark.parametrize(
    ("noise_model", "expected"),
    [
        (lambda: dinv.physics.GaussianNoise(0.1), "Gaussian"),
        (lambda: dinv.physics.PoissonNoise(0.05), "Poisson"),
        (lambda: dinv.physics.PoissonNoise(0.05, normalize=False), "Poisson"),
        (lambda: dinv.physics.PoissonGaussianNoise(0.02, 0.05), "PoissonGaussian"),
        (lambda: dinv.physics.LogPoissonNoise(500.0, 1.0), "Poisson"),
        (lambda: dinv.physics.LaplaceNoise(0.1), "Laplace"),
        (lambda: dinv.physics.GammaNoise(20.0), "Gamma"),
        (lambda: dinv.physics.FisherTippettNoise(20.0), "LogGamma"),
        (lambda: dinv.physics.RicianNoise(0.1), "Rician"),
    ],
)
def test_noise_models_have_a_misfit_of_one_at_the_truth_and_are_removed(noise_model, expected):
    """Wrong parameters (a gain for its inverse, a variance for σ) would show in the misfit."""
    prior = gaussian_prior(GREY)
    x = drawn(prior, 60).clamp(0.1, 0.95)
    physics = dinv.physics.Denoising(noise_model())
    likelihood = from_deepinv(physics, physics(x))
    assert type(likelihood).__name__ == expected
    assert float(likelihood.misfit(x).mean()) == pytest.approx(1, abs=0.1)
    few = likelihood.select(torch.arange(4))
    restored = reconstruct(few, prior)
    straight = few.gaussian().y
    assert (restored.image - x[:4]).square().mean() < 0.6 * (straight - x[:4]).square().mean()


@pytest.mark.parametrize(
    ("physics", "named"),
    [
        (lambda: dinv.physics.Denoising(dinv.physics.ZeroNoise()), "GaussianNoise"),
        (lambda: dinv.physics.Denoising(dinv.physics.UniformNoise(0.1)), "cliff"),
        (lambda: dinv.physics.Denoising(dinv.physics.SaltPepperNoise()), "point mass"),
        (lambda: dinv.physics.Denoising(dinv.physics.UniformGaussianNoise()), "σ of each"),
        (lambda: dinv.physics.Denoising(noise() * dinv.physics.PoissonNoise(0.1)), "NoiseModel"),
        (lambda: dinv.physics.Denoising(dinv.physics.GaussianNoise(0.0)), "sigma must be positive"),
        (lambda: dinv.physics.Denoising(noise(), sensor_model=lambda v: v.clamp(0, 1)), "sensor model"),
        (lambda: dinv.physics.Haze(), "Haze"),
        (
            lambda: dinv.physics.CompressedSensing(m=90, img_size=COLOUR, noise_model=noise()),
            "432 values per image",
        ),
    ],
)
def test_what_has_no_density_or_no_picture_is_refused_in_one_sentence(physics, named):
    with pytest.raises(InputError, match=named) as error:
        from_deepinv(physics(), torch.rand(1, *COLOUR))
    assert "\n" not in str(error.value)


def test_phase_retrieval_measures_through_its_tangent():
    """Far more measurements than pixels: the picture comes back, up to noise."""
    prior = gaussian_prior(GREY)
    x = drawn(prior, 2)
    physics = dinv.physics.RandomPhaseRetrieval(m=6 * SIDE * SIDE, img_size=GREY, rng=seed())
    physics.noise_model = dinv.physics.GaussianNoise(0.01)
    likelihood = from_deepinv(physics, physics(x + 0j))
    found = reconstruct(likelihood, prior).image
    assert float((found - x).square().mean()) < 0.2 * float((x - 0.5).square().mean())


def test_mri_of_a_real_picture():
    prior = gaussian_prior(GREY)
    x = drawn(prior, 2)
    physics = PHYSICS["mri"][1]()
    y = physics(torch.cat((x, torch.zeros_like(x)), 1))
    found = Reconstructor(prior, 1.0, CONVERGED, shape=GREY)(y, physics)
    sigma = torch.full((values(y).shape[1],), SIGMA, dtype=torch.float64)
    expected = closed_form(
        lambda v: physics.A(torch.cat((v, torch.zeros_like(v)), 1)), prior, values(y).double(), sigma
    )
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=2e-3)


def test_the_reconstructor_is_tested_by_deepinv_with_a_sigma_per_image(tmp_path):
    """`dinv.test` draws σ for each image, measures, and finds it closer than the measurement."""
    prior = gaussian_prior(GREY)
    pictures = [(x,) for x in drawn(prior, 6)]
    result = dinv.test(
        Reconstructor(prior),
        torch.utils.data.DataLoader([x for (x,) in pictures], batch_size=3),
        dinv.physics.Denoising(noise()),
        online_measurements=True,
        physics_generator=dinv.physics.generator.SigmaGenerator(0.05, 0.3, rng=seed()),
        verbose=False,
        show_progress_bar=False,
    )
    assert result["PSNR"] > result["PSNR no learning"] + 3


def test_the_reconstructor_gives_the_posterior_mean_of_the_chain_that_is_asked_for():
    prior, physics = gaussian_prior(GREY), dinv.physics.Denoising(noise())
    y, chain = physics(drawn(prior, 2)), LangevinOptions(30, 5)
    expected = reconstruct(from_deepinv(physics, y), prior, "mean", chain=chain)
    found = Reconstructor(prior, "mean", chain=chain)(y, physics)
    assert expected.evaluations.tolist() == [32, 32] and torch.equal(found, expected.image)


def test_per_image_sigma_and_masks_give_each_image_its_own_restoration():
    prior = gaussian_prior(COLOUR)
    x = drawn(prior, 3)
    physics = dinv.physics.Inpainting(
        COLOUR, noise_model=dinv.physics.GaussianNoise(torch.tensor([0.02, 0.1, 0.2]))
    )
    masks = (torch.rand(3, 1, SIDE, SIDE, generator=seed()) < 0.7).float().expand(3, *COLOUR).clone()
    y = physics(x, mask=masks)
    with pytest.raises(InputError, match="one by one"):
        from_deepinv(physics, y)
    model = Reconstructor(prior)
    together = model(y, physics)
    for i, sigma in enumerate((0.02, 0.1, 0.2)):
        alone = dinv.physics.Inpainting(COLOUR, mask=masks[i], noise_model=dinv.physics.GaussianNoise(sigma))
        torch.testing.assert_close(together[i : i + 1], model(y[i : i + 1], alone))
    assert float(psnr(together, x).min()) > 20


def test_what_is_measured_does_not_change_with_the_physics_afterwards():
    physics = PHYSICS["blur"][1]()
    x = torch.rand(1, *COLOUR)
    likelihood = from_deepinv(physics, physics(x))
    before = likelihood(x)
    physics.update(filter=torch.ones(1, 1, 3, 3) / 9)
    torch.testing.assert_close(likelihood(x), before)


def test_the_prior_runs_in_deepinvs_gradient_descent():
    """To the minimum that the closed form knows."""
    prior = gaussian_prior(GREY)
    x = drawn(prior, 2)
    physics = dinv.physics.Denoising(dinv.physics.GaussianNoise(0.1))
    y = physics(x)
    step = 0.9 / (1 / 0.1**2 + 1 / 1e-4)
    model = dinv.optim.optim_builder(
        iteration="GD",
        prior=ExplicitPrior(prior),
        data_fidelity=dinv.optim.L2(sigma=0.1),
        params_algo={"stepsize": step, "lambda": 1.0, "g_param": 0.0},
        max_iter=4000,
    )
    found = model(y, physics)
    expected = reconstruct(aipo.likelihoods.Gaussian(Identity(GREY), y, 0.1), prior, "bayes").image
    torch.testing.assert_close(found, expected, atol=5e-3, rtol=0)


def test_the_prior_runs_in_deepinvs_langevin_sampler():
    """The chain's mean is the posterior mean, which of a Gaussian is the closed form."""
    prior = gaussian_prior((1, 4, 4))
    x = drawn(prior, 1)
    physics = dinv.physics.Denoising(dinv.physics.GaussianNoise(0.1))
    y = physics(x)
    sampler = dinv.sampling.ULA(
        ExplicitPrior(prior),
        dinv.optim.L2(sigma=0.1),
        step_size=5e-5,
        sigma=0.1,
        max_iter=20_000,
        thinning=1,
        thresh_conv=1e-9,
    )
    mean, variance = sampler(y, physics, seed=0)
    expected = reconstruct(aipo.likelihoods.Gaussian(Identity((1, 4, 4)), y, 0.1), prior, "bayes").image
    covariance = torch.linalg.inv(
        torch.cholesky_inverse(prior.root) + torch.eye(16, dtype=torch.float64) / 0.1**2
    )
    assert float((mean - expected).abs().max()) < 0.03
    assert float(variance.sum()) == pytest.approx(float(covariance.trace()), rel=0.3)


def test_a_flow_prior_gives_energies_and_gradients_per_image():
    prior = aipo.load_prior("fashion28")
    x = torch.rand(2, 1, 28, 28)
    wrapped = ExplicitPrior(prior)
    assert wrapped.explicit_prior and wrapped(x, 0.1).shape == (2,)
    torch.testing.assert_close(wrapped(x), prior.energy(x))
    with torch.no_grad():
        gradient = wrapped.grad(x, 0.1)
    direction = torch.randn_like(x)
    ahead, behind = (prior.energy(x + sign * 1e-3 * direction) for sign in (1, -1))
    slope = (gradient * direction).flatten(1).sum(1)
    torch.testing.assert_close(slope, (ahead - behind) / 2e-3, rtol=0.05, atol=1.0)


def test_the_old_name_of_the_prior_says_the_new_one():
    with pytest.warns(DeprecationWarning, match="is now aipo.deepinv.ExplicitPrior") as said:
        from aipo.deepinv import FlowPrior
    assert FlowPrior is ExplicitPrior and said[0].filename == __file__
    with pytest.raises(ImportError, match="Nothing"):
        from aipo.deepinv import Nothing  # noqa: F401


def test_counts_that_are_not_normalised_give_the_same_likelihood():
    x = torch.rand(2, *GREY) * 0.8 + 0.1
    scaled = dinv.physics.PoissonNoise(0.02, rng=seed())
    counts = dinv.physics.PoissonNoise(0.02, normalize=False, rng=seed())
    likelihoods = [from_deepinv(dinv.physics.Denoising(model), model(x)) for model in (scaled, counts)]
    assert all(isinstance(likelihood, Poisson) for likelihood in likelihoods)
    torch.testing.assert_close(likelihoods[0](x), likelihoods[1](x))


def test_without_deepinv_one_sentence_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "deepinv", None)
    with pytest.raises(InputError, match=r"deepinv is missing; pip install 'aipo\[deepinv\]'"):
        load()


def test_restorations_are_made_where_the_physics_is():
    pictures = rand(40, 3, 8, 8, seed=1).float()

    def blur(device: str) -> Any:
        return dinv.physics.Blur(filter=kernel(), padding="circular", noise_model=noise()).to(device)

    def restored(device: str) -> Tensor:
        flow = make("glow", "any", 3, 1, (8, 8))
        own = priors.FlowPrior(flow, StationaryGaussian.fit(pictures), {}).float().to(device)
        options = PathOptions(geometric(0.5, 2.0, 2), evaluations=2)
        return Reconstructor(own, options=options)(y.to(device), blur(device))

    y = blur("cpu").A(pictures[:2])
    with elsewhere() as device:
        there = restored(device)
        assert there.device.type == device
        there = there.cpu()
    torch.testing.assert_close(there, restored("cpu"), rtol=0, atol=1e-3)  # other convolutions
