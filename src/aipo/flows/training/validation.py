"""How good a flow is on pictures that it was not trained on."""

import math

import torch
from torch import Tensor, nn

from aipo.basics.quality import psnr
from aipo.flows import Flow, posterior_mean
from aipo.flows.training.data import dequantize

# Noise at which denoising is judged, of 255, as in the literature; and the pictures that are enough for it.
SIGMAS, PICTURES = (15, 25, 50), 64


def validate(flow: Flow, pixels: Tensor) -> dict[str, float]:
    """The figures of a flow for 8-bit pictures, uint8 (N, C, H, W), by name."""
    figures = {"validation_bits_per_dim": bits_per_dim(flow, pixels)}
    if flow.noise_levels:
        figures |= {f"validation_db_{sigma}": denoising(flow, pixels[:PICTURES], sigma) for sigma in SIGMAS}
    return figures


@torch.no_grad()
def bits_per_dim(flow: nn.Module, pixels: Tensor, batch: int = 16) -> float:
    """Mean −log₂ p per dimension of 8-bit pictures, with uniform dequantization.

    The levels of a picture in [0, 1] are 1/256 wide, which adds 8 bits per dimension to those of the density.

    Args:
        flow: gives log_prob in nats.
        pixels: uint8 (N, C, H, W).
        batch: pictures that are evaluated at the same time.

    Source: Theis, van den Oord & Bethge 2016, A note on the evaluation of generative models.
    """
    generator = torch.Generator().manual_seed(0)
    total = 0.0
    for chunk in pixels.split(batch):
        x = dequantize(chunk.cpu(), generator).to(pixels.device)
        total -= float(flow.log_prob(x).double().sum())  # type: ignore[operator]
    return total / (pixels.numel() * math.log(2)) + 8


def denoising(flow: Flow, pixels: Tensor, sigma: float, batch: int = 16) -> float:
    """Mean PSNR in dB of 8-bit pictures with noise of σ/255, restored by one evaluation of a flow.

    Args:
        flow: is told the noise.
        pixels: uint8 (N, C, H, W).
        sigma: σ, of 255.
        batch: pictures that are evaluated at the same time.
    """
    told, generator = flow.at(sigma / 255).freeze(), torch.Generator().manual_seed(0)
    found = []
    for chunk in pixels.split(batch):
        x = chunk.float() / 255
        noise = torch.randn(x.shape, generator=generator).to(x.device)
        found.append(psnr(posterior_mean(told, x + sigma / 255 * noise, sigma / 255), x))
    return float(torch.cat(found).mean())
