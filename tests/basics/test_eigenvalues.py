"""The largest eigenvalue against dense linear algebra, and how many products it takes."""

import pytest
import torch
from torch import Tensor

from aipo.basics.eigenvalues import largest_eigenvalue


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Product:
    """A matrix by its products, which are counted."""

    def __init__(self, matrix: Tensor):
        self.matrix, self.count = matrix, 0

    def __call__(self, v: Tensor) -> Tensor:
        self.count += 1
        return self.matrix @ v


@pytest.mark.parametrize("rows", [100, 400])
def test_the_edge_of_a_random_spectrum_is_found_within_a_thousandth(rows):
    """Of AAᵀ with A (400, rows): its largest eigenvalues lie close together, where power iterations crawl."""
    a = randn(400, rows)
    product = Product(a @ a.T)
    found, truth = largest_eigenvalue(product, randn(400, seed=1)), float(torch.linalg.matrix_norm(a, 2) ** 2)
    assert truth * (1 - 1e-3) <= found <= truth * (1 + 1e-12)
    assert product.count <= 60


@pytest.mark.parametrize("values", [[3.0] * 5, [3.0, 0.0, 0.0, 0.0, 0.0], [1.0, 2.0, 0.5, 3.0, 0.1]])
def test_few_distinct_eigenvalues_take_few_products(values):
    product = Product(torch.tensor(values, dtype=torch.float64).diag())
    assert largest_eigenvalue(product, randn(5)) == pytest.approx(3, rel=1e-9)
    assert product.count <= len(set(values)) + 3


def test_a_matrix_of_zeros_has_the_eigenvalue_zero():
    product = Product(torch.zeros(4, 4, dtype=torch.float64))
    assert largest_eigenvalue(product, randn(4)) == 0 and product.count == 1
