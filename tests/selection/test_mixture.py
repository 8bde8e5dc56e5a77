"""Mixtures of lowest estimated risk: the quadratic programme, and what mixing wins."""

import math
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from noise_draws import LARGE_OPERATORS, noise_draws, own_probes, smooth_prior

from aipo.basics.arrays import dot
from aipo.gaussian import posterior
from aipo.likelihoods import measure
from aipo.operators import Identity, mosaic, random_mask
from aipo.selection.components import EVERYWHERE, of_colour, places
from aipo.selection.criteria import Sure
from aipo.selection.mixture import lowest_on_simplex, mixture, near_shares, sure_shares

WEIGHTS = (0.1, 0.5, 2.0, 10.0)


@settings(deadline=None)  # the first call imports SciPy's optimisers
@given(st.integers(1, 4), st.integers(0, 10_000), st.floats(1e-6, 1e6))
def test_no_point_of_a_fine_grid_is_lower(count, seed, scale):
    generator = np.random.default_rng(seed)
    half = generator.normal(size=(count, 3))
    gram, linear = scale * half @ half.T, scale * generator.normal(size=count)
    found = lowest_on_simplex(gram, linear)
    assert (found >= 0).all() and found.sum() == pytest.approx(1)
    grid = np.array([p for p in product(range(13), repeat=count) if sum(p) == 12]) / 12
    values = np.einsum("pi,ij,pj->p", grid, gram, grid) + 2 * grid @ linear
    assert found @ gram @ found + 2 * linear @ found <= values.min() + 1e-6 * scale


def test_equal_candidates_share_as_they_like():
    found = lowest_on_simplex(np.ones((5, 5)), np.zeros(5))
    assert found.sum() == pytest.approx(1)


def half_of_the_pixels(shape):
    return random_mask(shape, 0.5)


def maps(operator, likelihood, sure):
    """The Gaussian prior's minimisers at several weights, of the measurements and of their copies."""
    closed = posterior(operator, smooth_prior())
    y = sure.batch().y
    return [
        closed.mode(y, torch.full((len(y),), weight, dtype=torch.float64) * likelihood.sigma.repeat(2) ** 2)
        for weight in WEIGHTS
    ]


@pytest.mark.parametrize("operator", LARGE_OPERATORS.values(), ids=LARGE_OPERATORS)
def test_the_mixture_is_nearer_than_the_best_single_map(operator):
    """Over 200 noise draws and probes, in what is measured; within three standard errors not farther."""
    likelihood, clean = noise_draws(operator, 0.15)
    sure = own_probes(Sure(likelihood))
    pictures = maps(operator, likelihood, sure)
    part = sure_shares(sure, pictures, torch.ones(4, 200, dtype=torch.bool), EVERYWHERE)
    assert part.shape == (4, 200, 1, 1) and (part >= 0).all()
    assert torch.allclose(part.sum(0), torch.ones(200, 1, 1, dtype=torch.float64))
    values = torch.stack([sure(x) for x in pictures])

    def risk(x):
        return ((operator(x) - clean) ** 2).flatten(1).mean(1)

    single = torch.stack([risk(x[:200]) for x in pictures])[values.argmin(0), torch.arange(200)]
    gain = single - risk(mixture(pictures, part))
    assert gain.mean() >= -3 * gain.std() / math.sqrt(200)
    copies = mixture([torch.cat((x[200:], x[:200])) for x in pictures], part)
    estimate = sure(torch.cat((mixture(pictures, part), copies)))
    # What had to be kept within [0, tr Σ] is not linear in the shares.
    excesses = torch.stack([dot(sure.stein.probe, sure.residual_and_response(x)[1]) for x in pictures])
    noise = dot(sure.stein.probe, sure.stein.probe).minimum(sure.stein.trace)
    inside = ((excesses > 0) & (excesses < noise)).all(0)
    assert inside.sum() > 50
    assert (estimate <= values.min(0).values + 1e-9)[inside].all()


@pytest.mark.parametrize("ratio", [0.5, 1.0, 2.0])
def test_mixing_the_measurement_with_nothing_is_wieners_shrinkage(ratio):
    """White pictures of standard deviation s = ratio · σ: the share of y is near s²/(s² + σ²)."""
    generator, shape, sigma = torch.Generator().manual_seed(2), (1, 32, 32), 0.2
    truth = ratio * sigma * torch.randn(16, *shape, generator=generator, dtype=torch.float64)
    likelihood = measure(Identity(shape), truth, sigma, generator)
    sure = own_probes(Sure(likelihood))
    y = sure.batch().y
    part = sure_shares(sure, [y, torch.zeros_like(y)], torch.ones(2, 16, dtype=torch.bool), EVERYWHERE)
    expected = ratio**2 / (1 + ratio**2)
    assert (part[0] - expected).abs().max() < 0.15
    assert abs(float(part[0].mean()) - expected) < 0.03
    risk = ((mixture([y, torch.zeros_like(y)], part) - truth) ** 2).mean()
    assert risk == pytest.approx(sigma**2 * expected, rel=0.05)


@pytest.mark.parametrize("measured", [Identity, half_of_the_pixels])
def test_every_component_is_shrunk_as_much_as_it_is_noisy(measured):
    """Luminance and chrominance of different strength, left and right: four shrinkages of one picture."""
    generator, shape, sigma = torch.Generator().manual_seed(2), (3, 64, 64), 0.2
    noise = torch.randn(8, *shape, generator=generator, dtype=torch.float64)
    left = (torch.arange(64) < 32).double().expand(64, 64)
    where = torch.stack((left, 1 - left)).expand(8, 2, 64, 64)
    ratios = torch.tensor([[2.0, 0.5], [0.7, 0.0]], dtype=torch.float64)  # (colours, places)
    strengths = ratios @ where.flatten(2)
    truth = sum(
        sigma * strength.unflatten(1, (64, 64))[:, None] * of_colour(noise, hue, 2)
        for hue, strength in enumerate(strengths.unbind(1))
    )
    likelihood = measure(measured(shape), truth, sigma, generator)
    sure = own_probes(Sure(likelihood))
    copies = [likelihood.operator.adjoint(sure.batch().y), torch.zeros(16, *shape, dtype=torch.float64)]
    part = sure_shares(sure, copies, torch.ones(2, 8, dtype=torch.bool), where)
    expected = ratios**2 / (1 + ratios**2)
    assert part.shape == (2, 8, 2, 2)
    assert (part[0].mean(0) - expected).abs().max() < 0.06
    alike = sure_shares(sure, copies, torch.ones(2, 8, dtype=torch.bool), EVERYWHERE)
    best, usual = mixture(copies, part, where), mixture(copies, alike)
    seen = likelihood.operator
    assert ((seen(best) - seen(truth)) ** 2).mean() < 0.95 * ((seen(usual) - seen(truth)) ** 2).mean()


def test_colours_are_not_told_apart_where_pixels_lack_some_of_them():
    generator, shape = torch.Generator().manual_seed(3), (3, 16, 16)
    likelihood = measure(mosaic(shape), torch.rand(2, *shape, generator=generator), 0.1, generator)
    sure = Sure(likelihood)
    copies = [likelihood.operator.adjoint(sure.batch().y), torch.zeros(4, *shape)]
    part = sure_shares(sure, copies, torch.ones(2, 2, dtype=torch.bool), places(copies[0][:2]))
    assert part.shape == (2, 2, 1, 3)


def test_what_is_not_usable_has_no_share_and_spoils_nothing():
    operator = LARGE_OPERATORS["denoising"]
    likelihood, _ = noise_draws(operator, 0.15, draws=3)
    sure = Sure(likelihood)
    pictures = maps(operator, likelihood, sure)
    pictures[1] = torch.full_like(pictures[1], torch.nan)
    usable = torch.ones(4, 3, dtype=torch.bool)
    usable[1] = False
    usable[1:, 2] = False
    part = sure_shares(sure, pictures, usable, EVERYWHERE)
    assert (part[1] == 0).all() and part[0, 2] == 1
    image = mixture(pictures, part)
    assert torch.isfinite(image).all()
    assert torch.equal(image[2], pictures[0][2])


def test_the_chosen_picture_is_averaged_with_those_of_a_quarter_of_its_weight_or_more():
    usable = torch.ones(5, 4, dtype=torch.bool)
    usable[2, 1] = usable[0, 2] = False
    usable[4, 3] = False
    weights = torch.tensor([0, 1, 2, 4, 8.0])[:, None].expand(5, 4)
    part = near_shares(torch.tensor([4, 3, 1, 4]), weights, usable)
    third = 1 / 3
    expected = [
        [0, 0, third, third, third],
        [0, 0.5, 0, 0.5, 0],
        [0, 1, 0, 0, 0],
        [0, 0, third, third, third],
    ]
    assert torch.allclose(part[..., 0, 0].T, torch.tensor(expected))
    # A path whose λ falls has the same points in the other order.
    falling = near_shares(torch.tensor([0, 1, 3, 0]), weights.flip(0), usable.flip(0))
    assert torch.allclose(falling.flip(0), part)
