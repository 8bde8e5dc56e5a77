"""A Gaussian for pictures of any size: a power spectrum, the same texture everywhere."""

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aipo.basics.arrays import Images, PerImage, expand
from aipo.basics.cache import Cache
from aipo.gaussian.surrogate import VARIANCE_FLOOR

# Bytes of spectra that are kept for sizes of pictures met before; that of the present one stays in any case.
LARGEST_POWERS = 2**25


class StationaryGaussian(nn.Module):
    """N(μ, Σ) with Σ the same everywhere in the picture, periodic at its borders, for any height and width.

    Args:
        mean: colour mean, (C,).
        colours: orthogonal (C, C); its rows are the colour directions that are independent.
        spectrum: power per colour direction on a grid of frequencies in `torch.fft.fftfreq` order,
            (C, G, K); the eigenvalues of Σ. Other sizes interpolate its logarithm.
    """

    textured = True

    mean: Tensor
    colours: Tensor
    spectrum: Tensor

    def __init__(self, mean: Tensor, colours: Tensor, spectrum: Tensor):
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("colours", colours)
        self.register_buffer("spectrum", spectrum)
        self._power: Cache[tuple[int, int], Tensor] = Cache(LARGEST_POWERS)
        self.register_load_state_dict_post_hook(_forget)

    @classmethod
    def fit(cls, crops: Images) -> "StationaryGaussian":
        """Average power spectrum of crops (N, C, G, K), tapered by a Hann window.

        Source: Welch 1967, The use of fast Fourier transform for the estimation of power spectra.
        """
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

    @property
    def shape(self) -> tuple[int, None, None]:
        """(C, None, None): images of any size."""
        return (len(self.mean), None, None)

    def power(self, like: Images) -> Tensor:
        """Eigenvalues of Σ for the size of `like`, (C, H, W//2 + 1), in `rfft2` order."""
        size = (like.shape[2], like.shape[3])
        (power,) = self._power.serve([size], partial(_interpolate_spectrum, self.spectrum.double()))
        return power.to(like)

    def apply(self, spectrum: Tensor, v: Images) -> Images:
        """Multiply the spectrum of each independent colour, (B|1, C, H, W//2 + 1), with that of v."""
        return filter_colours(self.colours, spectrum, v)

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

    def components(self, like: Images) -> Images:
        """None, (0, C, H, W)."""
        return like.new_zeros(0, *like.shape[1:], dtype=torch.float64)

    def texture(self, like: Images) -> Tensor:
        """As `power`, in float64."""
        return self.power(like.double())

    def inverse_rest(self, v: Images, noise: PerImage) -> Images:
        """(Σ + noise)⁻¹ v."""
        return self.apply(1 / (self.power(v) + expand(noise, v)), v)

    def averaged_inverse(self, like: Images, noise: float) -> Tensor:
        """(Σ + noise)⁻¹ as matrices between the colours at each frequency, (H, W//2 + 1, C, C), float64."""
        return colour_matrices(self.colours, 1 / (self.texture(like) + noise))

    def _apply(self, fn, recurse: bool = True):
        super()._apply(fn, recurse)
        self._power.clear()
        return self


def _forget(surrogate: nn.Module, _: Any) -> None:
    """Drop what was made of the spectrum that has just been replaced."""
    assert isinstance(surrogate, StationaryGaussian)
    surrogate._power.clear()


def filter_colours(colours: Tensor, spectrum: Tensor, v: Images) -> Images:
    """Multiply the spectrum of each independent colour of v."""
    if len(v) == 0:
        return v  # which MKL's transform refuses
    colours = colours.to(v)
    transformed = torch.fft.rfft2(torch.einsum("ij,bjhw->bihw", colours, v))
    filtered = torch.fft.irfft2(transformed * spectrum, s=v.shape[-2:])
    return torch.einsum("ij,bihw->bjhw", colours, filtered)


def colour_matrices(colours: Tensor, spectrum: Tensor) -> Tensor:
    """The filter of `filter_colours` as matrices between the colours, (H, W//2 + 1, C, C), in float64."""
    colours = colours.double()
    return torch.einsum("chw,ci,cj->hwij", spectrum, colours, colours)


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
