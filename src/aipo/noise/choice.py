"""Which model fits what the blocks of a picture say of its noise, and the words for it."""

import numpy as np
import torch
from torch import Tensor

from aipo.basics.errors import InputError
from aipo.noise import level
from aipo.noise.blocks import Blocks, Powers
from aipo.noise.models import ALIKE, Light, Model, Stationary, Striped, White
from aipo.noise.signal import line
from aipo.noise.spectrum import at_frequencies, is_noise, is_white
from aipo.noise.stripes import Stripes


def few(picture: np.ndarray, usable: np.ndarray) -> tuple[Model, str]:
    """White noise, where too few entries tell of more.

    Raises:
        InputError: no two neighbours are usable.
    """
    deviations = level.from_pairs(picture, usable)
    if deviations is None:
        raise InputError("the noise cannot be estimated from pixels that stand alone; give its sigma")
    white = White(torch.from_numpy(deviations).float())
    return white, f"the noise is taken as white, {strength(white.deviations)}; few pixels tell of it"


def chosen(cut: Blocks, power: Powers, found: Stripes | None, means: Tensor) -> tuple[Model, str]:
    """The model, and a clause on it.

    Args:
        cut: blocks of the picture, without its stripes.
        power: of these.
        found: the stripes.
        means: the brightness of each channel, (C,).
    """
    if found is not None:
        striped = Striped(torch.from_numpy(level.fine(power)).float(), found.covariance, found.axis)
        lines = "columns" if found.axis == 1 else "rows"
        offsets = float(np.diag(found.covariance).mean()) ** 0.5
        return (
            striped,
            f"whole {lines} are offset, standard deviation {offsets:.3f}, beside white noise, "
            + (strength(striped.white)),
        )
    if not is_noise(power, cut):
        white = White(torch.from_numpy(level.without_texture(power)).float())
        return white, f"there is little noise, {strength(white.deviations)}; fine detail is texture"
    if not is_white(power):
        return coloured(power)
    light = line(cut)
    if light is not None and light.clear:
        return growing(light.slope, light.offset, means)
    white = White(torch.from_numpy(level.fine(power)).float())
    return white, f"the noise looks white, {strength(white.deviations)}"


def coloured(power: Powers) -> tuple[Model, str]:
    """Noise of this power, white or not, and a clause on it."""
    model = Stationary(power.noise)
    over = f"correlated over about {_width(power.noise)} pixels"
    return model, f"the noise looks coloured ({over}), {strength(model.deviations)}"


def growing(slope: float, offset: float, means: Tensor) -> tuple[Model, str]:
    """Noise of light, and a clause on it."""
    model = Light(slope, offset, means)
    photons = f"white is about {1 / slope:.0f} photons" if slope > 0 else "though hardly"
    return model, f"the noise grows with brightness ({photons}), {strength(model.deviations)}"


def brightness(picture: np.ndarray, usable: np.ndarray) -> Tensor:
    """The mean of each channel's usable entries, (C,); 0 where there are none."""
    return torch.from_numpy((picture * usable).sum((0, 1)) / np.maximum(usable.sum((0, 1)), 1)).float()


def strength(deviations: Tensor) -> str:
    """The standard deviation, or those of channels that differ, in words."""
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
