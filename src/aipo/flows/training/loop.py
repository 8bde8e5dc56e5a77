"""Fit a flow to pictures: one loop that can be stopped at any moment and goes on where it was.

The fit maximises the likelihood of dequantized crops. A share of every batch carries noise of random
strength, so that the energy stays finite and rises away from the data. A flow that has never seen noisy
pictures may give them an energy of 10⁸ nats and more. A flow that is told the noise may also be fitted to
restore noisy pictures (`aipo.flows.training.loss`).
"""

import math
from copy import deepcopy
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from aipo.basics.errors import InputError
from aipo.flows import Flow
from aipo.flows.training.batches import Batch, draw
from aipo.flows.training.checkpoint import (
    CHECKPOINT_NAME,
    METRICS_NAME,
    Optimizers,
    checkpoint,
    curve,
    keep_metrics,
    record,
    resume,
)
from aipo.flows.training.data import PictureData, ahead
from aipo.flows.training.distributed import average_gradients, leads, meet, share
from aipo.flows.training.loss import Loss
from aipo.flows.training.muon import Muon
from aipo.flows.training.options import TrainingOptions
from aipo.flows.training.validation import bits_per_dim, validate

RATES = {"adam": 1.0, "muon": 20.0}  # the rate of each optimiser, in units of the learning rate

__all__ = ["CHECKPOINT_NAME", "METRICS_NAME", "TrainingOptions", "begin", "curve", "train"]


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
        CheckpointError: the checkpoint cannot be read, or is of a training with other options or pictures.
        InputError: the options tell the noise to a flow without noise levels; or training has diverged, and
            the checkpoint stays the last one before.
    """
    if options.told and not flow.noise_levels:
        raise InputError(f"told = {options.told}, but this flow has no noise levels; set flow.noise_levels")
    out.mkdir(parents=True, exist_ok=True)
    flow.to(device)
    average = deepcopy(flow)
    optimizers = _optimizers(flow, options)
    start = resume(out, flow, average, optimizers, options, data)
    if start is None:
        start = 0
        first = draw(data, 0, options)
        flow.initialise(torch.cat((first.pictures, first.noisy)).to(device))
        keep_metrics(out, 0)
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
            _check_sound(flow, average, bits, step + 1, options)
            row = {"step": step + 1, "loss": loss.item(), **figures}
            record(out, row)
            checkpoint(out, step + 1, flow, average, optimizers, options, data)
            progress.set_postfix(loss=f"{row['loss']:.3f}", bits=f"{bits:.3f}")
    meet()
    flow.load_state_dict(average.state_dict())
    return bits_per_dim(flow, validation.to(device)) if math.isnan(bits) else bits


def begin(flow: Flow, data: PictureData, out: Path, options: TrainingOptions) -> None:
    """Make a training in `out` start from the weights of this flow; one that has begun is left as it is."""
    if leads() and not (out / CHECKPOINT_NAME).exists():
        out.mkdir(parents=True, exist_ok=True)
        checkpoint(out, 0, flow, deepcopy(flow), _optimizers(flow, options), options, data)
    meet()


def _check_sound(flow: Flow, average: Flow, bits: float, step: int, options: TrainingOptions) -> None:
    """Refuse weights that training has ruined: a single bad batch is left out, a rate too large is not."""
    weights = [*flow.state_dict().values(), *average.state_dict().values()]
    if not math.isfinite(bits) or not all(bool(torch.isfinite(weight).all()) for weight in weights):
        raise InputError(
            f"training diverged before step {step} (bits per dimension on held-out pictures: {bits}); train "
            f"into another folder with a learning_rate below {options.learning_rate:g}"
        )


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
