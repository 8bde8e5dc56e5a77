"""A guard for holes: where a prior does not know the picture, its filling gives way to the smooth one.

In a hole only the prior speaks, and a prior of other pictures fills it worse than a smooth filling does. How
far the prior can be trusted shows around the hole. A ring of measured entries is taken away and predicted
twice: by the prior's Gaussian surrogate, and by the smooth (harmonic) filling. With errors e and h of the
two, the mixture (1 − a) e + a h is smallest for

    a = −⟨e, h − e⟩ / ‖h − e‖²,   kept within [0, 1].

The noise of the measured entries is in both errors alike, so it cancels on average. One ring can mislead, so
there are two of different widths, and the hole is mixed with the smaller of their shares. Everything has a
closed form, and no evaluation of the prior is spent.

Source: Stone 1974, Cross-validatory choice and assessment of statistical predictions; Wolpert 1992, Stacked
generalization (mixing predictors by their errors on data that were taken away).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from aipo.basics.arrays import Images, PerImage, dot, expand
from aipo.gaussian import Surrogate, posterior
from aipo.likelihoods import Gaussian, Likelihood
from aipo.operators import Mask
from aipo.priors.prior import Prior
from aipo.selection.filling import harmonic

# Lost entries at least so many pixels from measured ones of their own channel are the cores of holes, which
# reach `RIM` pixels farther. What is narrower, its neighbours determine.
DEEP, RIM = 2.5, 2

# Widths of the rings, as parts of the hole's depth. Narrower ones say little of the hole's middle, and wider
# ones leave too little around them.
WIDTHS = (0.3, 0.6)

# The least part of the measured entries that must remain when a ring is taken away.
REMAINING = 0.25


@dataclass(frozen=True)
class Guarded:
    """Pictures whose holes are as much the prior's as their surroundings warrant.

    Attributes:
        image: (B, C, H, W); outside holes as it was.
        share: of the smooth filling in the holes, (B,); 0 where there are none.
    """

    image: Images
    share: PerImage

    def sentence(self, index: int) -> str | None:
        """What was done to one picture and why; None where nothing was."""
        share = float(self.share[index])
        if share == 0:
            return None
        return (
            f"The hole is mixed with {100 * share:.0f} % of a smooth filling, because that predicts the "
            "measured pixels around it best"
        )


# Restored pictures (B, C, H, W) -> the same, their holes guarded.
Guard = Callable[[Images], Guarded]


def unguarded(image: Images) -> Guarded:
    """Pictures as they are: whoever gives λ asks for the prior's own filling."""
    return Guarded(image, torch.zeros(len(image)).to(image))


def guarded(image: Images, likelihood: Likelihood, prior: Prior) -> Guarded:
    """Mix the holes of restored pictures with a smooth filling, by what the pixels around them say.

    Pictures stay as they are where the operator measures no single entries or has no holes, where the prior
    has no Gaussian surrogate, and where a ring around the holes would leave too little of the picture.

    Args:
        image: restored pictures, (B, C, H, W).
        likelihood: of B measurements, in its simplest spelling.
        prior: its `surrogate` stands in for it.
    """
    surrogate, kept = getattr(prior, "surrogate", None), likelihood.operator.kept()
    unchanged = unguarded(image)
    if surrogate is None or kept is None:
        return unchanged
    kept = kept.cpu()
    core, depth = _cores(kept)
    rings = list(_rings(core, depth, kept))
    if not rings:
        return unchanged
    near = likelihood.gaussian()
    shares = [_share(near, surrogate, kept, ring) for ring in rings]
    share = torch.stack(shares).amin(0).to(image)
    hole = _grown(core, RIM) & ~kept
    change = torch.where(hole.to(image.device), harmonic(image, hole) - image, 0)
    return Guarded(image + expand(share, image) * change, share)


def _share(near: Gaussian, surrogate: Surrogate, kept: Tensor, ring: Tensor) -> PerImage:
    """The part of the smooth filling in the best mixture for a ring, (B,).

    Args:
        near: the measured entries.
        ring: those that are taken away, boolean (C, H, W).
    """
    measured = near.operator.linear.adjoint(near.y).double()
    rest, taken = Mask(kept & ~ring), ring.to(measured.device)
    by_prior = posterior(rest, surrogate).mode(rest.forward(measured), near.sigma.double() ** 2)
    error = torch.where(taken, by_prior - measured, 0)
    apart = torch.where(taken, harmonic(measured, ~rest.mask) - by_prior, 0)
    tiny = torch.finfo(apart.dtype).tiny
    return (-dot(error, apart) / dot(apart, apart).clamp_min(tiny)).clamp(0, 1)


def _cores(kept: Tensor) -> tuple[Tensor, float]:
    """The cores of holes, boolean (C, H, W), and how deep the deepest lost entry lies, in pixels."""
    from scipy.ndimage import distance_transform_edt  # only here: it is slow to import

    lost = ~kept.numpy()
    seen = lost & kept.flatten(1).any(1).numpy()[:, None, None]  # a channel without any is no hole
    distance = np.stack([np.asarray(distance_transform_edt(channel)) for channel in seen])
    return torch.from_numpy(distance >= DEEP), float(distance.max())


def _rings(core: Tensor, depth: float, kept: Tensor) -> Iterator[Tensor]:
    """Measured entries around the holes, boolean (C, H, W) each; none where there is no hole."""
    if not bool(core.any()):
        return
    for width in sorted({max(1, round(part * depth)) for part in WIDTHS}):
        ring = _grown(core, RIM + width) & kept
        if int(ring.sum()) <= (1 - REMAINING) * int(kept.sum()):
            yield ring


def _grown(core: Tensor, steps: int) -> Tensor:
    """With all entries of the same channel that are so few steps away, across corners too."""
    from scipy.ndimage import binary_dilation  # only here: it is slow to import

    grown = binary_dilation(core.numpy(), np.ones((1, 3, 3), dtype=bool), iterations=steps)
    return torch.from_numpy(np.asarray(grown))
