"""Branches: the lowest end wins, agreement is told, and no image sees its batch."""

import pytest
import torch
from closed_form import (
    OPERATORS,
    WithoutSurrogate,
    WithSurrogate,
    gaussian_prior,
    measurement,
    minimiser,
    relative,
)
from path_problems import between

from aipo.basics.errors import InputError, Status
from aipo.gaussian import posterior
from aipo.likelihoods import Gaussian
from aipo.path.options import PathOptions
from aipo.path.schedules import smoothing
from aipo.reconstruction.branches import best_of
from aipo.reconstruction.certificate import Verdict
from aipo.reconstruction.reconstruct import reconstruct

DIRECT = PathOptions((1.0,), evaluations=60, tolerance=1e-12)


@pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS)
def test_branches_of_a_convex_objective_agree(operator):
    prior = gaussian_prior()
    likelihood = measurement(operator, prior)
    found = best_of(likelihood, prior, 0.7, branches=3, paths=[DIRECT])
    assert found.verdict == [Verdict.AGREEING] * 3
    assert found.images.shape == (3, *found.image.shape) and found.objectives.shape == (3, 3)
    for image in found.images:
        assert relative(image, minimiser(likelihood, prior, 0.7)) < 1e-5


def test_the_lower_of_two_minima_is_found_and_the_other_told():
    """From the middle's left the mode at −1 is nearer in the surrogate's eyes as well; both are reached."""
    likelihood, prior = between(-0.05)
    found = best_of(likelihood, prior, 1.0, branches=8, paths=[DIRECT])
    assert found.verdict == [Verdict.SEVERAL]
    assert found.image[0, 0, 0, 0] < -0.8
    assert bool((found.images[:, 0, 0, 0, 0] > 0.8).any())
    assert found.objective[0] == found.objectives.min()
    value = likelihood(found.image) + prior.energy(found.image)
    assert value.item() == pytest.approx(found.objective.item())
    assert found.status == [Status.CONVERGED]


def test_the_first_branch_is_the_path_from_the_mode():
    likelihood, prior = between(0.3)
    alone = reconstruct(likelihood, prior, 1.0, DIRECT)
    found = best_of(likelihood, prior, 1.0, branches=1, paths=[DIRECT])
    assert torch.allclose(found.image, alone.image)
    assert found.evaluations.item() == int(alone.evaluations)


def test_smoothing_finds_the_heavier_side():
    """y lies beyond a narrow light mode; the smoothed prior pulls to the heavy one."""
    likelihood, prior = between(0.02)
    prior.log_weights = torch.tensor([0.95, 0.05], dtype=torch.float64).log()
    plain = best_of(likelihood, prior, 1.0, branches=1, paths=[PathOptions((1.0,), evaluations=60)])
    smooth = best_of(likelihood, prior, 1.0, branches=1, paths=[smoothing(tau=2.0, count=10, steps=10)])
    assert smooth.image[0, 0, 0, 0] < -0.8
    assert smooth.objective <= plain.objective + 1e-3  # the preset's tolerance


def test_an_image_does_not_see_its_batch():
    prior = gaussian_prior()
    likelihood = measurement(OPERATORS["sensing"], prior)
    together = best_of(likelihood, prior, 1.0, branches=3, paths=[PathOptions((1.0,), evaluations=2)])
    for i in range(3):
        own = likelihood.select(torch.tensor([i]))
        alone = best_of(own, prior, 1.0, branches=3, paths=[PathOptions((1.0,), evaluations=2)])
        assert torch.allclose(alone.images[:, 0], together.images[:, i], atol=1e-7)
        assert alone.evaluations[0] == together.evaluations[i]


@pytest.mark.parametrize("branches", [0, -1])
def test_no_branches_are_refused(branches):
    likelihood, prior = between(0.0)
    with pytest.raises(InputError, match="branches"):
        best_of(likelihood, prior, branches=branches)


def test_a_prior_without_surrogate_is_refused():
    likelihood, prior = between(0.0)
    with pytest.raises(InputError, match="surrogate"):
        best_of(likelihood, WithoutSurrogate(prior))


def test_a_likelihood_of_several_images_keeps_their_order():
    left, prior = between(-0.9)
    right, _ = between(0.9)
    both = Gaussian(left.operator, torch.cat((left.y, right.y)), 1.0)
    found = best_of(both, prior, 1.0, branches=4, paths=[DIRECT])
    assert found.image[0, 0, 0, 0] < -0.8 and found.image[1, 0, 0, 0] > 0.8


def test_every_path_is_followed_from_every_start():
    likelihood, prior = between(0.3)
    one = best_of(likelihood, prior, 1.0, branches=3, paths=[DIRECT])
    both = best_of(likelihood, prior, 1.0, branches=3, paths=[smoothing(tau=0.5, count=3), DIRECT])
    assert both.objectives.shape == (6, 1)
    assert torch.equal(both.images[3:], one.images)
    assert int(both.evaluations) > int(one.evaluations)


def test_the_surrogates_posterior_is_prepared_once(monkeypatch):
    """It can cost more than the paths themselves."""
    built: list[object] = []

    def counting(operator, surrogate):
        built.append(operator)
        return posterior(operator, surrogate)

    for module in ("reconstruction.branches", "path.objective"):
        monkeypatch.setattr(f"aipo.{module}.posterior", counting)
    likelihood, prior = between(0.1)
    best_of(likelihood, prior, branches=2, paths=[DIRECT])
    assert len(built) == 1


def test_branches_that_all_diverged_do_not_agree():
    likelihood, prior = between(0.1)

    class Exploding(WithSurrogate):
        def energy(self, x):
            return super().energy(x) * torch.nan

    found = best_of(likelihood, Exploding(prior, prior.surrogate), branches=2, paths=[DIRECT])
    assert found.status == [Status.DIVERGED] and found.verdict == [Verdict.UNCONVERGED]
