"""AᵀA of an operator that tells nothing of itself is found by trying, in both precisions."""

import pytest
import torch
from torch import Tensor

from aipo.operators import (
    Blur,
    Composition,
    Downsampling,
    FourierMask,
    FourierSensing,
    GaussianSensing,
    Grey,
    Identity,
    LinearOperator,
    Mask,
    Radon,
    Stack,
    block_mask,
    cartesian_mask,
    gaussian_kernel,
    random_mask,
)

SHAPE = (3, 12, 10)
WIDE = Blur(SHAPE, gaussian_kernel(1.2))


class Silent(LinearOperator):
    """Measures as another operator does, counts its products, and tells nothing else."""

    def __init__(self, operator: LinearOperator):
        self.inner, self.products = operator, 0
        self.shape, self.measurement_shape = operator.shape, operator.measurement_shape

    def forward(self, x: Tensor) -> Tensor:
        self.products += len(x)
        return self.inner.forward(x)

    def adjoint(self, y: Tensor) -> Tensor:
        return self.inner.adjoint(y)


class Single(Silent):
    """One that computes in single precision whatever it is given."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.float()).to(x)

    def adjoint(self, y: Tensor) -> Tensor:
        return super().adjoint(y.float()).to(y)


class Reflected(LinearOperator):
    """A mean of three neighbours in a row, with the picture reflected at its borders."""

    shape = measurement_shape = SHAPE

    def forward(self, x: Tensor) -> Tensor:
        padded = torch.cat((x[..., :1], x, x[..., -1:]), -1)
        return (padded[..., :-2] + x + padded[..., 2:]) / 3

    def adjoint(self, y: Tensor) -> Tensor:
        return self.forward(y)  # its matrix is symmetric


FILTERS = {
    "blur": WIDE,
    "blur and grey": Composition(WIDE, Grey(SHAPE)),
    "frequencies": FourierMask(SHAPE, cartesian_mask(SHAPE[1:], 0.5)),
    "two instruments": Stack(WIDE, Grey(SHAPE)),
}
OTHERS = {
    "sensing": GaussianSensing(SHAPE, 100),
    "fourier sensing": FourierSensing(SHAPE, 100),
    "hole": block_mask(SHAPE, 3),
    "half": random_mask(SHAPE, 0.5),
    "one lost entry": Mask(torch.arange(360).reshape(SHAPE) != 77),
    "cropped blur": Composition(WIDE, block_mask(SHAPE, 3)),
    "reflected blur": Reflected(),
    "larger pixels": Downsampling(SHAPE, 2),
    "tomography": Radon((1, 12, 12), torch.tensor([0.0, 30.0, 90.0])),
}


def filtered(matrices: Tensor, x: Tensor) -> Tensor:
    spectrum = torch.fft.rfft2(x).permute(0, 2, 3, 1)[..., None]
    return torch.fft.irfft2((matrices.to(spectrum) @ spectrum)[..., 0].permute(0, 3, 1, 2), s=x.shape[-2:])


@pytest.mark.parametrize(("kind", "rounding"), [(Silent, 1e-10), (Single, 1e-5)])
@pytest.mark.parametrize("name", FILTERS)
def test_what_treats_every_place_alike_is_found_out(name, kind, rounding):
    operator = kind(FILTERS[name])
    gram = operator.gram()
    assert gram is not None and gram.dtype == torch.float64
    x = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    direct = FILTERS[name].adjoint(FILTERS[name].forward(x))
    torch.testing.assert_close(filtered(gram, x), direct, rtol=0, atol=rounding)
    assert float(torch.linalg.eigvalsh(gram).min()) > -1e-12, "nothing is measured less than not at all"


@pytest.mark.parametrize("kind", [Silent, Single])
@pytest.mark.parametrize("name", OTHERS)
def test_what_treats_places_differently_is_not_mistaken_for_a_filter(name, kind):
    assert kind(OTHERS[name]).gram() is None


def test_the_trial_costs_a_product_for_each_colour_and_one_more_once():
    operator = Silent(WIDE)
    gram = operator.gram()
    assert operator.gram() is gram and operator.products == 4


def test_what_is_found_is_what_a_filter_tells():
    told, found = WIDE.gram(), Silent(WIDE).gram()
    assert told is not None and found is not None
    torch.testing.assert_close(found, told, rtol=0, atol=1e-12)


def test_an_operator_with_trainable_constants_leaves_no_graph():
    class Scaled(Silent):
        gain = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.gain * super().forward(x)

        def adjoint(self, y: Tensor) -> Tensor:
            return self.gain * super().adjoint(y)

    gram = Scaled(Identity(SHAPE)).gram()
    assert gram is not None and not gram.requires_grad
    torch.testing.assert_close(gram, 4 * torch.eye(3, dtype=torch.float64).expand_as(gram))
