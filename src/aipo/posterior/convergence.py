"""Moments of chains while they run, and how far the chains agree: split R̂ and effective sample size.

No draw is kept. Of every chain there are running moments of its first half and of its second half: four
tensors of the size of a picture, however long the chain is.

For one value, with M half-chains of n draws, half j having mean m_j and variance s_j²,

    R̂ = √((n − 1)/n + Var(m_j) / W),   W = Σ s_j² / M.

It is 1 where the halves agree. It grows where a chain drifts, because its halves differ, and where chains
have not met. The mean of all draws has the expected squared error Var(m_j)/M. The mean of K independent draws
would have S²/K, where S² is the variance of all draws. The effective sample size is the K for which both are
equal when summed over the values of an image,

    K = M Σ S² / Σ Var(m_j).

Source: Gelman & Rubin 1992, Inference from iterative simulation using multiple sequences; Vehtari, Gelman,
Simpson, Carpenter & Bürkner 2021, Rank-normalization, folding, and localization: an improved R̂, for split
chains; Flegal & Jones 2010, Batch means and spectral variance estimators, of which halves are the longest
batches; Welford 1962 for running moments.
"""

import math

import torch
from torch import Tensor

from aipo.basics.arrays import PerImage, per_image_sum

# The share of an image's values that R̂ covers. The largest R̂ of ten thousand values is decided by its own
# error, as each value has but a few half-chains.
COVERED = 0.95


class Moments:
    """Running mean, and sum of squared deviations from it, of tensors of one shape (Welford)."""

    def __init__(self, like: Tensor):
        self.count = 0
        self.mean, self.squares = torch.zeros_like(like), torch.zeros_like(like)

    def add(self, x: Tensor) -> None:
        self.count += 1
        change = x - self.mean
        self.mean = self.mean + change / self.count
        self.squares = self.squares + change * (x - self.mean)


class Convergence:
    """What is known of the draws of several chains of each image.

    Args:
        like: one draw of every chain, (chains, B, ...).
        draws: how many there will be of each chain.
    """

    def __init__(self, like: Tensor, draws: int):
        self._draws = draws
        self._first, self._second = Moments(like), Moments(like)

    def add(self, x: Tensor) -> None:
        """The next draw of every chain, (chains, B, ...)."""
        half = self._first if 2 * self._first.count < self._draws else self._second
        half.add(x)

    @property
    def mean(self) -> Tensor:
        """Of all draws of all chains, (B, ...)."""
        halves = self._first, self._second
        total = torch.stack([half.count * half.mean.mean(0) for half in halves]).sum(0)
        return total / sum(half.count for half in halves)

    @property
    def std(self) -> Tensor:
        """Of all draws of all chains, (B, ...)."""
        return self._variance.sqrt()

    @property
    def rhat(self) -> PerImage:
        """R̂ that 95 % of an image's values do not exceed, (B,); a value that never moves has R̂ = ∞."""
        halves = self._first, self._second
        within = torch.cat([half.squares / max(1, half.count - 1) for half in halves]).mean(0)
        n = self._draws / 2
        r = ((n - 1) / n + self._between / within).sqrt()
        values = torch.where(within > 0, r, torch.inf).flatten(1)
        return values.kthvalue(math.ceil(COVERED * values.shape[1]), 1).values

    @property
    def effective(self) -> PerImage:
        """Independent draws that would tell the posterior mean as well, (B,)."""
        halves = 2 * len(self._first.mean)
        variance, between = per_image_sum(self._variance), per_image_sum(self._between)
        return torch.where(variance > 0, halves * variance / between, 0)

    @property
    def _between(self) -> Tensor:
        """Var(m_j), (B, ...)."""
        return torch.cat((self._first.mean, self._second.mean)).var(0)

    @property
    def _variance(self) -> Tensor:
        """S², (B, ...)."""
        halves, mean = (self._first, self._second), self.mean
        squares = [(half.squares + half.count * (half.mean - mean) ** 2).sum(0) for half in halves]
        count = len(self._first.mean) * sum(half.count for half in halves)
        return torch.stack(squares).sum(0) / max(1, count - 1)
