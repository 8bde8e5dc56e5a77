"""What likelihoods refuse to be made of: each sentence says what to give instead, and that works."""

import numpy as np
import pytest
import torch
from torch import Tensor

from aipo.basics.errors import InputError
from aipo.likelihoods import Coloured, FlowNoise, Gaussian, Heteroscedastic, Poisson, measure
from aipo.operators import Downsampling, GaussianSensing, Identity, Mask, Operator, random_mask

SHAPE = (3, 4, 6)
HOLES = random_mask(SHAPE, 0.5)


def refused(operator: Operator, y: object) -> str:
    """The sentence."""
    with pytest.raises(InputError) as caught:
        Gaussian(operator, y, 0.1)  # type: ignore[arg-type]
    return str(caught.value)


@pytest.mark.parametrize(
    "y", [np.zeros((2, *SHAPE)), np.zeros((2, *SHAPE), np.uint8)], ids=["float64", "uint8"]
)
def test_numpy_arrays(y):
    assert refused(Identity(SHAPE), y) == "y is a NumPy array; use torch.from_numpy(y).float()"
    Gaussian(Identity(SHAPE), torch.from_numpy(y).float(), 0.1)


@pytest.mark.parametrize("y", [[[0.5]], 0.5, None, Identity(SHAPE)], ids=lambda y: type(y).__name__)
def test_what_is_no_tensor(y):
    assert refused(Identity(SHAPE), y) == f"y is of type {type(y).__name__}; give a tensor"


def test_parameters_and_pictures_that_are_no_tensors():
    y, spectrum = torch.zeros(1, *SHAPE), np.ones(SHAPE[1:])
    for name, make in {
        "sigma": lambda: Heteroscedastic(Identity(SHAPE), y, 0.1),  # type: ignore[arg-type]
        "spectrum": lambda: Coloured(Identity(SHAPE), y, spectrum),  # type: ignore[arg-type]
        "draws": lambda: FlowNoise(Identity(SHAPE), y, None, spectrum),  # type: ignore[arg-type]
        "x": lambda: measure(Identity(SHAPE), y.numpy(), 0.1),  # type: ignore[arg-type]
    }.items():
        with pytest.raises(InputError, match=f"^{name} is "):
            make()


@pytest.mark.parametrize(
    ("shape", "operator", "remedy"),
    [
        ((2, 4, 6, 3), Identity(SHAPE), "y.permute(0, 3, 1, 2)"),
        ((2, 4, 4, 3), Identity((3, 4, 4)), "y.permute(0, 3, 1, 2)"),
        ((2, 3, 6, 4), Identity(SHAPE), "y.permute(0, 1, 3, 2)"),
        ((4, 6, 3), Identity(SHAPE), "y[None].permute(0, 3, 1, 2)"),
        (SHAPE, Identity(SHAPE), "y[None]"),
        ((7,), GaussianSensing(SHAPE, 7), "y[None]"),
        ((2, 2, 3, 3), Downsampling((3, 4, 6), 2), "y.permute(0, 3, 1, 2)"),
        ((2, 1, *SHAPE), Identity(SHAPE), "y.reshape(-1, 3, 4, 6)"),
        ((2, 72), Identity(SHAPE), "y.reshape(-1, 3, 4, 6)"),
        ((2, *SHAPE), HOLES, "operator(y)"),
        (SHAPE, HOLES, "operator(y[None])"),
        ((2, *SHAPE), GaussianSensing(SHAPE, 7), "operator(y)"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Operator) else str(value),
)
def test_shapes_that_can_be_mended(shape, operator, remedy):
    y = torch.zeros(shape)
    sentence = refused(operator, y)
    assert remedy in sentence and str(shape) in sentence
    mended = eval(remedy, {"y": y, "operator": operator})
    assert isinstance(mended, Tensor)
    Gaussian(operator, mended, 0.1)


@pytest.mark.parametrize("shape", [(2, 3, 5, 6), (2, 5), ()], ids=str)
def test_shapes_that_cannot(shape):
    assert refused(Identity(SHAPE), torch.zeros(shape)).endswith("measure with the same operator")


def test_no_measurement():
    assert refused(Identity(SHAPE), torch.zeros(0, *SHAPE)).endswith("give at least one measurement")


@pytest.mark.parametrize(
    ("dtype", "remedy"),
    [(torch.uint8, "y.float() / 255"), (torch.int64, "y.float()"), (torch.bool, "y.float()")],
)
def test_integers(dtype, remedy):
    y = torch.zeros(1, *SHAPE, dtype=dtype)
    assert refused(Identity(SHAPE), y).startswith(f"y is {str(dtype)[6:]}; use {remedy}")
    assert "complex" in refused(Identity(SHAPE), y.to(torch.complex64))


def test_values_that_were_not_measured():
    y = torch.rand(1, *SHAPE)
    y[0, 0, 1, 2], y[0, 2, 3, 3] = torch.nan, torch.inf
    assert "2 of its values" in refused(Identity(SHAPE), y) and "Mask" in refused(Identity(SHAPE), y)
    known = Mask(torch.isfinite(y[0]))
    Poisson(known, known(y).round(), 1.0)
