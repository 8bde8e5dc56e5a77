"""Classical restorations to compare with, each at its best: the truth chooses the weight.

There are total variation, sparse wavelets, BM3D and biharmonic filling. One algorithm, plug-and-play ADMM,
carries a denoiser over to inpainting and compressed sensing. Measurements and truths have batch 1 and are on
the CPU. `sigma` is the standard deviation of the noise.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import repeat
from math import exp, log

import numpy as np
import pywt
import torch
from scipy.optimize import minimize_scalar
from skimage.restoration import denoise_tv_chambolle, inpaint_biharmonic
from torch import Tensor

from aipo.basics.arrays import Images, Measurements
from aipo.basics.conjugate_gradients import conjugate_gradients
from aipo.basics.errors import InputError
from aipo.basics.quality import psnr
from aipo.operators import GaussianSensing, Identity, LinearOperator, Mask

Denoiser = Callable[[np.ndarray, float], np.ndarray]
"""(picture (H, W, C), strength) -> picture; the strength of a proximal map is its weight."""

# An orthonormal opponent basis (brightness, red-blue, green-magenta): most of a picture is brightness,
# so that TV by channel is 1 to 5 dB better here than in red, green and blue.
_OPPONENT = np.array([[1, 1, 1], [1, 0, -1], [1, -2, 1]]) / np.sqrt([[3], [2], [6]])
_RELAXATION = 1.5
_TV_STRENGTH, _TV_STEPS = 0.06, 45
_WAVELET, _WAVELET_STRENGTH, _WAVELET_STEPS = "db4", 0.1, 50
_LEAST_SIGMA = 0.002  # half a grey level, so that noiseless data have a range of weights too


@dataclass(frozen=True)
class Baseline:
    """A restored picture (1, C, H, W), float32, and the weight or strength the truth chose."""

    image: Tensor
    weight: float


def total_variation(operator: LinearOperator, y: Measurements, sigma: float, truth: Images) -> Baseline:
    """argmin_x ½|Ax − y|² + weight·TV(x), TV isotropic in each opponent colour, weight in [0.05 σ, 2 σ].

    Source: Rudin, Osher & Fatemi 1992; Chambolle 2004 for the proximal map.
    """
    sigma = max(sigma, _LEAST_SIGMA)
    return best_weight(lambda weight: _tv_restoration(operator, y, weight), truth, 0.05 * sigma, 2 * sigma)


def plain_total_variation(y: Measurements, sigma: float, truth: Images) -> Baseline:
    """Denoising as scikit-image offers it: isotropic TV in red, green and blue, weight in [0.05 σ, 2 σ]."""

    def restore(weight: float) -> Images:
        return _to_images(denoise_tv_chambolle(_to_picture(y), weight, eps=0, channel_axis=-1))

    sigma = max(sigma, _LEAST_SIGMA)
    return best_weight(restore, truth, 0.05 * sigma, 2 * sigma)


def bm3d(operator: LinearOperator, y: Measurements, sigma: float, truth: Images) -> Baseline:
    """BM3D for denoising; plug-and-play ADMM with BM3D of decreasing strength otherwise.

    The truth chooses the assumed noise level (0.8, 1 or 1.2 σ), or the strength to stop at.

    Source: Dabov et al. 2007; Mäkinen et al. 2020 (the package `bm3d`); Chan et al. 2017.

    Raises:
        InputError: the package `bm3d` is missing.
    """
    sigma = max(sigma, _LEAST_SIGMA)
    strengths = _bm3d_strengths(operator, sigma)
    if isinstance(operator, Identity):
        images = (_to_images(_bm3d_denoise(_to_picture(y), strength)) for strength in strengths)
    else:
        # rho = 1 is best of 0.01 to 2 on most pictures.
        images = plug_and_play(operator, y, _bm3d_denoise, _first_guess(operator, y), strengths, rho=1.0)
    return max(map(Baseline, images, strengths), key=lambda choice: float(psnr(choice.image, truth)))


def lasso_wavelet(operator: LinearOperator, y: Measurements, sigma: float, truth: Images) -> Baseline:
    """argmin_x ½|Ax − y|² + weight·|Wx|₁, W an orthonormal wavelet transform of each opponent colour.

    Source: Tibshirani 1996; with wavelets the usual baseline of compressed sensing (Bora et al. 2017).
    """
    start = _first_guess(operator, y)

    def restore(weight: float) -> Images:
        rho, strengths = weight / _WAVELET_STRENGTH, repeat(_WAVELET_STRENGTH, _WAVELET_STEPS)
        *_, last = plug_and_play(operator, y, _shrink_wavelets, start, strengths, rho)
        return last

    sigma = max(sigma, _LEAST_SIGMA)
    return best_weight(restore, truth, 0.1 * sigma, 20 * sigma)


def biharmonic(operator: Mask, y: Measurements, truth: Images) -> Baseline:
    """Fill the hole smoothly, then TV-denoise the whole picture."""
    filled = _to_picture(biharmonic_filling(operator, y))
    return best_weight(lambda weight: _to_images(_tv_denoise(filled, weight, 200)), truth, 1e-3, 0.5)


def biharmonic_filling(operator: Mask, y: Measurements) -> Images:
    """The measured entries as they are, and between them Δ²x = 0.

    Source: Damelin & Hoang 2018 (`skimage.restoration.inpaint_biharmonic`).
    """
    channels = zip(operator.adjoint(y.float())[0].numpy(), ~operator.mask.numpy(), strict=True)
    return _to_images(np.stack([inpaint_biharmonic(image, hole) for image, hole in channels], -1))


def plug_and_play(
    operator: LinearOperator,
    y: Measurements,
    denoise: Denoiser,
    start: Images,
    strengths: Iterable[float],
    rho: float,
) -> Iterator[Images]:
    """Over-relaxed ADMM with a denoiser in place of the prior's proximal map; yields each iterate z.

        x = argmin ½|Ax − y|² + ½ρ|x − (z − u)|²,  x̂ = 1.5 x − 0.5 z,  z = denoise(x̂ + u),  u += x̂ − z

    With the proximal map of R at a constant strength s, z tends to argmin ½|Az − y|² + ρ s R(z).

    Source: Venkatakrishnan et al. 2013; Chan et al. 2017; Eckstein & Bertsekas 1992 for the relaxation.

    Args:
        y: (1, *measurement_shape).
        denoise: see `Denoiser`.
        start: the first z, (1, C, H, W).
        strengths: of the denoiser, one per iteration.
        rho: ρ > 0, in the units of AᵀA.
    """
    fit = data_proximal(operator, y.float(), rho)
    z, u = start, torch.zeros_like(start)
    for strength in strengths:
        x = torch.lerp(z, fit(z - u), _RELAXATION)
        z = _to_images(denoise(_to_picture(x + u), strength))
        u = u + x - z
        yield z


def data_proximal(operator: LinearOperator, y: Measurements, rho: float) -> Callable[[Images], Images]:
    """v ↦ argmin_x ½|Ax − y|² + ½ρ|x − v|²."""
    if isinstance(operator, GaussianSensing):
        # x = v + Aᵀ(AAᵀ + ρI)⁻¹(y − Av): m × m, where the normal equations would be n × n.
        factor = torch.linalg.cholesky(_gram(operator) + rho * torch.eye(operator.measurements))
        return lambda v: v + operator.adjoint(torch.cholesky_solve((y - operator(v)).T, factor).T)
    if isinstance(operator, Identity | Mask):
        back, diagonal = operator.adjoint(y), operator.adjoint(torch.ones_like(y))
        return lambda v: (back + rho * v) / (diagonal + rho)
    back = operator.adjoint(y.double())

    def normal(x: Images) -> Images:
        return operator.adjoint(operator.forward(x)) + rho * x

    def fit(v: Images) -> Images:
        return conjugate_gradients(normal, back + rho * v, tolerance=1e-6).x.to(v.dtype)

    return fit


def best_weight(restore: Callable[[float], Images], truth: Images, low: float, high: float) -> Baseline:
    """The weight in [low, high] of highest PSNR, to 0.3 in log weight, where the PSNR is flat."""
    tried: list[Baseline] = []

    def loss(log_weight: float) -> float:
        tried.append(Baseline(restore(exp(log_weight)), exp(log_weight)))
        return -float(psnr(tried[-1].image, truth))

    minimize_scalar(loss, bounds=(log(low), log(high)), method="bounded", options={"xatol": 0.3})
    return max(tried, key=lambda baseline: float(psnr(baseline.image, truth)))


def _tv_restoration(operator: LinearOperator, y: Tensor, weight: float) -> Images:
    if isinstance(operator, Identity):
        return _to_images(_tv_denoise(_to_picture(y), weight, 200))
    # rho = weight / strength: 45 steps are enough for every weight (80 % missing: 0.2 dB above the limit).
    start, strengths = _first_guess(operator, y), repeat(_TV_STRENGTH, _TV_STEPS)
    denoise, rho = partial(_tv_denoise, steps=50), weight / _TV_STRENGTH
    *_, last = plug_and_play(operator, y, denoise, start, strengths, rho)
    return last


def _shrink_wavelets(picture: np.ndarray, threshold: float) -> np.ndarray:
    """Soft threshold of all but the coarsest scale's coefficients, the proximal map of |Wx|₁."""
    basis = _OPPONENT if picture.shape[-1] == 3 else np.eye(picture.shape[-1])
    levels = max(1, pywt.dwt_max_level(min(picture.shape[:2]), _WAVELET))
    coarse, *details = pywt.wavedec2(picture @ basis.T, _WAVELET, "periodization", levels, axes=(0, 1))
    shrunk = [tuple(pywt.threshold(band, threshold, "soft") for band in bands) for bands in details]
    return pywt.waverec2([coarse, *shrunk], _WAVELET, "periodization", axes=(0, 1)) @ basis


def _tv_denoise(picture: np.ndarray, weight: float, steps: int) -> np.ndarray:
    basis = _OPPONENT if picture.shape[-1] == 3 else np.eye(picture.shape[-1])
    # eps = 0, because the default stops up to 0.5 dB short.
    smooth = denoise_tv_chambolle(picture @ basis.T, weight, eps=0, max_num_iter=steps, channel_axis=-1)
    return np.asarray(smooth) @ basis


def _bm3d_strengths(operator: LinearOperator, sigma: float) -> list[float]:
    if isinstance(operator, Identity):
        return [0.8 * sigma, sigma, 1.2 * sigma]
    # A filled hole is a better first guess than grey, so it needs less and shorter smoothing.
    first, steps = (0.1, 16) if isinstance(operator, Mask) else (0.2, 24)
    return np.geomspace(max(first, 2 * sigma), 0.8 * sigma, steps).tolist()


def _bm3d_denoise(picture: np.ndarray, sigma: float) -> np.ndarray:
    try:
        import bm3d as package
    except ImportError as error:
        raise InputError("the BM3D baseline needs the package bm3d; pip install bm3d") from error
    profile = package.BM3DProfile()
    profile.num_threads = 1  # more threads add in another order each time
    if picture.shape[-1] == 3:
        return np.asarray(package.bm3d_rgb(picture, sigma, profile))
    return np.asarray(package.bm3d(picture[..., 0], sigma, profile))[..., None]


def _first_guess(operator: LinearOperator, y: Tensor) -> Images:
    grey = torch.full((1, *operator.shape), 0.5)
    return biharmonic_filling(operator, y) if isinstance(operator, Mask) else grey


@lru_cache(maxsize=1)
def _gram(operator: GaussianSensing) -> Tensor:
    return operator.matrix @ operator.matrix.T


def _to_picture(images: Images) -> np.ndarray:
    return images[0].permute(1, 2, 0).double().numpy()


def _to_images(picture: np.ndarray) -> Images:
    return torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)[None], dtype=np.float32))
