"""What is followed where the user does not say: which coordinates and metric, and whether that lowers F."""

from dataclasses import replace

import pytest
import torch
from closed_form import gaussian_prior

from aipo import load_prior
from aipo.likelihoods import Gaussian, Laplace, OneBit, measure
from aipo.operators import (
    Blur,
    Composition,
    Downsampling,
    FourierMask,
    GaussianSensing,
    Grey,
    Identity,
    Mask,
    block_mask,
    cartesian_mask,
    gaussian_kernel,
    motion_kernel,
)
from aipo.path.solvers.descent import Adam
from aipo.path.solvers.lbfgs import LBFGS
from aipo.path.splitting import SplittingOptions
from aipo.path.tweedie import TweedieOptions
from aipo.reconstruction.reconstruct import reconstruct
from aipo.selection.defaults import COLD, COLD_WEIGHT, STEPS, direct, path_to_minima
from aipo.selection.plans import plan
from aipo.selection.structure import residual_tells

SHAPE = (1, 28, 28)


@pytest.mark.parametrize(
    ("operator", "sigma", "coordinates", "metric"),
    [
        (Identity(SHAPE), 0.1, "latents", "surrogate"),
        (Identity(SHAPE), 0.01, "pictures", "data"),
        (GaussianSensing(SHAPE, 196, seed=0), 0.1, "pictures", "surrogate"),
        (block_mask(SHAPE, 9), 0.1, "pictures", "surrogate"),
    ],
)
def test_direct_chooses_coordinates_and_metric_by_task_and_noise(operator, sigma, coordinates, metric):
    likelihood = measure(operator, torch.full((1, *SHAPE), 0.5), sigma, torch.Generator().manual_seed(0))
    options = direct(likelihood, load_prior("fashion28"), 1.0)
    assert (options.coordinates, options.metric) == (coordinates, metric)
    assert options.weights == (1.0,)


def test_direct_reaches_a_lower_objective_than_the_path_for_pictures():
    prior = load_prior("fashion28")
    x = prior.sample(2).clamp(0, 1)
    likelihood = measure(Identity(SHAPE), x, 0.1, torch.Generator().manual_seed(1))
    path = reconstruct(likelihood, prior, 1.0)
    budget = int(path.evaluations.min()) - 2  # the two starts of direct are evaluated as well
    found = reconstruct(likelihood, prior, 1.0, direct(likelihood, prior, 1.0, budget))
    assert (found.evaluations <= path.evaluations).all()
    assert (found.objective < path.objective).all()


def test_pictures_of_sides_that_do_not_divide_have_no_latents():
    likelihood = measure(Identity((3, 30, 31)), torch.full((1, 3, 30, 31), 0.5), 0.1)
    assert direct(likelihood, load_prior("photos"), 1.0).coordinates == "pictures"


def test_holes_keep_steps_small_where_nothing_was_measured():
    small, large = load_prior("fashion28"), load_prior("photos")
    hole = path_to_minima(block_mask(SHAPE, 9), small)
    assert (hole.metric, hole.stiffness > 1) == ("surrogate", True)
    assert path_to_minima(block_mask((3, 16, 16), 5), large).metric == "data"
    assert path_to_minima(block_mask((3, 64, 64), 19), load_prior("faces64")).metric == "data"
    for operator, prior in (
        (Mask(torch.ones(SHAPE, dtype=torch.bool)), small),
        (Identity((3, 16, 16)), large),
    ):
        path = path_to_minima(operator, prior)
        assert (path.metric, path.stiffness) == ("surrogate", 1)


def test_scattered_losses_are_no_holes():
    scattered = Mask(torch.rand(SHAPE, generator=torch.Generator().manual_seed(0)) < 0.5)
    assert path_to_minima(scattered, load_prior("fashion28")).stiffness == 1


def test_a_channel_that_is_lost_as_a_whole_is_a_hole():
    mask = torch.ones(3, 28, 28, dtype=torch.bool)
    mask[0] = False
    prior = gaussian_prior()
    assert path_to_minima(Mask(mask), prior).stiffness > 1


def test_lost_detail_is_followed_by_curvature_and_random_mixtures_by_adam():
    shape, prior = (3, 64, 64), load_prior("faces64")
    blur, coarse = Blur(shape, gaussian_kernel(1.0)), Downsampling(shape, 2)
    for operator in (
        blur,
        coarse,
        Composition(blur, coarse),
        FourierMask(shape, cartesian_mask((64, 64), 0.3)),
    ):
        for known in (prior, load_prior("photos")):
            assert isinstance(path_to_minima(operator, known).solver, LBFGS)
    for operator in (GaussianSensing(shape, 9), Composition(blur, Grey(shape)), Grey(shape)):
        assert isinstance(path_to_minima(operator, prior).solver, Adam)


def test_the_residual_tells_of_entries_and_blurs_alone():
    shape = (3, 64, 64)
    for operator in (
        Identity(shape),
        block_mask(shape, 19),
        Blur(shape, gaussian_kernel(1.5)),
        Blur(shape, motion_kernel(9, 30)),
    ):
        assert residual_tells(operator)
    for operator in (
        FourierMask(shape, cartesian_mask((64, 64), 0.3)),
        Grey(shape),
        Downsampling(shape, 2),
        GaussianSensing(shape, 9),
    ):
        assert not residual_tells(operator)


def test_one_chain_is_the_default_for_every_operator_and_noise():
    shape = (3, 64, 64)
    operator, y, hole = Identity(shape), torch.full((2, *shape), 0.5), block_mask(shape, 19)
    sensing = GaussianSensing(shape, 200)
    for prior in (load_prior("photos"), load_prior("faces64")):
        for likelihood in [
            Laplace(operator, y, 0.1),
            Gaussian(hole, hole(y), 0.1),
            Gaussian(sensing, sensing(y), 0.1),
        ]:
            planned = plan(likelihood, prior)
            assert planned.options == COLD and planned.weight == COLD_WEIGHT


def test_a_chain_of_a_large_picture_gives_way_to_steps():
    """Not for signs, where steps lose, nor under a prior that knows no noise."""
    prior, shape = load_prior("photos"), (3, 384, 400)
    whole, hole = Identity(shape), block_mask(shape, 19)
    y = torch.full((1, *shape), 0.5)
    for likelihood, steps in [
        (Laplace(whole, y, 0.1), SplittingOptions()),
        (Gaussian(hole, hole(y), 0.1), STEPS),
        (Gaussian(Blur(shape, gaussian_kernel(1.0)), y, 0.1), STEPS),
    ]:
        planned = plan(likelihood, prior)
        assert planned.options == steps
        assert planned.criterion.name == "mean" and "minutes" in planned.reason
    assert plan(Gaussian(whole, y, 0.1), prior).options == TweedieOptions()
    assert plan(OneBit(whole, torch.ones(1, *shape), 0.5, 0.1), prior).options == COLD
    small = block_mask((3, 360, 360), 19)
    assert plan(Gaussian(small, small(y[:, :, :360, :360]), 0.1), prior).options == COLD


def test_what_is_left_wide_open_is_no_place_for_a_short_chain():
    prior, y = load_prior("faces64"), torch.full((1, 3, 64, 64), 0.5)
    coarse = Composition(Downsampling((3, 64, 64), 2), Grey((3, 32, 32)))
    loud = prior.loudest  # too loud for the grey of such noise to be removed in steps
    for operator, sigma in ((Grey((3, 64, 64)), loud), (coarse, 0.1)):
        planned = plan(Gaussian(operator, operator(y), sigma), prior)
        assert planned.criterion.name == "discrepancy"


def test_grey_with_noise_that_the_prior_knows_is_restored_at_once():
    """Only if the noise is white, no place is lost, and the noise is not too strong for the prior."""
    prior, shape = load_prior("photos"), (3, 32, 32)
    y, grey = torch.full((1, 1, 32, 32), 0.5), Grey(shape)
    assert plan(Gaussian(grey, y, 0.1), prior).options == TweedieOptions()
    lost = Composition(grey, block_mask((1, 32, 32), 9))
    for other in (Laplace(grey, y, 0.1), Gaussian(lost, lost.forward(y.expand(1, 3, 32, 32)), 0.1)):
        assert plan(other, prior).options != TweedieOptions()
    loud = prior.loudest * sum(w**2 for w in grey.weights) ** 0.5
    assert plan(Gaussian(grey, y, 0.99 * loud), prior).options == TweedieOptions()
    assert plan(Gaussian(grey, y, 1.01 * loud), prior).options != TweedieOptions()


def test_a_surrogate_without_texture_is_no_metric_for_a_chain():
    """The path is followed once without SURE's copies, and then with twice the evaluations."""
    prior, y = load_prior("fashion28"), torch.full((2, *SHAPE), 0.5)
    for operator, times in [(GaussianSensing(SHAPE, 9), 2), (block_mask(SHAPE, 9), 1)]:
        usual = path_to_minima(operator, prior)
        planned = plan(Gaussian(operator, operator(y), 0.1), prior)
        assert planned.options == replace(usual, evaluations=times * usual.evaluations)


def test_the_chain_costs_at_most_a_hundred_evaluations():
    prior, shape = load_prior("photos"), (3, 8, 8)
    likelihood = Laplace(Identity(shape), torch.full((2, *shape), 0.5), 0.1)
    found = reconstruct(likelihood, prior)
    assert found.evaluations.tolist() == [100, 100] and found.drawn is None
    assert found.weight.tolist() == [COLD_WEIGHT, COLD_WEIGHT]
