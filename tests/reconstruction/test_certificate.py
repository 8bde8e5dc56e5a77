"""Certificates: convex cases pass, and a path over a hill says where convexity ended."""

import math
from dataclasses import replace

import pytest
import torch
from closed_form import OPERATORS, gaussian_prior, measurement
from path_problems import between

from aipo.basics.errors import InputError
from aipo.path.options import PathOptions
from aipo.path.schedules import paper
from aipo.reconstruction.certificate import Verdict, certify
from aipo.reconstruction.follow import trace
from aipo.reconstruction.reconstruct import reconstruct

EXACTLY = PathOptions((0.0, 0.3, 1.0), evaluations=60, tolerance=1e-10)


@pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS)
def test_a_gaussian_prior_is_convex_with_its_own_metric_as_inverse_hessian(operator):
    prior = gaussian_prior()
    certificate = reconstruct(measurement(operator, prior), prior, 1.0, EXACTLY).certificate
    assert certificate.verdict == [Verdict.UNREFUTED] * 3
    assert certificate.curvature.shape == (2, 3)
    exact = not isinstance(operator, type(OPERATORS["inpainting"]))
    lowest = 1.0 if exact else 0.0
    assert bool((certificate.curvature >= lowest - 1e-4).all())
    assert bool(certificate.failed_at.isnan().all()) and bool(certificate.settled.all())
    for spent, reason in zip(certificate.products.sum(0).tolist(), certificate.reason, strict=True):
        assert f"No negative curvature was found in {spent} Hessian products at 2 points" in reason
        assert "does not prove" in reason


def test_the_weight_at_which_convexity_ends_is_named():
    """At the middle F'' = 1 + λ R''(0): the path stays there, where R is concave, and convexity ends."""
    likelihood, prior = between(0.0)
    middle = torch.zeros(1, 1, 1, 2, dtype=torch.float64, requires_grad=True)
    gradient = torch.autograd.grad(prior.energy(middle).sum(), middle, create_graph=True)[0]
    concave = torch.autograd.grad(gradient[0, 0, 0, 0], middle)[0][0, 0, 0, 0].item()
    ends = -1 / concave
    weights = (0.0, 0.5 * ends, 0.9 * ends, 1.1 * ends, 2 * ends)
    result = reconstruct(likelihood, prior, weights[-1], replace(EXACTLY, weights=weights))
    assert result.image.abs().max() < 1e-12
    assert result.certificate.failed_at.item() == pytest.approx(weights[3])
    assert result.certificate.verdict == [Verdict.NONCONVEX]
    assert f"at λ = {weights[3]:.3g} proves" in result.certificate.reason[0]
    assert bool((result.certificate.curvature[:2] > 0).all())


def test_points_after_the_kept_one_do_not_count():
    likelihood, prior = between(0.0)
    result = reconstruct(likelihood, prior, 2.0, replace(EXACTLY, weights=(0.0, 0.001, 2.0)))
    early = certify(result.problem, result.path, torch.tensor([1]))
    assert early.verdict == [Verdict.UNREFUTED] and early.weights.tolist() == [[pytest.approx(0.001)]]


def test_what_has_not_converged_is_said():
    prior = gaussian_prior()
    likelihood = measurement(OPERATORS["denoising"], prior)
    result = reconstruct(likelihood, prior, 1.0, paper(count=2, steps=1, step=1e-3))
    assert result.certificate.verdict == [Verdict.UNCONVERGED] * 3
    assert bool((result.certificate.decrement > 0).all())
    for decrement, reason in zip(result.certificate.decrement, result.certificate.reason, strict=True):
        assert f"{float(decrement):.3g} nats" in reason


def test_too_few_products_are_said_to_be_too_few():
    """In the data term's metric, which does not know the prior's curvature."""
    prior = gaussian_prior()
    likelihood = measurement(OPERATORS["denoising"], prior, sigma=1.0)
    result = reconstruct(likelihood, prior, 1.0, replace(EXACTLY, metric="data", evaluations=200))
    few, enough = (certify(result.problem, result.path, result.chosen, k) for k in (2, 24))
    assert few.verdict == [Verdict.UNSETTLED] * 3 and "2 of them" in few.reason[0]
    assert few.products.unique().tolist() == [2]
    assert enough.verdict == [Verdict.UNREFUTED] * 3
    assert bool((enough.curvature <= few.curvature).all())


def test_an_answer_at_the_beginning_has_nothing_to_certify():
    likelihood, prior = between(0.0)
    tracer = trace(likelihood.select(torch.tensor([0, 0])), prior, replace(EXACTLY, weights=(0.0, 0.001)))
    found = certify(tracer.problem, list(tracer), torch.tensor([0, 1]))
    assert found.verdict == [Verdict.UNSETTLED, Verdict.UNREFUTED]
    assert "0 Hessian products at 0 points" in found.reason[0]


def test_a_selected_path_with_copies_is_certified_for_its_images():
    prior = gaussian_prior()
    likelihood = measurement(OPERATORS["denoising"], prior)
    result = reconstruct(likelihood, prior, "sure", PathOptions((0.0, 0.5, 1.0, 2.0), evaluations=20))
    certificate = result.certificate
    assert len(certificate.verdict) == 3 and certificate.curvature.shape[1] == 3
    assert math.isclose(float(certificate.curvature.min()), 1.0, rel_tol=1e-3)


def test_nothing_to_certify_is_refused():
    prior = gaussian_prior()
    likelihood = measurement(OPERATORS["denoising"], prior)
    tracer = trace(likelihood, prior, EXACTLY)
    first = next(tracer)
    with pytest.raises(InputError, match="λ = 0"):
        certify(tracer.problem, [first], torch.zeros(3, dtype=torch.long))
    with pytest.raises(InputError, match="Hessian"):
        certify(replace(tracer.problem, hessian=None), [first], torch.zeros(3, dtype=torch.long))


@pytest.mark.parametrize("verdict", Verdict)
def test_every_verdict_has_a_sentence(verdict):
    assert verdict.remedy.endswith(".")


def test_the_former_name_of_a_verdict_goes_on():
    assert Verdict.CONVEX is Verdict.UNREFUTED and "does not prove" in Verdict.CONVEX.remedy
