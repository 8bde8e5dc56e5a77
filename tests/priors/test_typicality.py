"""Typicality: held-out pictures are usual, others are not, and smoothness does not pass for typical."""

import json

import pytest
import torch
from elsewhere import elsewhere
from scipy.stats import chi2, norm
from torch import Tensor

from aipo import load_prior
from aipo.basics.arrays import Images, per_image_sum
from aipo.priors.library import bundled_priors
from aipo.priors.typicality import LARGEST, LEVELS, fit_typicality, typicality

SHAPE = (2, 16, 16)


def pictures(count: int, seed: int, spread: float = 0.1) -> Images:
    """Independent Gaussian entries around one half; how much each picture varies differs."""
    generator = torch.Generator().manual_seed(seed)
    strength = 0.9 + 0.2 * torch.rand(count, 1, 1, 1, generator=generator, dtype=torch.float64)
    return 0.5 + spread * strength * torch.randn(count, *SHAPE, generator=generator, dtype=torch.float64)


def energies(x: Images) -> Tensor:
    """Of the same Gaussian, each channel as one scale."""
    own = 0.5 * ((x - 0.5) / 0.1).square()
    return torch.stack([per_image_sum(channel[:, None]) for channel in own.unbind(1)], 1) / x[0].numel()


def noise(x: Images, level: float) -> Tensor:
    return torch.full((len(x),), level).to(x)


@pytest.fixture(scope="module")
def told():
    return fit_typicality(energies, [pictures(400, seed=0)])


@pytest.mark.parametrize("level", LEVELS)
def test_other_pictures_of_the_same_kind_are_usual(told, level):
    x = pictures(400, seed=1)
    found = told(energies, x, noise(x, level))
    assert float(found.median()) < 1 and float((found > 3).double().mean()) < 0.03


@pytest.mark.parametrize("strength", [0.0, 0.2, 3.0])
def test_smoother_pictures_are_as_unusual_as_rougher_ones(told, strength):
    x = pictures(20, seed=2, spread=0.1 * strength)
    assert (told(energies, x, noise(x, 0.02)) > 3).all()


def test_one_scale_alone_can_be_unusual(told):
    x = pictures(20, seed=3)
    x[:, 1] = 0.5
    assert (told(energies, x, noise(x, 0.02)) > 3).all()


def test_every_picture_is_looked_at_with_its_own_noise(told):
    x = pictures(3, seed=4)
    levels = torch.tensor([0.01, 0.1, 7.0])
    alone = [told(energies, x[i : i + 1], levels[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(told(energies, x, levels), torch.cat(alone))
    same = told(energies, x[:1], torch.tensor([0.02])), told(energies, x[2:], torch.tensor([0.4]))
    torch.testing.assert_close((alone[0], alone[2]), same)


def test_it_is_exceeded_as_rarely_as_a_normal_value(told):
    """The energies at the highest level moved along one direction, beside SciPy's χ² distribution."""
    x = pictures(1, seed=5)

    def moved(by: float):
        factor = torch.linalg.cholesky(told.covariance[-2:, -2:])[:, 0]
        return lambda _: (told.mean[-1] + by * factor)[None]

    for distance in (0.0, 1.0, 4.0, 20.0):
        found = float(told(moved(distance), x, noise(x, LEVELS[-1])))
        assert found == pytest.approx(max(0, norm.isf(chi2.sf(distance**2, 2))), abs=0.2)
    assert 37 < float(told(moved(1e6), x, noise(x, LEVELS[-1]))) < 38


def test_a_card_keeps_it(told):
    again = typicality(json.loads(json.dumps({"typicality": told.card()})))
    x = pictures(4, seed=6)
    assert again is not None
    assert torch.equal(again(energies, x, noise(x, 0.1)), told(energies, x, noise(x, 0.1)))
    assert typicality({}) is None


def test_equal_held_out_pictures_prove_nothing_but_do_not_fail():
    x = pictures(1, seed=7).expand(20, -1, -1, -1)
    found = fit_typicality(energies, [x])(energies, x[:2], noise(x[:2], 0.1))
    assert torch.isfinite(found).all() and (found == 0).all()


@pytest.mark.parametrize("name", bundled_priors())
def test_bundled_priors_know_that_a_chessboard_is_none_of_theirs(name):
    prior = load_prior(name)
    channels, height, width = prior.shape
    rows, columns = torch.arange(height or 64)[:, None], torch.arange(width or 64)
    board = 0.1 + 0.8 * ((rows // 4 + columns // 4) % 2).expand(1, channels, -1, -1).float()
    typical = prior.untypical(board, torch.tensor([0.02]))
    assert typical is not None and float(typical) > 5


def test_of_a_large_picture_the_middle_is_looked_at():
    prior = load_prior("photos")
    x = prior.sample(1, (LARGEST + 8, LARGEST + 24)).clamp(0, 1)
    error = torch.tensor([0.05])
    middle = x[:, :, 4:-4, 12:-12]
    found, other = prior.untypical(x, error), prior.untypical(middle, error)
    assert found is not None and other is not None
    assert torch.equal(found, other)


def test_pictures_on_another_device_stay_there(told):
    x = pictures(3, seed=8, spread=0.15)
    levels = torch.tensor([0.01, 0.3, 0.05]).double()
    here = told(energies, x, levels)
    assert (here > 0).any() and (here < 37).all()
    with elsewhere() as device:
        there = told(energies, x.to(device), levels.to(device))
        assert there.device.type == torch.device(device).type
        assert torch.allclose(there.cpu(), here, atol=1e-6)
