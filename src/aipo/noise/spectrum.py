"""Whether noise is white, and its power at every frequency of a picture."""

import numpy as np
import torch
from torch import Tensor

from aipo.noise.blocks import FLOOR, RADIUS, RINGS, SIDE, Blocks, Powers

# Noise is white if the deviations of its rings differ by less than this factor.
FLAT = 1.6

# Clean texture is alike in all channels, and its power differs from block to block. Noise is neither: its
# channels correlate less than this at fine scale, or the power of smooth blocks scatters by less than so many
# times as much as that of Gaussian noise.
CORRELATED, SCATTERED = 0.6, 3.0

# Noise that was compressed scatters as texture does, but texture falls off by more than this factor of
# deviation from the second to the fifth ring.
FALLS = 2.1


def rings(moments: np.ndarray) -> np.ndarray:
    """The deviation of each ring of frequencies, (7,), over all channels; the mean left out.

    Args:
        moments: (C, C, 8, 8).
    """
    total = np.einsum("ccij->ij", moments) / len(moments)
    return np.array([total[(ring == RINGS) & (RADIUS > 0)].mean() for ring in range(RINGS.max() + 1)]) ** 0.5


def is_white(found: Powers) -> bool:
    """Whether the noise is about equally strong at all but the lowest frequencies, and unlike in channels."""
    fine = rings(found.noise)[2:]
    return bool(fine.max() < FLAT * fine.min()) and correlation(found.noise) < CORRELATED


def is_noise(found: Powers, blocks: Blocks) -> bool:
    """Whether what smooth blocks hold is noise, and not fine texture."""
    if len(found.noise) > 1 and correlation(found.noise) < CORRELATED:
        return True
    if scatter(found, blocks) < SCATTERED:
        return True
    deviation = rings(found.smooth)
    return bool(deviation[1] < FALLS * deviation[4])


def correlation(moments: np.ndarray) -> float:
    """The mean correlation of two channels at fine scale; 0 of a picture of one channel."""
    fine = moments[:, :, RINGS >= 3].sum(-1)
    channels = len(fine)
    if channels == 1:
        return 0.0
    scaled = fine / np.sqrt(np.outer(np.diag(fine), np.diag(fine)))
    return float(scaled[np.triu_indices(channels, 1)].mean())


def scatter(found: Powers, blocks: Blocks) -> float:
    """The variance of smooth blocks' power over that of Gaussian noise, which has 1."""
    channels = len(found.smooth)
    covariance = np.moveaxis(found.smooth, (0, 1), (2, 3)) + FLOOR * np.eye(channels)
    whitening = np.linalg.inv(np.linalg.cholesky(covariance))
    chosen = blocks.coefficients[found.chosen]
    white = np.einsum("ijkc,ncij->nkij", whitening, chosen)[:, :, RADIUS > 0]
    power = (white**2).mean((1, 2))
    return float(power.var() / power.mean() ** 2 * white[0].size / 2)


def at_frequencies(moments: np.ndarray, height: int, width: int) -> Tensor:
    """The power of noise at every frequency of a picture, (C, C, H, W) in `fft2` order.

    Coefficient i of a block is at i/16 cycles for each pixel; powers between are interpolated linearly.

    Args:
        moments: of the noise, (C, C, 8, 8).
    """
    weights = [_weights(side) for side in (height, width)]
    return torch.from_numpy(np.einsum("hi,wj,cdij->cdhw", *weights, moments, optimize=True))


def _weights(side: int) -> np.ndarray:
    """Of the coefficients at each of a side's frequencies, (side, 8)."""
    position = np.minimum(np.abs(np.fft.fftfreq(side)) * 2 * SIDE, SIDE - 1)
    return np.maximum(1 - np.abs(position[:, None] - np.arange(SIDE)), 0)
