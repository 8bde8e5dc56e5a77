"""Which entries of a picture tell of its noise: not frames, not the ends of the range, not what is unknown.

Pictures are NumPy arrays (H, W, C) here and in the modules beside this one.
"""

import numpy as np
from scipy.ndimage import (
    binary_dilation,
    convolve,
    distance_transform_edt,
    label,
    maximum_filter,
    minimum_filter,
)

# Half a level of 8 bits: values so near to each other are equal, and values so near to an end are clipped.
HALF_LEVEL = 0.5 / 255

# A flat area is a frame or a ground if the picture has at most so many colours of flat areas. With more of
# them it is a drawing, and they tell that it has no noise.
FRAMES = 3

# Near so many clipped entries of a neighbourhood of 5 × 5, the others are what clipping left of the noise.
FEW_CLIPPED = 0.1


def telling(picture: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Entries whose differences from their neighbours are due to noise or detail, boolean (H, W, C).

    Args:
        picture: (H, W, C), 0 and 1 being the ends of its range.
        known: boolean (H, W, C).
    """
    return known & ~frames(picture, known)[..., None] & ~_clipped(picture, known)


def frames(picture: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Pixels of flat areas, if these have few colours and reach the border or are at an end, (H, W)."""
    flat = _flat(picture) & known.all(-1)
    if not flat.any():
        return flat
    levels = np.round(picture[flat] * 255).astype(int)
    _, counts = np.unique(levels, axis=0, return_counts=True)
    large = counts > 0.002 * flat.size
    if large.sum() > FRAMES:
        return np.zeros_like(flat)
    ends = ((picture <= HALF_LEVEL) | (picture >= 1 - HALF_LEVEL)).all(-1)
    parts = np.empty(flat.shape, np.int32)
    label(flat, output=parts)
    border = np.concatenate((parts[0], parts[-1], parts[:, 0], parts[:, -1]))
    reaching = np.isin(parts, border[border > 0])
    return binary_dilation(flat & (ends | reaching), np.ones((3, 3)))


def _flat(picture: np.ndarray) -> np.ndarray:
    """Pixels that equal their eight neighbours in every channel, (H, W)."""
    size = (3, 3, 1)
    spread = maximum_filter(picture, size) - minimum_filter(picture, size)
    return np.all(spread < HALF_LEVEL, -1)


def _clipped(picture: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Entries at the ends of the range, and entries among many such, (H, W, C)."""
    ends = known & ((picture <= HALF_LEVEL) | (picture >= 1 - HALF_LEVEL))
    return mean_near(ends, 5) > FEW_CLIPPED


def mean_near(ends: np.ndarray, side: int) -> np.ndarray:
    """The share of true entries among side × side neighbours of the same channel, (H, W, C)."""
    return convolve(ends.astype(float), np.full((side, side, 1), side**-2.0), mode="nearest")


def filled(picture: np.ndarray, known: np.ndarray) -> np.ndarray:
    """The picture, with every unknown entry replaced by the nearest known one of its channel."""
    if known.all():
        return picture
    found = picture.copy()
    for c in range(picture.shape[-1]):
        if known[..., c].any() and not known[..., c].all():
            nearest = distance_transform_edt(~known[..., c], return_distances=False, return_indices=True)
            rows, columns = np.asarray(nearest)
            found[..., c] = picture[rows, columns, c]
    return found
