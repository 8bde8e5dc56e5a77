"""The measurements of a window of a picture: what they say of the window is what all of them say of it."""

import pytest
import torch
from noise_models import Model, every_model, measured, pictures
from torch import Tensor

from aipo.likelihoods import Coloured, FlowNoise, Gaussian, Heteroscedastic
from aipo.operators import (
    Blur,
    Composition,
    Curve,
    Downsampling,
    GaussianSensing,
    Grey,
    Identity,
    Mask,
    Operator,
    gamma_curve,
    gaussian_kernel,
    random_mask,
)

SHAPE = (3, 12, 20)
SPLIT = [(slice(0, 7), slice(0, 20)), (slice(7, 12), slice(0, 11)), (slice(7, 12), slice(11, 20))]


def picture(count: int = 2, seed: int = 0) -> Tensor:
    return torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


PIXELWISE: dict[str, Operator] = {
    "identity": Identity(SHAPE),
    "half": random_mask(SHAPE, 0.5),
    "some colours": Mask(picture(1)[0] > 0.3),
    "grey": Grey(SHAPE),
    "half of the grey": Composition(Grey(SHAPE), random_mask((1, 12, 20), 0.5)),
    "tone curve": gamma_curve(random_mask(SHAPE, 0.5), 0.5),
}


@pytest.mark.parametrize("operator", PIXELWISE.values(), ids=PIXELWISE)
def test_windows_together_say_what_the_whole_says(operator):
    x, y = picture(seed=1), operator(picture())
    sigma = 0.05 + 0.1 * torch.rand(y.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    for likelihood in (Gaussian(operator, y, 0.1), Heteroscedastic(operator, y, sigma)):
        assert likelihood.pixelwise
        total = torch.zeros(2, dtype=torch.float64)
        for rows, columns in SPLIT:
            part = likelihood.window(rows, columns)
            assert part is not None
            total += part(x[:, :, rows, columns])
        torch.testing.assert_close(total, likelihood(x), rtol=1e-10, atol=1e-8)


@every_model
def test_every_noise_model_takes_its_parameters_along(model: Model):
    x = pictures(2)
    likelihood = measured(model, x)
    total = torch.zeros(2, dtype=torch.float64)
    for columns in (slice(0, 2), slice(2, 5)):
        part = likelihood.window(slice(0, 4), columns)
        assert part is not None
        total += part(x[..., columns])
    torch.testing.assert_close(total, likelihood(x), rtol=1e-10, atol=1e-8)


def test_a_window_without_measurements():
    known = torch.ones(1, 12, 20, dtype=torch.bool)
    known[:, :7] = False
    for operator in (Mask(known, 3), Composition(Grey(SHAPE), Mask(known)), gamma_curve(Mask(known, 3), 0.5)):
        likelihood = Gaussian(operator, operator(picture()), 0.1)
        assert likelihood.window(slice(0, 7), slice(0, 20)) is None
        assert likelihood.window(slice(0, 8), slice(0, 20)) is not None


def test_what_mixes_pixels_has_no_windows():
    blur = Blur(SHAPE, gaussian_kernel(0.5))
    mixing = (
        blur,
        Downsampling(SHAPE, 2),
        GaussianSensing(SHAPE, 9),
        Composition(blur, random_mask(SHAPE, 0.5)),
    )
    for operator in (*mixing, Curve(blur, torch.exp, torch.log)):
        assert not Gaussian(operator, operator(picture()), 0.1).pixelwise

    class Everywhere:
        def log_prob(self, e: Tensor) -> Tensor:
            return -e.flatten(1).square().sum(1)

        def sample(self, count: int) -> Tensor:
            return torch.randn(count, *SHAPE)

    assert not FlowNoise(Identity(SHAPE), picture(), Everywhere()).pixelwise


def test_coloured_noise_of_a_window_has_the_power_that_windows_have():
    """Grain, and stripes, whose power at one row of frequencies grows with the height of a window."""
    rows, columns = torch.fft.fftfreq(32).double()[:, None], torch.fft.fftfreq(48).double()
    grain = 0.01 * torch.exp(-40 * (rows**2 + columns**2)) + 1e-3
    stripes = torch.full((32, 48), 1e-4, dtype=torch.float64)
    stripes[0] += 0.01
    blank = torch.zeros(1, 1, 32, 48, dtype=torch.float64)
    for spectrum in (grain, stripes):
        likelihood = Coloured(Identity((1, 32, 48)), blank, spectrum)
        part = likelihood.window(slice(4, 20), slice(9, 41))
        assert part is not None
        assert float(part.spectrum.mean()) == pytest.approx(float(spectrum.mean()), rel=1e-6)
        noise = likelihood.simulate(blank.expand(4000, -1, -1, -1), torch.Generator().manual_seed(0))
        seen = torch.fft.fft2(noise[..., 4:20, 9:41], norm="ortho").abs().square().mean((0, 1))
        # 4,000 periodograms scatter by 1.6 % around their mean.
        torch.testing.assert_close(part.spectrum, seen, rtol=0.12, atol=0)


def test_coloured_noise_of_a_whole_picture_is_as_it_was():
    spectrum = 0.01 + 0.02 * torch.rand(1, dtype=torch.float64).expand(12, 20)
    likelihood = Coloured(Identity(SHAPE), picture(), spectrum)
    part = likelihood.window(slice(0, 12), slice(0, 20))
    assert part is not None
    torch.testing.assert_close(part.spectrum, spectrum)
