"""What a training leaves in its folder: the checkpoint from which it goes on, and its figures."""

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from aipo.basics.errors import CheckpointError
from aipo.flows.training.data import PictureData
from aipo.flows.training.distributed import leads
from aipo.flows.training.options import TrainingOptions
from aipo.io.tensors import load_state, load_tensors, save_tensors, write_atomic

CHECKPOINT_NAME = "checkpoint.safetensors"
METRICS_NAME = "metrics.jsonl"
Optimizers = dict[str, torch.optim.Optimizer]
# Options that may change when a training goes on.
FREE = {"steps", "validate_every"}


def checkpoint(
    out: Path,
    step: int,
    flow: nn.Module,
    average: nn.Module,
    optimizers: Optimizers,
    options: TrainingOptions,
    data: PictureData,
) -> None:
    """Write all that a training needs to go on after so many steps."""
    tensors = {f"flow.{name}": value for name, value in flow.state_dict().items()}
    tensors |= {f"average.{name}": value for name, value in average.state_dict().items()}
    for optimizer_name, optimizer in optimizers.items():
        for index, state in optimizer.state_dict()["state"].items():
            tensors |= {f"{optimizer_name}.{index}.{name}": value for name, value in state.items()}
    metadata = {"step": step, "options": asdict(options), "data": data.identity}
    save_tensors(out / CHECKPOINT_NAME, tensors, metadata)


def resume(
    out: Path,
    flow: nn.Module,
    average: nn.Module,
    optimizers: Optimizers,
    options: TrainingOptions,
    data: PictureData,
) -> int | None:
    """Load the checkpoint and return the step from which to go on; None if there is no checkpoint.

    Raises:
        CheckpointError: it cannot be read, does not fit, or is of a training with other options or pictures.
    """
    path = out / CHECKPOINT_NAME
    if not path.exists():
        return None
    tensors, metadata = load_tensors(path)
    groups: dict[str, dict[str, Tensor]] = {name: {} for name in ("flow", "average", *optimizers)}
    for name, tensor in tensors.items():
        group, _, rest = name.partition(".")
        groups.setdefault(group, {})[rest] = tensor
    step = metadata.get("step")
    if not isinstance(step, int) or step < 0:
        raise CheckpointError(f"{path} is after step {step!r}, which is none; train into another folder")
    _check_same(path, metadata, options, data)
    load_state(flow, groups["flow"], str(path))
    load_state(average, groups["average"], str(path))
    for name, optimizer in optimizers.items():
        _load_optimizer(optimizer, groups[name], str(path))
    keep_metrics(out, step)
    return step


def _check_same(path: Path, metadata: dict[str, Any], options: TrainingOptions, data: PictureData) -> None:
    """Refuse to go on with other options or pictures; what was not recorded yet is not asked for."""
    had_options, had_data = metadata.get("options"), metadata.get("data", {})
    if not isinstance(had_options, dict) or not isinstance(had_data, dict):
        raise CheckpointError(f"{path} does not say how it was trained; train into another folder")
    defaults, wanted = (json.loads(json.dumps(asdict(o))) for o in (TrainingOptions(), options))
    begun = defaults | had_options  # options that came later had no effect
    changed = [name for name in wanted if name not in FREE and begun[name] != wanted[name]]
    given = json.loads(json.dumps(data.identity))
    changed += [name for name in given if name in had_data and had_data[name] != given[name]]
    if changed:
        raise CheckpointError(
            f"{path} is of a training with other {', '.join(changed)}; use the same options and pictures, or "
            "another folder"
        )


def _load_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], origin: str) -> None:
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, _, key = name.partition(".")
        own = weights[int(index)] if index.isdecimal() and int(index) < len(weights) else None
        if own is None or not key or tensor.shape not in (own.shape, torch.Size([])):
            raise CheckpointError(
                f"{origin} has a state {name} that fits no weight; it belongs to another flow"
            )
        state.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def record(out: Path, row: dict[str, float]) -> None:
    """Add a row of figures to metrics.jsonl."""
    with open(out / METRICS_NAME, "a") as stream:
        stream.write(json.dumps(row) + "\n")


def curve(out: Path) -> list[tuple[int, float]]:
    """Steps and validation bits per dimension of a training in `out`, from its beginning."""
    rows = map(json.loads, _kept(out, math.inf))
    return [(row["step"], round(row["validation_bits_per_dim"], 4)) for row in rows]


def keep_metrics(out: Path, step: int) -> None:
    """Drop the rows after the step from which training goes on; they will be written again."""
    if leads():
        write_atomic(out / METRICS_NAME, "".join(line + "\n" for line in _kept(out, step)).encode())


def _kept(out: Path, step: float) -> list[str]:
    path = out / METRICS_NAME
    lines = path.read_text(errors="replace").splitlines() if path.is_file() else []
    return [line for line in lines if _step_of(line) <= step]


def _step_of(line: str) -> float:
    """The step of a row; NaN, which is neither before nor after any, for what is no whole row."""
    try:
        row = json.loads(line)
        return float(row["step"] + 0 * row["validation_bits_per_dim"])
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError):
        return math.nan
