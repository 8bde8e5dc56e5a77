"""Random flows in float64, for the batteries of flows and of their inference form."""

from functools import cache

import torch
from torch import Tensor, nn

from aipo.flows import Flow, Glow, RealNVP, TarFlow

MULTISCALE = {"glow": Glow, "realnvp": RealNVP}
FAMILIES = MULTISCALE | {"tarflow": TarFlow}
# A few channels, or one attention head.
HIDDEN = {"glow": 5, "realnvp": 5, "tarflow": 32}


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def randomise(module: nn.Module, noise: float = 0.1) -> nn.Module:
    """In float64 with noise on every weight, so that no coupling is the identity."""
    with torch.no_grad():
        for seed, parameter in enumerate(module.double().parameters()):
            # Triangular factors get the same relative perturbation whatever their size.
            scale = len(parameter) ** -0.5 if parameter.ndim == 2 else 1.0
            parameter += noise * scale * randn(*parameter.shape, seed=seed)
    return module


@cache
def make(family: str, kind: str, channels: int, levels: int, size: tuple[int, int]) -> Flow:
    """A random flow initialised for pictures of `size`, in float64. Tests must leave it as it is."""
    torch.manual_seed(0)
    shape = (channels, *(size if kind == "fixed" else (None, None)))
    flow = FAMILIES[family](shape, levels=levels, steps=2, hidden=HIDDEN[family])
    randomise(flow).initialise(rand(8, channels, *size, seed=1))
    return flow
