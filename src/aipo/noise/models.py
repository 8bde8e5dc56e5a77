"""The noise of a file as a likelihood: white, correlated, or growing with brightness; frozen descriptions."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from aipo.basics.arrays import Measurements
from aipo.likelihoods import Correlated, Gaussian, Heteroscedastic, Likelihood, StudentT
from aipo.noise.blocks import FLOOR
from aipo.noise.spectrum import at_frequencies
from aipo.operators import Operator

# Channels whose deviations differ by less than this part have one.
ALIKE = 0.15

# The blur, in pixels, of the picture from which brightness is read.
BLUR = 1.5


class Model(Protocol):
    """What is known of the noise of a picture's entries."""

    @property
    def deviations(self) -> Tensor:
        """The root mean square of the noise of each channel, (C,)."""
        ...

    def likelihood(self, operator: Operator, y: Measurements) -> Likelihood:
        """The likelihood of measurements (1, *measurement_shape) of entries of the picture."""
        ...


@dataclass(frozen=True)
class White:
    """White Gaussian noise, of one deviation for each channel, (C,)."""

    deviations: Tensor

    def likelihood(self, operator: Operator, y: Measurements) -> Likelihood:
        """Gaussian noise, of one σ where channels are about alike."""
        largest, smallest = float(self.deviations.max()), float(self.deviations.min())
        if largest <= (1 + ALIKE) * smallest:
            return Gaussian(operator, y, float(self.deviations.square().mean()) ** 0.5)
        return Heteroscedastic(operator, y, of_entries(self.deviations, operator).to(y))


@dataclass(frozen=True)
class Stationary:
    """Gaussian noise that is correlated between neighbours or channels.

    Attributes:
        moments: second moments of the coefficients of cosine transforms of 8 × 8 blocks, (C, C, 8, 8).
    """

    moments: np.ndarray

    @property
    def deviations(self) -> Tensor:
        return torch.from_numpy(np.einsum("ccij->cij", self.moments).mean((1, 2))).sqrt().float()

    def likelihood(self, operator: Operator, y: Measurements) -> Likelihood:
        """Correlated noise if whole pictures were measured, else white noise of the same strength."""
        shape = tuple(operator.measurement_shape)
        if len(shape) != 3:
            return White(self.deviations).likelihood(operator, y)
        return Correlated(operator, y, at_frequencies(self.moments, shape[1], shape[2]))


@dataclass(frozen=True)
class Striped:
    """White noise, and an offset of every column or row.

    Attributes:
        white: deviations of the white noise, (C,).
        covariance: of the offsets of the channels, (C, C).
        axis: 1 if every column has an offset, 0 if every row has.
    """

    white: Tensor
    covariance: np.ndarray
    axis: int

    @property
    def deviations(self) -> Tensor:
        return (self.white.square() + torch.from_numpy(np.diag(self.covariance).copy())).sqrt().float()

    def likelihood(self, operator: Operator, y: Measurements) -> Likelihood:
        """Noise whose power along an axis of the frequencies is that of the offsets."""
        shape = tuple(operator.measurement_shape)
        if len(shape) != 3:
            return White(self.deviations).likelihood(operator, y)
        channels, height, width = shape
        power = torch.diag(self.white.double().square())[:, :, None, None].repeat(1, 1, height, width)
        # The transform of a column's constant is at frequency 0 along the column, and H times as strong.
        offsets = torch.from_numpy(self.covariance)[:, :, None]
        if self.axis == 1:
            power[:, :, 0] += height * offsets
        else:
            power[:, :, :, 0] += width * offsets
        return Correlated(operator, y, power + FLOOR * torch.eye(channels)[:, :, None, None])


@dataclass(frozen=True)
class Light:
    """Gaussian noise whose variance is slope · u + offset at brightness u.

    Attributes:
        slope: 1 over the photons of white.
        offset: the variance without light.
        brightness: the mean of each channel, (C,).
    """

    slope: float
    offset: float
    brightness: Tensor

    @property
    def deviations(self) -> Tensor:
        return (self.slope * self.brightness.clamp_min(0) + self.offset).sqrt()

    def likelihood(self, operator: Operator, y: Measurements) -> Likelihood:
        """Noise of the deviation that a blurred picture's brightness gives."""
        known = operator.kept()
        assert known is not None
        picture = operator.linear.adjoint(y)[0].double().cpu().numpy()
        share = known.double().cpu().numpy()
        blurred, weight = (gaussian_filter(part, (0, BLUR, BLUR)) for part in (picture * share, share))
        pilot = torch.from_numpy(blurred / np.maximum(weight, 1e-6)).clamp(0, None)[None]
        sigma = operator.linear.forward((self.slope * pilot + self.offset).sqrt())
        return Heteroscedastic(operator, y, sigma.to(y))


@dataclass(frozen=True)
class Tailed:
    """Independent noise of Student's distribution, with outliers.

    Attributes:
        freedom: ν > 2.
        scale: s > 0, in units of the range.
        channels: of the picture.
    """

    freedom: float
    scale: float
    channels: int

    @property
    def deviations(self) -> Tensor:
        return torch.full((self.channels,), self.scale * (self.freedom / (self.freedom - 2)) ** 0.5)

    def likelihood(self, operator: Operator, y: Measurements) -> Likelihood:
        return StudentT(operator, y, self.freedom, self.scale)


def of_entries(values: Tensor, operator: Operator) -> Tensor:
    """One value for each channel as one for each measured entry, (1, *measurement_shape)."""
    channels, height, width = operator.shape
    return operator.linear.forward(values[None, :, None, None].expand(1, channels, height, width))
