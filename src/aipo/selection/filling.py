"""Holes filled from their surroundings alone, with no prior."""

import numpy as np
import torch
from torch import Tensor

from aipo.basics.arrays import Images


def harmonic(pictures: Images, unknown: Tensor) -> Images:
    """Each unknown entry as the mean of its neighbours in its own channel: Δx = 0, the smoothest filling.

    Nothing flows through the picture's border. A channel that has no known entry stays as it is.

    Args:
        pictures: (B, C, H, W); what they have in unknown places does not count.
        unknown: boolean, (C, H, W).

    Source: Chan & Shen 2001, Mathematical models for local nontexture inpaintings.
    """
    filled = pictures.detach().double().cpu().numpy().copy()
    masks = unknown.cpu().numpy()
    for mask in np.unique(masks.reshape(len(masks), -1), axis=0):
        if mask.any() and not mask.all():
            alike = [channel for channel, own in enumerate(masks) if np.array_equal(own.ravel(), mask)]
            flat = filled[:, alike].reshape(-1, mask.size)
            flat[:, mask] = _solved(flat, mask, masks.shape[1:])
            filled[:, alike] = flat.reshape(len(filled), len(alike), *masks.shape[1:])
    return torch.from_numpy(filled).to(pictures)


def _solved(flat: np.ndarray, mask: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """The unknown entries of pictures (N, H·W), (N, unknown)."""
    from scipy.sparse import eye_array, kron  # only here: it is slow to import
    from scipy.sparse.linalg import splu

    rows, columns = (_differences(side) for side in size)
    laplacian = kron(rows, eye_array(size[1])) + kron(eye_array(size[0]), columns)
    own = laplacian.tocsr()[mask].tocsc()
    return -splu(own[:, mask]).solve(own[:, ~mask] @ flat[:, ~mask].T).T


def _differences(side: int):
    """Second differences along one axis that ends in mirrors, (side, side)."""
    from scipy.sparse import csr_array  # only here: it is slow to import

    first = csr_array(np.diff(np.eye(side), axis=0))
    return first.T @ first
