"""The base classes of forward operators f of y = f(x) + e, which say what the instrument does to a picture.

Any differentiable map can be an operator: a subclass of `Operator` with `shape`, `measurement_shape` and
`forward`. The path's start and the solver's metric use a linear operator near it, by default its tangent at a
grey picture. A linear operator maps images (B, C, H, W) to measurements (B, *measurement_shape) and back by
its adjoint: it is a subclass of `LinearOperator`, and has `adjoint` besides. `pseudoinverse` has a general
default. `aipo.operators.check_operator` verifies an operator.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property
from math import prod

import torch
from torch import Tensor

from aipo.basics.arrays import Images, Measurements, PerImage
from aipo.basics.conjugate_gradients import conjugate_gradients
from aipo.basics.eigenvalues import largest_eigenvalue
from aipo.basics.errors import InputError
from aipo.operators.frequencies import told_gram, tried_gram

# Measured values of one operator -> those of another.
Rearranged = Callable[[Measurements], Measurements]


class Operator(ABC):
    """A differentiable map f from images to measurements.

    Attributes:
        shape: (C, H, W) of the image.
        measurement_shape: shape of one measurement, without the batch.
        device: the device of constants that do not follow the picture; pictures that test f are made there.
    """

    shape: tuple[int, int, int]
    measurement_shape: tuple[int, ...]
    device: torch.device = torch.device("cpu")

    @abstractmethod
    def forward(self, x: Images) -> Measurements:
        """f(x)."""

    @property
    def linear(self) -> "LinearOperator":
        """A linear operator near f, for start and metric; the objective never uses it."""
        return Tangent(self)

    def straighten(self, y: Measurements, sigma: PerImage) -> tuple[Measurements, PerImage]:
        """The measurement by `linear` that corresponds to y, and the standard deviation of its noise."""
        tangent = Tangent(self)
        grey = tangent.foot(y)[:1]
        return y - self.forward(grey) + tangent.forward(grey), sigma

    def kept(self) -> Tensor | None:
        """Which entries of the picture are measured one by one, boolean (C, H, W); None for other operators.

        Every measured value is then one entry of the picture, and no entry is measured twice.
        """
        return None

    def transfer_matrices(self) -> Tensor | None:
        """f as one complex matrix between the colours for each frequency; None if f is no such filter.

        (H, W//2 + 1, C', C) in `torch.fft.rfft2` order, complex128; the measurement is then a picture
        (C', H, W), and the filter is periodic.
        """
        return None

    def gram(self) -> Tensor | None:
        """AᵀA as one matrix between the colours for each frequency; None if places are treated differently.

        (H, W//2 + 1, C, C) in `torch.fft.rfft2` order, float64, real and symmetric.
        """
        return None

    def row_scale(self) -> float | None:
        """s if A Aᵀ = s I, so that white noise of measurements is white noise of s^½ times the picture.

        It is told of measured entries and of mixtures of colours; of all others None.
        """
        if self.kept() is not None:
            return 1.0
        gram = self.gram()
        if gram is None or float((gram - gram[:1, :1]).abs().max()) > 1e-6 * float(gram.abs().max()):
            return None
        levels = torch.linalg.eigvalsh(gram[0, 0])
        largest = float(levels.max())
        clear = ((levels < 1e-6 * largest) | (levels > (1 - 1e-6) * largest)).all()
        return largest if clear else None

    def window(self, rows: slice, columns: slice) -> "tuple[Operator | None, Rearranged] | None":
        """The operator that measures a window of the picture alone, and the values that belong to it.

        Returns:
            None if measured values are not of single pixels. Otherwise the operator, or None if nothing in
            the window is measured, and a map (B, *measurement_shape) -> (B, *measurement_shape of that one).
        """
        return None

    def unwrapped(self) -> "tuple[Operator, Rearranged]":
        """The same operator without wrappers that change nothing, and how measured values move to it.

        The second maps (B, *measurement_shape) to (B, *measurement_shape of the first).
        """
        return self, _as_they_are

    def __call__(self, x: Images) -> Measurements:
        if tuple(x.shape[1:]) != tuple(self.shape):
            raise InputError(
                f"{type(self).__name__} expects images of shape (B, {', '.join(map(str, self.shape))}), "
                f"got {tuple(x.shape)}; make the operator for the picture's shape"
            )
        return self.forward(x)

    @property
    def measurements(self) -> int:
        """How many numbers one measurement has (m)."""
        return prod(self.measurement_shape)


class LinearOperator(Operator):
    """A linear map A from images to measurements: `forward` is A x."""

    @property
    def linear(self) -> "LinearOperator":
        return self

    def straighten(self, y: Measurements, sigma: PerImage) -> tuple[Measurements, PerImage]:
        return y, sigma

    @abstractmethod
    def adjoint(self, y: Measurements) -> Images:
        """Aᵀ y."""

    def pseudoinverse(self, y: Measurements) -> Images:
        """A⁺ y, the image of least norm among those that explain y best (conjugate gradients)."""
        return _least_norm(self, y)

    def kept(self) -> Tensor | None:
        """See `Operator.kept`; found by measuring one random picture, and remembered."""
        return self._kept

    @cached_property
    def _kept(self) -> Tensor | None:
        # Another operator could be mistaken for one that keeps entries only by the chance of this picture.
        generator = torch.Generator().manual_seed(0)
        x = (1 + torch.rand(1, *self.shape, generator=generator, dtype=torch.float64)).to(self.device)
        measured = self.forward(x)
        back = self.adjoint(measured)
        kept = back > 0.5 * x
        if int(kept.sum()) != self.measurements or not _near(back, kept * x):
            return None
        same = _near(measured.flatten().sort().values, x[kept].sort().values)
        return kept[0] if same else None

    def gram(self) -> Tensor | None:
        """See `Operator.gram`; told by the transfer matrices, or found by trying, and remembered."""
        transfer = self.transfer_matrices()
        return self._tried_gram if transfer is None else told_gram(transfer)

    @cached_property
    def _tried_gram(self) -> Tensor | None:
        return tried_gram(lambda x: self.adjoint(self.forward(x)), self.shape, self.device)

    @cached_property
    def norm_squared(self) -> float:
        """‖A‖², the largest eigenvalue of AᵀA, to a few thousandths; never more than the true value."""
        start = torch.randn(1, *self.shape, generator=torch.Generator().manual_seed(0)).to(self.device)
        return largest_eigenvalue(lambda x: self.adjoint(self.forward(x)), start)


class Tangent(LinearOperator):
    """The derivative of f at a grey picture x₀, A v = f′(x₀) v, by automatic differentiation."""

    def __init__(self, operator: Operator):
        self.operator = operator
        self.shape, self.measurement_shape = operator.shape, operator.measurement_shape
        self.device = operator.device

    def foot(self, like: Tensor) -> Images:
        """x₀, once for each image of `like`."""
        return torch.full((len(like), *self.shape), 0.5, dtype=like.dtype, device=like.device)

    def forward(self, x: Images) -> Measurements:
        with torch.enable_grad():
            # ⟨f′(x₀)ᵀ u, v⟩ is linear in u, and its gradient is f′(x₀) v.
            dual = torch.zeros(len(x), *self.measurement_shape, dtype=x.dtype, device=x.device)
            dual.requires_grad_()
            product = (self._transposed(dual, differentiable=True) * x).sum()
            return torch.autograd.grad(product, dual, create_graph=x.requires_grad)[0]

    def adjoint(self, y: Measurements) -> Images:
        return self._transposed(y, differentiable=y.requires_grad)

    def _transposed(self, y: Measurements, differentiable: bool) -> Images:
        with torch.enable_grad():
            x = self.foot(y).requires_grad_()
            return torch.autograd.grad(self.operator.forward(x), x, y, create_graph=differentiable)[0]


def _near(found: Tensor, expected: Tensor) -> bool:
    """Whether all entries agree to 10⁻⁵: some operators compute in single precision."""
    return found.shape == expected.shape and bool(((found - expected).abs() <= 1e-5).all())


def _as_they_are(y: Measurements) -> Measurements:
    return y


def image_shape(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """(C, H, W), checked."""
    if len(shape) != 3 or min(shape) < 1:
        raise InputError(f"an image shape is (C, H, W) with positive entries, got {tuple(shape)}")
    return (int(shape[0]), int(shape[1]), int(shape[2]))


def window_shape(shape: tuple[int, int, int], rows: slice, columns: slice) -> tuple[int, int, int]:
    """(C, H, W) of a window of pictures of a shape."""
    channels, height, width = shape
    return channels, len(range(height)[rows]), len(range(width)[columns])


def _least_norm(operator: LinearOperator, y: Tensor) -> Images:
    """Solve AᵀA x = Aᵀy from zero: x stays in the range of Aᵀ, so it ends in the solution of least norm."""
    # Below rounding the right-hand side is noise, and a step along noise in the null space has no bound.
    tolerance = max(1e-10, 10 * torch.finfo(y.dtype).eps)
    found = conjugate_gradients(
        lambda x: operator.adjoint(operator.forward(x)),
        operator.adjoint(y.double()),
        iterations=500,
        tolerance=tolerance,
    )
    return found.x.to(y.dtype)
