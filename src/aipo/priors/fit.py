"""From pictures to a prior folder: train the flow, fit the surrogate, measure, describe, save."""

import platform
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from aipo.basics.arrays import Images
from aipo.basics.errors import InputError
from aipo.flows import ConditionalFlow, Flow
from aipo.flows.training.data import PictureData, dequantize
from aipo.flows.training.distributed import leads
from aipo.flows.training.loop import CHECKPOINT_NAME, begin, curve, train
from aipo.flows.training.options import TrainingOptions
from aipo.flows.training.validation import validate
from aipo.gaussian import LowRankGaussian, LowRankStationary, StationaryGaussian, log_prob
from aipo.io.tensors import CONFIG_NAME, TENSORS_NAME, write_atomic
from aipo.priors.flow_prior import Fitted, FlowPrior
from aipo.priors.library import FAMILIES, SURROGATES, build_flow
from aipo.priors.soundness import check_architecture, check_finite, check_flow
from aipo.priors.typicality import LARGEST, fit_typicality

CARD_NAME = "README.md"
# What a flow may have beside its architecture as a plain one; a configuration names what it has.
LEVELLED = ("noise_levels", "clean_apart")


@dataclass(frozen=True)
class FlowOptions:
    """Which flow to fit.

    Args:
        family: "glow", "realnvp" or "tarflow".
        levels: scales, or for TarFlow patches 2^levels wide; sides must be divisible by 2^levels.
        steps: steps of flow per scale, or for TarFlow blocks.
        hidden: width of the networks.
        any_size: one prior for pictures of every size (stationary base density).
        noise_levels: a flow that is told the noise of its pictures, p(x; τ) (not TarFlow).
        clean_apart: with noise levels, pictures without noise keep the weights, the surrogate and the
            typicality of the prior that training starts from, and noisy ones get weights of their own. It
            needs an initial prior and `told = 1`.

    Raises:
        InputError: a number is below 1 or above what a flow can have (`aipo.priors.soundness`), there is no
            such family, or `clean_apart` comes without noise levels.
    """

    family: Literal["glow", "realnvp", "tarflow"] = "glow"
    levels: int = 3
    steps: int = 8
    hidden: int = 96
    any_size: bool = False
    noise_levels: bool = False
    clean_apart: bool = False

    def __post_init__(self):
        check_architecture({**asdict(self), "shape": (1, None, None)})
        if self.family not in FAMILIES:
            raise InputError(f"flow.family = {self.family!r}; use one of {', '.join(FAMILIES)}")
        if self.clean_apart and not self.noise_levels:
            raise InputError("clean_apart = True, but the flow knows no noise; set noise_levels too")


@dataclass(frozen=True)
class Origin:
    """What a prior's card says beside its measured figures.

    Args:
        name: of the prior.
        data: which pictures it was trained on.
        licence: under which terms the weights may be used.
        command: the command that trained it.
    """

    name: str
    data: str
    licence: str
    command: str


def fit_prior(
    training: PictureData,
    validation: PictureData,
    out: Path,
    flow_options: FlowOptions,
    options: TrainingOptions,
    origin: Origin,
    device: str = "cpu",
    initial: FlowPrior | None = None,
) -> FlowPrior:
    """Train (or resume) in `out`/training and write the finished prior to `out`.

    Args:
        training: crops to fit.
        validation: held-out pictures for bits per dimension. The surrogate's kind is chosen, and typical
            energies are measured, on these pictures enlarged as often as those of training are.
        initial: a prior whose weights training goes on from, of the same architecture; a flow with noise
            levels may also go on from one without.

    Raises:
        InputError: options that do not fit the pictures, an initial prior of another architecture, files in
            `out` that the prior's would replace, or a training that diverged, which leaves no prior.
    """
    _check_free(out)
    if flow_options.clean_apart and (initial is None or options.told < 1):
        raise InputError(
            f"clean_apart = True with told = {options.told}; give an initial prior, whose weights it keeps "
            "for pictures without noise, and told = 1, since it trains no others"
        )
    channels, height, width = training.shape
    if flow_options.any_size and training.crop is None:
        raise InputError("a prior for any size is trained on crops; set crop, for example 48")
    factor = 2**flow_options.levels
    if height % factor or width % factor:
        raise InputError(
            f"flow.levels = {flow_options.levels}, but {height} × {width} is not divisible by {factor}; use "
            "fewer levels, or a crop that is"
        )
    shape = (channels, None, None) if flow_options.any_size else (channels, height, width)
    architecture: dict[str, Any] = {
        "family": flow_options.family,
        "shape": list(shape),
        "levels": flow_options.levels,
        "steps": flow_options.steps,
        "hidden": flow_options.hidden,
    }
    architecture |= {name: True for name in LEVELLED if getattr(flow_options, name)}
    torch.manual_seed(options.seed)
    flow = build_flow(architecture)
    if initial is not None:
        _go_on_from(initial, flow, architecture)
        begin(flow, training, out / "training", options)
    held_out = validation.batch(seed=1, step=0, size=160)
    train(flow, training, held_out, out / "training", options, device)
    flow.cpu()
    _round_to_half(flow)
    check_flow(flow)
    alike = replace(validation, zoomed=training.zoomed, zoom_range=training.zoom_range)
    kept = initial if flow_options.clean_apart else None  # what it knows of clean pictures stays true
    surrogate = kept.surrogate if kept else _surrogate(training, alike, flow_options.any_size)
    card = {
        "format": 1,
        "name": origin.name,
        "flow": architecture,
        "surrogate": next(name for name, kind in SURROGATES.items() if isinstance(surrogate, kind)),
        "preprocessing": "none: the density is of x in [0, 1]; uniform dequantization in training only",
        "data": origin.data,
        "licence": origin.licence,
        "command": origin.command,
        "training": asdict(options)
        | {name: getattr(training, name) for name in ("crop", "flips", "zoomed", "zoom_range")}
        | {"torch": torch.__version__},
        "machine": _machine(device),
        "parameters": sum(parameter.numel() for parameter in flow.parameters()),
        **{name: round(figure, 4) for name, figure in validate(flow, held_out).items()},
        "curve": _thinned(curve(out / "training")),
    }
    prior = FlowPrior(flow, surrogate, card)
    known = kept.card.get("typicality") if kept else None
    card["typicality"] = (
        known or fit_typicality(prior.energies, of_sizes(alike, flow_options.any_size)).card()
    )
    for name in ("validation_bits_per_dim", "typicality"):
        check_finite(card[name], f"{name} of the trained prior")
    if leads():
        prior.save(out)
        write_atomic(out / CARD_NAME, model_card(card).encode())
    return prior


def _machine(device: str) -> str:
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else platform.machine()


def _check_free(out: Path) -> None:
    """A folder that no training was begun in holds none of a prior's files yet, whoever wrote them."""
    taken = [out / name for name in (CARD_NAME, CONFIG_NAME, TENSORS_NAME) if (out / name).exists()]
    if taken and not (out / "training" / CHECKPOINT_NAME).exists():
        raise InputError(
            f"{taken[0]} would be replaced by the new prior's; give another folder, or move that file away"
        )


def _go_on_from(initial: FlowPrior, flow: Flow, architecture: dict) -> None:
    known = initial.card["flow"]
    plain = {name: value for name, value in architecture.items() if name not in LEVELLED}
    if known not in (architecture, plain):
        raise InputError(
            f"training cannot go on from a prior with the flow {known}, "
            f"asked for is {architecture}; give the same flow options and pictures"
        )
    trained = initial.flow.trained
    if flow.noise_levels and not trained.noise_levels:
        clean = deepcopy(trained) if architecture.get("clean_apart", False) else None
        trained = ConditionalFlow(deepcopy(trained), clean)
    flow.load_state_dict(trained.state_dict())


def model_card(card: dict) -> str:
    """The configuration as a short text for people."""
    flow = card["flow"]
    size = "any size" if flow["shape"][1] is None else f"{flow['shape'][1]} × {flow['shape'][2]} pixels"
    return f"""# {card["name"]}

A normalizing-flow prior for use with aipo.

- pictures: {size}; channels: {flow["shape"][0]}
- flow: {flow["family"]}, {flow["levels"]} levels × {flow["steps"]} steps, hidden width {flow["hidden"]},
  {card["parameters"]:,} weights stored as float16
- trained on: {card["data"]}
- command: `{card["command"]}`
- validation (held-out pictures): {card["validation_bits_per_dim"]:.3f} bits per dimension
- licence: {card["licence"]}
- intended for: restoring pictures like those it was trained on. Where nothing was measured, it fills in
  a plausible guess, not a fact.
"""


def _thinned(points: list[tuple[int, float]], most: int = 50) -> list[tuple[int, float]]:
    """At most so many, the last among them."""
    stride = -(-len(points) // most)
    return points[::-1][::stride][::-1]


def _round_to_half(flow: torch.nn.Module) -> None:
    """The weights as they will be stored, so that every figure on the card is theirs."""
    with torch.no_grad():
        for name, tensor in flow.state_dict().items():
            tensor.copy_(tensor.half().float())
            if not bool(torch.isfinite(tensor).all()):
                raise InputError(f"{name} is too large to be stored; train with a smaller learning_rate")


def _surrogate(data: PictureData, validation: PictureData, any_size: bool) -> Fitted:
    """For one size the kind under which held-out pictures are likelier: texture or not (docs/method.md)."""
    if any_size:  # larger crops than the flow's resolve the low frequencies
        smallest = min(min(picture.shape[1:]) for picture in data.pictures)
        return StationaryGaussian.fit(images(replace(data, crop=min(128, smallest)), 512))
    pictures, held_out = images(data, 4096), images(validation, 160)
    plain = LowRankGaussian.fit(pictures, rank=min(128, pictures[0].numel() // 4))
    kinds = LowRankStationary.around(plain, pictures), plain
    return max(kinds, key=lambda surrogate: float(log_prob(surrogate, held_out).mean()))


def of_sizes(validation: PictureData, any_size: bool) -> list[Images]:
    """Held-out pictures; for any size crops as in training and larger ones, fewer of these."""
    if not any_size or validation.crop is None:
        return [images(validation, 320, seed=1)]
    most = min(LARGEST, *(min(picture.shape[1:]) for picture in validation.pictures))
    sides = {min(scale * validation.crop, most): 320 // scale**2 for scale in (1, 2, 4)}
    return [images(replace(validation, crop=side), count, seed=1) for side, count in sides.items()]


def images(data: PictureData, count: int, seed: int = 2) -> Images:
    """Pictures or crops as a density of real numbers sees them, (count, C, H, W)."""
    return dequantize(data.batch(seed=seed, step=0, size=count), torch.Generator().manual_seed(0))
