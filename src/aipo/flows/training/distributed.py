"""Several processes, which torchrun starts, train one flow; each takes its share of every batch.

    torchrun --nproc-per-node 4 -m aipo.cli train pictures --out prior --device cuda

All processes draw the same batches from the same seed, so up to rounding the weights do not depend on the
number of processes. The first process writes and reports.
"""

import os

import torch
import torch.distributed as dist
from torch import Tensor, nn

from aipo.basics.devices import usable
from aipo.basics.errors import InputError


def join(device: str) -> str:
    """Join the other processes, if torchrun started several, and return the device of this one.

    Args:
        device: "cpu" or "cuda"; if there are several GPUs, each process takes its own.

    Raises:
        InputError: this machine does not have the device.
    """
    alone = int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized()
    if device == "cuda" and not alone:
        device = f"cuda:{os.environ['LOCAL_RANK']}"
    usable(device)
    if alone:
        return device
    if device.startswith("cuda"):
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    return device


def leads() -> bool:
    """Whether this process writes and reports."""
    return not dist.is_initialized() or dist.get_rank() == 0


def meet() -> None:
    """Wait for the other processes, so that all of them find the files that the first one has written."""
    if dist.is_initialized():
        dist.barrier()


def share(batch: Tensor) -> Tensor:
    """The part of a batch (B, …) that this process takes, (B / processes, …).

    Raises:
        InputError: the number of processes does not divide B.
    """
    if not dist.is_initialized():
        return batch
    count = dist.get_world_size()
    if len(batch) % count:
        raise InputError(f"a batch of {len(batch)} for {count} processes; use a multiple of {count}")
    return batch[dist.get_rank() :: count]


def average_gradients(flow: nn.Module) -> None:
    """Replace the gradients of every process by their mean over all processes."""
    if not dist.is_initialized():
        return
    gradients = [p.grad for p in flow.parameters() if p.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_((mean / dist.get_world_size()).view_as(gradient))
