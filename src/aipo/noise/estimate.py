"""`estimate_noise` looks at a picture and says which noise it has, how strong, and as which likelihood."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from aipo.basics.arrays import Measurements
from aipo.basics.errors import InputError
from aipo.likelihoods import Likelihood
from aipo.noise.blocks import LEAST, blocks, powers
from aipo.noise.choice import brightness, chosen, few
from aipo.noise.impulses import impulses
from aipo.noise.models import Model
from aipo.noise.pixels import filled, telling
from aipo.noise.stripes import stripes
from aipo.operators import Mask, Operator


@dataclass(frozen=True)
class Noise:
    """The noise of a picture.

    Attributes:
        model: of the noise of all entries but impulses.
        impulses: entries that tell nothing of the picture, boolean (C, H, W).
        sentence: which noise it is and how strong, for people.
    """

    model: Model
    impulses: Tensor
    sentence: str

    @property
    def sigma(self) -> float:
        """The root mean square of the noise of all channels, without impulses, in units of the range."""
        return float(self.model.deviations.square().mean()) ** 0.5

    def likelihood(self, operator: Operator, y: Measurements) -> Likelihood:
        """The likelihood of a measurement of the picture's entries; impulses count as lost.

        Args:
            operator: `Identity` or `Mask` of the picture's shape.
            y: what it measured, (1, *operator.measurement_shape).

        Raises:
            InputError: the operator measures something else than entries of a picture of this shape, or all
                that it measures are impulses.
        """
        known = operator.kept()
        if known is None or tuple(operator.shape) != tuple(self.impulses.shape):
            raise InputError(
                f"this noise is of entries of a picture {tuple(self.impulses.shape)}; it has no likelihood "
                f"for {type(operator).__name__} of {tuple(operator.shape)}"
            )
        if not bool((known & self.impulses).any()):
            return self.model.likelihood(operator, y)
        kept = Mask(known & ~self.impulses)
        return self.model.likelihood(kept, kept(operator.linear.adjoint(y)))


def estimate_noise(image: Tensor, known: Tensor | None = None) -> Noise:
    """The noise of a picture, from the picture alone.

    White noise is told from noise that is correlated, that grows with brightness, that is of whole columns or
    rows, and from impulses. Frames, clipped and unknown entries tell nothing. Fine texture counts as noise
    only if it looks like it: unlike in the channels, and alike in all places.

    Args:
        image: (C, H, W), floating point, 0 and 1 being the ends of its range.
        known: entries that are the picture's, boolean, (C, H, W) or (1, H, W); all by default.

    Raises:
        InputError: the picture or `known` has another shape or type, or no two neighbours are known.

    Source: see the modules beside this one.
    """
    picture, known_entries = checked(image, known)
    bad = impulses(picture, known_entries)
    usable = known_entries & ~bad
    if not usable.any():
        raise InputError("the picture has no known entries, so its noise cannot be estimated; give sigma")
    whole = filled(picture, usable)
    # Filled impulses are few, and their neighbours stand for them; other unknown entries do not count.
    tells = telling(whole, known_entries)
    found = stripes(whole, tells)
    cut = blocks(found.subtracted(whole) if found else whole, tells)
    if len(cut) < LEAST:
        model, words = few(picture, usable & tells)
    else:
        model, words = chosen(cut, powers(cut), found, brightness(picture, usable & tells))
    return told(model, words, bad, known_entries)


def told(model: Model, words: str, bad: np.ndarray, known: np.ndarray) -> Noise:
    """The noise with a sentence on it.

    Args:
        model: of all entries but impulses.
        words: on the model, a clause.
        bad: impulses, boolean (H, W, C).
        known: boolean (H, W, C).
    """
    share = float(bad[known].mean())
    if share:
        words = f"{100 * share:.2g} % of the entries are impulses, which count as lost; {words}"
    return Noise(model, torch.from_numpy(bad.transpose(2, 0, 1).copy()), f"{words[0].upper()}{words[1:]}.")


def checked(image: Tensor, known: Tensor | None) -> tuple[np.ndarray, np.ndarray]:
    """The picture and which of it is known, both (H, W, C)."""
    if image.ndim != 3 or not image.is_floating_point() or image.numel() == 0:
        raise InputError(
            f"a picture is (C, H, W) of floating-point numbers, got {image.dtype} of {tuple(image.shape)}"
        )
    channels, height, width = image.shape
    if known is None:
        known = torch.ones(1, height, width, dtype=torch.bool)
    fits = tuple(known.shape) in {(1, height, width), (channels, height, width)}
    if known.dtype != torch.bool or not fits:
        raise InputError(
            f"known is {known.dtype} of {tuple(known.shape)}; for a picture {tuple(image.shape)} give "
            "booleans of that shape or with one channel"
        )
    entries = known.cpu().expand(image.shape) & image.cpu().isfinite()
    picture = torch.nan_to_num(image.detach().cpu().double())
    return picture.numpy().transpose(1, 2, 0), entries.numpy().transpose(1, 2, 0)
