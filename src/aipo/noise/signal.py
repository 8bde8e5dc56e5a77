"""Noise whose variance grows with brightness: v = a u + b, as light makes it.

Source: Foi, Trimeche, Katkovnik & Egiazarian 2008, Practical Poissonian–Gaussian noise modeling and fitting
for single-image raw-data; Liu, Tanaka & Okutomi 2014, Practical signal-dependent noise parameter estimation
from a single noisy image.
"""

from dataclasses import dataclass

import numpy as np

from aipo.noise.blocks import FLOOR, RADIUS, RINGS, SIDE, Blocks

# Ranges of brightness, with as many blocks in each; the share of smooth blocks in each; the fewest blocks.
RANGES, SHARE, FEWEST = 8, 0.2, 12

# Light is told from noise of one strength if the sum of weighted squared errors of log v falls by this factor
# and by so much, and if v at the brightest is so many times that at the darkest.
BETTER, GAIN, TIMES = 0.4, 16.0, 1.8


@dataclass(frozen=True)
class Line:
    """v = slope · u + offset, both of them 0 or more, and how clear the slope is.

    Attributes:
        slope: a, 1 over the photons of white.
        offset: b, the variance without light.
        clear: whether the variance grows with brightness beyond doubt.
    """

    slope: float
    offset: float
    clear: bool


def line(blocks: Blocks) -> Line | None:
    """The line through variance against brightness in smooth blocks; None where there are too few.

    Args:
        blocks: of telling entries.
    """
    brightness, variance, channel, count = _points(blocks)
    if len(variance) < 4:
        return None
    weight = count / 2
    errors = [
        (weight[channel == c] * (np.log(variance[channel == c]) - _mean(variance, weight, channel == c)) ** 2)
        for c in np.unique(channel)
    ]
    constant = float(sum(part.sum() for part in errors))
    slope, offset = _fitted(brightness, variance, weight)
    line = np.maximum(slope * brightness + offset, FLOOR)
    own = float((weight * (np.log(variance) - np.log(line)) ** 2).sum())
    clear = own < BETTER * constant and constant - own > GAIN and line.max() > TIMES * line.min()
    return Line(slope, max(offset, FLOOR), clear)


def _mean(variance: np.ndarray, weight: np.ndarray, where: np.ndarray) -> float:
    return float(np.average(np.log(variance[where]), weights=weight[where]))


def _points(blocks: Blocks) -> np.ndarray:
    """Brightness, variance, channel and degrees of freedom of each range of each channel, (4, N)."""
    rough, fine = (RINGS <= 2) & (RADIUS > 0), RINGS >= 4
    found = []
    for c in range(blocks.means.shape[1]):
        own, means = blocks.coefficients[:, c] ** 2, blocks.means[:, c]
        for part in np.array_split(np.argsort(means), RANGES):
            smooth = part[np.argsort(own[part][:, rough].mean(-1))[: max(round(SHARE * len(part)), FEWEST)]]
            if len(smooth) < FEWEST:
                continue
            # Blocks overlap: so many of them hold what one holds alone.
            freedom = max(len(smooth) * fine.sum() / SIDE, 8)
            found.append((means[smooth].mean(), own[smooth][:, fine].mean() + 1e-12, c, freedom))
    if not found:
        return np.zeros((4, 0))
    return np.array(found).T


def _fitted(brightness: np.ndarray, variance: np.ndarray, weight: np.ndarray) -> tuple[float, float]:
    """Slope and offset, 0 or more, by least squares of relative errors, repeated with the line's own v."""
    from scipy.optimize import nnls

    expected = variance
    for _ in range(5):
        scale = np.sqrt(weight) / np.maximum(expected, FLOOR)
        (slope, offset), _ = nnls(
            np.stack((brightness.clip(0), np.ones_like(brightness)), 1) * scale[:, None], variance * scale
        )
        expected = slope * brightness.clip(0) + offset
    return float(slope), float(offset)
