"""Every prior that ships: sane energies off the data, honest card, small files."""

import math

import pytest
import torch
from skimage import data

from aipo.basics.quality import psnr
from aipo.flows.training.validation import bits_per_dim
from aipo.io.tensors import load_config
from aipo.likelihoods import measure
from aipo.operators import Identity
from aipo.priors import bundled_priors, load_prior
from aipo.reconstruction.reconstruct import reconstruct

NAMES = sorted(bundled_priors())
LEVELS = (0.0, 0.01, 0.03, 0.1, 0.2, 0.4, 0.7, 1.0)


def pictures(name: str) -> torch.Tensor:
    """Four real pictures (photos), or four draws of the prior where no real one ships."""
    prior = load_prior(name)
    if prior.shape[0] == 1:
        return prior.sample(4, temperature=0.5, seed=3).clamp(0, 1)
    image = torch.from_numpy(data.astronaut().copy()).permute(2, 0, 1).float() / 255
    return torch.stack(
        [image[:, i : i + 64, j : j + 64] for i, j in ((0, 180), (100, 180), (250, 200), (400, 30))]
    )


def test_the_priors_of_the_readme_ship():
    assert NAMES == ["faces64", "fashion28", "photos"]


@pytest.mark.parametrize("name", NAMES)
def test_energy_is_finite_and_rises_with_noise(name: str):
    prior, x = load_prior(name), pictures(name)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    energies = torch.stack([prior.energy(x + level * noise) for level in LEVELS])
    assert torch.isfinite(energies).all()
    assert (energies.diff(dim=0) > 0).all(), energies
    assert (energies[-1] < 20 * x[0].numel()).all(), "no explosion off the data"


@pytest.mark.parametrize("name", NAMES)
def test_gradient_is_finite_off_the_data(name: str):
    prior = load_prior(name)
    for x in (
        torch.rand(pictures(name).shape),
        torch.zeros(pictures(name).shape),
        3 * torch.ones(pictures(name).shape),
    ):
        x = x.requires_grad_(True)
        gradient = torch.autograd.grad(prior.energy(x).sum(), x)[0]
        assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("name", NAMES)
def test_card_says_what_a_user_must_know(name: str):
    folder = bundled_priors()[name]
    card = load_config(folder)
    assert {"data", "licence", "command", "training", "parameters", "validation_bits_per_dim"} <= card.keys()
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 16_000_000
    assert card["licence"] in (folder / "README.md").read_text()
    assert " /" not in card["command"], "no path of the machine that trained it"


def test_photos_compresses_a_picture_it_has_never_seen():
    pixels = (pictures("photos") * 255).round().to(torch.uint8)
    bits = bits_per_dim(load_prior("photos").flow, pixels)
    assert 1 < bits < 5, "a uniform density has 8 bits per dimension"


@pytest.mark.parametrize("size", [(33, 47), (8, 64), (31, 31)])
def test_photos_takes_any_size(size: tuple[int, int]):
    prior = load_prior("photos")
    x = pictures("photos")[:1, :, : size[0], : size[1]]
    energy = prior.energy(x)
    assert math.isfinite(float(energy)) and float(energy) < 0


def test_denoising_a_photograph_gains_more_than_the_closed_form_start():
    prior, truth = load_prior("photos"), pictures("photos")[1:2, :, :48, :48]
    likelihood = measure(Identity((3, 48, 48)), truth, 0.1, torch.Generator().manual_seed(0))
    result = reconstruct(likelihood, prior)
    before, after = float(psnr(likelihood.y, truth)), float(psnr(result.image, truth))
    assert after > before + 6
    assert after > float(psnr(result.start, truth)) + 0.3


@pytest.mark.parametrize("level", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("name", NAMES)
def test_latents_decode_to_the_picture_in_single_precision(name: str, level: float):
    prior, x = load_prior(name), pictures(name)
    noisy = x + level * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert (prior.decode(prior.encode(noisy)) - noisy).abs().max() <= 1e-4
