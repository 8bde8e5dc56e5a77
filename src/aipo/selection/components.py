"""The components of a picture that get weights of their own: luminance and chrominance, smooth and rough.

No λ is right for a whole picture. A sky bears a larger λ than grass. Colours want a smaller λ than
brightness: the error of colours is lowest near λ = 0.3, and that of brightness between 0.6 and 1.1
(dev/LOG.md). Each component has enough entries for an estimate of its own error.

Source: Blu & Luisier 2007, The SURE-LET approach (a weight of its own for each part of a picture).
"""

from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional

from aipo.basics.arrays import Images
from aipo.operators import Operator
from aipo.selection.structure import FEW, whole_pixels

# Smooth, middling and rough places, with equally many pixels.
ROUGHNESSES = 3

# Roughness is a mean over so many pixels to each side.
RADIUS = 4

# How sharp the borders between them are, per factor e in roughness.
SHARPNESS = 6.0

# Roughness well below this counts as none, for pictures in [0, 1].
FLAT = 1e-4

# All places as one.
EVERYWHERE = torch.ones(1, 1, 1, 1)


def places(pictures: Images) -> Tensor:
    """How far each pixel belongs to the smooth, the middling and the rough places of its picture.

    Args:
        pictures: (B, C, H, W) in [0, 1], already restored, because noise is rough.

    Returns:
        (B, ROUGHNESSES, H, W), not negative, with sum 1 for each pixel.
    """
    return torch.stack([_places(picture) for picture in pictures])


def of_colour(values: Tensor, colour: int, count: int) -> Tensor:
    """The luminance (colour 0), which is the mean of the channels in every channel, or the rest (colour 1).

    Args:
        values: (..., C, H, W).
        count: number of colours; if it is 1, the values stay as they are.
    """
    if count == 1:
        return values
    luminance = values.mean(-3, keepdim=True)
    return luminance.expand_as(values) if colour == 0 else values - luminance


def colours(operator: Operator) -> int:
    """2 if luminance and chrominance can be judged separately, else 1.

    They can if nearly all pixels are measured in all of their channels, or in none.
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
