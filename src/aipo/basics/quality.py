"""Picture quality against the truth."""

import torch
from skimage.metrics import structural_similarity

from aipo.basics.arrays import Images, PerImage, per_image_sum


def psnr(x: Images, truth: Images) -> PerImage:
    """Peak signal-to-noise ratio in dB per image, after clipping x to [0, 1]; infinite where equal."""
    error = per_image_sum((x.clamp(0, 1) - truth) ** 2) / truth[0].numel()
    return -10 * torch.log10(error)


def ssim(x: Images, truth: Images) -> PerImage:
    """Structural similarity per image (Wang et al. 2004), after clipping x to [0, 1]."""
    pairs = zip(x.clamp(0, 1).cpu().numpy(), truth.cpu().numpy(), strict=True)
    values = [structural_similarity(a, b, channel_axis=0, data_range=1.0) for a, b in pairs]
    return torch.tensor(values, dtype=torch.float32)
