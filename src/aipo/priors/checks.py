"""Whether a likelihood and a prior are about the same pictures: asked before anything is computed.

A prior is any object with an energy, so it is asked only what it can tell.
"""

import warnings
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from aipo.basics.arrays import check_dtype
from aipo.basics.errors import InputError
from aipo.gaussian import Surrogate
from aipo.likelihoods import Likelihood
from aipo.likelihoods.likelihood import standard_normal
from aipo.operators import LinearOperator, Operator
from aipo.priors.prior import Prior

# Measurements that are so many times as large as those of the prior's own pictures have another scale; bytes
# are 255 times as large.
FAR = 8.0
# Fewer values tell little about the strength of noise.
ENOUGH = 16

Shape = tuple[int, int | None, int | None]


def check_inputs(likelihood: Likelihood, prior: Prior) -> None:
    """Refuse a likelihood and a prior that do not fit each other.

    The prior is asked for `shape`, (C, H, W) with None for any size, its own or its surrogate's; for
    `parameters()`, as a PyTorch module has them; and for `surrogate`, which tells how large values are.

    Raises:
        InputError: no energy; pictures of other channels or another size; measurements of another precision
            or on another device than the prior; noise that is larger than what was measured.

    Warns:
        UserWarning: measurements much larger than those of the prior's pictures.
    """
    if not hasattr(prior, "energy"):
        raise InputError(
            f"a prior has energy(x), but {type(prior).__name__} has none; give the likelihood, then the prior"
        )
    check_pictures(likelihood.operator, prior)
    _check_tensors(likelihood.y, prior)
    surrogate = getattr(prior, "surrogate", None)
    if surrogate is not None:
        _check_noise(likelihood)
        _check_size(likelihood, surrogate)


def check_pictures(operator: Operator, prior: Prior, name: str = "the measured picture") -> None:
    """Refuse pictures that the prior knows nothing about.

    Args:
        name: of the picture, for the sentence.

    Raises:
        InputError: other channels or another size.
    """
    wanted, shape = _shape(prior), tuple(operator.shape)
    if wanted is None or _fits(shape, wanted):
        return
    if shape[0] == wanted[0]:
        sides = ", ".join("any" if side is None else str(side) for side in wanted)
        raise InputError(
            f"{name} has shape {shape}, but the prior is for ({sides}); resize the picture, or choose a "
            "prior for any size (see aipo priors)"
        )
    turned = (shape[2], *shape[:2])
    if _fits(turned, wanted):
        remedy = f"if channels are last, make the operator for {turned} and use picture.permute(0, 3, 1, 2)"
    elif (shape[0], wanted[0]) == (1, 3) and isinstance(operator, LinearOperator):
        remedy = f"use likelihood.through(aipo.operators.Grey({(3, *shape[1:])}, (1/3, 1/3, 1/3)))"
    else:
        remedy = "convert the picture, or choose another prior (see aipo priors)"
    have, want = _kind(shape[0]), _kind(wanted[0])
    raise InputError(f"{name}, of shape {shape}, is a {have} picture, the prior is for {want} ones; {remedy}")


def _kind(channels: int) -> str:
    return {1: "grey", 3: "colour"}.get(channels, f"{channels}-channel")


def _shape(prior: Any) -> Shape | None:
    """(C, H, W) of the prior's pictures, where it or its surrogate tells."""
    surrogate = getattr(prior, "surrogate", None)
    told = getattr(prior, "shape", getattr(surrogate, "shape", None))
    return told if isinstance(told, tuple) and len(told) == 3 else None


def _fits(shape: tuple[int, ...], wanted: Shape) -> bool:
    return all(want in (None, have) for have, want in zip(shape, wanted, strict=True))


def _check_tensors(y: Tensor, prior: Any) -> None:
    own: Iterable[Tensor] = prior.parameters() if hasattr(prior, "parameters") else ()
    weights = [weight for weight in own if weight.is_floating_point()]
    places, dtypes = {weight.device for weight in weights}, {weight.dtype for weight in weights}
    if places and y.device not in places:
        place = next(iter(places))
        raise InputError(f"y is on {y.device}, the prior on {place}; use likelihood.to('{place}')")
    if len(dtypes) == 1 and dtypes <= {
        torch.float32,
        torch.float64,
    }:  # others are a matter of the prior's own
        check_dtype("y", y, "the prior", dtypes.pop())


def _check_noise(likelihood: Likelihood) -> None:
    """Refuse σ of bytes for pictures in [0, 1]: Gaussian noise is part of y, so y is never much smaller."""
    stein = likelihood.stein(torch.zeros_like(likelihood.y))
    if stein is None or not stein.exact or likelihood.operator.measurements < ENOUGH:
        return
    noise, size = likelihood.noise_level, _rms(likelihood.y)
    wrong = (noise > 1) & (noise > 3 * size)
    if bool(wrong.any()):
        sigma, found = float(noise[wrong][0]), float(size[wrong][0])
        raise InputError(
            f"sigma is {sigma:g}, but y with all its noise is only about {found:.2g}; pictures lie in "
            f"[0, 1], where {sigma:g} of 255 is {sigma / 255:.3g}"
        )


def _check_size(likelihood: Likelihood, surrogate: Surrogate) -> None:
    y, _ = likelihood.nearest()
    noise = likelihood.noise_level
    with torch.no_grad():
        expected = float(_rms(likelihood.operator(_drawn(surrogate, likelihood))))
    chance = 1 + 6 * (2 / likelihood.operator.measurements) ** 0.5  # six standard errors of a variance
    far = _rms(y) ** 2 > chance * noise**2 + (FAR * expected) ** 2
    if not bool(far.any()):
        return
    sentence = (
        f"y reaches {float(y[far].abs().max()):.3g}, but pictures of this prior would give about "
        f"{expected:.2g}; pictures lie in [0, 1]: divide by what white gives (bytes, and their noise, by 255)"
    )
    if bool((noise[far] > 2 * expected).any()):
        raise InputError(sentence)
    warnings.warn(sentence, stacklevel=4)  # where the user called what called `check_inputs`


def _drawn(surrogate: Surrogate, likelihood: Likelihood) -> Tensor:
    """A picture of the prior's Gaussian surrogate, (1, C, H, W)."""
    like = likelihood.y.new_zeros(1, *likelihood.operator.shape)
    white = standard_normal(surrogate.coordinates(like), torch.Generator().manual_seed(0))
    return surrogate.mean_like(like) + surrogate.factor(white)


def _rms(values: Tensor) -> Tensor:
    """Of each picture's values, (B,)."""
    return values.square().flatten(1).mean(1).sqrt()
