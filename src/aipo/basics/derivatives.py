"""First and second derivatives of an energy x -> (B,), by automatic differentiation."""

from collections.abc import Callable

import torch
from torch import Tensor

from aipo.basics.arrays import PerImage

# v -> H v for each image of a batch.
HessianProduct = Callable[[Tensor], Tensor]


def value_and_gradient(energy: Callable[[Tensor], PerImage], x: Tensor) -> tuple[PerImage, Tensor]:
    """The energies (B,) at x and their gradient, detached."""
    x = x.detach().requires_grad_(True)
    with torch.enable_grad():
        value = energy(x)
        gradient = torch.autograd.grad(value.sum(), x)[0]
    return value.detach(), gradient


def hessian_product(energy: Callable[[Tensor], PerImage], x: Tensor) -> HessianProduct:
    """v -> ∇²E(x) v, by double backward; the gradient's graph is built once."""
    x = x.detach().requires_grad_(True)
    with torch.enable_grad():
        gradient = torch.autograd.grad(energy(x).sum(), x, create_graph=True)[0]
    return lambda v: torch.autograd.grad(gradient, x, v, retain_graph=True)[0]
