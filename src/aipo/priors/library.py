"""The priors that ship with the package, and prior folders."""

from copy import deepcopy
from importlib import resources
from pathlib import Path
from typing import Any

from torch import Tensor

from aipo.basics.errors import CheckpointError, InputError
from aipo.flows import ConditionalFlow, Flow, Glow, Precision, RealNVP, TarFlow
from aipo.gaussian import LowRankGaussian, LowRankStationary, StationaryGaussian
from aipo.io import tensors as checkpoints
from aipo.priors.flow_prior import Fitted, FlowPrior

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
    groups: dict[str, dict[str, Tensor]] = {"flow": {}, "surrogate": {}}
    try:
        for key, tensor in tensors.items():
            group, rest = key.split(".", 1)
            groups[group][rest] = tensor
        flow = build_flow(card["flow"])
        surrogate = SURROGATES[card["surrogate"]](**groups["surrogate"])
        _check_surrogate(surrogate, flow.shape)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{folder} does not describe a prior of this version ({error!r})") from error
    checkpoints.load_state(flow, groups["flow"], str(folder))
    return FlowPrior(flow, surrogate, card, precision)


def _check_surrogate(surrogate: Fitted, shape: tuple[int, int | None, int | None]) -> None:
    mean = tuple(surrogate.mean.shape)
    expected = shape[:1] if isinstance(surrogate, StationaryGaussian) else shape
    if mean != expected:
        raise InputError(f"the surrogate's mean has shape {mean}, but the flow's pictures {tuple(shape)}")


def build_flow(description: dict[str, Any]) -> Flow:
    """The untrained flow of a configuration: family, shape, levels, steps, hidden, noise_levels, clean_apart.

    Raises:
        InputError: unknown family, or one that cannot be told noise levels and should be.
    """
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
