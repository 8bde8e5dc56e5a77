"""Noise of a kind that a person names, its parameters given or estimated, and noise of a flat field."""

from dataclasses import dataclass
from math import inf
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from aipo.basics.errors import InputError
from aipo.noise import level
from aipo.noise.blocks import FLOOR, LEAST, Blocks, blocks, powers, powers_of_noise
from aipo.noise.choice import brightness, chosen, coloured, few, growing, strength
from aipo.noise.estimate import Noise, checked, estimate_noise, told
from aipo.noise.impulses import impulses
from aipo.noise.models import Model, Tailed, White
from aipo.noise.pixels import filled, telling
from aipo.noise.signal import line
from aipo.noise.stripes import stripes

# The degrees of freedom of Student's distribution where none are given: outliers, and yet a variance.
FREEDOM = 4.0

Kind = Literal["auto", "gaussian", "coloured", "poisson", "poisson-gaussian", "student-t", "impulses"]


@dataclass(frozen=True)
class NoiseOptions:
    """Which noise a picture has.

    Args:
        kind: "auto" tells it from the picture. "poisson" is the noise of light alone; "impulses" looks for
            them even where they are few.
        sigma: the standard deviation in units of the range: of white or Student's noise, or without light;
            estimated if it is not given.
        gain: photons of white, for light; estimated if it is not given.
        freedom: ν of Student's distribution, more than 2.

    Raises:
        InputError: a number out of range, or one that the kind has no use for.
    """

    kind: Kind = "auto"
    sigma: float | None = None
    gain: float | None = None
    freedom: float = FREEDOM

    def __post_init__(self):
        if not 2 < self.freedom < inf:
            raise InputError(f"freedom = {self.freedom:g} of Student's distribution; use more than 2")
        for name, value in (("sigma", self.sigma), ("gain", self.gain)):
            if value is not None and not 0 < value < inf:
                raise InputError(f"{name} = {value:g} of the noise must be positive")
        if self.gain is not None and self.kind not in ("poisson", "poisson-gaussian"):
            raise InputError(f"noise {self.kind} has no gain; use poisson or poisson-gaussian")
        if self.sigma is not None and self.kind in ("auto", "coloured", "poisson", "impulses"):
            raise InputError(f"noise {self.kind} takes no sigma; use gaussian, poisson-gaussian or student-t")


def named_noise(image: Tensor, known: Tensor | None = None, options: NoiseOptions | None = None) -> Noise:
    """The noise of a picture, of the kind that the options name.

    Args:
        image, known: see `estimate_noise`.

    Raises:
        InputError: see `estimate_noise`; or the picture has too few entries that tell of the parameters.
    """
    options = options or NoiseOptions()
    if options.kind == "auto":
        return estimate_noise(image, known)
    picture, entries = checked(image, known)
    bad = impulses(picture, entries, 0.0) if options.kind == "impulses" else np.zeros_like(entries)
    usable = entries & ~bad
    if options.kind == "gaussian" and options.sigma is not None:
        model, words = _white(torch.full((picture.shape[-1],), options.sigma))
    else:
        whole = filled(picture, usable)
        model, words = _named(picture, usable & telling(whole, entries), whole, entries, options)
    return told(model, words, bad, entries)


def flat_noise(flat: Tensor, known: Tensor | None = None) -> Noise:
    """The noise of a picture of something even, taken by the same camera.

    Its mean level and slow shading do not count. The likelihood of another picture of this size follows.

    Args:
        flat, known: see `estimate_noise`.

    Raises:
        InputError: see `estimate_noise`; or fewer than a few blocks of 8 × 8 entries are known.
    """
    picture, entries = checked(flat, known)
    found = stripes(picture, entries)
    cut = blocks(found.subtracted(picture) if found else picture, entries)
    if len(cut) < LEAST:
        raise InputError(f"the flat field of {tuple(flat.shape)} is too small; give one of 32 × 32 or more")
    model, words = chosen(cut, powers_of_noise(cut), found, brightness(picture, entries))
    return told(model, words, np.zeros_like(entries), entries)


def _named(
    picture: np.ndarray, usable: np.ndarray, whole: np.ndarray, known: np.ndarray, options: NoiseOptions
) -> tuple[Model, str]:
    """The model of a kind whose parameters the picture has to tell, and a clause on it."""
    if options.kind == "student-t":
        return _tailed(picture, usable, options)
    cut, means = blocks(whole, telling(whole, known)), brightness(picture, usable)
    if options.kind in ("poisson", "poisson-gaussian"):
        slope, offset = _light(cut, options)
        return growing(slope, offset, means)
    if len(cut) < LEAST:
        return few(picture, usable)
    if options.kind == "coloured":
        return coloured(powers(cut))
    if options.kind == "impulses":
        return chosen(cut, powers(cut), None, means)
    return _white(torch.from_numpy(level.fine(powers(cut))).float())


def _light(cut: Blocks, options: NoiseOptions) -> tuple[float, float]:
    """Slope and offset of the variance, as given, else as fitted to the blocks."""
    slope = None if options.gain is None else 1 / options.gain
    offset = None if options.sigma is None else options.sigma**2
    if options.kind == "poisson":
        offset = FLOOR
    if slope is None or offset is None:
        fitted = line(cut)
        if fitted is None:
            raise InputError("too few pixels tell how noise grows with brightness; give gain and sigma")
        slope = fitted.slope if slope is None else slope
        offset = fitted.offset if offset is None else offset
    return slope, offset


def _white(deviations: Tensor) -> tuple[Model, str]:
    return White(deviations), f"the noise is white, {strength(deviations)}"


def _tailed(picture: np.ndarray, usable: np.ndarray, options: NoiseOptions) -> tuple[Model, str]:
    """Student's noise whose scale is given by σ, or by the median of differences."""
    nu = options.freedom
    if options.sigma is not None:
        scale = options.sigma * ((nu - 2) / nu) ** 0.5
    else:
        deviations = level.from_pairs(picture, usable)
        if deviations is None:
            raise InputError("the noise cannot be estimated from pixels that stand alone; give its sigma")
        # Differences of four values have wider middles than the values, so this is a little too much.
        scale = float(np.sqrt((deviations**2).mean()))
    model = Tailed(nu, scale, picture.shape[-1])
    return model, f"the noise has outliers (Student's t, ν = {nu:g}), {strength(model.deviations)}"
