"""Offsets of whole columns or rows, as sensors with an amplifier for each column make them.

The median of the differences between two neighbouring columns tells how much one is brighter than the other:
edges of the picture seldom run along all of a column. White noise and edges make such medians too, and a
picture's rows tell how large they are.
"""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import median_filter

# Stripes are there if the medians across them are so many times those along, and so many times as large as
# they would be by chance.
TIMES, CHANCE = 2.0, 2.0

# They run through the whole picture, so that medians of its bands correlate by at least so much; and they are
# independent, so that one difference and the next, which share a column, correlate by about −½.
BANDS, ALIKE, NEXT = 4, 0.6, -0.2


@dataclass(frozen=True)
class Stripes:
    """Offsets of columns or rows.

    Attributes:
        axis: 1 if every column has an offset, 0 if every row has.
        covariance: of the offsets of the channels, (C, C).
        offsets: about what has to be subtracted, (W, C) or (H, C).
    """

    axis: int
    covariance: np.ndarray
    offsets: np.ndarray

    def subtracted(self, picture: np.ndarray) -> np.ndarray:
        """The picture (H, W, C) without the offsets."""
        return picture - (self.offsets[None] if self.axis == 1 else self.offsets[:, None])


def stripes(picture: np.ndarray, usable: np.ndarray) -> Stripes | None:
    """The stripes of a picture; None if it has none.

    Args:
        picture: (H, W, C).
        usable: entries that tell, boolean (H, W, C).
    """
    height, width, _ = picture.shape
    if min(height, width) < 16:
        return None
    across, along = _medians(picture, usable), _medians(*(np.swapaxes(a, 0, 1) for a in (picture, usable)))
    levels = [_level(across), _level(along)]
    axis = 1 if levels[0] > levels[1] else 0
    strong, weak = max(levels), min(levels)
    if strong < TIMES * weak or strong < CHANCE * _chance(picture, usable, axis) or strong < 1 / 255:
        return None
    differences = across if axis == 1 else along
    if not _runs_through(np.moveaxis(picture, axis, 1), np.moveaxis(usable, axis, 1)):
        return None
    if _correlation(differences[1:], differences[:-1]) > NEXT:
        return None
    # A difference has the offsets of two columns, so its variance is twice theirs.
    middle = np.median(np.abs(differences), 0) / 0.6745
    scaled = np.clip(differences / middle.clip(1e-9), -3, 3)
    covariance = np.corrcoef(scaled.T).reshape(len(middle), -1) * np.outer(middle, middle) / 2
    return Stripes(axis, covariance, _offsets(differences))


def _medians(picture: np.ndarray, usable: np.ndarray) -> np.ndarray:
    """The median difference of every column to the next one, in each channel, (W − 1, C)."""
    both = usable[:, 1:] & usable[:, :-1]
    difference = np.where(both, picture[:, 1:] - picture[:, :-1], np.nan)
    enough = both.sum(0) >= 8
    found = np.zeros(enough.shape)
    found[enough] = np.nanmedian(difference[:, enough], 0)
    return found


def _runs_through(picture: np.ndarray, usable: np.ndarray) -> bool:
    """Whether the medians of columns are alike in all bands of rows."""
    parts = [
        _medians(*both) for both in zip(*(np.array_split(a, BANDS) for a in (picture, usable)), strict=True)
    ]
    found = [_correlation(a, b) for i, a in enumerate(parts) for b in parts[:i]]
    return bool(np.median(found) > ALIKE)


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Of two sets of medians about 0, the largest of which count no more than three usual ones."""
    a, b = (np.clip(part, -3 * _level(part), 3 * _level(part)) for part in (one, other))
    return float((a * b).sum() / max(np.sqrt((a**2).sum() * (b**2).sum()), 1e-12))


def _level(medians: np.ndarray) -> float:
    """A robust deviation of medians of all channels."""
    return float(np.median(np.abs(medians)) / 0.6745)


def _chance(picture: np.ndarray, usable: np.ndarray, axis: int) -> float:
    """The deviation of medians of independent differences."""
    both = np.moveaxis(usable, axis, 1)
    both = both[:, 1:] & both[:, :-1]
    difference = np.diff(np.moveaxis(picture, axis, 1), axis=1)
    if not both.any():
        return np.inf
    deviation = np.median(np.abs(difference[both] - np.median(difference[both]))) / 0.6745
    return float(deviation * np.sqrt(np.pi / 2 / max(both.sum(0).mean(), 1)))


def _offsets(differences: np.ndarray) -> np.ndarray:
    """Offsets whose differences these are, without their slow part, which is the picture's own, (W, C)."""
    summed = np.concatenate((np.zeros((1, differences.shape[1])), np.cumsum(differences, 0)))
    return summed - median_filter(summed, (9, 1), mode="nearest")
