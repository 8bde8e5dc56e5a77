"""Fit a flow to pictures: one loop that can be stopped at any moment and goes on where it was.

The fit maximises the likelihood of dequantized crops. A share of every batch carries noise of random
strength, so that the energy stays finite and rises away from the data. A flow that has never seen noisy
pictures may give them an energy of 10⁸ nats and more. A flow that is told the noise may also be fitted to
restore noisy pictures (`aipo.flows.training.loss`).
"""

import json
import math
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from aipo.basics.errors import CheckpointError, InputError
from aipo.flows import Flow
from aipo.flows.training.batches import Batch, draw
from aipo.flows.training.data import PictureData, ahead
from aipo.flows.training.distributed import average_gradients, leads, meet, share
from aipo.flows.training.loss import Loss
from aipo.flows.training.muon import Muon
from aipo.flows.training.options import TrainingOptions
from aipo.flows.training.validation import bits_per_dim, validate
from aipo.io.tensors import load_state, load_tensors, save_tensors, write_atomic

CHECKPOINT_NAME = "checkpoint.safetensors"
METRICS_NAME = "metrics.jsonl"
RATES = {"adam": 1.0, "muon": 20.0}  # the rate of each optimiser, in units of the learning rate
Optimizers = dict[str, torch.optim.Optimizer]


def train(
    flow: Flow,
    data: PictureData,
    validation: Tensor,
    out: Path,
    options: TrainingOptions,
    device: str = "cpu",
) -> float:
    """Train a flow in place, from the checkpoint in `out` if there is one; it ends with the averaged weights.

    Args:
        flow: newly made, for the shape of the data's crops or for any size. After `begin`, training starts
            from the weights that were given there.
        data: pictures from which batches are drawn.
        validation: held-out pictures, uint8 (N, C, H, W).
        out: folder for the checkpoint and metrics.jsonl.
        options: how it is trained.
        device: "cpu" or "cuda".

    Returns:
        Validation bits per dimension of the averaged weights.

    Raises:
        CheckpointError: the checkpoint cannot be read, or is of a training with other options.
        InputError: the options tell the noise to a flow without noise levels.
    """
    if options.told and not flow.noise_levels:
        raise InputError(f"told = {options.told}, but this flow has no noise levels; set flow.noise_levels")
    out.mkdir(parents=True, exist_ok=True)
    flow.to(device)
    average = deepcopy(flow)
    optimizers = _optimizers(flow, options)
    start = _resume(out, flow, average, optimizers, options)
    if start is None:
        start = 0
        first = draw(data, 0, options)
        flow.initialise(torch.cat((first.pictures, first.noisy)).to(device))
        _keep_metrics(out, 0)
    bits, derive = math.nan, Loss(flow, options)
    batches = ahead(lambda step: _ready(draw(data, step, options), device), start, options.steps)
    progress = tqdm(batches, initial=start, total=options.steps, desc="training", disable=not leads())
    for step, batch in enumerate(progress, start):
        loss = derive(batch.each(lambda part: part.to(device, non_blocking=True)))
        _step(flow, optimizers, step, options)
        _follow(average, flow, step, options.average)
        due = (step + 1) % options.validate_every == 0 or step + 1 == options.steps
        if due and leads():
            figures = validate(average, validation.to(device))
            bits = figures["validation_bits_per_dim"]
            row = {"step": step + 1, "loss": loss.item(), **figures}
            _record(out, row)
            _checkpoint(out, step + 1, flow, average, optimizers, options)
            progress.set_postfix(loss=f"{row['loss']:.3f}", bits=f"{bits:.3f}")
    meet()
    flow.load_state_dict(average.state_dict())
    return bits_per_dim(flow, validation.to(device)) if math.isnan(bits) else bits


def begin(flow: Flow, out: Path, options: TrainingOptions) -> None:
    """Make a training in `out` start from the weights of this flow; one that has begun is left as it is."""
    if leads() and not (out / CHECKPOINT_NAME).exists():
        out.mkdir(parents=True, exist_ok=True)
        _checkpoint(out, 0, flow, deepcopy(flow), _optimizers(flow, options), options)
    meet()


def _optimizers(flow: Flow, options: TrainingOptions) -> Optimizers:
    """Muon for the matrices of the networks; Adam for offsets, scales and the invertible matrices."""
    layers = [module for module in flow.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    weights = [layer.weight for layer in layers if layer.weight.requires_grad]
    weights = weights if options.optimizer == "muon" else []
    known = {id(weight) for weight in weights}
    trained = [parameter for parameter in flow.parameters() if parameter.requires_grad]
    rest = [parameter for parameter in trained if id(parameter) not in known]
    optimizers: Optimizers = {"adam": torch.optim.Adam(rest)}
    return {**optimizers, "muon": Muon(weights, lr=0.0)} if weights else optimizers


@torch.no_grad()
def _follow(average: Flow, flow: Flow, step: int, decay: float) -> None:
    """Update the moving average of the weights; the decay at step k is min(decay, (1 + k)/(10 + k))."""
    decay = min(decay, (1 + step) / (10 + step)) if step > 0 else 0.0
    torch._foreach_lerp_(list(average.parameters()), list(flow.parameters()), 1 - decay)


def _ready(batch: Batch, device: str) -> Batch:
    """This process's share, whose memory is pinned for a GPU, so that the host can go on while that reads."""
    own = batch.each(share)
    return own.each(Tensor.pin_memory) if device.startswith("cuda") else own


def _step(flow: Flow, optimizers: Optimizers, step: int, options: TrainingOptions) -> None:
    """One step of every optimiser along the present gradient. No value is read, so a GPU never waits."""
    warm = min(1.0, (step + 1) / options.warmup)
    cosine = 0.5 * (1 + math.cos(math.pi * step / options.steps))
    for name, optimizer in optimizers.items():
        for group in optimizer.param_groups:
            group["lr"] = RATES[name] * options.learning_rate * warm * cosine
    average_gradients(flow)
    norm = nn.utils.clip_grad_norm_(flow.parameters(), options.clip)
    bad = ~torch.isfinite(norm)
    for parameter in flow.parameters():  # one bad batch must not destroy the weights
        if parameter.grad is not None:
            parameter.grad.masked_fill_(bad, 0.0)
    for optimizer in optimizers.values():
        optimizer.step()


def curve(out: Path) -> list[tuple[int, float]]:
    """Steps and validation bits per dimension of a training in `out`, from its beginning."""
    rows = map(json.loads, (out / METRICS_NAME).read_text().splitlines())
    return [(row["step"], round(row["validation_bits_per_dim"], 4)) for row in rows]


def _checkpoint(
    out: Path,
    step: int,
    flow: nn.Module,
    average: nn.Module,
    optimizers: Optimizers,
    options: TrainingOptions,
) -> None:
    tensors = {f"flow.{name}": value for name, value in flow.state_dict().items()}
    tensors |= {f"average.{name}": value for name, value in average.state_dict().items()}
    for optimizer_name, optimizer in optimizers.items():
        for index, state in optimizer.state_dict()["state"].items():
            tensors |= {f"{optimizer_name}.{index}.{name}": value for name, value in state.items()}
    save_tensors(out / CHECKPOINT_NAME, tensors, {"step": step, "options": asdict(options)})


def _resume(
    out: Path, flow: nn.Module, average: nn.Module, optimizers: Optimizers, options: TrainingOptions
) -> int | None:
    """Load the checkpoint and return the step from which to go on; None if there is no checkpoint."""
    path = out / CHECKPOINT_NAME
    if not path.exists():
        return None
    tensors, metadata = load_tensors(path)
    groups: dict[str, dict[str, Tensor]] = {name: {} for name in ("flow", "average", *optimizers)}
    for name, tensor in tensors.items():
        group, rest = name.split(".", 1)
        groups.setdefault(group, {})[rest] = tensor
    defaults, wanted = (json.loads(json.dumps(asdict(o))) for o in (TrainingOptions(), options))
    begun = defaults | metadata["options"]  # options that came later had no effect
    free = {"steps", "validate_every"}
    changed = [name for name in wanted if name not in free and begun[name] != wanted[name]]
    if changed:
        raise CheckpointError(
            f"{path} is of a training with other {', '.join(changed)}; use the same options or another folder"
        )
    load_state(flow, groups["flow"], str(path))
    load_state(average, groups["average"], str(path))
    for name, optimizer in optimizers.items():
        _load_optimizer(optimizer, groups[name])
    _keep_metrics(out, metadata["step"])
    return int(metadata["step"])


def _load_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, key = name.split(".")
        state.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _record(out: Path, row: dict[str, float]) -> None:
    with open(out / METRICS_NAME, "a") as stream:
        stream.write(json.dumps(row) + "\n")


def _keep_metrics(out: Path, step: int) -> None:
    """Drop the rows after the step from which training goes on; they will be written again."""
    if not leads():
        return
    path = out / METRICS_NAME
    lines = path.read_text().splitlines() if path.exists() else []
    kept = [line for line in lines if _step_of(line) <= step]
    write_atomic(path, "".join(line + "\n" for line in kept).encode())


def _step_of(line: str) -> float:
    """The step of a row; infinite for a line that was cut short."""
    try:
        return json.loads(line)["step"]
    except ValueError:
        return math.inf
