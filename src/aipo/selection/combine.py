"""From the states of a path to one picture: the chosen state alone, or a mixture of several.

Every way to combine is called with the states of a path:

    combine(pictures, weights, chosen, usable) -> (image, shares)

- pictures: K batches (B or more, C, H, W): pictures of the B measurements, and behind them those of the
  criterion's copies;
- weights: λ of each state, (K, B);
- chosen: the state that the criterion chose for each image, (B,);
- usable: (K, B) bool, states that may take part;
- image: (B, C, H, W);
- shares: the part of each state in the image, (K, B, colours, places).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from aipo.basics.arrays import Images
from aipo.selection.components import EVERYWHERE, places
from aipo.selection.criteria import Sure
from aipo.selection.mixture import mixture, near_shares, sure_shares

Combine = Callable[[Sequence[Images], Tensor, Tensor, Tensor], tuple[Images, Tensor]]


@dataclass(frozen=True)
class Alone:
    """The chosen state as it is."""

    def __call__(
        self, pictures: Sequence[Images], weights: Tensor, chosen: Tensor, usable: Tensor
    ) -> tuple[Images, Tensor]:
        parts = torch.nn.functional.one_hot(chosen, len(pictures)).T.to(weights)
        return picked(pictures, chosen), parts[..., None, None]


@dataclass(frozen=True)
class NearWeights:
    """The chosen state and the states whose λ is not far below its own, in equal parts."""

    def __call__(
        self, pictures: Sequence[Images], weights: Tensor, chosen: Tensor, usable: Tensor
    ) -> tuple[Images, Tensor]:
        parts = near_shares(chosen, weights, usable)
        return mixture(pictures, parts), parts


@dataclass(frozen=True)
class LowestRisk:
    """The mixture of lowest estimated risk: component by component if entries of the picture are measured.

    Args:
        sure: the estimate for the B measurements; every state has its copies behind them.
    """

    sure: Sure

    def __call__(
        self, pictures: Sequence[Images], weights: Tensor, chosen: Tensor, usable: Tensor
    ) -> tuple[Images, Tensor]:
        entries = self.sure.likelihood.operator.kept() is not None
        where = places(picked(pictures, chosen)) if entries else EVERYWHERE
        parts = sure_shares(self.sure, pictures, usable, where)
        return mixture(pictures, parts, where), parts


def picked(pictures: Sequence[Images], chosen: Tensor) -> Images:
    """The chosen picture of each image, (B, C, H, W)."""
    images = torch.arange(len(chosen), device=chosen.device)
    return torch.stack([batch[: len(chosen)] for batch in pictures])[chosen, images]
