"""A picture taken apart where weights differ: luminance and chrominance, in smooth places and in rough ones.

No λ is right for all of a picture. A sky bears a larger one than grass, and colours want a smaller one than
brightness: their error is lowest near λ = 0.3, that of brightness between 0.6 and 1.1 (dev/LOG.md). Each part
has entries enough for an estimate of its own error.

Source: Blu & Luisier 2007, The SURE-LET approach (a weight of its own for each part of a picture).
"""

from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional

from aipo.basics.arrays import Images
from aipo.operators import Operator
from aipo.selection.structure import FEW, whole_pixels

# Smooth, middling and rough, as many pixels each.
ROUGHNESSES = 3

# Roughness is a mean over so many pixels to each side.
RADIUS = 4

# How sharply a place belongs to one of them, per factor e in roughness.
SHARPNESS = 6.0

# Roughness that is as good as none, in pictures in [0, 1].
FLAT = 1e-4

# All places as one.
EVERYWHERE = torch.ones(1, 1, 1, 1)


def places(pictures: Images) -> Tensor:
    """How far each pixel belongs to the smooth, the middling and the rough places of its picture.

    Args:
        pictures: (B, C, H, W) in [0, 1], restored already: noise is rough.

    Returns:
        (B, ROUGHNESSES, H, W), not negative, with sum 1 for each pixel.
    """
    return torch.stack([_places(picture) for picture in pictures])


def of_colour(values: Tensor, colour: int, count: int) -> Tensor:
    """The luminance (0), which is the mean of the channels in each of them, or the rest (1).

    Args:
        values: (..., C, H, W).
        count: of colours; 1 leaves the values as they are.
    """
    if count == 1:
        return values
    luminance = values.mean(-3, keepdim=True)
    return luminance.expand_as(values) if colour == 0 else values - luminance


def colours(operator: Operator) -> int:
    """2 if luminance and chrominance can be judged each for itself, else 1.

    They can where nearly all pixels are measured in all their channels, or not at all.
    """
    kept = operator.kept()
    if kept is None or operator.shape[0] == 1:
        return 1
    return 2 if float(whole_pixels(kept).double().mean()) >= 1 - FEW else 1


def _places(picture: Tensor) -> Tensor:
    luminance = picture.mean(0)
    right = torch.diff(luminance, dim=1, append=luminance[:, -1:])
    down = torch.diff(luminance, dim=0, append=luminance[-1:])
    squares = (right.square() + down.square())[None, None]
    width = 2 * RADIUS + 1
    near = functional.avg_pool2d(squares, width, stride=1, padding=RADIUS, count_include_pad=False)[0, 0]
    roughness = torch.log(near.sqrt() + FLAT)
    ordered = roughness.flatten().sort().values
    bounds = [ordered[len(ordered) * step // ROUGHNESSES] for step in range(1, ROUGHNESSES)]
    above = [torch.sigmoid(SHARPNESS * (roughness - bound)) for bound in bounds]
    edges = [torch.ones_like(roughness), *above, torch.zeros_like(roughness)]
    return torch.stack([low - high for low, high in pairwise(edges)])
