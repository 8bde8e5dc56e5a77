"""A Gaussian for pictures of one size: principal components, and independent noise of each pixel."""

import numpy as np
import torch
from torch import Tensor, nn

from aipo.basics.arrays import Images, rowwise
from aipo.basics.errors import InputError
from aipo.gaussian.surrogate import VARIANCE_FLOOR


class Components(nn.Module):
    """What Gaussians with μ and loadings W for images of one shape share."""

    mean: Tensor
    loadings: Tensor

    def __init__(self, mean: Tensor, loadings: Tensor):
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("loadings", loadings.to(mean.dtype))

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the images."""
        channels, height, width = self.mean.shape
        return (channels, height, width)

    def mean_like(self, x: Images) -> Images:
        return self.mean.to(x)

    def coordinates(self, x: Images) -> Tensor:
        return x.new_empty(len(x), sum(self.loadings.shape))


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
        """Principal components of the images (N > rank); the rest of each pixel's variance is independent.

        The loadings are rounded to half precision, in which a prior stores them.
        """
        flat = images.flatten(1).double()
        mean = flat.mean(0)
        centred = flat - mean
        loadings = _principal(centred, rank).half().double()
        variances = (centred.square().mean(0) - loadings.square().sum(1)).clamp_min(VARIANCE_FLOOR)
        return cls(mean.reshape(images.shape[1:]).float(), loadings.float(), variances.float())

    def factor(self, u: Tensor) -> Images:
        rank = self.loadings.shape[1]
        flat = rowwise(u[:, :rank], self.loadings.to(u).T) + u[:, rank:] * self.variances.to(u).sqrt()
        return flat.unflatten(1, self.mean.shape)

    def factor_adjoint(self, v: Images) -> Tensor:
        flat = v.flatten(1)
        return torch.cat((rowwise(flat, self.loadings.to(v)), flat * self.variances.to(v).sqrt()), dim=1)

    def precision(self, v: Images) -> Images:
        scaled = (v.flatten(1) / self.variances.to(v)).double()
        w, d = self.loadings.double(), self.variances.double()
        correction = torch.linalg.solve(self._inner(), (scaled @ w).T).T @ w.T / d
        return (scaled - correction).to(v.dtype).unflatten(1, v.shape[1:])

    def log_det(self) -> Tensor:
        """log det Σ, in float64."""
        return self.variances.double().log().sum() + torch.linalg.slogdet(self._inner()).logabsdet

    def _inner(self) -> Tensor:
        """I + Wᵀ D⁻¹ W."""
        w, d = self.loadings.double(), self.variances.double()
        return torch.eye(w.shape[1], dtype=w.dtype, device=w.device) + w.T @ (w / d[:, None])


def _principal(centred: Tensor, rank: int) -> Tensor:
    """W, (n, rank), with W Wᵀ the best approximation of XᵀX/N by that rank; X is (N, n)."""
    from scipy.linalg import eigh  # only here: it is slow to import

    x = centred.cpu().numpy() / len(centred) ** 0.5
    small = x @ x.T if len(x) <= x.shape[1] else x.T @ x
    values, vectors = eigh(small, subset_by_index=(len(small) - rank, len(small) - 1))
    loadings = x.T @ vectors if len(x) <= x.shape[1] else vectors * np.sqrt(values.clip(0))
    return torch.from_numpy(loadings[:, ::-1].copy()).to(centred)
