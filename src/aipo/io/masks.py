"""Masks as people draw them: white and black, 0 and 1, transparent holes, coloured marks."""

import os

import numpy as np
import torch
from torch import Tensor

from aipo.basics.errors import InputError
from aipo.io.files import shown_name
from aipo.io.picture import Picture, decoded

_COLOURED = 0.2  # channels that differ by more of white are a colour, not a tint of compression
_CHANGED = 0.05  # of white: a mark on a copy of the picture differs from it by more
_PLAIN = "give one that is white where the picture is known and black where it is to be filled"


def read_mask(path: str | os.PathLike, picture: Picture | None = None, file: str = "the picture") -> Tensor:
    """Where a picture is known, bool (1, H, W).

    - White is known and black is to be filled; between them half of the brightest value decides, so that
      values of 0 and 1 are a mask too.
    - Transparent parts of an otherwise white or photographic mask are to be filled.
    - Marks of one colour, on white, on transparency or on a copy of the picture, are to be filled.

    Args:
        picture: the one that the mask belongs to, to find marks on a copy of it, and to tell whether the
            mask is inverted.
        file: the picture's name, for messages.

    Raises:
        InputError: the mask cannot be read, is ambiguous, knows nothing, leaves nothing to fill, or has
            another size than the picture.
    """
    stored = decoded(path, 1, None)
    shown = shown_name(path)
    sides = stored.samples.shape[:2]
    if picture is not None and sides != tuple(picture.known.shape[1:]):
        height, width = picture.known.shape[1:]
        raise InputError(
            f"mask {shown} is {sides[0]} × {sides[1]}, {file} is {height} × {width}; give a mask of the "
            "picture's size"
        )
    levels = stored.samples.astype(np.float64)
    if not np.isfinite(levels).all():
        raise InputError(f"the mask {shown} holds NaN or infinite values; {_PLAIN}")
    values = levels / max(stored.white or 1.0, 1.0) if stored.samples.dtype.kind != "f" else levels
    opaque = stored.opaque > 0.5
    if opaque.all():
        known = _known(values, picture, shown)
    elif not opaque.any():
        raise InputError(f"the mask {shown} is transparent everywhere; {_PLAIN}")
    else:
        known = _known_by_alpha(values, opaque, shown)
    if known.all():
        raise InputError(f"the mask {shown} leaves nothing to fill: it knows every pixel; {_PLAIN}")
    if not known.any():
        raise InputError(f"the mask {shown} knows no pixel; is it inverted? {_PLAIN}")
    mask = torch.from_numpy(np.ascontiguousarray(known))[None]
    if picture is not None:
        _check_upright(mask, picture, shown)
    return mask


def _check_upright(known: Tensor, picture: Picture, name: str) -> None:
    """Refuse a mask (1, H, W) that seems to be inverted: few known pixels, all alike, and the others not."""
    share = float(known.float().mean())
    shown, here = picture.known, known & picture.known
    if share >= 0.5 or not here.any() or not (shown & ~known).any():
        return
    inside, outside = picture.values[:, here[0]], picture.values[:, (shown & ~known)[0]]
    spread = float(inside.std(1, correction=0).max())
    if spread < 0.03 and 3 * spread < float(outside.std(1, correction=0).max()):
        look = "black" if float(inside.mean()) < 0.05 else "of one colour"
        raise InputError(
            f"the mask {name} marks {100 * share:.2g} % of the picture as known, and what it "
            f"marks is all {look}; is it inverted? {_PLAIN}"
        )


def _known(values: np.ndarray, picture: Picture | None, shown: str) -> np.ndarray:
    """Where an opaque mask (H, W, C) says known."""
    if not _coloured(values).any():
        grey = values.mean(2)
        return grey > grey.max() / 2 if grey.max() > 0 else np.zeros(grey.shape, bool)
    marked = _coloured(values)
    rest = values[~marked].mean(1)
    if rest.size and (rest > 0.5).all() and _one_colour(values[_strong(values)]):
        return ~marked
    changed = _changes(values, picture)
    if changed is None or not 0 < changed.mean() < 0.5:
        raise InputError(
            f"the mask {shown} has colours that are no marks on white or on the picture; {_PLAIN}"
        )
    return ~changed


def _known_by_alpha(values: np.ndarray, opaque: np.ndarray, shown: str) -> np.ndarray:
    """Where a partly transparent mask says known."""
    painted = values[opaque]
    if _one_colour(painted):
        white = painted.mean() > 0.9
        return opaque if white else ~opaque
    levels = np.unique(np.round(painted.mean(1), 2))
    if len(levels) <= 2 and not _coloured(values)[opaque].any():
        raise InputError(f"the mask {shown} is white, black and transparent, which is ambiguous; {_PLAIN}")
    return opaque


def _coloured(values: np.ndarray) -> np.ndarray:
    return np.ptp(values, axis=2) > _COLOURED


def _strong(values: np.ndarray) -> np.ndarray:
    """The pixels whose colour is at least half as strong as the strongest: not soft edges."""
    strength = np.ptp(values, axis=2)
    return strength > strength.max() / 2


def _one_colour(pixels: np.ndarray) -> bool:
    """Whether pixels (N, C) have one colour, but for the noise of compression."""
    return bool((np.abs(pixels - np.median(pixels, axis=0)) < 0.25).all(1).mean() > 0.95)


def _changes(values: np.ndarray, picture: Picture | None) -> np.ndarray | None:
    """Where a mask differs from the picture; None where they cannot be compared."""
    if picture is None:
        return None
    stored = picture.stored
    original = stored.samples.astype(np.float64) / (stored.white or 1.0)
    if original.shape[:2] != values.shape[:2]:
        return None
    return np.abs(values - original).max(2) > _CHANGED
