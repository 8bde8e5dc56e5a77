"""Impulses: single entries at the ends of the range that their neighbours do not explain.

Source: the noise-adaptive detection of Ng & Ma 2006, A switching median filter with boundary discriminative
noise detection for extremely corrupted images, with ends of the range in place of its clusters.
"""

import numpy as np
from scipy.ndimage import median_filter

from aipo.noise.pixels import HALF_LEVEL, mean_near

# An entry is an impulse if it lies so many times the spread of its neighbourhood away from its median, and
# at least so far from it.
SPREADS, FARTHER = 5.0, 0.06

# Impulses of a share below this are taken as highlights, stars and the like.
LEAST_SHARE = 0.004


def impulses(picture: np.ndarray, known: np.ndarray, least: float = LEAST_SHARE) -> np.ndarray:
    """Entries that are impulses, boolean (H, W, C); none if they are too few to be noise.

    Args:
        picture: (H, W, C), 0 and 1 being the ends of its range.
        known: boolean (H, W, C).
        least: the share of entries from which they are noise.
    """
    low, high = known & (picture <= HALF_LEVEL), known & (picture >= 1 - HALF_LEVEL)
    ends = low | high
    if not ends.any():
        return ends
    middle, spread = _neighbourhood(picture)
    far = np.abs(picture - middle) > np.maximum(FARTHER, SPREADS * spread)
    found = ends & far & _alone(low, high)
    return found if found.mean() >= least else np.zeros_like(found)


def _neighbourhood(picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The median of 5 × 5 entries, and the median of their distances to it in units of a normal deviation."""
    size = (5, 5, 1)
    middle = median_filter(picture, size)
    return middle, median_filter(np.abs(picture - middle), size) / 0.6745


def _alone(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Entries at an end of which at most a third of their neighbours at the same end, (H, W, C)."""
    found = np.zeros_like(low)
    for ends in (low, high):
        share = (9 * mean_near(ends, 3) - ends) / 8
        found |= ends & (share < 0.34)
    return found
