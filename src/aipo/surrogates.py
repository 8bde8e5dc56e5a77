"""Gaussian stand-ins N(μ, Σ) for a prior: where the path starts, and the curvature its solver assumes.

Fitted to the training pictures and stored with the prior. Each one offers the mean, a factor F with
Σ = F Fᵀ, and products with Σ and Σ⁻¹, on images (B, C, H, W):

- `LowRankGaussian` for pictures of one size: Σ = W Wᵀ + diag(d);
- `StationaryGaussian` for any size: Σ diagonal in the Fourier domain of three decorrelated colours.
"""

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aipo.arrays import Images, PerImage, dot, rowwise
from aipo.errors import InputError

# No pixel of an 8-bit picture is known better than this: a standard deviation of about one level.
VARIANCE_FLOOR = 2e-5


class Surrogate(Protocol):
    """A Gaussian density of images."""

    def mean_like(self, x: Images) -> Images:
        """μ, broadcastable to x."""
        ...

    def factor(self, u: Tensor) -> Images:
        """F u, with Σ = F Fᵀ."""
        ...

    def factor_adjoint(self, v: Images) -> Tensor:
        """Fᵀ v."""
        ...

    def precision(self, v: Images) -> Images:
        """Σ⁻¹ v."""
        ...


class LowRankGaussian(nn.Module):
    """N(μ, W Wᵀ + diag(d)) for images of one shape.

    Args:
        mean: (C, H, W).
        loadings: W, (n, r).
        variances: d, (n,), positive.
    """

    mean: Tensor
    loadings: Tensor
    variances: Tensor

    def __init__(self, mean: Tensor, loadings: Tensor, variances: Tensor):
        super().__init__()
        n = mean.numel()
        if mean.ndim != 3 or loadings.ndim != 2 or len(loadings) != n or variances.shape != (n,):
            raise InputError(
                f"mean {tuple(mean.shape)}, loadings {tuple(loadings.shape)} and variances "
                f"{tuple(variances.shape)} do not fit; they are (C, H, W), (n, r) and (n,) with n = C·H·W"
            )
        self.register_buffer("mean", mean)
        self.register_buffer("loadings", loadings.to(mean.dtype))
        self.register_buffer("variances", variances)

    @classmethod
    def fit(cls, images: Images, rank: int) -> "LowRankGaussian":
        """Principal components of the images (N > rank); the rest of each pixel's variance is independent.

        The loadings are rounded to half precision, in which a prior stores them.
        """
        flat = images.flatten(1).double()
        mean = flat.mean(0)
        centred = flat - mean
        _, scales, directions = torch.linalg.svd(centred / len(flat) ** 0.5, full_matrices=False)
        loadings = (directions[:rank].T * scales[:rank]).half().double()
        variances = (centred.square().mean(0) - loadings.square().sum(1)).clamp_min(VARIANCE_FLOOR)
        return cls(mean.reshape(images.shape[1:]).float(), loadings.float(), variances.float())

    def mean_like(self, x: Images) -> Images:
        return self.mean.to(x)

    def factor(self, u: Tensor) -> Images:
        rank = self.loadings.shape[1]
        flat = rowwise(u[:, :rank], self.loadings.to(u).T) + u[:, rank:] * self.variances.to(u).sqrt()
        return flat.unflatten(1, self.mean.shape)

    def factor_adjoint(self, v: Images) -> Tensor:
        flat = v.flatten(1)
        return torch.cat((rowwise(flat, self.loadings.to(v)), flat * self.variances.to(v).sqrt()), dim=1)

    def precision(self, v: Images) -> Images:
        scaled = (v.flatten(1) / self.variances.to(v)).double()
        w, d = self.loadings.double(), self.variances.double()
        inner = torch.eye(w.shape[1], dtype=w.dtype, device=w.device) + w.T @ (w / d[:, None])
        correction = torch.linalg.solve(inner, (scaled @ w).T).T @ w.T / d
        return (scaled - correction).to(v.dtype).unflatten(1, v.shape[1:])


class StationaryGaussian(nn.Module):
    """N(μ, Σ) with Σ the same everywhere in the picture, periodic at its borders, for any height and width.

    Args:
        mean: colour mean, (C,).
        colours: orthogonal (C, C); its rows are the colour directions that are independent.
        spectrum: power per colour direction on a grid of frequencies in `torch.fft.fftfreq` order,
            (C, G, G); the eigenvalues of Σ. Other sizes interpolate its logarithm.
    """

    mean: Tensor
    colours: Tensor
    spectrum: Tensor

    def __init__(self, mean: Tensor, colours: Tensor, spectrum: Tensor):
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("colours", colours)
        self.register_buffer("spectrum", spectrum)
        self._power: dict[tuple[int, int], Tensor] = {}
        self.register_load_state_dict_post_hook(lambda module, _: module._power.clear())

    @classmethod
    def fit(cls, crops: Images) -> "StationaryGaussian":
        """Average power spectrum of square crops (N, C, G, G), tapered by a Hann window."""
        crops = crops.double()
        mean = crops.mean((0, 2, 3))
        centred = crops - mean[:, None, None]
        pixels = centred.movedim(1, 0).flatten(1)
        colours = torch.linalg.eigh(pixels @ pixels.T)[1].T.contiguous()
        window = torch.hann_window(crops.shape[-1], periodic=False, dtype=torch.float64)
        taper = window[:, None] * window
        directions = torch.einsum("ij,bjhw->bihw", colours, centred) * taper
        power = torch.fft.fft2(directions).abs().square().mean(0) / taper.square().sum()
        return cls(mean.float(), colours, power.clamp_min(VARIANCE_FLOOR).float())

    def power(self, like: Images) -> Tensor:
        """Eigenvalues of Σ for the size of `like`, (C, H, W//2 + 1), in `rfft2` order."""
        size = (like.shape[2], like.shape[3])
        if size not in self._power:
            self._power[size] = _interpolate_spectrum(self.spectrum.double(), size)
        return self._power[size].to(like)

    def apply(self, spectrum: Tensor, v: Images) -> Images:
        """Multiply the spectrum of each independent colour, (B|1, C, H, W//2 + 1), with that of v."""
        colours = self.colours.to(v)
        transformed = torch.fft.rfft2(torch.einsum("ij,bjhw->bihw", colours, v))
        filtered = torch.fft.irfft2(transformed * spectrum, s=v.shape[-2:])
        return torch.einsum("ij,bihw->bjhw", colours, filtered)

    def mean_like(self, x: Images) -> Images:
        return self.mean.to(x)[:, None, None]

    def factor(self, u: Tensor) -> Images:
        return self.apply(self.power(u).sqrt(), u)

    def factor_adjoint(self, v: Images) -> Tensor:
        return self.factor(v)  # the square root is symmetric

    def covariance(self, v: Images) -> Images:
        """Σ v."""
        return self.apply(self.power(v), v)

    def precision(self, v: Images) -> Images:
        return self.apply(1 / self.power(v), v)


def energy(surrogate: Surrogate, x: Images) -> PerImage:
    """½ (x − μ)ᵀ Σ⁻¹ (x − μ), without the constant: a yardstick of how far x is from the data, (B,)."""
    centred = x - surrogate.mean_like(x)
    return 0.5 * dot(centred, surrogate.precision(centred))


def _interpolate_spectrum(spectrum: Tensor, size: tuple[int, int]) -> Tensor:
    """log-linear in frequency, on the periodic grid of frequencies; (C, G, G) -> (C, H, W//2 + 1)."""
    padded = F.pad(spectrum.log()[None], (0, 1, 0, 1), mode="circular")
    rows = torch.fft.fftfreq(size[0], dtype=torch.float64) % 1.0
    columns = torch.fft.rfftfreq(size[1], dtype=torch.float64)
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    # grid_sample takes positions in [−1, 1]; the padded grid spans frequencies 0 to 1.
    positions = torch.stack((2 * x - 1, 2 * y - 1), dim=-1)[None]
    sampled = F.grid_sample(padded, positions, mode="bilinear", align_corners=True)
    return sampled[0].exp().reshape(spectrum.shape[0], size[0], size[1] // 2 + 1)
