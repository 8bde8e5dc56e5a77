"""`estimate_noise` looks at a picture and says which noise it has, how strong, and as which likelihood."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from aipo.basics.arrays import Measurements
from aipo.basics.errors import InputError
from aipo.likelihoods import Likelihood
from aipo.noise import level
from aipo.noise.blocks import LEAST, Blocks, blocks, powers
from aipo.noise.impulses import impulses
from aipo.noise.models import ALIKE, Light, Model, Stationary, Striped, White
from aipo.noise.pixels import filled, telling
from aipo.noise.signal import line
from aipo.noise.spectrum import at_frequencies, is_noise, is_white
from aipo.noise.stripes import Stripes, stripes
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
    picture, known_entries = _checked(image, known)
    bad = impulses(picture, known_entries)
    usable = known_entries & ~bad
    if not usable.any():
        raise InputError("the picture has no known entries, so its noise cannot be estimated; give sigma")
    whole = filled(picture, usable)
    # Filled impulses are few, and their neighbours stand for them; other unknown entries do not count.
    tells = telling(whole, known_entries)
    found = stripes(whole, tells)
    cut = blocks(found.subtracted(whole) if found else whole, tells)
    model, words = _model(picture, usable & tells, cut, found)
    share = float(bad[known_entries].mean())
    if share:
        words = f"{100 * share:.2g} % of the entries are impulses, which count as lost; {words}"
    return Noise(model, torch.from_numpy(bad.transpose(2, 0, 1).copy()), f"{words[0].upper()}{words[1:]}.")


def _model(picture: np.ndarray, usable: np.ndarray, cut: Blocks, found: Stripes | None) -> tuple[Model, str]:
    """The noise of entries that are no impulses, and what it is."""
    if len(cut) < LEAST:
        deviations = level.from_pairs(picture, usable)
        if deviations is None:
            raise InputError("the noise cannot be estimated from pixels that stand alone; give its sigma")
        white = White(torch.from_numpy(deviations).float())
        return white, f"the noise is taken as white, {_strength(white.deviations)}; few pixels tell of it"
    power = powers(cut)
    if found is not None:
        striped = Striped(torch.from_numpy(level.fine(power)).float(), found.covariance, found.axis)
        lines = "columns" if found.axis == 1 else "rows"
        offsets = float(np.diag(found.covariance).mean()) ** 0.5
        return (
            striped,
            f"whole {lines} are offset, standard deviation {offsets:.3f}, beside white noise, "
            + (_strength(striped.white)),
        )
    if not is_noise(power, cut):
        white = White(torch.from_numpy(level.without_texture(power)).float())
        return white, f"there is little noise, {_strength(white.deviations)}; fine detail is texture"
    if not is_white(power):
        stationary = Stationary(power.noise)
        across = _width(power.noise)
        return stationary, (
            f"the noise looks coloured (correlated over about {across} pixels), "
            f"{_strength(stationary.deviations)}"
        )
    light = line(cut)
    if light is not None and light.clear:
        means = [picture[..., c][usable[..., c]].mean() for c in range(picture.shape[-1])]
        model = Light(light.slope, light.offset, torch.tensor(means).float())
        photons = f"white is about {1 / light.slope:.0f} photons"
        return model, f"the noise grows with brightness ({photons}), {_strength(model.deviations)}"
    white = White(torch.from_numpy(level.fine(power)).float())
    return white, f"the noise looks white, {_strength(white.deviations)}"


def _strength(deviations: Tensor) -> str:
    if float(deviations.max()) <= (1 + ALIKE) * float(deviations.min()):
        return f"standard deviation {float(deviations.square().mean()) ** 0.5:.3f}"
    return f"standard deviation {', '.join(f'{value:.3f}' for value in deviations.tolist())} per channel"


def _width(moments: np.ndarray) -> int:
    """Over how many pixels noise is correlated: the width at which its covariance falls to a tenth."""
    power = at_frequencies(moments, 32, 32).diagonal(dim1=0, dim2=1).sum(-1)
    covariance = torch.fft.ifft2(power).real
    far = ((covariance / covariance[0, 0]).abs() > 0.1).nonzero()
    offset = torch.minimum(far, 32 - far)
    return 1 + int(offset.max())


def _checked(image: Tensor, known: Tensor | None) -> tuple[np.ndarray, np.ndarray]:
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
