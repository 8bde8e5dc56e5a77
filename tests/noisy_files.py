"""Pictures with noise of many kinds, all of one seed."""

import io

import numpy as np
import torch
from PIL import Image
from scipy.ndimage import convolve, gaussian_filter
from skimage import data
from torch import Tensor

SIDE, SIGMA = 128, 0.06


def clean() -> np.ndarray:
    """(128, 128, 3): a face, cloth and a smooth ground."""
    return data.astronaut()[:SIDE, 150 : 150 + SIDE] / 255


def image(picture: np.ndarray) -> Tensor:
    """(C, H, W) of 8 bits."""
    return torch.from_numpy(np.round(np.clip(picture, 0, 1) * 255) / 255).permute(2, 0, 1).float()


def normal(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def white(c: np.ndarray, sigma=SIGMA) -> np.ndarray:
    return c + sigma * normal(c.shape)


def demosaicked(c: np.ndarray) -> np.ndarray:
    mosaic, kernel = np.zeros(c.shape), np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]]) / 4
    mosaic[::2, ::2, 0] = mosaic[::2, 1::2, 1] = mosaic[1::2, ::2, 1] = mosaic[1::2, 1::2, 2] = 1
    z = SIGMA * normal(c.shape) * mosaic
    return c + np.dstack([convolve(z[..., i], kernel) / convolve(mosaic[..., i], kernel) for i in range(3)])


def grain(c: np.ndarray) -> np.ndarray:
    z = gaussian_filter(normal(c.shape), (0.9, 0.9, 0))
    return c + SIGMA * z / z.std()


def enlarged(c: np.ndarray) -> np.ndarray:
    small = image(white(c[::2, ::2])).permute(1, 2, 0).numpy()
    picture = Image.fromarray((small * 255).round().astype(np.uint8))
    return np.asarray(picture.resize((c.shape[1], c.shape[0]), Image.Resampling.BICUBIC)) / 255


def jpeg(c: np.ndarray, quality: int = 75) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray((np.clip(c, 0, 1) * 255).round().astype(np.uint8)).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file)) / 255


def impulses(c: np.ndarray, share: float = 0.05) -> np.ndarray:
    drawn, found = np.random.default_rng(0).random(c.shape[:2]), c.copy()
    found[drawn < share / 2], found[drawn > 1 - share / 2] = 0, 1
    return found


def stripes(c: np.ndarray) -> np.ndarray:
    return white(c, 0.02) + SIGMA * normal((1, c.shape[1], 1), 1)


def light(c: np.ndarray) -> np.ndarray:
    return c + np.sqrt(0.02**2 + 0.01 * c) * normal(c.shape)
