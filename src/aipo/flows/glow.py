"""Glow (Kingma & Dhariwal 2018): actnorm, invertible 1 × 1 convolution, affine coupling."""

from aipo.flows.layers import ActNorm, ChannelCoupling, Invertible, InvertibleConv1x1, Squeeze
from aipo.flows.multiscale import MultiScaleFlow


class Glow(MultiScaleFlow):
    """Glow with `levels` scales of `steps` steps each.

    Args:
        shape: (C, H, W), or (C, None, None) for pictures of any size; their base density is the same at every
            place.
        levels: number of scales; height and width must be divisible by 2^levels.
        steps: number of steps (actnorm, convolution, coupling) at each scale.
        hidden: channels inside the coupling networks.

    Raises:
        InputError: height or width is not divisible by 2^levels.
    """

    def __init__(
        self, shape: tuple[int, int | None, int | None], levels: int = 3, steps: int = 8, hidden: int = 128
    ):
        channels = [4 * shape[0] * 2**level for level in range(levels)]
        super().__init__(shape, [_scale(count, steps, hidden) for count in channels])


def _scale(channels: int, steps: int, hidden: int) -> list[Invertible]:
    layers: list[Invertible] = [Squeeze()]
    for _ in range(steps):
        layers += [ActNorm(channels), InvertibleConv1x1(channels), ChannelCoupling(channels, hidden)]
    return layers
