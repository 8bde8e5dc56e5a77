"""RealNVP (Dinh, Sohl-Dickstein & Bengio 2017): checkerboard and channel-wise affine couplings."""

from aipo.flows.layers import ActNorm, ChannelCoupling, CheckerboardCoupling, Invertible, Squeeze
from aipo.flows.multiscale import MultiScaleFlow


class RealNVP(MultiScaleFlow):
    """RealNVP with `levels` scales; each has checkerboard couplings, then a squeeze, then channel couplings.

    Actnorm replaces the batch normalisation of the paper, because it does not mix the images of a batch.

    Args:
        shape: (C, H, W), or (C, None, None) for pictures of any size; their base density is the same at every
            place.
        levels: number of scales; height and width must be divisible by 2^levels.
        steps: number of couplings of each kind at each scale (3 in the paper); they change one half and the
            other in turn.
        hidden: channels inside the coupling networks.

    Raises:
        InputError: height or width is not divisible by 2^levels.
    """

    def __init__(
        self, shape: tuple[int, int | None, int | None], levels: int = 3, steps: int = 4, hidden: int = 128
    ):
        channels = [shape[0] * 2**level for level in range(levels)]
        super().__init__(shape, [_scale(count, steps, hidden) for count in channels])


def _scale(channels: int, steps: int, hidden: int) -> list[Invertible]:
    layers: list[Invertible] = []
    for i in range(steps):
        layers += [ActNorm(channels), CheckerboardCoupling(channels, hidden, odd=bool(i % 2))]
    layers.append(Squeeze())
    for i in range(steps):
        layers += [ActNorm(4 * channels), ChannelCoupling(4 * channels, hidden, swap=bool(i % 2))]
    return layers
