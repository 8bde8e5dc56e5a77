"""What an operator leaves open: single entries, holes, fine detail, or anything.

These functions ask the operator, or measure a picture with it. They never ask for its class.
"""

import numpy as np
import torch
from torch import Tensor

from aipo.gaussian.surrogate import Filtering
from aipo.likelihoods import Likelihood
from aipo.operators import Operator
from aipo.path.denoising import Denoising
from aipo.priors.prior import Prior

# Lost entries form holes if their mean distance to the nearest measured one is larger than this, in pixels.
HOLE_FROM = 1.5

# A picture counts as complete if at most this part of its entries is lost and they form no hole.
FEW = 0.05

# Measurements see patterns alike if none gets more than so many times the energy of another, on average over
# a few random pictures of each kind.
ALIKE, PATTERNS = 1.6, 8


def loses_entries(kept: Tensor) -> bool:
    """Whether so many entries are lost, or so close together, that the prior has to fill them in.

    Args:
        kept: which entries are measured, boolean (C, H, W).
    """
    lost = float((~kept).double().mean())
    return lost > FEW or (lost > 0 and has_holes(kept))


def has_holes(kept: Tensor) -> bool:
    """Whether lost entries lie far from measured ones of their own channel."""
    from scipy.ndimage import distance_transform_edt  # only here: it is slow to import

    lost = ~kept.cpu().numpy()
    distance = np.asarray(distance_transform_edt(lost, sampling=(sum(lost.shape), 1, 1)))  # within channels
    return float(distance[lost].mean()) > HOLE_FROM


def whole_pixels(kept: Tensor) -> Tensor:
    """Pixels whose channels are measured all together or not at all, boolean (H, W)."""
    return (kept == kept[:1]).all(0)


def keeps_means(operator: Operator) -> bool:
    """Whether the mean of every colour is measured, so that only finer detail may be lost.

    AᵀA then turns a picture of one colour into a picture of one colour, and no colour into black. This holds
    for blurs, for larger pixels, and for some of the frequencies if the lowest is among them.
    """
    linear, channels = operator.linear, operator.shape[0]
    if linear is not operator:
        return False
    colours = torch.eye(channels, dtype=torch.float64, device=operator.device)[:, :, None, None]
    back = linear.adjoint(linear.forward(colours.expand(-1, -1, *operator.shape[1:])))
    means = back.mean((2, 3))
    flat = bool(((back - means[:, :, None, None]).abs() <= 1e-5 * means.abs().max()).all())
    return flat and _full_rank(means)


def residual_tells(operator: Operator) -> bool:
    """Whether a picture x is as good as its A x, so that an estimate of the error of A x judges x.

    This holds where entries are measured, and for a blur, which loses only detail finer than itself.
    """
    if operator.kept() is not None:
        return True
    gram = operator.gram()
    return gram is not None and _full_rank(gram[0, 0]) and _is_local(gram, operator.shape)


def _full_rank(means: Tensor) -> bool:
    """Whether no colour is measured a hundred times more weakly than another, by a symmetric matrix."""
    held = torch.linalg.eigvalsh((means + means.mT) / 2)
    return float(held.min()) > 0.01 * float(held.max())


def _is_local(gram: Tensor, shape: tuple[int, int, int]) -> bool:
    """Whether AᵀA spreads a point no farther than a quarter of the picture, as blurs do."""
    _, height, width = shape
    spread = torch.fft.irfft2(gram, s=(height, width), dim=(0, 1)).square().sum((2, 3))
    rows = torch.fft.fftfreq(height).abs()[:, None] <= 0.25
    near = rows & (torch.fft.fftfreq(width).abs() <= 0.25)
    return float(spread[~near.to(spread.device)].sum()) < 1e-6 * float(spread.sum())


def at_once(likelihood: Likelihood, prior: Prior) -> bool:
    """Whether the noise is white, over a picture that is whole, and of a strength that the prior knows.

    A grey picture is whole too. Its colours are the surrogate's: a path or a chain found none better.

    Args:
        likelihood: in its simplest spelling.
    """
    return likelihood.gaussian() is likelihood and _whole_and_known(likelihood, prior)


def in_steps(likelihood: Likelihood, prior: Prior) -> bool:
    """Whether the noise is Gaussian, white or not, over a picture that is whole, and the prior knows noise.

    Args:
        likelihood: in its simplest spelling.
    """
    stein = likelihood.stein(torch.zeros_like(likelihood.y))
    gaussian = stein is not None and stein.exact
    return gaussian and knows_noise(prior) and _whole_and_known(likelihood, prior)


def knows_noise(prior: Prior) -> bool:
    """Whether the prior restores noisy pictures at once, and its surrogate tells what noise leaves open."""
    if not isinstance(prior, Denoising) or prior.loudest == 0:
        return False
    return isinstance(getattr(prior, "surrogate", None), Filtering)


def _whole_and_known(likelihood: Likelihood, prior: Prior) -> bool:
    """Whether at most a few scattered entries are lost, and noise is no stronger than the prior knows.

    The surrogate tells a few lost entries from their neighbours.
    """
    kept, scale = likelihood.operator.kept(), likelihood.operator.row_scale()
    lossy = kept is not None and loses_entries(kept)
    if scale is None or lossy or not isinstance(prior, Denoising):
        return False
    return float(likelihood.noise_level.max()) <= prior.loudest * scale**0.5


def leaves_wide(operator: Operator) -> bool:
    """Whether linear measurements see some colours or places far better than others, as projections do.

    What they leave open is then as wide as pictures differ, and a short chain does not cross it. Of
    measurements that are `isotropic` this says nothing.
    """
    mixed = operator.linear is operator and operator.kept() is None
    return mixed and not keeps_means(operator)


def isotropic(operator: Operator) -> bool:
    """Whether measurements mix all entries and see every pattern about alike, as random sensing does.

    Patterns are random pictures of coarse, middling and fine structure, in two opposite quarters.
    """
    linear, (channels, height, width) = operator.linear, operator.shape
    if linear is not operator or operator.kept() is not None or operator.gram() is not None:
        return False
    generator, seen = torch.Generator().manual_seed(0), []
    quarters = [
        (slice(0, height // 2), slice(0, width // 2)),
        (slice(height // 2, None), slice(width // 2, None)),
    ]
    for grain in (1, 4, 16):
        rows, columns = -(-height // grain), -(-width // grain)
        for quarter in quarters:
            normal = torch.randn(PATTERNS, channels, rows, columns, generator=generator, dtype=torch.float64)
            fine = normal.repeat_interleave(grain, 2).repeat_interleave(grain, 3)[:, :, :height, :width]
            pattern = torch.zeros_like(fine)
            pattern[:, :, *quarter] = fine[:, :, *quarter]
            measured = linear.forward(pattern.to(operator.device))
            seen.append(float(measured.square().sum() / pattern.square().sum()))
    return max(seen) <= ALIKE * min(seen)
