"""Forward operators f of y = f(x) + e: what the instrument does to a picture.

A linear operator maps images (B, C, H, W) to measurements (B, *measurement_shape) and back by its
adjoint. A user's own operator is a subclass with `shape`, `measurement_shape`, `forward` and
`adjoint`; `pseudoinverse` has a general default.
"""

import hashlib
from abc import ABC, abstractmethod
from functools import cached_property, lru_cache
from math import prod

import numpy as np
import torch
from torch import Tensor

from aipo.arrays import Images, Measurements, dot, expand, rowwise
from aipo.errors import InputError


class LinearOperator(ABC):
    """A linear map A from images to measurements.

    Attributes:
        shape: (C, H, W) of the image.
        measurement_shape: shape of one measurement, without the batch.
    """

    shape: tuple[int, int, int]
    measurement_shape: tuple[int, ...]

    @abstractmethod
    def forward(self, x: Images) -> Measurements:
        """A x."""

    @abstractmethod
    def adjoint(self, y: Measurements) -> Images:
        """Aᵀ y."""

    def pseudoinverse(self, y: Measurements) -> Images:
        """A⁺ y, the image of least norm among those that explain y best (conjugate gradients)."""
        return _least_norm(self, y)

    @cached_property
    def norm_squared(self) -> float:
        """‖A‖², the largest eigenvalue of AᵀA (power iterations, never more than the true value)."""
        x = torch.randn(1, *self.shape, generator=torch.Generator().manual_seed(0))
        value = 0.0
        for _ in range(100):
            x = self.adjoint(self.forward(x / x.norm()))
            value = float(x.norm())
        return value

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


class Identity(LinearOperator):
    """A = I: the picture itself is measured (denoising)."""

    def __init__(self, shape: tuple[int, int, int]):
        self.shape = _image_shape(shape)
        self.measurement_shape = self.shape

    def forward(self, x: Images) -> Measurements:
        return x

    def adjoint(self, y: Measurements) -> Images:
        return y

    def pseudoinverse(self, y: Measurements) -> Images:
        return y


class Mask(LinearOperator):
    """Only the entries where the mask is true are measured (inpainting).

    The measurement is the vector of the measured entries, in row-major order of (C, H, W).

    Args:
        mask: boolean, (C, H, W); (1, H, W) with `channels` broadcasts over the channels.
        channels: number of channels of the image, where the mask has one.

    Raises:
        InputError: a mask that is not boolean, measures nothing, or has another rank.
    """

    def __init__(self, mask: Tensor, channels: int | None = None):
        if mask.dtype != torch.bool or mask.ndim != 3:
            raise InputError(
                f"a mask is boolean of shape (C, H, W), got {mask.dtype} of shape {tuple(mask.shape)}; "
                "pass for example picture > 0.5"
            )
        if channels is not None:
            if mask.shape[0] not in (1, channels):
                raise InputError(
                    f"a mask of shape {tuple(mask.shape)} does not fit {channels} channels; "
                    f"give it 1 or {channels}"
                )
            mask = mask.expand(channels, *mask.shape[1:])
        if not mask.any():
            raise InputError("the mask has no true entry, so nothing is measured; is it inverted?")
        self.mask = mask.clone()
        self.shape = _image_shape(tuple(mask.shape))
        self._index = self.mask.flatten().nonzero().squeeze(1)
        self.measurement_shape = (len(self._index),)

    def forward(self, x: Images) -> Measurements:
        return x.flatten(1)[:, self._index.to(x.device)]

    def adjoint(self, y: Measurements) -> Images:
        flat = y.new_zeros(len(y), prod(self.shape))
        return flat.index_copy(1, self._index.to(y.device), y).unflatten(1, self.shape)

    def pseudoinverse(self, y: Measurements) -> Images:
        return self.adjoint(y)


class GaussianSensing(LinearOperator):
    """y = A x with an m × n matrix of independent N(0, 1/m) entries (noisy compressed sensing).

    The matrix is drawn from the seed with NumPy's PCG64, so that a measurement file needs to keep
    only the seed; `fingerprint` tells whether two machines drew the same one.

    Args:
        shape: (C, H, W) of the image, n = C·H·W.
        measurements: m, 1 ≤ m ≤ n.
        seed: of the matrix.

    Source: Bora et al. 2017 (CSGM); Asim et al. 2020 (GlowIP).
    """

    def __init__(self, shape: tuple[int, int, int], measurements: int, seed: int = 0):
        self.shape = _image_shape(shape)
        n = prod(self.shape)
        if not 1 <= measurements <= n:
            raise InputError(
                f"measurements = {measurements} is outside 1..{n}, the number of entries of an image "
                f"of shape {tuple(self.shape)}; choose fewer measurements than entries"
            )
        if seed < 0:
            raise InputError(f"seed = {seed} is negative; choose a seed of at least 0")
        self.measurement_shape = (int(measurements),)
        self.seed = int(seed)
        self.matrix = _gaussian_matrix(int(measurements), n, self.seed)
        self._cast: Tensor = self.matrix

    def forward(self, x: Images) -> Measurements:
        return rowwise(x.flatten(1), self._matrix_like(x).T)

    def adjoint(self, y: Measurements) -> Images:
        return rowwise(y, self._matrix_like(y)).unflatten(1, self.shape)

    def fingerprint(self) -> str:
        """SHA-256 of the matrix's first row, to notice another random generator."""
        return hashlib.sha256(self.matrix[0].numpy().tobytes()).hexdigest()

    def _matrix_like(self, like: Tensor) -> Tensor:
        if self._cast.dtype != like.dtype or self._cast.device != like.device:
            self._cast = self.matrix.to(like.device, like.dtype)
        return self._cast


@lru_cache(maxsize=2)
def _gaussian_matrix(m: int, n: int, seed: int) -> Tensor:
    rows = np.random.Generator(np.random.PCG64(seed)).standard_normal((m, n), dtype=np.float32)
    rows *= np.float32(1 / np.sqrt(m))
    return torch.from_numpy(rows)


def _image_shape(shape: tuple[int, ...]) -> tuple[int, int, int]:
    if len(shape) != 3 or min(shape) < 1:
        raise InputError(f"an image shape is (C, H, W) with positive entries, got {tuple(shape)}")
    return (int(shape[0]), int(shape[1]), int(shape[2]))


def _least_norm(
    operator: LinearOperator, y: Tensor, iterations: int = 500, tolerance: float = 1e-10
) -> Images:
    """CGLS from zero: stays in the range of Aᵀ, hence ends in the least-norm least-squares solution."""
    x = torch.zeros(len(y), *operator.shape, dtype=y.dtype, device=y.device)
    residual = y.clone()
    gradient = operator.adjoint(residual)
    direction, gamma = gradient, dot(gradient, gradient)
    stop = tolerance**2 * gamma
    for _ in range(iterations):
        if bool((gamma <= stop).all()):
            break
        image = operator.forward(direction)
        alpha = gamma / dot(image, image).clamp_min(torch.finfo(y.dtype).tiny)
        x = x + expand(alpha, x) * direction
        residual = residual - expand(alpha, residual) * image
        gradient = operator.adjoint(residual)
        previous, gamma = gamma, dot(gradient, gradient)
        direction = gradient + expand(gamma / previous.clamp_min(torch.finfo(y.dtype).tiny), x) * direction
    return x
