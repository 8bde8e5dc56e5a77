"""Operators: adjoint, pseudoinverse and norm against dense linear algebra; bad arguments named."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from aipo.errors import InputError
from aipo.operators import GaussianSensing, Identity, LinearOperator, Mask

Shape = tuple[int, int, int]


class Differences(LinearOperator):
    """A user's own operator, rank-deficient and not tall: horizontal differences x[i+1] − x[i]."""

    def __init__(self, shape: Shape):
        self.shape = shape
        self.measurement_shape = (*shape[:2], shape[2] - 1)

    def forward(self, x: Tensor) -> Tensor:
        return x.diff(dim=3)

    def adjoint(self, y: Tensor) -> Tensor:
        return -torch.nn.functional.pad(y, (1, 1)).diff(dim=3)


def random_mask(shape: Shape, seed: int) -> Tensor:
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) > 0.5
    mask[0, 0, 0] = True
    return mask


OPERATORS = {
    "identity": lambda shape, seed: Identity(shape),
    "mask": lambda shape, seed: Mask(random_mask(shape, seed)),
    "mask-of-pixels": lambda shape, seed: Mask(random_mask((1, *shape[1:]), seed), channels=shape[0]),
    "sensing": lambda shape, seed: GaussianSensing(shape, 1 + seed % np.prod(shape).item(), seed=seed),
    "sensing-square": lambda shape, seed: GaussianSensing(shape, np.prod(shape).item(), seed=seed),
    "own": lambda shape, seed: Differences(shape),
}
every_operator = pytest.mark.parametrize("make", OPERATORS.values(), ids=OPERATORS)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def dense(operator: LinearOperator) -> np.ndarray:
    """A as a matrix (m, n): its columns are the measurements of unit pictures."""
    n = int(np.prod(operator.shape))
    units = torch.eye(n, dtype=torch.float64).reshape(n, *operator.shape)
    return operator(units).flatten(1).T.numpy()


@every_operator
@settings(max_examples=15, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(2, 9)),
    batch=st.integers(1, 3),
    seed=st.integers(0, 1000),
)
def test_adjoint(make, shape, batch, seed):
    operator = make(shape, seed)
    x, y = randn(batch, *shape, seed=seed), randn(batch, *operator.measurement_shape, seed=seed + 1)
    measured, back = operator(x), operator.adjoint(y)
    assert measured.shape == y.shape and back.shape == x.shape
    assert measured.dtype == back.dtype == torch.float64
    left, right = (measured * y).flatten(1).sum(1), (x * back).flatten(1).sum(1)
    assert (left - right).abs().max() <= 1e-10


@every_operator
@pytest.mark.parametrize(("shape", "seed"), [((1, 3, 5), 6), ((3, 4, 3), 10)], ids=str)
def test_pseudoinverse_is_that_of_the_matrix(make, shape, seed):
    operator = make(shape, seed)
    y = randn(4, *operator.measurement_shape)  # for a mask or differences A, any y has an exact A⁺y too
    expected = y.flatten(1).numpy() @ np.linalg.pinv(dense(operator)).T
    actual = operator.pseudoinverse(y)
    assert actual.shape == (4, *shape)
    np.testing.assert_allclose(actual.flatten(1).numpy(), expected, rtol=0, atol=1e-8 * abs(expected).max())


@every_operator
def test_pseudoinverse_in_float32_stays_on_the_solution(make):
    # Its tolerance is out of reach in float32: hundreds of further iterations must do no harm.
    operator = make((3, 4, 3), 10)
    y = randn(4, *operator.measurement_shape)
    expected = operator.pseudoinverse(y)
    actual = operator.pseudoinverse(y.float())
    assert actual.dtype == torch.float32
    torch.testing.assert_close(actual.double(), expected, rtol=0, atol=1e-3 * float(expected.abs().max()))


@every_operator
def test_pseudoinverse_of_zero_is_zero_beside_other_measurements(make):
    operator = make((1, 3, 5), 6)
    y = randn(2, *operator.measurement_shape)
    y[0] = 0
    actual = operator.pseudoinverse(y)
    assert torch.equal(actual[0], torch.zeros(1, 3, 5, dtype=torch.float64))
    torch.testing.assert_close(actual[1:], operator.pseudoinverse(y[1:]), rtol=0, atol=1e-8)


@every_operator
@pytest.mark.parametrize("shape", [(1, 3, 5), (3, 4, 3)], ids=str)
def test_norm_squared_is_the_largest_singular_value(make, shape):
    operator = make(shape, 7)
    truth = np.linalg.svd(dense(operator), compute_uv=False)[0] ** 2
    assert truth * (1 - 1e-2) <= operator.norm_squared <= truth * (1 + 1e-5)


@every_operator
def test_call_refuses_pictures_of_another_shape(make):
    operator = make((3, 4, 5), 2)
    for shape in [(2, 3, 5, 4), (2, 1, 4, 5), (3, 4, 5), (2, 60)]:
        with pytest.raises(InputError, match=r"\(B, 3, 4, 5\).*" + str(shape)[1:-1]):
            operator(torch.zeros(shape))


def test_identity_measures_the_picture():
    x = randn(2, 3, 4, 5)
    assert torch.equal(Identity((3, 4, 5))(x), x)


def test_mask_measures_its_true_entries_in_row_major_order():
    mask = torch.tensor([[[True, False, True], [False, True, False]]])
    x = torch.arange(12.0).reshape(1, 2, 2, 3)
    operator = Mask(mask, channels=2)
    assert operator.shape == (2, 2, 3)
    assert operator.measurements == 6
    assert operator(x).tolist() == [[0, 2, 4, 6, 8, 10]]
    assert operator.adjoint(operator(x)).flatten().tolist() == [0, 0, 2, 0, 4, 0, 6, 0, 8, 0, 10, 0]


def test_mask_does_not_follow_later_changes_of_its_argument():
    mask = torch.ones(1, 2, 2, dtype=torch.bool)
    operator = Mask(mask)
    mask[:] = False
    assert bool(operator.mask.all())


@pytest.mark.parametrize(
    ("mask", "channels", "named"),
    [
        (torch.zeros(1, 4, 4, dtype=torch.bool), None, "no true entry"),
        (torch.ones(1, 0, 4, dtype=torch.bool), None, "no true entry"),
        (torch.ones(1, 4, 4), None, "float32"),
        (torch.ones(1, 4, 4, dtype=torch.uint8), None, "uint8"),
        (torch.ones(4, 4, dtype=torch.bool), None, r"\(4, 4\)"),
        (torch.ones(2, 3, 4, 4, dtype=torch.bool), None, r"\(2, 3, 4, 4\)"),
        (torch.ones(3, 4, 4, dtype=torch.bool), 2, r"\(3, 4, 4\).*2|2.*\(3, 4, 4\)"),
    ],
    ids=["all-false", "no-rows", "float", "uint8", "two-dimensional", "four-dimensional", "other-channels"],
)
def test_bad_masks_are_refused(mask, channels, named):
    with pytest.raises(InputError, match=named):
        Mask(mask, channels)


@pytest.mark.parametrize("measurements", [0, -3, 13])
def test_sensing_refuses_impossible_numbers_of_measurements(measurements):
    with pytest.raises(InputError, match=rf"measurements = {measurements} is outside 1\.\.12"):
        GaussianSensing((3, 2, 2), measurements)


def test_sensing_refuses_a_negative_seed():
    with pytest.raises(InputError, match="-1"):
        GaussianSensing((3, 2, 2), 4, seed=-1)


@pytest.mark.parametrize("shape", [(3, 0, 2), (0, 2, 2), (2, 2), (1, 3, 2, 2), (3, -1, 2)], ids=str)
@pytest.mark.parametrize("make", [Identity, lambda shape: GaussianSensing(shape, 1)])
def test_bad_image_shapes_are_refused(make, shape):
    with pytest.raises(InputError, match=str(shape)[1:-1]):
        make(shape)


def test_the_seed_decides_the_matrix():
    first, same, other = (GaussianSensing((3, 4, 5), 20, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.matrix, same.matrix)
    assert not torch.equal(first.matrix, other.matrix)
    assert first.fingerprint() == same.fingerprint() != other.fingerprint()


def test_the_matrix_is_known():
    # A measurement file keeps only the seed: these entries may never change between versions.
    expected = np.random.Generator(np.random.PCG64(3)).standard_normal((2, 4), dtype=np.float32) / np.sqrt(2)
    np.testing.assert_allclose(GaussianSensing((1, 2, 2), 2, seed=3).matrix.numpy(), expected, rtol=1e-6)
    assert expected[0, 0] == pytest.approx(1.7091831, rel=1e-6)


@pytest.mark.parametrize("m", [50, 400])
def test_entries_are_standard_normal_over_root_m(m):
    scaled = GaussianSensing((1, 20, 20), m, seed=4).matrix.double().numpy() * np.sqrt(m)
    deviations = 4 / np.sqrt(scaled.size)
    assert abs(scaled.mean()) <= deviations
    assert abs(scaled.var() - 1) <= deviations * np.sqrt(2)
    assert abs((scaled**4).mean() - 3) <= deviations * np.sqrt(96)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_sensed_of_an_image_does_not_depend_on_its_batch(dtype):
    """To the bit: solvers amplify every difference."""
    operator = GaussianSensing((1, 28, 28), 196, seed=0)
    x = torch.rand(9, 1, 28, 28, generator=torch.Generator().manual_seed(0)).to(dtype)
    y = operator(x)
    for i in range(9):
        assert torch.equal(operator(x[i : i + 1])[0], y[i])
        assert torch.equal(operator.adjoint(y[i : i + 1])[0], operator.adjoint(y)[i])
