"""Which noise a picture has, and how strong it is, is told from the picture alone."""

import noisy_files as noisy
import numpy as np
import pytest
import torch

from aipo.basics.errors import InputError
from aipo.likelihoods import Correlated, Gaussian, Heteroscedastic
from aipo.noise import estimate_noise
from aipo.noise.models import Light, Stationary, Striped, White
from aipo.operators import Blur, Identity, Mask, gaussian_kernel

CLEAN = noisy.clean()
SHAPE = (3, noisy.SIDE, noisy.SIDE)


def framed(level: float) -> np.ndarray:
    found = np.full(CLEAN.shape, level)
    found[20:-20, 20:-20] = noisy.white(CLEAN)[20:-20, 20:-20]
    return found


@pytest.mark.parametrize("sigma", [0.02, 0.06, 0.15])
def test_white_noise_is_white_and_as_strong_as_it_is(sigma):
    found = estimate_noise(noisy.image(0.2 + 0.6 * noisy.white(CLEAN, sigma / 0.6)))
    assert isinstance(found.model, White)
    assert found.sigma == pytest.approx(sigma, rel=0.15)
    assert f"{found.sigma:.3f}" in found.sentence


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_a_frame_does_not_count(level):
    assert estimate_noise(noisy.image(framed(level))).sigma == pytest.approx(noisy.SIGMA, rel=0.15)


def test_lost_and_transparent_pixels_do_not_count():
    picture, known = noisy.image(noisy.white(CLEAN)), torch.ones(1, *SHAPE[1:], dtype=torch.bool)
    known[:, 30:80, 40:90] = False
    picture[:, ~known[0]] = 0
    assert estimate_noise(picture, known).sigma == pytest.approx(noisy.SIGMA, rel=0.15)


def test_single_lost_pixels_do_not_count():
    known = torch.rand(1, *SHAPE[1:], generator=torch.Generator().manual_seed(0)) > 0.4
    picture = noisy.image(noisy.white(CLEAN)) * known
    assert estimate_noise(picture, known).sigma == pytest.approx(noisy.SIGMA, rel=0.2)


def test_a_clipped_sky_does_not_count():
    bright = CLEAN.copy()
    bright[:50] = 1.2
    assert estimate_noise(noisy.image(noisy.white(bright))).sigma == pytest.approx(noisy.SIGMA, rel=0.15)


def test_channels_have_their_own_deviation():
    sigma = np.array([0.03, 0.06, 0.12])
    found = estimate_noise(noisy.image(noisy.white(CLEAN, sigma)))
    assert found.model.deviations.tolist() == pytest.approx(sigma, rel=0.15)
    y = noisy.image(noisy.white(CLEAN, sigma))[None]
    assert isinstance(found.likelihood(Identity(SHAPE), y), Heteroscedastic)


@pytest.mark.parametrize("make", [noisy.demosaicked, noisy.grain, noisy.enlarged])
def test_noise_that_is_coloured_is_told_from_white(make):
    picture = noisy.image(make(CLEAN))
    found = estimate_noise(picture)
    assert isinstance(found.model, Stationary)
    assert "coloured" in found.sentence
    assert isinstance(found.likelihood(Identity(SHAPE), picture[None]), Correlated)
    alone = make(np.full(CLEAN.shape, 0.5)).std()
    assert 0.6 < found.sigma / alone < 1.5


def test_noise_that_was_compressed_is_told_from_white():
    assert isinstance(estimate_noise(noisy.image(noisy.jpeg(noisy.white(CLEAN)))).model, Stationary)


def test_grain_is_as_strong_as_it_is():
    assert estimate_noise(noisy.image(noisy.grain(CLEAN))).sigma == pytest.approx(noisy.SIGMA, rel=0.2)


def test_impulses_are_found_and_count_as_lost():
    picture = noisy.image(noisy.impulses(noisy.white(0.2 + 0.6 * CLEAN, 0.03)))
    found, wrong = estimate_noise(picture), (picture == 0) | (picture == 1)
    assert (found.impulses & wrong).sum() > 0.9 * wrong.sum()
    assert not (found.impulses & ~wrong).any()
    assert found.sigma == pytest.approx(0.03, rel=0.25)
    likelihood = found.likelihood(Identity(SHAPE), picture[None])
    assert torch.equal(likelihood.operator.kept(), ~found.impulses)
    assert "impulses" in found.sentence


def test_impulses_in_a_masked_picture_are_lost_too():
    picture = noisy.image(noisy.impulses(0.2 + 0.6 * CLEAN))
    known = torch.ones(SHAPE, dtype=torch.bool)
    known[:, 40:60, 40:60] = False
    found, operator = estimate_noise(picture, known), Mask(known)
    likelihood = found.likelihood(operator, operator(picture[None]))
    assert torch.equal(likelihood.operator.kept(), known & ~found.impulses)
    assert not (found.impulses & ~known).any()


@pytest.mark.parametrize("turned", [False, True])
def test_stripes_are_told(turned):
    picture = noisy.image(noisy.stripes(CLEAN))
    found = estimate_noise(picture.mT.contiguous() if turned else picture)
    assert isinstance(found.model, Striped)
    assert found.model.axis == (0 if turned else 1)
    assert ("rows" if turned else "columns") in found.sentence
    assert np.sqrt(np.diag(found.model.covariance)) == pytest.approx(noisy.SIGMA, rel=0.35)
    assert float(found.model.white.mean()) == pytest.approx(0.02, rel=0.3)


def test_noise_that_grows_with_brightness_is_told():
    picture = noisy.image(noisy.light(CLEAN))
    found = estimate_noise(picture)
    assert isinstance(found.model, Light)
    assert found.model.slope == pytest.approx(0.01, rel=0.4)
    assert isinstance(found.likelihood(Identity(SHAPE), picture[None]), Heteroscedastic)


def test_a_clean_picture_has_little_noise():
    found = estimate_noise(noisy.image(CLEAN))
    assert found.sigma < 0.01
    assert not found.impulses.any()


def test_a_drawing_has_no_noise():
    drawing = np.kron(np.random.default_rng(0).random((8, 8, 3)), np.ones((16, 16, 1)))
    assert estimate_noise(noisy.image(drawing)).sigma <= 1.01 / 255 / 12**0.5


def test_a_picture_of_one_channel_has_one_sigma():
    picture = noisy.image(noisy.white(CLEAN[..., :1]))
    found = estimate_noise(picture)
    assert found.sigma == pytest.approx(noisy.SIGMA, rel=0.15)
    assert isinstance(found.likelihood(Identity((1, *SHAPE[1:])), picture[None]), Gaussian)


def test_other_measurements_are_refused():
    picture = noisy.image(noisy.white(CLEAN))
    with pytest.raises(InputError, match="Blur"):
        estimate_noise(picture).likelihood(Blur(SHAPE, gaussian_kernel(1.0)), picture[None])
    with pytest.raises(InputError, match="floating-point"):
        estimate_noise((255 * picture).byte())
    with pytest.raises(InputError, match="known"):
        estimate_noise(picture, torch.ones(2, 2, dtype=torch.bool))
    with pytest.raises(InputError, match="no known"):
        estimate_noise(picture, torch.zeros(1, *SHAPE[1:], dtype=torch.bool))
