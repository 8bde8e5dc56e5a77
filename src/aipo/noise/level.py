"""The standard deviation of white noise in each channel."""

import numpy as np

from aipo.noise.blocks import FLOOR, RINGS, Powers

# A median's absolute value of a standard normal.
MEDIAN = 0.6745


def fine(found: Powers) -> np.ndarray:
    """The deviation of each channel by the finest frequencies of smooth blocks, (C,)."""
    variances = np.einsum("ccij->cij", found.noise)[:, RINGS >= 3].mean(-1)
    return np.sqrt(np.maximum(variances, FLOOR))


def without_texture(found: Powers) -> np.ndarray:
    """The deviation that is in no colour of fine detail, the same for all channels, (C,).

    Texture has one colour at each place, noise has all; so the weakest one tells of noise alone.
    """
    weakest = np.linalg.eigvalsh(np.moveaxis(found.noise, (0, 1), (2, 3)))[..., 0]
    level = min(float(weakest[ring == RINGS].mean()) for ring in range(3, RINGS.max() + 1))
    return np.full(len(found.noise), max(level, FLOOR) ** 0.5)


def from_pairs(picture: np.ndarray, known: np.ndarray) -> np.ndarray | None:
    """The deviation of each channel by the median of differences of known entries, (C,).

    Squares of 2 × 2 entries, or pairs where too few squares are whole; None if there are none of either.

    Source: Donoho & Johnstone 1994, Ideal spatial adaptation by wavelet shrinkage (the median); Immerkær
    1996, Fast noise variance estimation (differences in two directions).

    Args:
        picture: (H, W, C).
        known: boolean (H, W, C).
    """
    squares = (picture[1:, 1:] - picture[1:, :-1] - picture[:-1, 1:] + picture[:-1, :-1]) / 2
    whole = known[1:, 1:] & known[1:, :-1] & known[:-1, 1:] & known[:-1, :-1]
    pairs, both = (picture[:, 1:] - picture[:, :-1]) / 2**0.5, known[:, 1:] & known[:, :-1]
    found = []
    for c in range(picture.shape[-1]):
        values = squares[..., c][whole[..., c]]
        if len(values) < 30:
            values = pairs[..., c][both[..., c]]
        if len(values) == 0:
            return None
        found.append(np.median(np.abs(values)) / MEDIAN)
    return np.maximum(np.array(found), FLOOR**0.5)
