"""Conjugate gradients against dense linear algebra, and images that stop for reasons of their own."""

import pytest
import torch
from torch import Tensor

from aipo.basics.conjugate_gradients import begin, conjugate_gradients


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def positive(count: int, n: int, spread: float, seed: int = 1) -> Tensor:
    """Random matrices (count, n, n) with eigenvalues from 1 to `spread`."""
    basis = torch.linalg.qr(randn(count, n, n, seed=seed))[0]
    values = torch.logspace(0, float(torch.tensor(spread).log10()), n, dtype=torch.float64)
    return basis @ values.diag() @ basis.mT


def identity(v: Tensor) -> Tensor:
    return v


def times(matrices: Tensor):
    return lambda v: (matrices @ v[:, :, None])[:, :, 0]


def residual_norm(matrices: Tensor, inverse: Tensor, x: Tensor, right: Tensor) -> Tensor:
    """√(rᵀPr / bᵀPb), from x itself."""
    rest = right - times(matrices)(x)
    squares = (rest * times(inverse)(rest)).sum(1) / (right * times(inverse)(right)).sum(1)
    return squares.sqrt()


@pytest.mark.parametrize("preconditioned", [False, True])
def test_each_image_gets_the_dense_solution(preconditioned):
    matrices, right = positive(4, 30, 1e4), randn(4, 30)
    near = matrices + 0.1 * torch.eye(30) if preconditioned else torch.eye(30).expand(4, 30, 30).double()
    inverse = torch.linalg.inv(near)
    found = conjugate_gradients(times(matrices), right, times(inverse), tolerance=1e-11)
    torch.testing.assert_close(found.x, torch.linalg.solve(matrices, right), rtol=1e-7, atol=1e-9)
    assert float(found.residual.max()) <= 1e-11
    assert found.iterations < (15 if preconditioned else 100)


def test_residual_told_is_the_residual():
    matrices, right = positive(3, 60, 1e6), randn(3, 60)
    inverse = torch.linalg.inv(matrices + torch.eye(60))
    for iterations in (1, 3, 6):
        found = conjugate_gradients(times(matrices), right, times(inverse), iterations, 1e-12)
        assert found.iterations == iterations
        torch.testing.assert_close(found.residual, residual_norm(matrices, inverse, found.x, right))
    nothing = conjugate_gradients(times(matrices), right, times(inverse), 0)
    assert torch.equal(nothing.residual, torch.ones(3).double()) and not nothing.x.any()


def test_an_image_is_solved_alike_alone_and_among_harder_ones():
    matrices = torch.cat((positive(1, 20, 10.0), positive(2, 20, 1e7, seed=2)))
    right = randn(3, 20)
    together = conjugate_gradients(times(matrices), right, iterations=40)
    alone = conjugate_gradients(times(matrices[:1]), right[:1], iterations=40)
    assert alone.iterations < together.iterations
    torch.testing.assert_close(together.x[:1], alone.x, rtol=1e-13, atol=1e-13)
    assert float(together.residual[0]) <= 1e-9 < float(together.residual[1:].min())


def test_a_right_hand_side_of_zero_has_the_solution_zero():
    matrices, right = positive(3, 10, 100.0), randn(3, 10)
    right[1] = 0
    found = conjugate_gradients(times(matrices), right)
    assert not found.x[1].any() and found.residual[1] == 0
    torch.testing.assert_close(found.x[::2], torch.linalg.solve(matrices, right)[::2])
    assert conjugate_gradients(times(matrices), 0 * right).iterations == 0


def test_where_the_curvature_is_not_positive_an_image_keeps_what_was_found():
    indefinite = torch.diag(torch.tensor([1.0, 2.0, -1.0, 3.0], dtype=torch.float64))
    matrices = torch.stack((indefinite, positive(1, 4, 5.0)[0], -torch.eye(4).double()))
    right = torch.tensor([[1.0, 1.0, 0.1, 0.0], [1.0, 2.0, 3.0, 4.0], [1.0, 1.0, 1.0, 1.0]]).double()
    found = conjugate_gradients(times(matrices), right)
    torch.testing.assert_close(found.x[1], torch.linalg.solve(matrices[1], right[1]))
    assert torch.isfinite(found.x).all() and found.x[0].any() and not found.x[2].any()
    # One step along b lowers ½xᵀAx − bᵀx although A is not positive; none was taken along −b.
    value = 0.5 * found.x[0] @ indefinite @ found.x[0] - right[0] @ found.x[0]
    assert float(value) < 0
    assert float(found.residual[0]) > 1e-3 and float(found.residual[2]) == 1


def test_infinities_of_one_image_reach_no_other():
    def product(v: Tensor) -> Tensor:
        image = 2 * v
        image[0] = torch.nan
        return image

    found = conjugate_gradients(product, torch.ones(2, 5))
    assert not found.x[0].any() and float(found.residual[0]) == 1
    torch.testing.assert_close(found.x[1], torch.full((5,), 0.5).double())


def test_singular_systems_end_in_the_solution_of_least_norm():
    """AᵀA x = Aᵀy from zero, A (7, 12): nothing of the null space comes in."""
    a, y = randn(7, 12, seed=3), randn(2, 7)
    found = conjugate_gradients(lambda v: v @ a.T @ a, y @ a)
    torch.testing.assert_close(found.x, y @ torch.linalg.pinv(a).T, rtol=1e-7, atol=1e-9)


def test_single_precision_is_solved_in_double():
    matrices, right = positive(2, 15, 1e5), randn(2, 15).float()
    found = conjugate_gradients(times(matrices), right, tolerance=1e-12)
    assert found.x.dtype == torch.float64
    torch.testing.assert_close(found.x, torch.linalg.solve(matrices, right.double()), rtol=1e-7, atol=1e-9)


def test_steps_one_by_one_are_those_of_the_solver_in_the_right_sides_precision():
    matrices, right = positive(3, 20, 1e3), randn(3, 20)
    step = begin(right, identity, 1e-6)
    single = begin(right.float(), identity, 1e-6)
    for used in range(1, 8):
        step = step.after(times(matrices)(step.direction), identity)
        single = single.after(times(matrices.float())(single.direction), identity)
        assert torch.equal(step.x, conjugate_gradients(times(matrices), right, identity, used, 1e-6).x)
    assert single.x.dtype == torch.float32
    torch.testing.assert_close(single.x.double(), step.x, rtol=1e-2, atol=1e-2)


def test_products_that_are_not_finite_end_it_where_it_is():
    first = begin(randn(3, 5), identity, 1e-6)
    product = torch.stack((torch.ones(5), torch.full((5,), torch.nan), torch.full((5,), torch.inf)))
    after = first.after(product * first.direction, identity)
    assert after.going.tolist()[1:] == [False, False] and after.x[0].any() and not after.x[1].any()
    assert torch.isfinite(after.x).all() and torch.equal(after.residual[1:], first.residual[1:])


def test_each_image_can_be_taken_from_another_iterate():
    first = begin(randn(3, 5), identity, 1e-6)
    after = first.after(2 * first.direction, identity)
    mixed = after.where(torch.tensor([True, False, True]), first)
    for name in vars(first):
        own, one, other = (getattr(iterate, name) for iterate in (mixed, first, after))
        assert torch.equal(own, torch.stack((other[0], one[1], other[2]))), name
