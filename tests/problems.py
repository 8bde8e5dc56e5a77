"""Minimisation problems with known answers, for the batteries of the solvers and of the inner loop."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from aipo.path.solvers.solver import Metric, Point


@dataclass(frozen=True)
class Problem:
    """An energy of x (B, n) in float64, starting points, and the minimiser that each start leads to.

    `curvature` bounds the Hessian's eigenvalues where the solvers walk, and `newton_step` is a step that is
    safe with the inverse Hessian of the minimiser.
    """

    name: str
    energy: Callable[[Tensor], Tensor]
    starts: Tensor
    minimiser: Tensor
    curvature: float
    newton_step: float = 0.5

    def evaluate(self, x: Tensor, indices: Tensor | None = None) -> Point:
        x = x.detach().requires_grad_(True)
        value = self.energy(x)
        (gradient,) = torch.autograd.grad(value.sum(), x)
        return Point(x.detach(), value.detach(), gradient, {"square": value.detach() ** 2})

    def exact_metric(self) -> Metric:
        """The inverse Hessian at each image's minimiser."""
        hessians = [
            torch.autograd.functional.hessian(lambda v: self.energy(v[None])[0], x) for x in self.minimiser
        ]
        inverse = torch.linalg.inv(torch.stack(hessians))  # type: ignore[arg-type]
        return lambda v: (inverse @ v[:, :, None])[:, :, 0]

    def gap(self, point: Point) -> Tensor:
        """F(x) − F(x*), in nats."""
        return point.value - self.energy(self.minimiser)


def identity(v: Tensor) -> Tensor:
    return v


def _double(*rows: tuple[float, ...]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def _quadratic(x: Tensor) -> Tensor:
    return 0.5 * (torch.tensor([1.0, 10.0, 100.0]).to(x) * (x - 1) ** 2).sum(1) + 7


def _valley(x: Tensor) -> Tensor:
    return (1 - x[:, 0]) ** 2 + 5 * (x[:, 1] - x[:, 0] ** 2) ** 2


_CENTRES = _double((2.0, 0.0), (-2.0, 1.0))


def _mixture(x: Tensor) -> Tensor:
    distances = ((x[:, None] - _CENTRES) ** 2).sum(2) / (2 * 0.25)
    return -torch.logsumexp(-distances, 1)


def _walled(x: Tensor) -> Tensor:
    value = 0.5 * (torch.tensor([1.0, 4.0]).to(x) * x**2).sum(1)
    return torch.where(x.norm(dim=1) > 2.0, torch.nan, value)


# Within e^-60 of the mixture's modes: the other component's pull is below rounding.
PROBLEMS = [
    Problem("ill-conditioned", _quadratic, _double((5, 5, 5), (1, 1, 2)), _double((1, 1, 1), (1, 1, 1)), 100),
    Problem("valley", _valley, _double((0, 0.5), (0.5, 0)), _double((1, 1), (1, 1)), 80, 0.05),
    Problem("mixture", _mixture, _double((1, 0.5), (-1.5, 2)), _CENTRES, 4),
    Problem("walled", _walled, _double((1.9, 0), (0.5, 1.5)), _double((0, 0), (0, 0)), 4),
]
