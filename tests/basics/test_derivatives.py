"""Derivatives against torch's own, and that nothing leaks out of them."""

import torch
from torch import Tensor

from aipo.basics.derivatives import hessian_product, value_and_gradient

X = torch.randn(3, 1, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def energy(x: Tensor) -> Tensor:
    return (x**4).flatten(1).sum(1) + x.flatten(1).prod(1)


@torch.no_grad()
def test_value_and_gradient_under_no_grad():
    value, gradient = value_and_gradient(energy, X)
    assert torch.equal(value, energy(X)) and not value.requires_grad and not gradient.requires_grad
    with torch.enable_grad():
        place = X.clone().requires_grad_(True)
        expected = torch.autograd.grad(energy(place).sum(), place)[0]
    assert torch.equal(gradient, expected)


def test_hessian_products_of_each_image():
    v = torch.ones_like(X)
    found = hessian_product(energy, X)(v)
    for i in range(3):
        dense = torch.autograd.functional.hessian(lambda x: energy(x[None])[0], X[i])
        assert isinstance(dense, Tensor)
        assert torch.allclose(found[i].flatten(), dense.reshape(4, 4) @ v[i].flatten())
