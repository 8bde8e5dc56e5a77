"""A Gaussian for pictures of one size: principal components, and independent noise of each pixel."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from aipo.basics.arrays import Images, PerImage, expand, rowwise
from aipo.basics.cache import Cache
from aipo.basics.errors import InputError
from aipo.gaussian.surrogate import VARIANCE_FLOOR

# Bytes of matrices that are kept for levels of noise met before; a surrogate lives as long as its prior.
LARGEST_CORES = 2**25


class Components(nn.Module):
    """What Gaussians N(μ, W Wᵀ + S) for images of one shape share; S, the rest, is simple to invert.

    By Woodbury's identity, with R = (S + noise)⁻¹,

        (W Wᵀ + S + noise)⁻¹ = R − R W (I + Wᵀ R W)⁻¹ Wᵀ R.
    """

    mean: Tensor
    loadings: Tensor

    def __init__(self, mean: Tensor, loadings: Tensor):
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("loadings", loadings.to(mean.dtype))
        self._cores: Cache[float, Tensor] = Cache(LARGEST_CORES)
        self._copies: Cache[torch.dtype, Tensor] = Cache()
        self.register_load_state_dict_post_hook(_forget)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the images."""
        channels, height, width = self.mean.shape
        return (channels, height, width)

    def factor(self, u: Tensor) -> Images:
        """F u, with Σ = F Fᵀ."""
        raise NotImplementedError

    def factor_adjoint(self, v: Images) -> Tensor:
        """Fᵀ v."""
        raise NotImplementedError

    def inverse_rest(self, v: Images, noise: PerImage) -> Images:
        """(S + noise)⁻¹ v."""
        raise NotImplementedError

    def mean_like(self, x: Images) -> Images:
        return self.mean.to(x)

    def coordinates(self, x: Images) -> Tensor:
        return x.new_empty(len(x), sum(self.loadings.shape))

    def components(self, like: Images) -> Images:
        """The columns of W as pictures, (r, C, H, W), in float64."""
        return self._loadings(torch.float64).T.unflatten(1, self.mean.shape)

    def covariance(self, v: Images) -> Images:
        """Σ v."""
        return self.factor(self.factor_adjoint(v))

    def precision(self, v: Images) -> Images:
        none = torch.zeros(len(v), dtype=torch.float64, device=v.device)
        return self._inverse(v.double(), none).to(v.dtype)

    def wiener(self, v: Images, noise: PerImage) -> Images:
        """Σ (Σ + noise)⁻¹ v: what a picture of this density keeps under white noise of that variance."""
        exact, noise = v.double(), noise.double()
        return (exact - expand(noise, v) * self._inverse(exact, noise)).to(v.dtype)

    def _inverse(self, v: Images, noise: PerImage) -> Images:
        """(Σ + noise)⁻¹ v, in float64."""
        w = self._loadings(torch.float64)
        inner = rowwise(self.inverse_rest(v, noise).flatten(1), w)
        inner = each_row(inner, self._cores.serve(noise.tolist(), self._core))
        return self.inverse_rest(v - rowwise(inner, w.T).unflatten(1, self.mean.shape), noise)

    def _core(self, noise: float) -> Tensor:
        """The inverse of I + Wᵀ(S + noise)⁻¹W."""
        return torch.cholesky_inverse(torch.linalg.cholesky(self._inner(noise)))

    def _inner(self, noise: float) -> Tensor:
        """I + Wᵀ(S + noise)⁻¹W."""
        columns = self.components(self.mean)
        levels = torch.full((len(columns),), noise, dtype=columns.dtype, device=columns.device)
        inner = columns.flatten(1) @ self.inverse_rest(columns, levels).flatten(1).T
        return torch.eye(len(inner)).to(inner) + (inner + inner.T) / 2

    def _loadings(self, dtype: torch.dtype) -> Tensor:
        """W in a precision; converting it at every product would cost as much as the product."""
        return self._copies.serve([dtype], self.loadings.to)[0]

    def _forget(self) -> None:
        self._cores.clear()
        self._copies.clear()

    def _apply(self, fn, recurse: bool = True):
        super()._apply(fn, recurse)
        self._forget()
        return self


def _forget(surrogate: nn.Module, _: Any) -> None:
    """Drop what was made of the tensors that have just been replaced."""
    assert isinstance(surrogate, Components)
    surrogate._forget()


class LowRankGaussian(Components):
    """N(μ, W Wᵀ + diag(d)) for images of one shape.

    Args:
        mean: (C, H, W).
        loadings: W, (n, r).
        variances: d, (n,), positive.
    """

    textured = False

    variances: Tensor

    def __init__(self, mean: Tensor, loadings: Tensor, variances: Tensor):
        n = mean.numel()
        if mean.ndim != 3 or loadings.ndim != 2 or len(loadings) != n or variances.shape != (n,):
            raise InputError(
                f"mean {tuple(mean.shape)}, loadings {tuple(loadings.shape)} and variances "
                f"{tuple(variances.shape)} do not fit; they are (C, H, W), (n, r) and (n,) with n = C·H·W"
            )
        super().__init__(mean, loadings)
        self.register_buffer("variances", variances)

    @classmethod
    def fit(cls, images: Images, rank: int) -> "LowRankGaussian":
        """Principal components of images (N, C, H, W), N > rank.

        The rest of each pixel's variance is independent. The loadings are rounded to half precision, in which
        a prior stores them.
        """
        flat = images.flatten(1).double()
        mean = flat.mean(0)
        centred = flat - mean
        loadings = _principal(centred, rank).half().double()
        variances = (centred.square().mean(0) - loadings.square().sum(1)).clamp_min(VARIANCE_FLOOR)
        return cls(mean.reshape(images.shape[1:]).float(), loadings.float(), variances.float())

    def factor(self, u: Tensor) -> Images:
        rank = self.loadings.shape[1]
        flat = rowwise(u[:, :rank], self._loadings(u.dtype).T) + u[:, rank:] * self.variances.to(u).sqrt()
        return flat.unflatten(1, self.mean.shape)

    def factor_adjoint(self, v: Images) -> Tensor:
        flat = v.flatten(1)
        return torch.cat((rowwise(flat, self._loadings(v.dtype)), flat * self.variances.to(v).sqrt()), dim=1)

    def inverse_rest(self, v: Images, noise: PerImage) -> Images:
        """(diag(d) + noise)⁻¹ v."""
        return v / (self.variances.to(v).reshape(self.mean.shape) + expand(noise, v))

    def log_det(self) -> Tensor:
        """log det Σ, in float64."""
        return self.variances.double().log().sum() + torch.linalg.slogdet(self._inner(0.0)).logabsdet


def each_row(x: Tensor, matrices: Sequence[Tensor]) -> Tensor:
    """Every row of x, (B, r), times its own matrix, (r, r); see `rowwise`."""
    if all(matrix is matrices[0] for matrix in matrices):
        return rowwise(x, matrices[0])
    return torch.cat([rowwise(row, matrix) for row, matrix in zip(x.split(1), matrices, strict=True)])


def _principal(centred: Tensor, rank: int) -> Tensor:
    """W, (n, rank), with W Wᵀ the best approximation of XᵀX/N by that rank; X is (N, n)."""
    from scipy.linalg import eigh  # only here: it is slow to import

    x = centred.cpu().numpy() / len(centred) ** 0.5
    small = x @ x.T if len(x) <= x.shape[1] else x.T @ x
    values, vectors = eigh(small, subset_by_index=(len(small) - rank, len(small) - 1))
    loadings = x.T @ vectors if len(x) <= x.shape[1] else vectors * np.sqrt(values.clip(0))
    return torch.from_numpy(loadings[:, ::-1].copy()).to(centred)
