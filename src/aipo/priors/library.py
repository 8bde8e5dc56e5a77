"""The priors that ship with the package, and prior folders."""

from copy import deepcopy
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from aipo.basics.errors import CheckpointError, InputError
from aipo.flows import ConditionalFlow, Flow, Glow, Precision, RealNVP, TarFlow
from aipo.gaussian import LowRankGaussian, LowRankStationary, StationaryGaussian
from aipo.io import tensors as checkpoints
from aipo.priors.flow_prior import Fitted, FlowPrior
from aipo.priors.soundness import check_architecture, check_card, check_flow, check_surrogate

FAMILIES: dict[str, type[Glow] | type[RealNVP] | type[TarFlow]] = {
    "glow": Glow,
    "realnvp": RealNVP,
    "tarflow": TarFlow,
}


SURROGATES: dict[str, type[Fitted]] = {
    "low-rank": LowRankGaussian,
    "low-rank-stationary": LowRankStationary,
    "stationary": StationaryGaussian,
}


def bundled_priors() -> dict[str, Path]:
    """Folders of the priors that ship with the package, by name."""
    root = Path(str(resources.files("aipo"))) / "weights"
    return {path.parent.name: path.parent for path in sorted(root.glob(f"*/{checkpoints.CONFIG_NAME}"))}


def load_prior(name: str | Path, precision: Precision = "float32") -> FlowPrior:
    """A bundled prior by name, or any prior from its folder.

    Args:
        precision: of the flow's networks, see `FlowPrior`.

    Raises:
        InputError: no such prior, or a precision that its flow has no evaluation for.
        CheckpointError: the folder is damaged or belongs to another version.
    """
    folder = bundled_priors().get(str(name), Path(name))
    if not folder.is_dir():
        known = ", ".join(bundled_priors())
        raise InputError(f"there is no prior {name}; use one of {known}, or the folder of a trained prior")
    card, tensors = checkpoints.load_folder(folder)
    try:
        flow, surrogate = _made(card, tensors, str(folder))
    except _UNFIT as error:
        raise _unfit(folder, error) from error
    try:
        prior = FlowPrior(flow, surrogate, card, precision)
    except RuntimeError as error:  # not ValueError, as an InputError is: that is of the precision
        raise _unfit(folder, error) from error
    try:
        check_card(card, _scales(prior))
    except _UNFIT as error:
        raise _unfit(folder, error) from error
    return prior


# What numbers, names and tensors that fit nothing may raise before they are recognised.
_UNFIT = (LookupError, TypeError, ValueError, AttributeError, RuntimeError, OverflowError, MemoryError)


def _unfit(folder: Path, error: Exception) -> CheckpointError:
    if isinstance(error, CheckpointError):
        return error
    told = str(error) if isinstance(error, InputError) else repr(error)[:200]
    return CheckpointError(
        f"{folder} does not describe a prior of this version ({told}); restore the original folder"
    )


def _made(card: dict[str, Any], tensors: dict[str, Tensor], origin: str) -> tuple[Flow, Fitted]:
    """Flow and surrogate; all numbers and tensors are checked before memory is taken for them."""
    groups: dict[str, dict[str, Tensor]] = {"flow": {}, "surrogate": {}}
    for key, tensor in tensors.items():
        group, rest = key.split(".", 1)
        groups[group][rest] = tensor
    flow = _loaded(card["flow"], groups["flow"], origin)
    check_flow(flow)
    check_surrogate(groups["surrogate"])
    surrogate = SURROGATES[card["surrogate"]](**groups["surrogate"])
    _check_surrogate(surrogate, flow.shape)
    return flow, surrogate


def _loaded(description: dict[str, Any], tensors: dict[str, Tensor], origin: str) -> Flow:
    """The flow of a description, built without memory first, so that shapes are compared before any is taken.

    Raises:
        CheckpointError: tensors that do not fit the description.
    """
    check_architecture(description)
    if description["levels"] * description["steps"] > len(tensors):
        raise InputError(
            f"{description['levels']} levels of {description['steps']} steps have more than the "
            f"{len(tensors)} tensors that are there"
        )
    with torch.device("meta"):
        flow = build_flow(description)
    checkpoints.check_state(flow, tensors, origin)
    flow = flow.to_empty(device="cpu")
    flow.load_state_dict(tensors)
    return flow


def _scales(prior: FlowPrior) -> int:
    """How many energies a picture has; one of the least size is looked at."""
    sides = [side or prior.flow.factor for side in prior.shape[1:]]
    energies = prior.energies(torch.full((1, prior.shape[0], *sides), 0.5))
    if not bool(torch.isfinite(energies).all()):
        raise InputError("the energy of a grey picture is not finite")
    return energies.shape[1]


def _check_surrogate(surrogate: Fitted, shape: tuple[int, int | None, int | None]) -> None:
    mean = tuple(surrogate.mean.shape)
    expected = shape[:1] if isinstance(surrogate, StationaryGaussian) else shape
    if mean != expected:
        raise InputError(f"the surrogate's mean has shape {mean}, but the flow's pictures {tuple(shape)}")


def build_flow(description: dict[str, Any]) -> Flow:
    """The untrained flow of a configuration: family, shape, levels, steps, hidden, noise_levels, clean_apart.

    Raises:
        InputError: unknown family, one that cannot be told noise levels and should be, or numbers out of
            bounds.
    """
    check_architecture(description)
    family = description["family"]
    if family not in FAMILIES:
        raise InputError(f"there is no flow family {family}; use one of {', '.join(FAMILIES)}")
    channels, height, width = description["shape"]
    flow = FAMILIES[family](
        (channels, height, width),
        levels=description["levels"],
        steps=description["steps"],
        hidden=description["hidden"],
    )
    if not description.get("noise_levels", False):
        return flow
    return ConditionalFlow(flow, deepcopy(flow) if description.get("clean_apart", False) else None)
