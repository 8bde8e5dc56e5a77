"""The pictures of one step, with noise."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from aipo.basics.arrays import Images, PerImage, expand
from aipo.flows.training.data import PictureData, dequantize
from aipo.flows.training.options import TrainingOptions


class Batch(NamedTuple):
    """Pictures in two parts: of the first the flow is told nothing, of the second the noise.

    Args:
        pictures: (P, C, H, W); some of them may carry noise.
        noisy: y = x + τ n, (N, C, H, W).
        tau: τ of each, (N,).
        noise: n, of standard deviation 1, (N, C, H, W).
    """

    pictures: Images
    noisy: Images
    tau: PerImage
    noise: Tensor

    def each(self, function: Callable[[Tensor], Tensor]) -> "Batch":
        """The function of every part."""
        return Batch(*map(function, self))


def draw(data: PictureData, step: int, options: TrainingOptions) -> Batch:
    """The dequantized crops of one step; the first ones carry noise, and the last ones noise that is told."""
    generator = torch.Generator().manual_seed(options.seed * 1_000_003 + step)
    x = dequantize(data.batch(options.seed, step, options.batch), generator)
    count = round(options.noised * options.batch)
    tau = _strengths(count, options.noise_range, generator)
    x[:count] += expand(tau, x) * torch.randn(x[:count].shape, generator=generator)
    plain = len(x) - round(options.told * options.batch)
    tau = _strengths(len(x) - plain, options.told_range, generator)
    noise = torch.randn(x[plain:].shape, generator=generator)
    return Batch(x[:plain], x[plain:] + expand(tau, noise) * noise, tau, noise)


def _strengths(count: int, limits: tuple[float, float], generator: torch.Generator) -> Tensor:
    """Standard deviations of noise, log-uniform, (count,)."""
    low, high = (math.log(limit) for limit in limits)
    return torch.exp(low + (high - low) * torch.rand(count, generator=generator))
