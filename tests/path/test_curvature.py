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
    found = smallest_curvature(product(hessian), apply, LIKE)
    assert torch.allclose(found.value, expected, rtol=1e-8)
    assert found.settled.all() and found.products.tolist() == [12, 12]
    assert found.negative.tolist() == (expected < 0).tolist()


def test_fewer_iterations_never_go_below():
    exact = torch.linalg.eigvalsh(SADDLE)[:, 0]
    for iterations in range(1, 12):
        found = smallest_curvature(product(SADDLE), lambda v: v, LIKE, iterations)
        assert bool((found.value >= exact - 1e-10).all())


def test_a_multiple_of_the_metrics_inverse_has_one_curvature():
    """Lanczos ends after one step: the rest must not invent eigenvalues."""
    inverse = 3 * torch.linalg.inv(METRIC)
    found = smallest_curvature(product(inverse), product(METRIC), LIKE, iterations=6)
    assert torch.allclose(found.value, torch.full_like(found.value, 3.0), rtol=1e-6)
    assert found.settled.all() and not found.negative.any()


# One negative eigenvalue under many positive ones: easily found, and found late.
EASY = torch.cat((torch.tensor([-50.0]), torch.linspace(1, 60, 199))).double()
LATE = torch.cat((torch.tensor([-3.0]), torch.logspace(-1, 3, 199))).double()
MANY = torch.zeros(2, 200, dtype=torch.float64)


def diagonal(*values: Tensor):
    return lambda v: torch.stack(values) * v


def plain(v: Tensor) -> Tensor:
    return v


def test_it_goes_on_until_the_value_has_settled():
    few = smallest_curvature(diagonal(EASY, LATE), plain, MANY, iterations=12)
    assert few.negative.tolist() == [True, False] and not few.settled[1]
    found = smallest_curvature(diagonal(EASY, LATE), plain, MANY)
    assert found.settled.all() and found.negative.all()
    assert found.value.tolist() == pytest.approx([-50, -3], rel=0.1)
    assert found.products[0] < found.products[1] < 100


def test_products_that_run_out_are_said_to():
    found = smallest_curvature(diagonal(EASY, LATE), plain, MANY, iterations=14)
    assert found.settled.tolist() == [True, False] and found.products[1] == 14


def test_each_image_has_its_own():
    """Also its own number of products: one that settled early does not wait for the other."""
    together = smallest_curvature(diagonal(EASY, LATE), plain, MANY)
    for i, values in enumerate((EASY, LATE)):
        alone = smallest_curvature(diagonal(values), plain, MANY[:1])
        assert alone.value.item() == pytest.approx(together.value[i].item(), rel=1e-9)
        assert alone.products == together.products[i]


def test_a_curvature_of_zero_is_not_negative():
    """In single precision, where products round to values on either side of it."""
    values = torch.cat((torch.zeros(6), torch.linspace(100, 1000, 6))).double()
    flat = symmetric(12, 3, values).float()
    found = smallest_curvature(product(flat), plain, LIKE.float())
    assert found.value.abs().max() < 0.1 and not found.negative.any() and found.settled.all()


def test_a_hessian_that_is_not_finite_harms_no_other_image():
    broken = torch.full_like(EASY, torch.nan)
    found = smallest_curvature(diagonal(broken, LATE), plain, MANY)
    alone = smallest_curvature(diagonal(LATE), plain, MANY[:1])
    assert found.value[0].isnan() and not found.negative[0] and not found.settled[0]
    assert found.value[1].item() == pytest.approx(alone.value.item(), rel=1e-9)
