"""Cosine transforms of a picture's small blocks, and what the smooth ones say of stationary noise.

The powers of coefficients are averaged over the blocks that have the least power in *other* coefficients, so
that the choice does not favour blocks with little noise. Texture is left even there. Where its shape is
alike in smooth and in busy blocks, as it is in a picture without noise, the powers of smooth blocks are a
multiple r of those of busy ones, and L(k) = N(k) + r (H(k) − N(k)) is solved for the noise N.

Source: Ponomarenko, Lukin, Zriakhov, Kaarna & Astola 2007, An automatic approach to lossy compression of
AVIRIS images (sorting blocks by their other frequencies); Colom, Lebrun, Buades & Morel 2014, A
non-parametric approach for the estimation of intensity-frequency dependent noise.
"""

from dataclasses import dataclass

import numpy as np
from scipy.fft import dctn
from scipy.ndimage import convolve

# Side of a block, and the most blocks that are looked at.
SIDE, MOST = 8, 8_000

# The share of blocks that count as smooth, and the least number of them.
SMOOTH, LEAST = 0.15, 40

# One block in so many counts as busy.
BUSY = 10

# Rounding to 8 bits: the variance of a picture is not below this.
FLOOR = 1 / (12 * 255**2)

_ROWS, _COLUMNS = np.mgrid[:SIDE, :SIDE]
RADIUS = np.hypot(_ROWS, _COLUMNS)
_EVEN = (_ROWS + _COLUMNS) % 2 == 0
# Rings of about equal frequency, of which the first has the mean.
RINGS = np.digitize(RADIUS, [1.5, 3, 4.5, 6, 7.5, 9])


@dataclass(frozen=True)
class Blocks:
    """Blocks that lie in telling entries.

    Attributes:
        coefficients: orthonormal cosine transforms, (N, C, 8, 8).
        means: of each block and channel, (N, C).
    """

    coefficients: np.ndarray
    means: np.ndarray

    def __len__(self) -> int:
        return len(self.coefficients)


def blocks(picture: np.ndarray, usable: np.ndarray) -> Blocks:
    """The blocks of a picture all of whose entries are usable.

    Args:
        picture: (H, W, C).
        usable: boolean (H, W, C).
    """
    height, width, channels = picture.shape
    if min(height, width) < SIDE:
        return Blocks(np.zeros((0, channels, SIDE, SIDE)), np.zeros((0, channels)))
    # An odd stride meets the blocks of JPEG at every offset.
    stride = max(1, round((height * width / MOST) ** 0.5)) // 2 * 2 + 1
    windows = np.lib.stride_tricks.sliding_window_view
    whole = windows(usable.all(-1), (SIDE, SIDE))[::stride, ::stride].all((-1, -2))
    cut = windows(picture, (SIDE, SIDE), (0, 1))[::stride, ::stride][whole].astype(float)
    coefficients = np.asarray(dctn(cut, axes=(-2, -1), norm="ortho"))
    return Blocks(coefficients, coefficients[:, :, 0, 0] / SIDE)


@dataclass(frozen=True)
class Powers:
    """Second moments of coefficients, (C, C, 8, 8), without those of means.

    Attributes:
        noise: of the noise.
        smooth: of the smooth blocks, which have some texture too.
        count: number of smooth blocks.
        chosen: which blocks are smooth by either half of the coefficients, boolean (N,).
    """

    noise: np.ndarray
    smooth: np.ndarray
    count: int
    chosen: np.ndarray


def powers(found: Blocks) -> Powers:
    """What the smooth blocks say of the noise.

    Args:
        found: `LEAST` blocks or more.
    """
    d = found.coefficients
    count = max(round(SMOOTH * len(d)), LEAST)
    scale = np.median(d**2, 0) / 0.455 + FLOOR
    for _ in range(5):
        smooth, busy, chosen = _moments(d, scale, count)
        scale = np.einsum("ccij->cij", smooth) + FLOOR
    share = texture_share(smooth, busy)
    noise = np.asarray(smooth - share * busy) / (1 - share)
    return Powers(_mended(_averaged(noise)), smooth, count, chosen)


def powers_of_noise(found: Blocks) -> Powers:
    """What all blocks of a picture of noise alone say of it."""
    d = found.coefficients
    moments = np.einsum("ncij,ndij->cdij", d, d) / len(d)
    return Powers(_mended(moments), moments, len(d), np.ones(len(d), bool))


def texture_share(smooth: np.ndarray, busy: np.ndarray) -> float:
    """r: the largest share of the busy blocks' power for which no ring of smooth ones has less.

    Where smooth and busy blocks hold about the same, there is little texture and r is small again.
    """
    ratios = []
    for ring in range(RINGS.max() + 1):
        here = (ring == RINGS) & (RADIUS > 0)
        low, high = (np.einsum("ccij->ij", part)[here].sum() for part in (smooth, busy))
        ratios.append(low / high)
    least = min(min(ratios), 1.0)
    return least * (1 - least)


def _moments(d: np.ndarray, scale: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Moments over smooth blocks and over busy ones, each chosen by the other half of coefficients."""
    channels = d.shape[1]
    smooth, busy = np.zeros((2, channels, channels, SIDE, SIDE))
    chosen = np.zeros(len(d), bool)
    for own in (_EVEN & (RADIUS > 0), ~_EVEN):
        others = ~own & (RADIUS > 0)
        first = _power(d, others / scale)
        # Of blocks that are empty so far, those without an edge in their middle come first.
        order = np.lexsort((first + _power(d, own / scale), np.maximum(first, 1e-3)))
        chosen[order[:count]] = True
        for part, those in ((smooth, order[:count]), (busy, order[-len(d) // BUSY :])):
            values = d[those][:, :, own]
            part[:, :, own] = np.einsum("nck,ndk->cdk", values, values) / len(those)
    return smooth, busy, chosen


def _power(d: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The weighted mean square of each block's coefficients, (N,)."""
    return np.einsum("ncij,ncij,cij->n", d, d, weights, optimize=True) / np.count_nonzero(weights)


def _averaged(moments: np.ndarray) -> np.ndarray:
    """Means over neighbouring frequencies, which steady what few blocks say; the mean's own is left out."""
    kernel = np.outer((1, 2, 1), (1, 2, 1))[None, None]
    known = np.broadcast_to(RADIUS > 0, moments.shape).astype(float)
    total, weight = (
        convolve(part, kernel, mode="constant") for part in (np.where(RADIUS > 0, moments, 0.0), known)
    )
    return total / weight


def _mended(noise: np.ndarray) -> np.ndarray:
    """Positive definite moments; in the first ring, where texture hides noise, as the next two foretell.

    The logarithm of the power of a Gaussian kernel falls with the square of frequency.
    """
    second = noise[:, :, RINGS == 1].mean(-1)
    third = noise[:, :, RINGS == 2].mean(-1)
    squares = [float((RADIUS[ring == RINGS] ** 2).mean()) for ring in range(3)]
    slope = (squares[1] - squares[0]) / (squares[2] - squares[1])
    rise = max(np.trace(second), FLOOR) / max(np.trace(third), FLOOR)
    second = second * np.clip(rise**slope, 1, 2)
    weak = (RINGS == 0) & (np.einsum("ccij->ij", noise) < np.trace(second)) | (RADIUS == 0)
    noise = np.where(weak, second[:, :, None, None], noise)
    values, vectors = np.linalg.eigh(np.moveaxis(noise, (0, 1), (2, 3)))
    values = np.maximum(values, FLOOR)
    return np.einsum("ijck,ijk,ijdk->cdij", vectors, values, vectors)
