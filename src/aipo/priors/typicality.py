"""How typical a picture is of those that a prior was trained on.

A density alone does not tell: a smooth picture has a higher density than any training picture, and is like
none of them. So the energy is looked at scale by scale, and on both sides: each held-out picture gives one
vector of energies, and a picture is as untypical as its vector is far from theirs.

A restored picture is smoother than a true one, and its energies tell of that first. So all pictures get white
noise before they are looked at, at least as much as the restoration's own error: it hides what a restoration
can have changed, in the held-out pictures and in the restored one alike. How the energies change with the
noise tells more than those at one level, so all levels from there on count together.

Source: Nalisnick et al. 2019, Detecting out-of-distribution inputs to deep generative models using
typicality; Mahalanobis 1936, On the generalised distance in statistics.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from aipo.basics.arrays import Images, PerImage

# Energies of pictures (B, C, H, W) at every scale, nats per entry of the picture, (B, scales).
Energies = Callable[[Images], Tensor]

# Standard deviations of the noise that pictures get.
LEVELS = (0.02, 0.05, 0.1, 0.2, 0.4)

# Every picture is looked at so many times, each time with other noise.
LOOKS = 2

# No larger pictures are looked at: more pixels tell little more, and take longer. In pixels.
LARGEST = 192

# Side of a tile of noise, in pixels.
TILE = 16

# Energies that differ by less are alike, nats per entry: pictures that agree by chance prove nothing.
ALIKE = 1e-4

# So many pictures are looked at together.
AT_ONCE = 16


@dataclass(frozen=True)
class Typicality:
    """What energies held-out pictures have under a prior, at several levels of noise.

    Attributes:
        levels: standard deviations of the noise, upwards, (L,).
        mean: of the energies, nats per entry, (L, scales).
        covariance: of the energies of all levels, (L · scales, L · scales).
    """

    levels: Tensor
    mean: Tensor
    covariance: Tensor

    def __call__(self, energies: Energies, x: Images, error: PerImage) -> PerImage:
        """How many standard deviations pictures are from the held-out ones; 3 or more is unusual.

        The distance of the energies is a Mahalanobis distance d. If the held-out energies were normal, d²
        would have a χ² distribution; the result is the standard normal value that is exceeded as rarely, 0
        for the usual half of pictures and at most 37, where the χ² distribution ends in float64.

        Args:
            energies: of the prior.
            x: pictures, (B, C, H, W).
            error: how far each may be from the truth, as a standard deviation, (B,).

        Returns:
            Standard deviations, 0 or more, (B,).
        """
        first = (self.levels < error.to(self.levels)[:, None]).sum(1).clamp_max(len(self.levels) - 1)
        found = torch.empty(len(x), dtype=torch.float64)
        for own in first.unique():
            among, scales = first == own, self.mean.shape[1]
            seen = looked_at(energies, x[among], self.levels[own:])
            apart = (seen - self.mean[own:]).flatten(1)
            covariance = self.covariance[own * scales :, own * scales :]
            squared = (torch.linalg.solve(covariance, apart.mT).mT * apart).sum(1)
            found[among] = _normal(squared, apart.shape[1]).clamp_min(0)
        return found.to(x)

    def card(self) -> dict[str, Any]:
        """For the prior's configuration."""
        return {name: value.tolist() for name, value in vars(self).items()}


def typicality(card: dict[str, Any]) -> Typicality | None:
    """What a prior's configuration tells of its held-out pictures; None if it tells nothing."""
    stored = card.get("typicality")
    if stored is None:
        return None
    names = ("levels", "mean", "covariance")
    return Typicality(*(torch.tensor(stored[name], dtype=torch.float64) for name in names))


def fit_typicality(
    energies: Energies, pictures: Sequence[Images], levels: Sequence[float] = LEVELS
) -> Typicality:
    """What energies pictures have that a prior was not trained on.

    Args:
        energies: of the prior.
        pictures: held out of training, (B, C, H, W), a hundred or more; of several sizes for a prior that
            takes any, because energies depend on how much of a picture is border.
    """
    noise = torch.tensor(levels, dtype=torch.float64)
    seen = torch.cat([looked_at(energies, alike, noise) for alike in pictures])
    apart = (seen - seen.mean(0)).flatten(1)
    alike = ALIKE**2 * torch.eye(apart.shape[1], dtype=torch.float64)
    return Typicality(noise, seen.mean(0), apart.mT @ apart / (len(seen) - 1) + alike)


@torch.no_grad()
def looked_at(energies: Energies, x: Images, levels: Tensor) -> Tensor:
    """Energies of pictures at every level of noise, the mean of several looks, (B, L, scales) in float64.

    All pictures get the same noise, repeated like tiles, so that they differ by themselves alone, whatever
    their size.
    """
    _, channels, height, width = x.shape
    tile = torch.randn(LOOKS, channels, TILE, TILE, generator=torch.Generator().manual_seed(0)).to(x)
    noise = tile.repeat(1, 1, -(-height // TILE), -(-width // TILE))[..., :height, :width]

    def mean(part: Images, level: float) -> Tensor:
        return torch.stack([energies(part + level * one) for one in noise]).double().mean(0)

    seen = [torch.stack([mean(part, level) for level in levels.tolist()], 1) for part in x.split(AT_ONCE)]
    return torch.cat(seen).cpu()


def _normal(squared: Tensor, freedom: int) -> Tensor:
    """The standard normal values that are exceeded as rarely as values of a χ² distribution."""
    half = torch.full_like(squared, freedom / 2)
    within = torch.finfo(torch.float64)
    rarely = torch.special.gammaincc(half, squared / 2).clamp(within.tiny, 1 - within.eps)
    return -torch.special.ndtri(rarely)
