"""Muon beside the reference implementation, and what its steps are."""

import pytest
import torch
from torch import nn

from aipo.flows.training.muon import Muon, orthogonalised

SHAPES = [(6, 4), (4, 6), (5, 3, 3, 3), (5, 3, 3, 3), (8, 1, 1, 1), (1, 7)]


def fresh() -> list[nn.Parameter]:
    torch.manual_seed(0)
    return [nn.Parameter(torch.randn(shape)) for shape in SHAPES]


def gradients(count: int) -> list[list[torch.Tensor]]:
    torch.manual_seed(1)
    return [[torch.randn(shape) for shape in SHAPES] for _ in range(count)]


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this torch has no Muon to compare with")
def test_the_steps_are_those_of_torch():
    """torch's takes matrices only, and multiplies in bfloat16: three digits."""
    ours, theirs = fresh(), [nn.Parameter(weight.detach().flatten(1)) for weight in fresh()]
    muon, reference = Muon(ours, lr=0.1), torch.optim.Muon(theirs, lr=0.1, weight_decay=0.0)
    for step in gradients(4):
        for weight, other, gradient in zip(ours, theirs, step, strict=True):
            weight.grad, other.grad = gradient, gradient.flatten(1)
        muon.step()
        reference.step()
    for weight, other, before in zip(ours, theirs, fresh(), strict=True):
        moved = (other - before.flatten(1)).norm()
        assert moved > 0.1
        assert (weight.flatten(1) - other).norm() < 0.02 * moved


@pytest.mark.parametrize("rows, columns", [(7, 20), (20, 7), (9, 9)])
def test_singular_values_become_about_one_and_vectors_stay(rows, columns):
    torch.manual_seed(2)
    small = min(rows, columns)
    u = torch.linalg.qr(torch.randn(3, rows, small))[0]
    v = torch.linalg.qr(torch.randn(3, columns, small))[0]
    s = torch.logspace(0, -2, small)
    core = u.mT @ orthogonalised(u * s @ v.mT) @ v
    diagonal = core.diagonal(dim1=1, dim2=2)
    assert diagonal.min() > 0.6 and diagonal.max() < 1.3
    assert (core - torch.diag_embed(diagonal)).abs().max() < 1e-3


def test_the_size_of_the_gradient_does_not_matter():
    one = torch.randn(1, 5, 8)
    assert torch.allclose(orthogonalised(one), orthogonalised(1e-3 * one), atol=1e-3)


def test_a_gradient_of_zero_moves_nothing():
    weight = nn.Parameter(torch.ones(3, 4))
    muon = Muon([weight], lr=0.1)
    weight.grad = torch.zeros(3, 4)
    muon.step()
    assert torch.equal(weight.detach(), torch.ones(3, 4))
