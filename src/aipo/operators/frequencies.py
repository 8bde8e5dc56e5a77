"""Operators that treat every place alike: one matrix between the colours for each frequency.

Matrices are in `torch.fft.rfft2` order: (H, W//2 + 1, C', C) from C colours to C'.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from aipo.basics.arrays import Images

# How far AᵀA of a filter may be from one, relative to its largest value: some operators compute in float32.
TOLERANCE = 1e-4


def mix_colours(matrices: Tensor, v: Images) -> Images:
    """Multiply the colours of v at each frequency by a matrix, (H, W//2 + 1, C, C), one or one per image."""
    if len(v) == 0:
        return v  # which MKL's transform refuses
    # Entry by entry, not as a matrix product, whose rounding depends on the batch.
    mixed = (matrices.movedim((-2, -1), (-4, -3)) * torch.fft.rfft2(v)[:, None]).sum(2)
    return torch.fft.irfft2(mixed, s=v.shape[-2:])


def told_gram(transfer: Tensor) -> Tensor | None:
    """TᴴT at each frequency, float64; None if it is not real."""
    found = transfer.mH @ transfer
    return found.real if bool((found.imag.abs() <= 1e-5 * found.abs().max()).all()) else None


@torch.no_grad()
def tried_gram(
    normal: Callable[[Images], Images], shape: tuple[int, int, int], device: torch.device
) -> Tensor | None:
    """AᵀA at each frequency, float64; None if it treats places differently, or its matrices are not real.

    If AᵀA is a filter, what it makes of a point in each colour tells everything. Whether it is one is tried
    on a random picture.

    Args:
        normal: x -> AᵀA x; it is applied to C + 1 pictures (C, H, W) of float64.
        shape: (C, H, W).
        device: where A takes its pictures.
    """
    channels = shape[0]
    points = torch.zeros(channels, *shape, dtype=torch.float64, device=device)
    points[:, :, 0, 0] = torch.eye(channels).to(points)
    # 1 + …: no place is so dark that a loss there would not be seen.
    x = 1 + torch.rand(1, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = x.to(device)
    *responses, direct = normal(torch.cat((points, x))).double()
    found = torch.fft.rfft2(torch.stack(responses)).permute(2, 3, 1, 0).real
    gram = (found + found.mT) / 2
    error = (mix_colours(gram, x)[0] - direct).abs().max()
    return _positive(gram) if bool(error <= TOLERANCE * direct.abs().max()) else None


def _positive(matrices: Tensor) -> Tensor:
    """Without the slightly negative eigenvalues that rounding gives to what is not measured."""
    values, vectors = torch.linalg.eigh(matrices)
    return vectors @ torch.diag_embed(values.clamp_min(0)) @ vectors.mT
