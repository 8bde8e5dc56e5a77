"""Samples of unusual kinds, converted to plain grey or red, green and blue."""

from typing import Literal

import numpy as np


def white_of(dtype: np.dtype) -> float | None:
    """The level of white: 255 or 65535; 1 for floating point; None for signed and for larger integers."""
    if dtype.kind == "f":
        return 1.0
    return float(np.iinfo(dtype).max) if dtype.kind == "u" and dtype.itemsize <= 2 else None


def format_of(dtype: np.dtype) -> Literal["PNG", "TIFF"]:
    """The format that samples are written in: PNG where it can hold them, else TIFF."""
    return "PNG" if dtype in (np.uint8, np.uint16) else "TIFF"


def full_levels(samples: np.ndarray, bits: int) -> np.ndarray:
    """Unsigned samples of 1 to 16 bits spread over all of 8 or 16 bits; others as they are."""
    if samples.dtype.kind not in "bu" or bits > 16:
        return samples
    dtype = np.dtype(np.uint8 if bits <= 8 else np.uint16)
    if bits in (8, 16):
        return samples.astype(dtype, copy=False)
    white = np.iinfo(dtype).max
    return np.rint(samples * (white / (2**bits - 1))).clip(0, white).astype(dtype)


def straight(samples: np.ndarray, alpha: np.ndarray, white: float | None) -> np.ndarray:
    """Colours (H, W, C) that were premultiplied by alpha (H, W), undone; where alpha is 0 they are 0."""
    share = alpha[..., None].astype(np.float64) / (white or 1.0)
    plain = np.divide(samples, share, out=np.zeros(samples.shape), where=share > 0)
    if samples.dtype.kind == "f":
        return plain.astype(samples.dtype)
    return np.rint(plain).clip(0, white).astype(samples.dtype)


def from_inks(samples: np.ndarray) -> np.ndarray:
    """Cyan, magenta, yellow and black (H, W, 4) as red, green and blue, (1 − ink)(1 − black)."""
    white = np.iinfo(samples.dtype).max
    paper = (white - samples.astype(np.float64)) / white
    return np.rint(paper[..., :3] * paper[..., 3:] * white).astype(samples.dtype)
