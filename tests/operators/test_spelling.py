"""One spelling for operators that measure the same, and what operators tell of themselves: dense algebra."""

import pytest
import torch
from closed_form import dense
from torch import Tensor

from aipo.operators import (
    Blur,
    Composition,
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
    gamma_curve,
    gaussian_kernel,
    mosaic,
    simplest,
)

SHAPE = (3, 4, 6)
ENTRIES = torch.rand(SHAPE, generator=torch.Generator().manual_seed(1)) < 0.6


def kernel(*weights: tuple[int, int, float]) -> Tensor:
    """3 × 3, with these weights at these places."""
    made = torch.zeros(3, 3, dtype=torch.float64)
    for row, column, weight in weights:
        made[row, column] = weight
    return made


DELTA, SHIFT = kernel((1, 1, 1.0)), kernel((0, 2, 1.0))
SLANTED = kernel((1, 1, 0.6), (0, 1, 0.3), (2, 0, 0.1))
HALF = FourierMask(SHAPE, torch.arange(24).reshape(4, 6) % 3 > 0)


class Matrix(LinearOperator):
    """A user's own operator: a matrix (m, n) times the picture as one vector."""

    def __init__(self, matrix: Tensor, shape=SHAPE, measurement_shape: tuple[int, ...] | None = None):
        self.matrix, self.shape = matrix, shape
        self.measurement_shape = measurement_shape or (len(matrix),)

    def forward(self, x: Tensor) -> Tensor:
        return (x.flatten(1) @ self.matrix.T.to(x)).unflatten(1, self.measurement_shape)

    def adjoint(self, y: Tensor) -> Tensor:
        return (y.flatten(1) @ self.matrix.to(y)).unflatten(1, self.shape)


class Shifts(LinearOperator):
    """A user's own filter: colours are added, each shifted by a column more than the one before it."""

    shape, measurement_shape = SHAPE, (1, *SHAPE[1:])

    def forward(self, x: Tensor) -> Tensor:
        shifted = [colour.roll(steps, -1) for steps, colour in enumerate(x.unbind(1))]
        return torch.stack(shifted).sum(0)[:, None]

    def adjoint(self, y: Tensor) -> Tensor:
        return torch.stack([y[:, 0].roll(-steps, -1) for steps in range(3)], 1)

    def transfer_matrices(self) -> Tensor:
        phase = torch.exp(-2j * torch.pi * torch.arange(4) / 6).to(torch.complex128)
        row = torch.stack([phase**steps for steps in range(3)], -1)  # (W//2 + 1, 3)
        return row[None, :, None].expand(SHAPE[1], -1, -1, -1)


def shuffled(count: int = 72) -> Tensor:
    """Some rows of the unit matrix, in a random order."""
    return torch.eye(72)[torch.randperm(72, generator=torch.Generator().manual_seed(2))[:count]]


def turned(angle: float) -> Tensor:
    """Two entries of the picture turned into each other, the others as they are."""
    matrix, turn = torch.eye(72, dtype=torch.float64), torch.tensor(angle, dtype=torch.float64)
    rows = torch.stack((torch.stack((turn.cos(), -turn.sin())), torch.stack((turn.sin(), turn.cos()))))
    matrix[10:12, 10:12] = rows
    return matrix


OPERATORS: dict[str, LinearOperator] = {
    "identity": Identity(SHAPE),
    "full mask": Mask(torch.ones(SHAPE, dtype=torch.bool)),
    "mask of entries": Mask(ENTRIES),
    "hole": block_mask(SHAPE, 2),
    "mosaic": mosaic(SHAPE),
    "filter of ones": Filter(SHAPE, torch.ones(4, 4)),
    "filter": Filter(SHAPE, torch.fft.rfft2(torch.rand(4, 6, generator=torch.Generator().manual_seed(3)))),
    "delta kernel": Blur(SHAPE, DELTA),
    "shifting kernel": Blur(SHAPE, SHIFT),
    "blur": Blur(SHAPE, SLANTED),
    "pixels as they are": Downsampling(SHAPE, 1),
    "larger pixels": Downsampling(SHAPE, 2),
    "grey": Grey(SHAPE),
    "sensing": GaussianSensing(SHAPE, 20),
    "square sensing": GaussianSensing(SHAPE, 72),
    "fourier sensing": FourierSensing(SHAPE, 30),
    "fourier mask": HALF,
    "all frequencies": FourierMask(SHAPE, torch.ones(4, 6, dtype=torch.bool)),
    "tomography": Radon((3, 5, 5), torch.tensor([0.0, 40.0, 90.0])),
    "one angle of a row": Radon((1, 1, 1), torch.tensor([0.0])),
    "composition of one": Composition(Identity(SHAPE)),
    "composition with a mask": Composition(Identity(SHAPE), Mask(ENTRIES)),
    "composition with a sensing": Composition(Identity(SHAPE), GaussianSensing(SHAPE, 20)),
    "composition in a composition": Composition(Composition(Blur(SHAPE, DELTA)), Composition(HALF)),
    "there and back": Composition(Blur(SHAPE, SHIFT), Blur(SHAPE, SHIFT.flip(0, 1))),
    "shift and hole": Composition(Blur(SHAPE, SHIFT), block_mask(SHAPE, 2)),
    "blur and hole": Composition(Blur(SHAPE, SLANTED), block_mask(SHAPE, 2)),
    "blur and grey": Composition(Blur(SHAPE, SLANTED), Grey(SHAPE)),
    "grey and blur": Composition(Grey(SHAPE), Blur((1, 4, 6), SLANTED), Identity((1, 4, 6))),
    "blur and frequencies": Composition(Blur(SHAPE, SLANTED), HALF),
    "blur and larger pixels": Composition(Blur(SHAPE, SLANTED), Downsampling(SHAPE, 2)),
    "stack of one": Stack(Identity(SHAPE)),
    "stack of a stack": Stack(Stack(Mask(ENTRIES))),
    "stack of a shift": Stack(Blur(SHAPE, SHIFT)),
    "stack of both halves": Stack(Mask(ENTRIES), Mask(~ENTRIES)),
    "stack of two": Stack(Blur(SHAPE, SLANTED), Grey(SHAPE)),
    "stack of three": Stack(Identity(SHAPE), HALF, Composition(Blur(SHAPE, SLANTED), Grey(SHAPE))),
    "the same entries twice": Stack(Mask(ENTRIES), Identity(SHAPE)),
    "own filter": Shifts(),
    "own identity": Matrix(torch.eye(72)),
    "own permutation": Matrix(shuffled(), measurement_shape=(8, 9)),
    "own shuffled mask": Matrix(shuffled(31)),
    "own doubling": Matrix(2 * torch.eye(72)),
    "own brighter picture": Matrix(1.001 * torch.eye(72)),
    "own negative": Matrix(-torch.eye(72)),
    "own rotation": Matrix(turned(0.5)),
    "own small rotation": Matrix(turned(0.01)),
    "own exchange": Matrix(turned(torch.pi / 2).abs()),
    "own mean of two entries": Matrix((torch.eye(72) + torch.eye(72).roll(1, 0))[::2] / 2**0.5),
    "own entry twice": Matrix(torch.eye(72)[[0, *range(72)]]),
}
# What measures single entries of the picture, each once.
OF_ENTRIES = {
    "identity",
    "full mask",
    "mask of entries",
    "hole",
    "mosaic",
    "filter of ones",
    "delta kernel",
    "shifting kernel",
    "pixels as they are",
    "one angle of a row",
    "composition of one",
    "composition with a mask",
    "there and back",
    "shift and hole",
    "stack of one",
    "stack of a stack",
    "stack of a shift",
    "stack of both halves",
    "own identity",
    "own permutation",
    "own shuffled mask",
    "own exchange",
}
# Whose AᵀA is the same at every place, by the transfer matrices or by trying.
ALIKE = {
    "identity",
    "full mask",
    "filter of ones",
    "filter",
    "delta kernel",
    "shifting kernel",
    "blur",
    "pixels as they are",
    "grey",
    "fourier mask",
    "all frequencies",
    "one angle of a row",
    "composition of one",
    "composition in a composition",
    "there and back",
    "blur and grey",
    "grey and blur",
    "blur and frequencies",
    "stack of one",
    "stack of a shift",
    "stack of both halves",
    "stack of two",
    "stack of three",
    "own identity",
    "own permutation",
    "own doubling",
    "own brighter picture",
    "own negative",
    "own rotation",
    "own small rotation",
    "own exchange",
}
every_operator = pytest.mark.parametrize("name", OPERATORS)


def truth(operator: LinearOperator) -> Tensor | None:
    """Which entries are measured, if every row of the matrix is another row of the unit matrix."""
    matrix = dense(operator)
    ones = (matrix - 1).abs() < 1e-5
    single = bool((ones | (matrix.abs() < 1e-5)).all()) and bool((ones.sum(1) == 1).all())
    return ones.any(0).reshape(operator.shape) if single and int(ones.sum(0).max()) == 1 else None


def pictures(operator: Operator) -> Tensor:
    return torch.rand(2, *operator.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


def filtered(matrices: Tensor, x: Tensor) -> Tensor:
    """One matrix between the colours for each frequency, times a picture."""
    spectrum = torch.fft.rfft2(x).permute(0, 2, 3, 1)[..., None]
    return torch.fft.irfft2((matrices.to(spectrum) @ spectrum)[..., 0].permute(0, 3, 1, 2), s=x.shape[-2:])


@every_operator
def test_kept_entries_are_those_of_the_matrix(name):
    """What the operator says, and what is found by trying."""
    operator = OPERATORS[name]
    expected = truth(operator)
    assert (expected is not None) == (name in OF_ENTRIES), "the list above is wrong"
    for found in (operator.kept(), LinearOperator.kept(operator)):
        if expected is None:
            assert found is None
        else:
            assert found is not None and torch.equal(found, expected)


@every_operator
def test_the_simplest_operator_measures_the_same_values(name):
    """To the bit where entries are measured: they are taken to their places, and nothing is computed."""
    operator = OPERATORS[name]
    plain, moved = simplest(operator)
    matrix = dense(operator)
    copied = bool(((matrix == 0) | (matrix == 1)).all())
    for x, rounding in ((pictures(operator), 1e-12), (pictures(operator).float(), 1e-5)):
        measured = moved(operator(x))
        assert measured.shape[1:] == plain.measurement_shape and measured.dtype == x.dtype
        torch.testing.assert_close(measured, plain(x), rtol=0, atol=0 if copied else rounding)


@every_operator
def test_the_simplest_spelling_is_simple(name):
    plain, _ = simplest(OPERATORS[name])
    if name in OF_ENTRIES:
        kept = truth(OPERATORS[name])
        assert kept is not None and type(plain) is (Identity if bool(kept.all()) else Mask)
        assert torch.equal(plain.kept(), kept)
    again, moved = simplest(plain)
    y = plain(pictures(plain))
    assert type(again) is type(plain) and again.measurement_shape == plain.measurement_shape
    assert torch.equal(moved(y), y)


@pytest.mark.parametrize(
    ("name", "inner"),
    [
        ("composition with a sensing", GaussianSensing),
        ("composition in a composition", FourierMask),
        ("blur and grey", Composition),
        ("grey and blur", Composition),
        ("stack of two", Stack),
        ("sensing", GaussianSensing),
    ],
)
def test_what_adds_nothing_is_left_out(name, inner):
    plain, _ = simplest(OPERATORS[name])
    assert type(plain) is inner
    assert not any(type(part) is Identity for part in getattr(plain, "operators", ()))


@pytest.mark.parametrize("operator", [gamma_curve(Identity(SHAPE), 1.0), Magnitude(Identity(SHAPE))])
def test_bent_instruments_are_left_as_they_are(operator):
    plain, moved = simplest(operator)
    y = torch.rand(2, *SHAPE)
    assert plain is operator and moved(y) is y and operator.kept() is None and operator.gram() is None


@every_operator
def test_the_gram_matrix_of_every_frequency_is_that_of_the_matrix(name):
    operator = OPERATORS[name]
    gram, x = operator.gram(), pictures(operator)
    assert (gram is not None) == (name in ALIKE)
    if gram is not None:
        channels, height, width = operator.shape
        assert gram.shape == (height, width // 2 + 1, channels, channels) and gram.dtype == torch.float64
        torch.testing.assert_close(gram, gram.mT, rtol=0, atol=1e-12)
        back = (dense(operator).T @ dense(operator) @ x.flatten(1).T).T.reshape(x.shape)
        torch.testing.assert_close(filtered(gram, x), back, rtol=0, atol=1e-6)


@every_operator
def test_the_matrix_of_every_frequency_is_the_operator(name):
    operator = OPERATORS[name]
    matrices, x = operator.transfer_matrices(), pictures(operator)
    if matrices is not None:
        assert matrices.dtype == torch.complex128
        torch.testing.assert_close(filtered(matrices, x), operator(x), rtol=0, atol=1e-6)
    assert operator.gram() is not None or matrices is None or name == "own filter"


def test_a_gram_matrix_that_is_not_real_is_not_told():
    """Colours that are shifted against each other are not measured alike in both directions."""
    operator = Shifts()
    x = pictures(operator)
    torch.testing.assert_close(filtered(operator.transfer_matrices(), x), operator(x))
    assert operator.gram() is None
    assert Stack(operator, Identity(SHAPE)).gram() is None


def test_a_blur_by_a_gaussian_is_no_mask_however_narrow_it_is():
    for width in (0.2, 0.3, 0.5):
        blur = Blur((1, 8, 8), gaussian_kernel(width))
        exact = truth(blur)
        assert (blur.kept() is None) == (exact is None)
    assert Blur((1, 8, 8), gaussian_kernel(0.3)).kept() is None
