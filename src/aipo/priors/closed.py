"""Priors whose every minimiser and smoothed density is known: Gaussian, and mixtures of Gaussians."""

import math
from functools import cached_property

import torch
from torch import Tensor

from aipo.basics.arrays import Images, PerImage
from aipo.basics.errors import InputError
from aipo.gaussian import Surrogate, energy


class Gaussian:
    """N(μ, Σ) with a full covariance, for small images and for tests: every minimiser is known.

    Args:
        mean: (C, H, W).
        covariance: (n, n), positive definite, n = C·H·W.
    """

    def __init__(self, mean: Tensor, covariance: Tensor):
        self.mean = mean
        self.root = torch.linalg.cholesky(covariance)
        self._log_det = 2 * self.root.diagonal().log().sum()

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the pictures."""
        channels, height, width = self.mean.shape
        return (channels, height, width)

    @property
    def surrogate(self) -> Surrogate:
        return self

    def energy(self, x: Images, tau: float = 0.0) -> PerImage:
        """−log of N(x; μ, Σ + τ² I), nats per image."""
        if tau == 0:
            constant = 0.5 * (self._log_det + x[0].numel() * math.log(2 * math.pi))
            return energy(self, x) + constant.to(x)
        return self._component.energy(x, tau)

    @cached_property
    def _component(self) -> "Mixture":
        return Mixture(self.mean[None], self.root[None] @ self.root.T, torch.ones(1))

    def mean_like(self, x: Images) -> Images:
        return self.mean.to(x)

    def coordinates(self, x: Images) -> Tensor:
        return x.flatten(1)

    def factor(self, u: Tensor) -> Images:
        return (u.flatten(1) @ self.root.to(u).T).unflatten(1, self.mean.shape)

    def factor_adjoint(self, v: Images) -> Tensor:
        return (v.flatten(1) @ self.root.to(v)).unflatten(1, self.mean.shape)

    def precision(self, v: Images) -> Images:
        return torch.cholesky_solve(v.flatten(1).T, self.root.to(v)).T.unflatten(1, self.mean.shape)


class Mixture:
    """Σ_k w_k N(μ_k, Σ_k), for small images: a prior with many modes whose smoothed densities are exact.

    Args:
        means: (K, C, H, W).
        covariances: (K, n, n), positive definite, n = C·H·W.
        weights: (K,), positive; they are scaled to sum to 1.
    """

    def __init__(self, means: Tensor, covariances: Tensor, weights: Tensor):
        n = means[0].numel()
        if covariances.shape != (len(means), n, n) or weights.shape != (len(means),):
            raise InputError(
                f"means {tuple(means.shape)}, covariances {tuple(covariances.shape)} and weights "
                f"{tuple(weights.shape)} do not fit; they are (K, C, H, W), (K, n, n) and (K,) with n = C·H·W"
            )
        self.means = means
        self.values, self.vectors = torch.linalg.eigh(covariances)
        self.log_weights = (weights / weights.sum()).log()

    def energy(self, x: Images, tau: float = 0.0) -> PerImage:
        """−log p_τ(x) of p_τ = p ∗ N(0, τ² I), nats per image."""
        variances = self.values.to(x) + tau**2
        centred = x.flatten(1)[:, None] - self.means.to(x).flatten(1)
        rotated = torch.einsum("bki,kij->bkj", centred, self.vectors.to(x))
        squares = (rotated**2 / variances).sum(2)
        constants = variances.log().sum(1) + variances.shape[1] * math.log(2 * math.pi)
        return -torch.logsumexp(self.log_weights.to(x) - 0.5 * (squares + constants), 1)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the pictures."""
        channels, height, width = self.means.shape[1:]
        return (channels, height, width)

    @cached_property
    def surrogate(self) -> Gaussian:
        """The Gaussian with the mixture's mean and covariance."""
        weights, flat = self.log_weights.exp().to(self.means), self.means.flatten(1)
        mean = weights @ flat
        inner = torch.einsum("k,kij,kj,klj->il", weights, self.vectors, self.values, self.vectors)
        between = (flat - mean).T @ (weights[:, None] * (flat - mean))
        return Gaussian(mean.reshape(self.means.shape[1:]), inner + between)
