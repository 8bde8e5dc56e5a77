"""Noise of a kind that a person names, and of a flat field."""

import noisy_files as noisy
import numpy as np
import pytest
import torch

from aipo.basics.errors import InputError
from aipo.likelihoods import Correlated, Gaussian, Heteroscedastic, StudentT
from aipo.noise import NoiseOptions, flat_noise, named_noise
from aipo.noise.models import Light, Stationary, White
from aipo.operators import Identity

CLEAN = noisy.clean()
SHAPE = (3, noisy.SIDE, noisy.SIDE)
PICTURE = noisy.image(noisy.white(CLEAN))


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        (NoiseOptions("gaussian"), Gaussian),
        (NoiseOptions("gaussian", sigma=0.06), Gaussian),
        (NoiseOptions("coloured"), Correlated),
        (NoiseOptions("poisson", gain=100.0), Heteroscedastic),
        (NoiseOptions("poisson-gaussian", sigma=0.03, gain=100.0), Heteroscedastic),
        (NoiseOptions("student-t", freedom=5.0), StudentT),
        (NoiseOptions("student-t", sigma=0.06), StudentT),
    ],
)
def test_a_named_kind_is_that_kind(options, kind):
    found = named_noise(PICTURE, options=options)
    assert isinstance(found.likelihood(Identity(SHAPE), PICTURE[None]), kind)
    assert 0.6 * noisy.SIGMA < found.sigma < 2 * noisy.SIGMA


def test_given_numbers_are_taken():
    assert named_noise(PICTURE, options=NoiseOptions("gaussian", sigma=0.1)).sigma == pytest.approx(0.1)
    assert named_noise(PICTURE, options=NoiseOptions("student-t", sigma=0.1)).sigma == pytest.approx(0.1)
    found = named_noise(PICTURE, options=NoiseOptions("poisson-gaussian", sigma=0.03, gain=200.0)).model
    assert isinstance(found, Light)
    assert (found.slope, found.offset) == pytest.approx((1 / 200, 0.03**2))


def test_the_noise_of_light_is_estimated():
    found = named_noise(noisy.image(noisy.light(CLEAN)), options=NoiseOptions("poisson-gaussian")).model
    assert isinstance(found, Light)
    assert found.slope == pytest.approx(0.01, rel=0.4)


def test_few_impulses_are_found_where_they_are_looked_for():
    picture = noisy.image(noisy.impulses(0.2 + 0.6 * CLEAN, 0.002))
    wrong = (picture == 0) | (picture == 1)
    assert not named_noise(picture).impulses.any()
    found = named_noise(picture, options=NoiseOptions("impulses")).impulses
    assert (found & wrong).sum() > 0.8 * wrong.sum()


def test_a_flat_field_tells_the_colour_of_noise():
    found = flat_noise(noisy.image(noisy.grain(np.full(CLEAN.shape, 0.5))))
    assert isinstance(found.model, Stationary)
    assert found.sigma == pytest.approx(noisy.SIGMA, rel=0.15)
    even = flat_noise(noisy.image(noisy.white(np.full(CLEAN.shape, 0.5))))
    assert isinstance(even.model, White)
    assert even.sigma == pytest.approx(noisy.SIGMA, rel=0.05)


@pytest.mark.parametrize(
    "wrong",
    [
        {"freedom": 2.0},
        {"kind": "gaussian", "sigma": -1.0},
        {"kind": "gaussian", "gain": 10.0},
        {"kind": "coloured", "sigma": 0.1},
    ],
)
def test_bad_options_are_refused(wrong):
    with pytest.raises(InputError):
        NoiseOptions(**wrong)


def test_a_small_flat_field_is_refused():
    with pytest.raises(InputError, match="flat field"):
        flat_noise(torch.rand(3, 8, 8))
