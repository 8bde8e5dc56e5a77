"""Laplace's approximation, where F is quadratic and where the metric is not its inverse Hessian."""

import pytest
import torch
from smooth_posterior import OPERATORS, PRIOR, Narrow, closed_form, measured

from aipo.posterior.chain import sampling_problem
from aipo.posterior.laplace import laplace_std
from aipo.reconstruction.reconstruct import reconstruct


def test_laplaces_approximation_is_exact_where_f_is_quadratic():
    """The metric is the inverse Hessian, so only the 200 draws for its diagonal scatter, each value by 5 %.

    The average over 30 images is off by 0.4 %.
    """
    for name in OPERATORS:
        likelihood, _ = measured(OPERATORS[name], 30)
        ratio = reconstruct(likelihood, PRIOR, "bayes").laplace_std / closed_form(likelihood)[1]
        assert float((ratio - 1).square().mean().sqrt()) < 0.07
        assert float(ratio.mean()) == pytest.approx(1, abs=0.02)


def test_laplaces_approximation_takes_curvature_from_the_prior_not_from_its_metric():
    likelihood, _ = measured(OPERATORS["inpaint"], 2)
    problem, one = sampling_problem(likelihood, Narrow()), torch.ones(2, dtype=torch.float64)
    found = laplace_std(problem, likelihood.operator.linear.adjoint(likelihood.y), one, [0, 1], 400)
    _, std = closed_form(likelihood, prior=Narrow.own)
    assert float((found / std).mean()) == pytest.approx(1, abs=0.1)
