"""Simulate measurements of the user's clean pictures: what `aipo measure` runs."""

from dataclasses import dataclass
from typing import Literal

import torch

from aipo.basics.arrays import Images
from aipo.basics.errors import InputError
from aipo.io.images import read_square, square
from aipo.io.instruments import check_matrix
from aipo.io.masks import read_mask
from aipo.likelihoods import Gaussian, Laplace, Likelihood, Poisson
from aipo.operators import (
    Blur,
    Downsampling,
    GaussianSensing,
    Grey,
    Identity,
    LinearOperator,
    Mask,
    gaussian_kernel,
    mosaic,
)

LARGEST_SIDE = 8_000  # of pictures that may be read at all


@dataclass(frozen=True)
class MeasureOptions:
    """What is measured, and under which noise.

    Args:
        task: "sense" mixes all entries at random; "mosaic" keeps one colour of each pixel.
        noise: "gaussian" and "laplace" of standard deviation sigma, "poisson" counts of photons.
        sigma: standard deviation of the noise, pictures in [0, 1].
        gain: photons of a white pixel, for poisson.
        measurements: m, for sense; a quarter of the picture's entries if not given.
        mask: for inpaint, a picture that is white where measured, or transparent or marked where not.
        blur: standard deviation of the blur in pixels, for deblur.
        factor: side of the blocks that become one pixel, for superresolve.
        seed: of the sensing matrix and the noise, from 0 to 2⁶³ − 1.
        size: first crop to a square and resize to this side, 1 to 8,000 pixels.

    Raises:
        InputError: the seed or the size is out of bounds.
    """

    task: Literal["sense", "denoise", "inpaint", "mosaic", "deblur", "superresolve", "colourise"] = "sense"
    noise: Literal["gaussian", "laplace", "poisson"] = "gaussian"
    sigma: float | None = None
    gain: float | None = None
    measurements: int | None = None
    mask: str | None = None
    blur: float = 1.5
    factor: int = 2
    seed: int = 0
    size: int | None = None

    def __post_init__(self):
        if not 0 <= self.seed < 2**63:
            raise InputError(f"--seed {self.seed} is out of bounds; use 0 to {2**63 - 1}")
        if self.size is not None and not 1 <= self.size <= LARGEST_SIDE:
            raise InputError(f"--size {self.size} is out of bounds; use 1 to {LARGEST_SIDE} pixels")


def measure_picture(file: str, options: MeasureOptions) -> Likelihood:
    """A measurement of a picture with fresh noise.

    Raises:
        InputError: the picture cannot be read or does not fit the task, or an option is missing.
    """
    image = read_square(file, options.size)
    operator = _operator(options, image)
    blank = _likelihood(options, operator, torch.zeros(1, *operator.measurement_shape))
    y = blank.simulate(image, torch.Generator().manual_seed(options.seed))
    return _likelihood(options, operator, y)


def _operator(options: MeasureOptions, image: Images) -> LinearOperator:
    shape = (image.shape[1], image.shape[2], image.shape[3])
    match options.task:
        case "denoise":
            return Identity(shape)
        case "inpaint":
            if options.mask is None:
                raise InputError("inpainting needs --mask, a picture that is white where measured")
            known = square(read_mask(options.mask).float(), options.size)[0]
            return Mask(known > 0.5, channels=shape[0])
        case "mosaic":
            return mosaic(shape)
        case "deblur":
            if not 0 < options.blur <= (min(shape[1:]) - 1) / 6:  # a kernel ends at three deviations
                raise InputError(
                    f"--blur {options.blur:g} is out of bounds for {shape[1]} × {shape[2]} pixels; use above "
                    "0, at most a sixth of the shorter side"
                )
            return Blur(shape, gaussian_kernel(options.blur))
        case "superresolve":
            return Downsampling(shape, options.factor)
        case "colourise":
            return Grey(shape)
    count = options.measurements if options.measurements is not None else image[0].numel() // 4
    check_matrix(shape, count)
    return GaussianSensing(shape, count, options.seed)


def _likelihood(options: MeasureOptions, operator: LinearOperator, y: torch.Tensor) -> Likelihood:
    if options.noise == "poisson":
        if options.gain is None:
            raise InputError("poisson noise needs --gain, the photons of a white pixel, for example 50")
        return Poisson(operator, y, options.gain)
    if options.sigma is None:
        raise InputError(f"{options.noise} noise needs --sigma, its standard deviation, for example 0.05")
    if options.noise == "laplace":
        return Laplace(operator, y, options.sigma / 2**0.5)
    return Gaussian(operator, y, options.sigma)
