"""Problems that a path can be followed through: parabolas, a measurement between two modes, a flow."""

import torch
from torch import Tensor

from aipo.flows import Glow
from aipo.gaussian import LowRankGaussian
from aipo.likelihoods import Gaussian, measure
from aipo.operators import Identity, LinearOperator
from aipo.path.objective import objective
from aipo.path.problem import PLAIN, Deformation, Problem, Terms
from aipo.priors import FlowPrior, Mixture

FLOW_SHAPE = (3, 8, 8)


class Parabolas:
    """D = ½|x − y|², R = ½ c |x|² with one c per image; the minimiser is y/(1 + λc). Counts evaluations."""

    def __init__(self, y: Tensor, curvature: Tensor):
        self.y, self.curvature = y, curvature
        self.spent = torch.zeros(len(y), dtype=torch.long)

    def terms(self, x: Tensor, indices: Tensor, deformation: Deformation = PLAIN) -> Terms:
        self.spent[indices] += 1
        y, c = self.y[indices], self.curvature[indices]
        return Terms(
            0.5 * ((x - y) ** 2).flatten(1).sum(1),
            0.5 * c * (x**2).flatten(1).sum(1),
            x - y,
            c[:, None, None, None] * x,
        )

    def minimiser(self, weight: Tensor) -> Tensor:
        return self.y / (1 + weight * self.curvature).reshape(-1, 1, 1, 1)

    def problem(self) -> Problem:
        return Problem(self.terms, lambda weight: self.y + 0 * weight.sum(), lambda weight: lambda v: v)


def parabolas() -> Parabolas:
    y = torch.arange(1.0, 13, dtype=torch.float64).reshape(3, 1, 2, 2)
    return Parabolas(y, torch.tensor([0.5, 1.0, 4.0], dtype=torch.float64))


def between(y: float) -> tuple[Gaussian, Mixture]:
    """A measurement of σ = 1 on the line between two narrow modes at ±1: convex at small λ only."""
    means = torch.tensor([[-1.0, 0.0], [1.0, 0.0]], dtype=torch.float64).reshape(2, 1, 1, 2)
    covariances = 0.09 * torch.eye(2, dtype=torch.float64).expand(2, 2, 2)
    likelihood = Gaussian(
        Identity((1, 1, 2)), torch.tensor([y, 0.0], dtype=torch.float64).reshape(1, 1, 1, 2), 1.0
    )
    return likelihood, Mixture(means, covariances, torch.ones(2))


def curved_problem() -> Problem:
    """A mixture in the plane, where one weight's result depends on what was seen at the last."""
    return objective(*between(0.4))


def flow_problem(operator: LinearOperator):
    """Problem, prior, likelihood and two pictures of FLOW_SHAPE, in float64."""
    torch.manual_seed(0)
    flow = Glow(FLOW_SHAPE, levels=2, steps=1, hidden=4)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    x = 0.5 + 0.1 * torch.randn(2, *FLOW_SHAPE, dtype=torch.float64)
    surrogate = LowRankGaussian.fit(0.5 + 0.1 * torch.randn(40, *FLOW_SHAPE), rank=5)
    prior = FlowPrior(flow.double(), surrogate, {})
    likelihood = measure(operator, x, torch.tensor([0.1, 0.3], dtype=torch.float64))
    return objective(likelihood, prior), prior, likelihood, x
