"""Derivatives of a flow prior's energy, by every way that PyTorch has, are those of its density."""

import pytest
import torch
from flow_priors import rand
from torch import Tensor
from torch.autograd import forward_ad

from aipo.basics.derivatives import hessian_product, value_and_gradient


def test_weights_are_constants_and_the_picture_has_a_gradient(prior):
    x = rand(2, 3, 8, 8).requires_grad_(True)
    gradient = torch.autograd.grad(prior.energy(x).sum(), x)[0]
    assert bool((gradient != 0).all())
    assert not any(parameter.requires_grad for parameter in prior.parameters())


def test_energies_have_second_derivatives(prior):
    prior.double()
    x, step = rand(2, 3, 8, 8).double(), 1e-5 * rand(2, 3, 8, 8, seed=3).double()
    ahead, behind = (value_and_gradient(prior.energy, x + s * step)[1] for s in (1, -1))
    expected = (ahead - behind) / 2
    error = (hessian_product(prior.energy, x)(step) - expected).abs().max()
    assert error <= 1e-4 * expected.abs().max()


@pytest.mark.parametrize("size", [(8, 8), (3, 5)], ids=str)
def test_the_transforms_of_torch_func_know_the_energy(prior, size):
    if size != (8, 8) and None not in prior.shape:
        pytest.skip("this prior is for one size")
    prior, x, v = prior.double(), rand(2, 3, *size).double(), rand(2, 3, *size, seed=1).double()
    energies, gradient = value_and_gradient(prior.energy, x)
    product = hessian_product(prior.energy, x)(v)

    def one(picture: Tensor) -> Tensor:
        return prior.energy(picture[None])[0]

    def total(x: Tensor) -> Tensor:
        return prior.energy(x).sum()

    found = {
        "grad": (torch.func.grad(total)(x), gradient),
        "vmap": (torch.func.vmap(one)(x), energies),
        "vmap of grad": (torch.func.vmap(torch.func.grad(one))(x), gradient),
        "jvp": (torch.func.jvp(total, (x,), (v,))[1], (gradient * v).sum()),
        "jvp of grad": (torch.func.jvp(torch.func.grad(total), (x,), (v,))[1], product),
        "hessian": (torch.einsum("bchwdefg,defg->bchw", torch.func.hessian(total)(x), v), product),
    }
    for name, (mine, expected) in found.items():
        torch.testing.assert_close(mine, expected, rtol=1e-8, atol=1e-8, msg=name)


def test_forward_mode_knows_the_energy(prior):
    prior, x, v = prior.double(), rand(2, 3, 8, 8).double(), rand(2, 3, 8, 8, seed=1).double()
    with forward_ad.dual_level():
        slope = forward_ad.unpack_dual(prior.energy(forward_ad.make_dual(x, v))).tangent
    expected = (value_and_gradient(prior.energy, x)[1] * v).sum((1, 2, 3))
    torch.testing.assert_close(slope, expected, rtol=1e-8, atol=1e-8)
