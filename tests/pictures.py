"""Small pictures to train on."""

import numpy as np


def ramps(count: int) -> list[np.ndarray]:
    """Smooth grey 4 × 4 pictures: a slope in a random direction, and little noise."""
    rng = np.random.default_rng(0)
    rows, columns = np.meshgrid(np.linspace(-1, 1, 4), np.linspace(-1, 1, 4), indexing="ij")
    a, b, c = rng.normal(size=(3, count, 1, 1, 1)) * [[[[[30]]]], [[[[30]]]], [[[[20]]]]]
    pictures = 128 + a * rows + b * columns + c + rng.normal(size=(count, 1, 4, 4)) * 2
    return list(pictures.clip(0, 255).astype(np.uint8))
