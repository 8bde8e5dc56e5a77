"""A reconstruction in a file: what it tells is the same afterwards, and what it needs is prepared again."""

import pickle
from dataclasses import fields
from functools import partial
from typing import Any

import pytest
import torch
from closed_form import OPERATORS, gaussian_prior, measurement
from surrogates import SHAPE, Itself, randn, random_mask, stationary
from torch import Tensor
from torch.utils._pytree import tree_leaves

from aipo import load_prior
from aipo.basics.conjugate_gradients import conjugate_gradients
from aipo.basics.errors import InputError
from aipo.gaussian import closed_form, masked
from aipo.likelihoods import Gaussian, measure
from aipo.operators import Identity
from aipo.path.options import PathOptions
from aipo.path.schedules import geometric
from aipo.posterior.langevin import LangevinOptions
from aipo.reconstruction.reconstruct import reconstruct
from aipo.reconstruction.result import Reconstruction

SHORT = PathOptions(geometric(0.1, 8.0, 4), evaluations=5, tolerance=1e-3)
FEW = LangevinOptions(evaluations=60, burn_in=20)
every_weight = pytest.mark.parametrize("weight", ["auto", "sure", "discrepancy", "l-curve", 0.7, "mean"])
every_operator = pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS)


def restored(operator, weight) -> Reconstruction:
    prior = gaussian_prior()
    along: dict[str, Any] = {"chain": FEW} if weight == "mean" else {"options": SHORT}
    return reconstruct(measurement(operator, prior), prior, weight, **along)


def written_and_read(found: Reconstruction) -> Reconstruction:
    return pickle.loads(pickle.dumps(found))


def alike(a: Any, b: Any) -> bool:
    """All tensors within, to the bit, in the same order; NaN is like NaN."""
    first, second = ([leaf for leaf in tree_leaves(vars(own)) if isinstance(leaf, Tensor)] for own in (a, b))
    return len(first) == len(second) > 0 and all(
        torch.equal(one.nan_to_num(), other.nan_to_num()) for one, other in zip(first, second, strict=True)
    )


@every_operator
@every_weight
def test_a_reconstruction_that_was_written_tells_the_same(operator, weight):
    found = restored(operator, weight)
    again = written_and_read(found)
    for field in fields(Reconstruction):
        one, other = getattr(found, field.name), getattr(again, field.name)
        if isinstance(one, Tensor):
            assert torch.equal(one.nan_to_num(), other.nan_to_num()), field.name
    assert (again.criterion, again.reason, again.status) == (found.criterion, found.reason, found.status)
    assert again.plan.options == found.plan.options
    assert len(again.path) == len(found.path)
    assert all(alike(one, other) for one, other in zip(found.path, again.path, strict=True))


@every_operator
@every_weight
def test_the_problem_is_prepared_again(operator, weight):
    found = restored(operator, weight)
    again = written_and_read(found)
    # A path with the criterion's copies solves another problem than that of the measurements alone.
    assert ("problem" in vars(found)) == (found.criterion not in ("sure", "pure"))
    assert "problem" not in vars(again)
    assert again.problem is again.problem and again.problem is not found.problem
    v = torch.ones_like(found.image)
    torch.testing.assert_close(again.problem.metric(found.weight)(v), found.problem.metric(found.weight)(v))
    for problem in (found.problem, again.problem):
        terms = problem.terms(found.image, torch.arange(3), found.path[-1].deformation)
        torch.testing.assert_close(terms.data, found.data_energy)
        torch.testing.assert_close(terms.prior, found.prior_energy)


@every_weight
def test_certificate_and_posterior_work_on_what_was_read(weight):
    found = restored(OPERATORS["sensing"], weight)
    again = written_and_read(found)
    assert alike(again.certificate, found.certificate)
    assert again.certificate.verdict == found.certificate.verdict
    assert again.certificate.reason == found.certificate.reason
    assert alike(again.posterior, found.posterior)
    assert torch.equal(again.std, found.std)
    assert torch.equal(again.samples(2), found.samples(2))
    assert torch.equal(again.laplace_std, found.laplace_std)


def test_what_was_asked_for_before_is_not_written():
    """A certificate holds what no file can, and can be had again."""
    found = restored(OPERATORS["denoising"], 0.7)
    _ = found.certificate, found.laplace_std
    again = written_and_read(found)
    assert set(vars(again)) == {field.name for field in fields(Reconstruction)}


@pytest.mark.parametrize("weight", ["auto", 0.5])
def test_a_restoration_under_a_flow_can_be_written(weight):
    prior, shape = load_prior("photos"), (3, 16, 16)
    likelihood = measure(Identity(shape), torch.full((1, *shape), 0.5), 0.1, torch.Generator().manual_seed(0))
    found = reconstruct(likelihood, prior, weight, PathOptions((1.0, 0.5), evaluations=2))
    again = written_and_read(found)
    assert torch.equal(again.image, found.image) and again.reason == found.reason
    assert torch.equal(again.prior.energy(again.image), found.prior.energy(found.image))


def test_a_path_over_latents_is_prepared_over_latents_again():
    prior, shape = load_prior("photos"), (3, 16, 16)
    likelihood = measure(Identity(shape), torch.full((1, *shape), 0.5), 0.1, torch.Generator().manual_seed(0))
    options = PathOptions((0.5,), evaluations=2, coordinates="latents")
    again = written_and_read(reconstruct(likelihood, prior, 0.5, options))
    assert again.problem.hessian is None
    with pytest.raises(InputError, match="coordinates = pictures"):
        _ = again.certificate


@pytest.mark.parametrize("weight", ["auto", 0.7, "mean"])
def test_what_was_not_solved_for_is_told(monkeypatch, weight):
    """Two steps of conjugate gradients instead of 400, and a metric for draws that needs them as well."""
    monkeypatch.setattr(masked, "LARGEST_HOLE", 0)
    operator, prior = random_mask(SHAPE), Itself(stationary(SHAPE))
    likelihood = Gaussian(operator, randn(2, *operator.measurement_shape), 0.01)
    solved = reconstruct(likelihood, prior, weight, chain=FEW if weight == "mean" else None)
    own = {"picture"} if weight == 0.7 else {"picture", "metric"}
    assert set(solved.residuals) == own and solved.residuals["picture"] <= 1e-9
    monkeypatch.setattr(closed_form, "conjugate_gradients", partial(conjugate_gradients, iterations=2))
    hasty = reconstruct(likelihood, prior, weight, chain=FEW if weight == "mean" else None)
    assert set(hasty.residuals) == own and hasty.residuals["picture"] > 1e-4
    told = [remark for remark in hasty.remarks if "was solved for to a relative residual" in remark]
    assert len(told) == len(own) and not any(remark in told for remark in solved.remarks)
    assert written_and_read(hasty).remarks == hasty.remarks
