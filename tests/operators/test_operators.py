"""Operators: adjoint, pseudoinverse and norm against dense linear algebra; bad arguments named."""

import pickle
import re
from math import gcd

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.transform import radon as skimage_radon
from torch import Tensor

from aipo.basics.errors import InputError
from aipo.operators import (
    Blur,
    Composition,
    Curve,
    Downsampling,
    Filter,
    FourierMask,
    FourierSensing,
    GaussianSensing,
    Grey,
    Identity,
    LinearOperator,
    Magnitude,
    Mask,
    Operator,
    Radon,
    Stack,
    block_mask,
    cartesian_mask,
    gamma_curve,
    gaussian_kernel,
    haze,
    mosaic,
    motion_kernel,
    random_mask,
)
from aipo.operators.check import check_operator
from aipo.operators.filters import EVEN

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


def some_entries(shape: Shape, seed: int) -> Tensor:
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) > 0.5
    mask[0, 0, 0] = True
    return mask


OPERATORS = {
    "identity": lambda shape, seed: Identity(shape),
    "mask": lambda shape, seed: Mask(some_entries(shape, seed)),
    "mask-of-pixels": lambda shape, seed: Mask(some_entries((1, *shape[1:]), seed), channels=shape[0]),
    "sensing": lambda shape, seed: GaussianSensing(shape, 1 + seed % np.prod(shape).item(), seed=seed),
    "sensing-square": lambda shape, seed: GaussianSensing(shape, np.prod(shape).item(), seed=seed),
    "fourier-sensing": lambda shape, seed: FourierSensing(shape, 1 + seed % np.prod(shape).item(), seed=seed),
    "blur": lambda shape, seed: Blur(shape, kernel(shape)),
    "filter": lambda shape, seed: Filter(shape, torch.fft.rfft2(randn(*shape[1:], seed=seed))),
    "downsampling": lambda shape, seed: Downsampling(shape, gcd(shape[1], shape[2])),
    "grey": lambda shape, seed: Grey((3, *shape[1:])),
    "mosaic": lambda shape, seed: mosaic((3, *shape[1:])),
    "fourier-mask": lambda shape, seed: FourierMask(shape, some_entries((1, *shape[1:]), seed)[0]),
    "radon": lambda shape, seed: Radon((shape[0], shape[1], shape[1]), torch.tensor([0.0, 30.0, 100.0])),
    "composition": lambda shape, seed: Composition(
        Blur(shape, kernel(shape)), Mask(some_entries(shape, seed))
    ),
    "stack": lambda shape, seed: Stack(Blur(shape, kernel(shape)), Mask(some_entries(shape, seed))),
    "own": lambda shape, seed: Differences(shape),
}


def kernel(shape: Shape) -> Tensor:
    """Lopsided, and it keeps every frequency; cut to one row or column where the picture is that small."""
    weights = torch.tensor([[0.0, 0.1, 0.0], [0.05, 0.6, 0.2], [0.0, 0.05, 0.0]], dtype=torch.float64)
    rows, columns = (slice(0, 3) if side >= 3 else slice(1, 2) for side in shape[1:])
    return weights[rows, columns]


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
    x, y = randn(batch, *operator.shape, seed=seed), randn(batch, *operator.measurement_shape, seed=seed + 1)
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
    assert actual.shape == (4, *operator.shape)
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
    assert torch.equal(actual[0], torch.zeros(operator.shape, dtype=torch.float64))
    torch.testing.assert_close(actual[1:], operator.pseudoinverse(y[1:]), rtol=0, atol=1e-8)


@every_operator
@pytest.mark.parametrize("shape", [(1, 3, 5), (3, 4, 3)], ids=str)
def test_norm_squared_is_the_largest_singular_value(make, shape):
    operator = make(shape, 7)
    truth = np.linalg.svd(dense(operator), compute_uv=False)[0] ** 2
    assert truth * (1 - 1e-2) <= operator.norm_squared <= truth * (1 + 1e-5)


@every_operator
def test_call_refuses_pictures_of_another_shape(make):
    operator = make((3, 4, 6), 2)
    expected = re.escape(f"(B, {str(operator.shape)[1:-1]})")
    for shape in [(2, 3, 5, 4), (2, 1, 4, 6), (3, 4, 6), (2, 72)]:
        with pytest.raises(InputError, match=expected + ".*" + str(shape)[1:-1]):
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


@every_operator
def test_every_operator_passes_the_public_check(make):
    check_operator(make((3, 4, 6), 7))


BENT = {
    "gamma": lambda: gamma_curve(Identity((2, 4, 5)), 0.45),
    "haze": lambda: haze(Downsampling((2, 4, 6), 2), 0.6, 0.8),
    "magnitude": lambda: Magnitude(GaussianSensing((1, 4, 5), 15, seed=2)),
}


@pytest.mark.parametrize("make", BENT.values(), ids=BENT)
def test_bent_instruments_pass_the_public_check(make):
    check_operator(make())


def test_curves_are_straightened_exactly():
    """c⁻¹(c(u)) = u, above 1 too, and noise grows where the curve is flat."""
    for curve in (gamma_curve(Identity((1, 1, 9)), 2.2), haze(Identity((1, 1, 9)), 0.3)):
        u = torch.linspace(0.02, 1.5, 9, dtype=torch.float64).reshape(1, 1, 1, 9)
        straight, sigma = curve.straighten(curve.function(u), torch.tensor([0.1], dtype=torch.float64))
        torch.testing.assert_close(straight, u)
    assert float(sigma) == pytest.approx(0.1 / 0.3)
    flat = gamma_curve(Identity((1, 1, 1)), 2.2)
    at = torch.full((1, 1, 1, 1), 0.2, dtype=torch.float64)
    spread = flat.straighten(flat.function(at), torch.tensor([0.1], dtype=torch.float64))[1]
    assert float(spread) == pytest.approx(0.1 / (2.2 * 0.2**1.2))
    dark = flat.straighten(torch.full_like(at, -0.1), torch.tensor([0.1], dtype=torch.float64))[0]
    assert 0 < float(dark) < 0.02, "noise below black is black"


class Faulty(Differences):
    """Wrong in one way."""

    def __init__(self, fault: str):
        super().__init__((2, 4, 5))
        self.fault = fault

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        if self.fault == "not linear":
            return y + 1e-6 * x[..., 1:] ** 2
        if self.fault == "depends on the batch":
            return y + 1e-6 * y.mean(0)
        return y.float() if self.fault == "torch.float32" else y

    def adjoint(self, y: Tensor) -> Tensor:
        x = super().adjoint(y)
        if self.fault == "adjoint gives":
            return x[..., :-1]
        return x * (1 + 1e-6) if self.fault == "not that of" else x

    def pseudoinverse(self, y: Tensor) -> Tensor:
        return super().pseudoinverse(y) * (1.01 if self.fault == "does not explain" else 1)


@pytest.mark.parametrize(
    "fault",
    [
        "not linear",
        "depends on the batch",
        "torch.float32",
        "adjoint gives",
        "not that of",
        "does not explain",
    ],
)
def test_the_check_names_what_is_wrong(fault):
    check_operator(Faulty("nothing"))
    with pytest.raises(InputError, match=fault):
        check_operator(Faulty(fault))


def test_the_check_sees_a_gradient_that_is_missing_or_wrong():
    rounded = Curve(Identity((1, 3, 4)), lambda u: (u * 10).detach() / 10, lambda v: v)
    with pytest.raises(InputError, match="has no gradient"):
        check_operator(rounded)
    half = Curve(Identity((1, 3, 4)), lambda u: u / 2 + u.detach() / 2, lambda v: v)
    with pytest.raises(InputError, match="gradient is not its slope"):
        check_operator(half)


def test_blur_is_a_periodic_convolution():
    """Against SciPy, and its centre stays where it was."""
    x, weights = randn(1, 1, 6, 7), kernel((1, 6, 7))
    expected = ndimage.convolve(x[0, 0].numpy(), weights.numpy(), mode="wrap")
    np.testing.assert_allclose(Blur((1, 6, 7), weights)(x)[0, 0].numpy(), expected, atol=1e-12)


def test_kernels_sum_to_one_and_keep_their_centre():
    grid = torch.arange(-20, 21).double()
    for kernel_ in (gaussian_kernel(1.7), motion_kernel(9, 30), motion_kernel(1), motion_kernel(4.5, 90)):
        rows, columns = (grid[20 - side // 2 : 21 + side // 2] for side in kernel_.shape)
        assert kernel_.sum() == pytest.approx(1) and bool((kernel_ >= 0).all())
        assert (kernel_.sum(1) * rows).sum() == pytest.approx(0, abs=1e-12)
        assert (kernel_.sum(0) * columns).sum() == pytest.approx(0, abs=1e-12)
    spread = (gaussian_kernel(1.7).sum(0) * torch.arange(-6, 7).double() ** 2).sum().sqrt()
    assert spread == pytest.approx(1.7, rel=0.03)
    assert motion_kernel(9)[5].sum() == pytest.approx(1), "0 degrees is horizontal"
    upwards = motion_kernel(9, 45)
    assert upwards[2, 8] > 0 and upwards[8, 8] == 0


def test_downsampling_averages_blocks():
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert Downsampling((1, 4, 4), 2)(x).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]


def test_grey_is_the_brightness_of_rec_601():
    x = torch.rand(1, 3, 2, 2)
    expected = 0.299 * x[:, 0] + 0.587 * x[:, 1] + 0.114 * x[:, 2]
    torch.testing.assert_close(Grey((3, 2, 2))(x)[:, 0], expected)


def test_a_mosaic_has_one_colour_for_each_pixel():
    mask = mosaic((3, 4, 5), "GRBG").mask
    assert bool((mask.sum(0) == 1).all())
    assert mask[1, 0, 0] and mask[0, 0, 1] and mask[2, 1, 0] and mask[1, 1, 1] and mask[1, 2, 2]


def test_masks_are_drawn_and_placed_as_asked():
    drawn = random_mask((3, 40, 50), 0.3, seed=1).mask
    assert bool((drawn[0] == drawn[1]).all()) and drawn.float().mean() == pytest.approx(0.3, abs=0.05)
    hole = ~block_mask((1, 6, 8), 2).mask
    assert hole.nonzero()[:, 1:].tolist() == [[2, 3], [2, 4], [3, 3], [3, 4]]
    assert (~block_mask((1, 6, 8), 3, top=0, left=5).mask).nonzero()[0].tolist() == [0, 0, 5]


def test_fourier_mask_measures_the_orthonormal_spectrum():
    x, mask = randn(2, 1, 4, 6), some_entries((1, 4, 6), 3)[0]
    spectrum = np.fft.fft2(x[:, 0].numpy(), norm="ortho")[:, mask.numpy()]
    measured = FourierMask((1, 4, 6), mask)(x)[:, 0].numpy()
    np.testing.assert_allclose(measured, np.stack((spectrum.real, spectrum.imag), -1), atol=1e-12)


def test_cartesian_masks_have_whole_columns_and_the_centre():
    mask = cartesian_mask((16, 100), 0.3, centre=0.1, seed=2)
    assert bool((mask == mask[0]).all()) and int(mask[0].sum()) == 30
    assert bool(mask[0, :5].all()) and bool(mask[0, -5:].all())


@pytest.mark.parametrize("side", [15, 16])
def test_radon_is_that_of_scikit_image(side):
    rows, columns = np.meshgrid(*2 * [np.arange(side) - side // 2], indexing="ij")
    inside = rows**2 + columns**2 < (side // 2 - 1) ** 2
    picture = np.random.default_rng(0).random((side, side)) * inside
    degrees = [0.0, 25.0, 90.0, 140.0]
    expected = skimage_radon(picture, degrees, circle=True).T
    measured = Radon((1, side, side), torch.tensor(degrees))(torch.from_numpy(picture)[None, None])
    np.testing.assert_allclose(measured[0, 0].numpy(), expected, atol=1e-6)


def test_fourier_sensing_keeps_norms_on_average():
    """Rows have norm √(n/m), and A Aᵀ = n/m · I."""
    operator = FourierSensing((3, 5, 7), 40, seed=1)
    matrix = dense(operator)
    np.testing.assert_allclose(matrix @ matrix.T, 105 / 40 * np.eye(40), atol=1e-12)


def test_a_stack_gives_each_instrument_its_measurement():
    blur, mask = Blur((1, 4, 4), kernel((1, 4, 4))), block_mask((1, 4, 4), 2)
    x = randn(2, 1, 4, 4)
    stack = Stack(blur, mask)
    first, second = stack.split(stack(x))
    torch.testing.assert_close(first, blur(x))
    torch.testing.assert_close(second, mask(x))


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: FourierSensing((1, 2, 2), 5), "measurements = 5"),
        (lambda: Blur((1, 4, 4), torch.ones(2, 3)), r"\(2, 3\)"),
        (lambda: Filter((1, 4, 4), torch.ones(4, 4)), r"\(4, 4\)"),
        (lambda: Filter((1, 4, 4), torch.zeros(4, 3)), "not all zero"),
        (lambda: Blur((1, 4, 4), torch.ones(5, 3)), r"\(5, 3\)"),
        (lambda: Blur((1, 4, 4), torch.zeros(3, 3)), "not all zero"),
        (lambda: Blur((1, 4, 4), torch.full((3, 3), torch.nan)), "finite"),
        (lambda: gaussian_kernel(0), "sigma = 0"),
        (lambda: motion_kernel(0.5), "length = 0.5"),
        (lambda: Downsampling((1, 4, 6), 4), "factor = 4"),
        (lambda: Grey((1, 4, 4)), "three channels"),
        (lambda: mosaic((3, 4, 4), "RGGX"), "RGGX"),
        (lambda: random_mask((1, 4, 4), 0.0), "share = 0.0"),
        (lambda: block_mask((1, 4, 4), 3, top=2), "side 3"),
        (lambda: block_mask((1, 4, 4), 4), "no true entry"),
        (lambda: FourierMask((1, 4, 4), torch.ones(4, 4)), "float32"),
        (lambda: FourierMask((1, 4, 4), torch.zeros(4, 4, dtype=torch.bool)), "true entry"),
        (lambda: cartesian_mask((4, 4), 0.1, centre=0.5), "centre = 0.5"),
        (lambda: Radon((1, 4, 5), torch.zeros(2)), "square"),
        (lambda: Radon((1, 4, 4), torch.zeros(0)), "angles"),
        (lambda: gamma_curve(Identity((1, 2, 2)), 0.0), "gamma = 0.0"),
        (lambda: haze(Identity((1, 2, 2)), 1.5), "transmission = 1.5"),
        (lambda: Composition(), "at least one"),
        (lambda: Composition(Grey((3, 4, 4)), Identity((3, 4, 4))), "Identity takes"),
        (lambda: Stack(Identity((1, 4, 4)), Identity((1, 4, 5))), "one picture"),
    ],
)
def test_impossible_instruments_are_refused(make, named):
    with pytest.raises(InputError, match=named):
        make()


class Bent(Operator):
    """A user's own map, which says no more than what it measures."""

    shape = (1, 3, 4)
    measurement_shape = (1, 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return (x[..., 1:] * x[..., :-1]).sin()


def test_a_map_of_ones_own_has_its_tangent_at_grey_as_linear_operator():
    operator = Bent()
    check_operator(operator)
    check_operator(operator.linear)
    grey = torch.full((1, 1, 3, 4), 0.5, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(operator.forward, grey).reshape(9, 12)
    v = torch.randn(2, 1, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(operator.linear(v).flatten(1), v.flatten(1) @ jacobian.T)
    y, sigma = operator.straighten(operator(grey), torch.tensor([0.1]))
    torch.testing.assert_close(y, operator.linear(grey))
    assert float(sigma) == pytest.approx(0.1)


@pytest.mark.parametrize("name", [*OPERATORS, *BENT])
def test_a_pickled_operator_measures_the_same(name):
    operator = BENT[name]() if name in BENT else OPERATORS[name]((2, 4, 6), 3)
    other, x = pickle.loads(pickle.dumps(operator)), randn(2, *operator.shape, seed=1)
    y = operator(x)
    straight = operator.straighten(y, torch.ones(2))
    assert torch.equal(other(x), y)
    torch.testing.assert_close(other.straighten(y, torch.ones(2)), straight, rtol=0, atol=0)
    assert torch.equal(other.linear.adjoint(straight[0]), operator.linear.adjoint(straight[0]))


EVERY = {
    "identity": Identity,
    "random mask": lambda shape: random_mask(shape, 1.0),
    "mosaic": mosaic,
    "gaussian sensing": lambda shape: GaussianSensing(shape, 1),
    "fourier sensing": lambda shape: FourierSensing(shape, 1),
    "blur": lambda shape: Blur(shape, torch.ones(1, 1)),
    "downsampling": lambda shape: Downsampling(shape, 1),
    "grey": Grey,
    "fourier mask": lambda shape: FourierMask(shape, torch.ones(shape[1:], dtype=torch.bool)),
    "tomography": lambda shape: Radon(shape, torch.tensor([0.0, 45.0])),
}


@pytest.mark.parametrize("make", EVERY.values(), ids=EVERY)
def test_the_smallest_pictures_are_measured_and_empty_ones_refused(make):
    check_operator(make((3, 1, 1)))
    for shape in ((3, 0, 4), (3, 4, 0), (0, 4, 4), (3, 4)):
        with pytest.raises(InputError):
            make(shape)


@pytest.mark.parametrize(
    ("operator", "expected"),
    [
        (Grey((3, 4, 6), (0.2, 0.5, 0.3)), 0.38),
        (Grey((3, 4, 6), EVEN), 1 / 3),
        (Identity((3, 4, 6)), 1.0),
        (block_mask((3, 4, 6), 2), 1.0),
        (Blur((3, 8, 8), gaussian_kernel(0.5)), None),
        (Downsampling((3, 4, 6), 2), None),
        (GaussianSensing((3, 4, 6), 9), None),
        (Stack(Grey((3, 4, 6)), Identity((3, 4, 6))), None),
    ],
)
def test_rows_of_one_length_at_right_angles_keep_noise_white(operator, expected):
    scale = operator.row_scale()
    assert scale == (None if expected is None else pytest.approx(expected))
    if scale is not None:
        y = torch.randn(2, *operator.measurement_shape, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(operator.forward(operator.adjoint(y)), scale * y)
