"""What must hold of a prior that comes from a file: a checksum tells that it is whole, not that it is sound.

Numbers are bounded before anything is built from them, and tensors are looked at before they are used.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from aipo.basics.errors import InputError
from aipo.flows import Flow
from aipo.flows.conditional import LEVELS
from aipo.flows.layers import InvertibleConv1x1
from aipo.priors.typicality import typicality

# The largest numbers that describe a flow: scales, steps per scale, width; channels and side of a picture.
MOST_LEVELS, MOST_STEPS, WIDEST, MOST_CHANNELS, LARGEST_SIDE = 10, 512, 8192, 64, 2**15
# Weights of the largest flow. A checkpoint holds four numbers of four bytes for each.
MOST_WEIGHTS = 2**28
# How far colour directions may be from orthogonal, and W⁻¹W from I: stored weights are rounded.
ORTHOGONAL, INVERTIBLE = 1e-3, 1e-3


def check_architecture(description: Mapping[str, Any]) -> None:
    """Refuse a flow's description whose numbers are no whole numbers or out of bounds.

    Args:
        description: family, shape (C, H, W) or (C, None, None), levels, steps, hidden and what may be beside.

    Raises:
        InputError: it names the number.
        KeyError: something is missing.
    """
    for name, most in (("levels", MOST_LEVELS), ("steps", MOST_STEPS), ("hidden", WIDEST)):
        check_whole(f"flow.{name}", description[name], 1, most)
    shape = description["shape"]
    if not isinstance(shape, list | tuple) or len(shape) != 3 or (shape[1] is None) != (shape[2] is None):
        raise InputError(f"flow.shape = {shape}; it is (C, H, W), or (C, None, None) for any size")
    for side, most in zip(shape, (MOST_CHANNELS, LARGEST_SIDE, LARGEST_SIDE), strict=True):
        if side is not None:
            check_whole("an entry of flow.shape", side, 1, most)
    for name in ("noise_levels", "clean_apart"):
        if not isinstance(description.get(name, False), bool):
            raise InputError(f"flow.{name} = {description[name]}; it is true or false")


def check_whole(name: str, value: object, least: int, most: int) -> None:
    """Refuse what is no whole number from `least` to `most`.

    Raises:
        InputError: it names the number.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise InputError(f"{name} = {str(value)[:50]}; use a whole number from {least} to {most}")


def check_flow(flow: Flow) -> None:
    """Refuse a flow of which a matrix cannot be inverted.

    Raises:
        InputError: it names the matrix.
    """
    for name, module in flow.named_modules():
        if isinstance(module, InvertibleConv1x1):
            _check_mixing(module, name)


@torch.no_grad()
def _check_mixing(layer: InvertibleConv1x1, name: str) -> None:
    """W = P L (U + diag(sign · exp(log_s))) is invertible if P permutes, signs are ±1 and no scale is 0."""
    ones, count = layer.permutation == 1, len(layer.permutation)
    once = bool((ones.sum(0) == 1).all()) and bool((ones.sum(1) == 1).all())
    permutes = once and int(layer.permutation.count_nonzero()) == count
    signed = bool((layer.sign.abs() == 1).all())
    weight = layer.weight().double()
    inverse, failed = torch.linalg.inv_ex(weight)
    away = float((inverse @ weight - torch.eye(len(weight)).to(weight)).abs().max())
    if not permutes or not signed or int(failed) or not away <= INVERTIBLE:
        raise InputError(f"the matrix of {name} cannot be inverted")


def check_surrogate(tensors: Mapping[str, Tensor]) -> None:
    """Refuse the tensors of a surrogate that no Gaussian has.

    Args:
        tensors: by their names in `aipo.gaussian`, such as mean, loadings, variances, colours and spectrum.

    Raises:
        InputError: it names the tensor.
    """
    for name, tensor in tensors.items():
        if not tensor.is_floating_point() or tensor.numel() == 0 or not bool(torch.isfinite(tensor).all()):
            raise InputError(
                f"surrogate.{name} is {tensor.dtype} of shape {tuple(tensor.shape)}, not finite numbers"
            )
        if name in ("variances", "spectrum", "power") and not bool((tensor > 0).all()):
            raise InputError(f"surrogate.{name} is not positive, as variances are")
    colours = tensors.get("colours")
    if colours is not None:
        square = colours.ndim == 2 and colours.shape[0] == colours.shape[1]
        product = colours.double() @ colours.double().mT if square else colours
        if not square or float((product - torch.eye(len(colours)).to(product)).abs().max()) > ORTHOGONAL:
            raise InputError("surrogate.colours are no orthogonal directions")
    spectrum = tensors.get("spectrum")
    if spectrum is not None and (spectrum.ndim != 3 or len(spectrum) != len(tensors["mean"])):
        raise InputError(f"surrogate.spectrum has shape {tuple(spectrum.shape)}; it is (C, G, K)")


def check_card(card: Mapping[str, Any], scales: int) -> None:
    """Refuse a configuration whose facts about training, which restoring uses, cannot be.

    Args:
        card: the configuration.
        scales: of the flow, so many energies a picture has.

    Raises:
        InputError: it names the fact.
    """
    training = card.get("training", {})
    if not isinstance(training, dict):
        raise InputError("training is no table of options")
    if "told_range" in training:
        low, high = training["told_range"]
        if not LEVELS[0] <= low <= high <= LEVELS[1]:
            raise InputError(
                f"training.told_range = {[low, high]}; use {LEVELS[0]} <= smallest <= largest <= 1"
            )
    told = typicality(dict(card))
    if told is None:
        return
    count = told.levels.numel() * scales
    shapes = [tuple(value.shape) for value in vars(told).values()]
    fits = shapes == [(told.levels.numel(),), (told.levels.numel(), scales), (count, count)]
    if not fits or not all(bool(torch.isfinite(value).all()) for value in vars(told).values()):
        raise InputError(f"typicality has shapes {shapes}, or values that are not finite")
    if not bool((torch.linalg.eigvalsh(told.covariance) > 0).all()) or not bool(
        told.levels.diff().gt(0).all()
    ):
        raise InputError("typicality has levels that do not rise, or a covariance that is not positive")


def check_finite(numbers: Any, name: str) -> None:
    """Refuse a number that is NaN or infinite, anywhere in nested lists and tables.

    Raises:
        InputError: it names the place.
    """
    if isinstance(numbers, dict):
        for key, value in numbers.items():
            check_finite(value, f"{name}.{key}")
    elif isinstance(numbers, list | tuple):
        for value in numbers:
            check_finite(value, name)
    elif isinstance(numbers, float) and not math.isfinite(numbers):
        raise InputError(f"{name} = {numbers}")
