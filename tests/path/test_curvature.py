"""The smallest curvature, against dense eigenvalues."""

import pytest
import torch
from torch import Tensor

from aipo.path.solvers.curvature import smallest_curvature


def symmetric(n: int, seed: int, values: Tensor) -> Tensor:
    """Two images' matrices with the given eigenvalues, the second one's doubled."""
    generator = torch.Generator().manual_seed(seed)
    bases = [
        torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64))[0] for _ in range(2)
    ]
    return torch.stack([b @ torch.diag(f * values) @ b.T for f, b in zip((1, 2), bases, strict=True)])


def product(matrix: Tensor):
    return lambda v: torch.einsum("bij,bj->bi", matrix, v.flatten(1)).reshape(v.shape)


LIKE = torch.zeros(2, 1, 3, 4, dtype=torch.float64)
CONVEX = symmetric(12, 0, torch.linspace(0.5, 9, 12, dtype=torch.float64))
SADDLE = symmetric(12, 1, torch.linspace(-1, 9, 12, dtype=torch.float64))
METRIC = symmetric(12, 2, torch.logspace(-2, 1, 12, dtype=torch.float64))


@pytest.mark.parametrize("hessian", [CONVEX, SADDLE], ids=["convex", "saddle"])
@pytest.mark.parametrize("metric", [None, METRIC], ids=["plain", "metric"])
def test_it_is_the_smallest_eigenvalue_after_n_iterations(hessian, metric):
    apply = (lambda v: v) if metric is None else product(metric)
    roots = torch.eye(12, dtype=torch.float64) if metric is None else torch.linalg.cholesky(metric).mT
    expected = torch.linalg.eigvalsh(roots @ hessian @ roots.mT)[:, 0]
    found = smallest_curvature(product(hessian), apply, LIKE, iterations=12)
    assert torch.allclose(found, expected, rtol=1e-8)


def test_fewer_iterations_never_go_below():
    exact = torch.linalg.eigvalsh(SADDLE)[:, 0]
    for iterations in range(1, 12):
        found = smallest_curvature(product(SADDLE), lambda v: v, LIKE, iterations)
        assert bool((found >= exact - 1e-10).all())


def test_a_multiple_of_the_metrics_inverse_has_one_curvature():
    """Lanczos ends after one step: the rest must not invent eigenvalues."""
    inverse = 3 * torch.linalg.inv(METRIC)
    found = smallest_curvature(product(inverse), product(METRIC), LIKE, iterations=6)
    assert torch.allclose(found, torch.full_like(found, 3.0), rtol=1e-6)


def test_each_image_has_its_own():
    together = smallest_curvature(product(SADDLE), product(METRIC), LIKE, 7)
    for i in range(2):
        own = slice(i, i + 1)
        alone = smallest_curvature(product(SADDLE[own]), product(METRIC[own]), LIKE[own], 7)
        assert alone.item() == pytest.approx(together[i].item(), rel=1e-9)
