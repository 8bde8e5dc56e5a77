"""Where a chain begins after random sensing: vector approximate message passing.

Random measurements see every pattern alike. Their estimate then has an error that looks like white noise,
once what the estimate before contributed is taken out. So two estimates take turns: the linear one, from the
measurements and a picture r₂ with white error, and the denoiser's, from a picture r₁ with white error of
variance τ². Each gives an estimate x̂ with its mean derivative α, and hands on what it did not get from the
other,

    r ← (x̂ − α r)/(1 − α).

How large the error of r₂ is, its residual tells without knowing the picture: E‖y − A r₂‖² = mσ² + v₂ ‖A‖²_F.
The prior's surrogate denoises first, at no cost, until the error is one that the flow knows.

Source: Rangan, Schniter & Fletcher 2019, Vector approximate message passing; Metzler, Maleki & Baraniuk 2016,
From denoising to compressed sensing (denoisers in such iterations, and derivatives by a probe); Ma & Ping
2017, Orthogonal AMP (the error from the residual).
"""

from collections.abc import Callable
from math import prod

import torch
from torch import Tensor

from aipo.basics.arrays import Images, PerImage, dot, expand, per_image_sum
from aipo.basics.conjugate_gradients import conjugate_gradients
from aipo.gaussian.surrogate import Filtering
from aipo.likelihoods import Gaussian
from aipo.operators import LinearOperator
from aipo.path.denoising import Denoising, restored, rounded
from aipo.priors.views import PLAIN

# Rounds of the surrogate and of the flow; one of the flow's costs two evaluations.
GAUSSIAN_ROUNDS, ROUNDS = 6, 8

# The probe of derivatives moves a picture by so much of its noise.
PROBED = 0.05

# Mean derivatives are kept within these, and variances above the last.
LEAST, MOST, SMALLEST = 0.01, 0.98, 1e-8

# r, its error's standard deviation (B,) -> an estimate of the picture.
Denoise = Callable[[Images, PerImage], Images]


def message_passing(
    likelihood: Gaussian, prior: Denoising, surrogate: Filtering, spent: Callable[[int], None]
) -> tuple[Images, Tensor]:
    """Pictures from isotropic measurements, near the posterior mean, and evaluations spent on each.

    Args:
        likelihood: its operator measures every pattern alike (`aipo.selection.structure.isotropic`).
        prior: knows white noise.
        surrogate: of the prior.
        spent: called with the number of pictures after every evaluation of the prior.

    Returns:
        For each image the last estimate before its error rises, as its residual tells, (B, C, H, W), and the
        evaluations, (B,).
    """
    count, shape = len(likelihood), likelihood.operator.shape
    mean = (
        surrogate.mean_like(torch.zeros(count, *shape).to(likelihood.y))
        .to(likelihood.y)
        .expand(count, *shape)
    )
    size = _squared_norm(likelihood.operator.linear, mean)

    def wiener(r: Images, tau: PerImage) -> Images:
        return mean[: len(r)] + surrogate.wiener(r - mean[: len(r)], tau**2).to(r)

    def flow(r: Images, tau: PerImage) -> Images:
        spent(len(r))
        return restored(prior, r, rounded(tau), PLAIN)

    other = mean
    for _ in range(GAUSSIAN_ROUNDS):
        estimate, other, error = _round(likelihood, wiener, *_linear(likelihood, other, size), size)
    evaluations, going = (
        torch.zeros(count, dtype=torch.long).to(mean.device),
        torch.arange(count).to(mean.device),
    )
    for _ in range(ROUNDS):
        likely = likelihood.select(going)
        own, tau = _linear(likely, other[going], size)
        known = tau < prior.loudest
        going, likely = going[known], likely.select(known.nonzero().squeeze(1))
        if len(going) == 0:
            break
        found, handed, left = _round(likely, flow, own[known], tau[known], size)
        evaluations[going] += 2
        better = left < error[going]
        going = going[better]
        estimate, other, error = (
            whole.index_copy(0, going, part[better])
            for whole, part in ((estimate, found), (other, handed), (error, left))
        )
    return estimate, evaluations


def _round(
    likelihood: Gaussian, denoise: Denoise, own: Images, tau: PerImage, size: float
) -> tuple[Images, Images, PerImage]:
    """The denoiser's estimate, what it hands on, and the variance of the error of that, ∞ if not finite."""
    estimate, other = _denoised(denoise, own, tau)
    finite = torch.isfinite(other).flatten(1).all(1)
    return estimate, other, torch.where(finite, _left(likelihood, other, size), torch.inf)


def _left(likelihood: Gaussian, r: Images, size: float) -> PerImage:
    """The variance of the white error of r, as its residual tells; `size` is ‖A‖²_F."""
    noise = likelihood.operator.measurements * likelihood.sigma**2
    return ((likelihood.residual_squared(r) - noise) / size).clamp_min(SMALLEST)


def _linear(likelihood: Gaussian, r: Images, size: float) -> tuple[Images, PerImage]:
    """What the measurements add to a picture with white error: r₁, and the standard deviation of its error.

    The estimate is r + v Aᵀ(v A Aᵀ + σ²)⁻¹(y − A r), and its mean derivative is found along the probe.
    """
    variance = _left(likelihood, r, size)
    operator, n, probe = likelihood.operator, prod(likelihood.operator.shape), _signs(r)
    v, noise = variance.repeat(2), (likelihood.sigma**2).repeat(2)
    right = torch.cat((likelihood.y - operator(r), operator(probe)))

    def matrix(u: Tensor) -> Tensor:
        return expand(v, u) * operator.linear.forward(operator.linear.adjoint(u)) + expand(noise, u) * u

    dual = conjugate_gradients(matrix, right, lambda u: u, tolerance=1e-4).x
    moved, answered = (expand(v, r) * operator.linear.adjoint(dual).to(r)).chunk(2)
    alpha = (1 - dot(probe, answered) / n).clamp(LEAST, MOST)
    own = r + moved / expand(1 - alpha, r)
    return own, (variance * alpha / (1 - alpha)).sqrt()


def _denoised(denoise: Denoise, r: Images, tau: PerImage) -> tuple[Images, Images]:
    """The denoiser's estimate, and r₂, the part of it that does not come from r."""
    probe = _signs(r)
    moved = expand(PROBED * tau, r) * probe
    estimate, other = denoise(r, tau), denoise(r + moved, tau)
    alpha = (dot(probe, other - estimate) / (PROBED * tau * probe[0].numel())).clamp(LEAST, MOST)
    alpha = expand(alpha, r)
    return estimate, (estimate - alpha * r) / (1 - alpha)


def _signs(like: Images) -> Images:
    """A picture of random signs, the same for every image."""
    normal = torch.randn(1, *like.shape[1:], generator=torch.Generator().manual_seed(1))
    return normal.sign().to(like).expand_as(like)


def _squared_norm(operator: LinearOperator, like: Images, probes: int = 8) -> float:
    """‖A‖²_F, by random pictures of signs (Hutchinson 1990)."""
    white = torch.randn(probes, *like.shape[1:], generator=torch.Generator().manual_seed(2)).sign().to(like)
    return float(per_image_sum(operator.forward(white) ** 2).mean())
