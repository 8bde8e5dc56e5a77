"""Which levels of a file are black and white to the prior: the affine map between levels and [0, 1]."""

import math
from typing import Literal

import numpy as np

from aipo.basics.errors import InputError
from aipo.io.stored import Stored

Range = Literal["auto"] | tuple[float, float]

# Noise takes values out of [0, 1]. What is farther out than this is shown to the prior as if it were here.
FARTHEST = (-1.0, 2.0)
# Pictures that use this share of black to white, and hardly leave it, keep black and white as they are.
_MUCH = 0.5
_EDGE = 0.1  # of white: how far outside the 5 % and 95 % quantiles may be
_OUTLIERS = 0.001  # share of values at either end that do not widen the range beyond a quarter of the rest


def parsed_range(text: str) -> Range:
    """The range that a user wrote, "auto" or "MIN,MAX".

    Raises:
        InputError: it is something else.
    """
    if text == "auto":
        return "auto"
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(f"--range {text} is no range; give auto, or MIN,MAX such as 300,1500") from error
    return checked_range((low, high))


def checked_range(range: tuple[float, float]) -> tuple[float, float]:
    """The range, if it is one.

    Raises:
        InputError: its ends are not finite, or the first is not the smaller one.
    """
    low, high = range
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise InputError(f"the range {low:g},{high:g} is empty; give MIN,MAX with MIN below MAX")
    return float(low), float(high)


def automatic_range(levels: np.ndarray, stored: Stored) -> tuple[float, float]:
    """Black and white for 8 bits and for much contrast, else lowest to highest of the levels (C, N)."""
    if stored.samples.dtype == np.uint8:
        return 0.0, 255.0
    low, high, white = float(levels.min()), float(levels.max()), stored.white
    if white is not None and _is_full(levels / white):
        return 0.0, white
    if low == high:
        return (low, low + 1) if white is None or not 0 <= low <= white else (0.0, white)
    least, most = (float(end) for end in np.quantile(levels, (_OUTLIERS, 1 - _OUTLIERS)))
    margin = (most - least) / 4
    # One value in a thousand may be all that is bright: then the ends themselves are the range.
    return (max(low, least - margin), min(high, most + margin)) if most > least else (low, high)


def _is_full(values: np.ndarray) -> bool:
    """Whether values, black 0 and white 1, use much of [0, 1] and leave it only as noise does."""
    low, high = np.quantile(values, (0.05, 0.95))
    within = (
        low >= -_EDGE and high <= 1 + _EDGE and values.min() >= FARTHEST[0] and values.max() <= FARTHEST[1]
    )
    least, most = np.quantile(values, (_OUTLIERS, 1 - _OUTLIERS))  # a few hot pixels are no contrast
    return bool(within and most - least >= _MUCH)


def range_remark(levels: np.ndarray, range: tuple[float, float], stored: Stored) -> list[str]:
    """A sentence on a range that is not black and white, and on levels (C, N) far outside of it."""
    if stored.white is not None and range == (0.0, stored.white):
        return []
    low, high = range
    white = "" if stored.white in (None, 1.0) else f" (white is {stored.white:g})"
    sentences = [f"levels {low:g} to {high:g}{white} are 0 to 1 to the prior; the result has its own levels"]
    values = (levels - low) / (high - low)
    far = int(((values < FARTHEST[0]) | (values > FARTHEST[1])).any(0).sum())
    if far:
        sentences.append(f"{far} pixels lie far outside of these levels and keep what is beyond them")
    return sentences
