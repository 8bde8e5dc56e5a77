"""Compressed sensing: few numbers are measured, and each is a mixture of all entries of the picture."""

import hashlib
from functools import lru_cache
from math import prod, sqrt

import numpy as np
import torch
from torch import Tensor

from aipo.basics.arrays import Images, Measurements, rowwise
from aipo.basics.errors import InputError
from aipo.operators.operator import LinearOperator, image_shape


class GaussianSensing(LinearOperator):
    """y = A x with an m × n matrix of independent N(0, 1/m) entries (noisy compressed sensing).

    NumPy's PCG64 draws the matrix from the seed, so a measurement file needs to keep only the seed.
    `fingerprint` tells whether two machines drew the same matrix.

    Args:
        shape: (C, H, W) of the image, n = C·H·W.
        measurements: m, 1 ≤ m ≤ n.
        seed: determines the matrix.

    Source: Bora et al. 2017 (CSGM); Asim et al. 2020 (GlowIP).
    """

    def __init__(self, shape: tuple[int, int, int], measurements: int, seed: int = 0):
        self.shape = image_shape(shape)
        self.measurement_shape, self.seed = _checked(self.shape, measurements, seed)
        self.matrix = _gaussian_matrix(int(measurements), prod(self.shape), self.seed)
        self._cast: Tensor = self.matrix

    def forward(self, x: Images) -> Measurements:
        return rowwise(x.flatten(1), self._matrix_like(x).T)

    def adjoint(self, y: Measurements) -> Images:
        return rowwise(y, self._matrix_like(y)).unflatten(1, self.shape)

    def fingerprint(self) -> str:
        """SHA-256 of the matrix's first row; it reveals another random generator."""
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


class FourierSensing(LinearOperator):
    """y = √(n/m) · (T D x) at m random places: sensing of large pictures, without a matrix.

    T is the orthonormal Hartley transform over all n entries (the real Fourier transform, its own inverse),
    and D flips random signs. A Aᵀ = n/m · I, so the pseudo-inverse is m/n · Aᵀ. A product takes O(n log n).

    Args:
        shape: (C, H, W) of the image, n = C·H·W.
        measurements: m, 1 ≤ m ≤ n.
        seed: determines the signs and the places.

    Source: Do, Gan, Nguyen & Tran 2012, Fast and efficient compressive sensing using structurally random
    matrices.
    """

    def __init__(self, shape: tuple[int, int, int], measurements: int, seed: int = 0):
        self.shape = image_shape(shape)
        self.measurement_shape, self.seed = _checked(self.shape, measurements, seed)
        n = prod(self.shape)
        rng = np.random.Generator(np.random.PCG64(self.seed))
        self._signs = torch.from_numpy(rng.integers(0, 2, n) * 2.0 - 1)
        self._places = torch.from_numpy(np.sort(rng.permutation(n)[: self.measurements]))
        self._scale = sqrt(n / self.measurements)

    def forward(self, x: Images) -> Measurements:
        return self._scale * _hartley(self._signs.to(x) * x.flatten(1))[:, self._places.to(x.device)]

    def adjoint(self, y: Measurements) -> Images:
        spread = y.new_zeros(len(y), prod(self.shape)).index_copy(1, self._places.to(y.device), y)
        return (self._scale * self._signs.to(y) * _hartley(spread)).unflatten(1, self.shape)

    def pseudoinverse(self, y: Measurements) -> Images:
        return self.adjoint(y) / self._scale**2


def _hartley(v: Tensor) -> Tensor:
    """The real part minus the imaginary part of the orthonormal Fourier transform, (B, n)."""
    transformed = torch.fft.fft(v, norm="ortho")
    return transformed.real - transformed.imag


def _checked(shape: tuple[int, int, int], measurements: int, seed: int) -> tuple[tuple[int], int]:
    """(m,) and the seed."""
    n = prod(shape)
    if not 1 <= measurements <= n:
        raise InputError(
            f"measurements = {measurements} is outside 1..{n}, the number of entries of an image "
            f"of shape {tuple(shape)}; choose fewer measurements than entries"
        )
    if seed < 0:
        raise InputError(f"seed = {seed} is negative; choose a seed of at least 0")
    return (int(measurements),), int(seed)
