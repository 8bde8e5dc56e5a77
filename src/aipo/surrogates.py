"""Gaussian stand-ins N(μ, Σ) for a prior: where the path starts, and the curvature its solver assumes.

Fitted to the training pictures and stored with the prior. Each one offers the mean, a factor F with
Σ = F Fᵀ, and products with Σ and Σ⁻¹, on images (B, C, H, W):

- `LowRankGaussian` for pictures of one size: Σ = W Wᵀ + diag(d);
- `StationaryGaussian` for any size: Σ = S, diagonal in the Fourier domain of three decorrelated colours;
- `LowRankStationary` for pictures of one size with texture: Σ = W Wᵀ + S.
"""

from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from scipy.linalg import eigh
from torch import Tensor, nn

from aipo.arrays import Images, PerImage, dot, expand, rowwise
from aipo.errors import InputError

# No pixel of an 8-bit picture is known better than this: a standard deviation of about one level.
VARIANCE_FLOOR = 2e-5


class Surrogate(Protocol):
    """A Gaussian density of images."""

    def mean_like(self, x: Images) -> Images:
        """μ, broadcastable to x."""
        ...

    def coordinates(self, x: Images) -> Tensor:
        """An empty u for each picture of a batch."""
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
        loadings = _principal(centred, rank).half().double()
        variances = (centred.square().mean(0) - loadings.square().sum(1)).clamp_min(VARIANCE_FLOOR)
        return cls(mean.reshape(images.shape[1:]).float(), loadings.float(), variances.float())

    def mean_like(self, x: Images) -> Images:
        return self.mean.to(x)

    def coordinates(self, x: Images) -> Tensor:
        return x.new_empty(len(x), sum(self.loadings.shape))

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
            (C, G, K); the eigenvalues of Σ. Other sizes interpolate its logarithm.
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
        """Average power spectrum of crops (N, C, G, K), tapered by a Hann window."""
        crops = crops.double()
        mean = crops.mean((0, 2, 3))
        centred = crops - mean[:, None, None]
        pixels = centred.movedim(1, 0).flatten(1)
        colours = torch.linalg.eigh(pixels @ pixels.T)[1].T.contiguous()
        rows, columns = (
            torch.hann_window(side, periodic=False, dtype=torch.float64) for side in crops.shape[2:]
        )
        taper = rows[:, None] * columns
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
        return _filter(self.colours, spectrum, v)

    def mean_like(self, x: Images) -> Images:
        return self.mean.to(x)[:, None, None]

    def coordinates(self, x: Images) -> Tensor:
        return torch.empty_like(x)

    def factor(self, u: Tensor) -> Images:
        return self.apply(self.power(u).sqrt(), u)

    def factor_adjoint(self, v: Images) -> Tensor:
        return self.factor(v)  # the square root is symmetric

    def covariance(self, v: Images) -> Images:
        """Σ v."""
        return self.apply(self.power(v), v)

    def precision(self, v: Images) -> Images:
        return self.apply(1 / self.power(v), v)

    def wiener(self, v: Images, noise: PerImage) -> Images:
        """Σ (Σ + noise)⁻¹ v: what a picture of this density keeps under white noise of that variance."""
        power = self.power(v)
        return self.apply(power / (power + expand(noise, v)), v)


class LowRankStationary(nn.Module):
    """N(μ, W Wᵀ + S) for images of one shape, S stationary and periodic: outlines in W, texture in S.

    Args:
        mean: (C, H, W).
        loadings: W, (n, r).
        colours: orthogonal (C, C); its rows are the colour directions in which S is diagonal.
        power: eigenvalues of S for each colour direction in `rfft2` order, (C, H, W//2 + 1).
    """

    mean: Tensor
    loadings: Tensor
    colours: Tensor
    power: Tensor

    def __init__(self, mean: Tensor, loadings: Tensor, colours: Tensor, power: Tensor):
        super().__init__()
        channels, height, width = mean.shape
        shapes = (tuple(loadings.shape[:1]), tuple(colours.shape), tuple(power.shape))
        if shapes != ((mean.numel(),), (channels, channels), (channels, height, width // 2 + 1)):
            raise InputError(
                f"mean {tuple(mean.shape)}, loadings {tuple(loadings.shape)}, colours {tuple(colours.shape)} "
                f"and power {tuple(power.shape)} do not fit; they are (C, H, W), (n, r), (C, C) and "
                "(C, H, W//2 + 1) with n = C·H·W"
            )
        self.register_buffer("mean", mean)
        self.register_buffer("loadings", loadings.to(mean.dtype))
        self.register_buffer("colours", colours)
        self.register_buffer("power", power)
        self._cores: dict[float, tuple[Tensor, Tensor]] = {}
        self._copies: dict[torch.dtype, Tensor] = {}
        self.register_load_state_dict_post_hook(lambda module, _: module._forget())

    @classmethod
    def fit(cls, images: Images, rank: int) -> "LowRankStationary":
        """Principal components of the images (N > rank), and the average spectrum of what they leave."""
        mean = images.double().mean(0)
        principal = LowRankGaussian.fit(images, rank)
        directions = torch.linalg.qr(principal.loadings.double())[0]
        flat = (images.double() - mean).flatten(1)
        rest = (flat - (flat @ directions) @ directions.T).reshape(images.shape)
        texture = StationaryGaussian.fit(rest)
        return cls(mean.float(), principal.loadings, texture.colours, texture.power(images))

    def mean_like(self, x: Images) -> Images:
        return self.mean.to(x)

    def coordinates(self, x: Images) -> Tensor:
        return x.new_empty(len(x), sum(self.loadings.shape))

    def factor(self, u: Tensor) -> Images:
        rank = self.loadings.shape[1]
        smooth = rowwise(u[:, :rank], self._loadings(u.dtype).T).unflatten(1, self.mean.shape)
        noise = u[:, rank:].unflatten(1, self.mean.shape)
        return smooth + _filter(self.colours, self.power.to(u).sqrt(), noise)

    def factor_adjoint(self, v: Images) -> Tensor:
        texture = _filter(self.colours, self.power.to(v).sqrt(), v)
        return torch.cat((rowwise(v.flatten(1), self._loadings(v.dtype)), texture.flatten(1)), 1)

    def covariance(self, v: Images) -> Images:
        """Σ v."""
        return self.factor(self.factor_adjoint(v))

    def precision(self, v: Images) -> Images:
        return self._inverse(v, 0.0)

    def wiener(self, v: Images, noise: PerImage) -> Images:
        """Σ (Σ + noise)⁻¹ v: what a picture of this density keeps under white noise of that variance."""
        kept = torch.empty_like(v)
        for level in noise.unique().tolist():
            chosen = noise == level
            kept[chosen] = v[chosen] - level * self._inverse(v[chosen], level)
        return kept

    def _inverse(self, v: Images, noise: float) -> Images:
        """(W Wᵀ + S + noise)⁻¹ v by Woodbury's identity, in float64."""
        core, whitened = self._core(noise)
        exact = v.double()
        alone = _filter(self.colours, 1 / (self.power.double() + noise), exact)
        inner = rowwise(rowwise(exact.flatten(1), whitened), core)
        return (alone - rowwise(inner, whitened.T).unflatten(1, self.mean.shape)).to(v.dtype)

    def _core(self, noise: float) -> tuple[Tensor, Tensor]:
        """With V = (S + noise)⁻¹ W: the inverse of I + WᵀV, and V. The last few are kept."""
        if noise not in self._cores:
            w = self._loadings(torch.float64)
            columns = w.T.unflatten(1, self.mean.shape)
            filtered = _filter(self.colours, 1 / (self.power.double() + noise), columns).flatten(1).T
            eye = torch.eye(w.shape[1], dtype=w.dtype, device=w.device)
            if len(self._cores) >= 16:
                self._cores.clear()
            factor = torch.linalg.cholesky(eye + w.T @ filtered)
            self._cores[noise] = torch.cholesky_inverse(factor), filtered.contiguous()
        return self._cores[noise]

    def _loadings(self, dtype: torch.dtype) -> Tensor:
        """W in a precision; converting it at every product would cost as much as the product."""
        if dtype not in self._copies:
            self._copies[dtype] = self.loadings.to(dtype)
        return self._copies[dtype]

    def _forget(self) -> None:
        self._cores.clear()
        self._copies.clear()

    def _apply(self, fn, recurse: bool = True):
        super()._apply(fn, recurse)
        self._forget()
        return self


def energy(surrogate: Surrogate, x: Images) -> PerImage:
    """½ (x − μ)ᵀ Σ⁻¹ (x − μ), without the constant: a yardstick of how far x is from the data, (B,)."""
    centred = x - surrogate.mean_like(x)
    return 0.5 * dot(centred, surrogate.precision(centred))


def _principal(centred: Tensor, rank: int) -> Tensor:
    """W, (n, rank), with W Wᵀ the best approximation of XᵀX/N by that rank; X is (N, n)."""
    x = centred.cpu().numpy() / len(centred) ** 0.5
    small = x @ x.T if len(x) <= x.shape[1] else x.T @ x
    values, vectors = eigh(small, subset_by_index=(len(small) - rank, len(small) - 1))
    loadings = x.T @ vectors if len(x) <= x.shape[1] else vectors * np.sqrt(values.clip(0))
    return torch.from_numpy(loadings[:, ::-1].copy()).to(centred)


def _filter(colours: Tensor, spectrum: Tensor, v: Images) -> Images:
    """Multiply the spectrum of each independent colour of v."""
    colours = colours.to(v)
    transformed = torch.fft.rfft2(torch.einsum("ij,bjhw->bihw", colours, v))
    filtered = torch.fft.irfft2(transformed * spectrum, s=v.shape[-2:])
    return torch.einsum("ij,bihw->bjhw", colours, filtered)


def _interpolate_spectrum(spectrum: Tensor, size: tuple[int, int]) -> Tensor:
    """log-linear in frequency, on the periodic grid of frequencies; (C, G, K) -> (C, H, W//2 + 1)."""
    padded = F.pad(spectrum.log()[None], (0, 1, 0, 1), mode="circular")
    rows = torch.fft.fftfreq(size[0], dtype=torch.float64, device=spectrum.device) % 1.0
    columns = torch.fft.rfftfreq(size[1], dtype=torch.float64, device=spectrum.device)
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    # grid_sample takes positions in [−1, 1]; the padded grid spans frequencies 0 to 1.
    positions = torch.stack((2 * x - 1, 2 * y - 1), dim=-1)[None]
    sampled = F.grid_sample(padded, positions, mode="bilinear", align_corners=True)
    return sampled[0].exp().reshape(spectrum.shape[0], size[0], size[1] // 2 + 1)
