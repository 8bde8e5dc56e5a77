"""Small flow priors with random weights, and pictures for them."""

import torch
from torch import Tensor

from aipo.gaussian import LowRankGaussian, LowRankStationary, StationaryGaussian
from aipo.priors import FlowPrior, build_flow

FIXED = {"family": "glow", "shape": [3, 8, 8], "levels": 2, "steps": 2, "hidden": 6}
ANY = {"family": "glow", "shape": [3, None, None], "levels": 2, "steps": 2, "hidden": 6}
FIXED_REALNVP = {**FIXED, "family": "realnvp"}
TARFLOW = {"family": "tarflow", "shape": [3, 8, 8], "levels": 1, "steps": 2, "hidden": 32}
FLOWS = {"fixed": FIXED, "any": ANY, "realnvp": FIXED_REALNVP, "tarflow": TARFLOW}
SURROGATES = {
    "fixed": ("low-rank", lambda pictures: LowRankGaussian.fit(pictures, rank=5)),
    "any": ("stationary", StationaryGaussian.fit),
    "realnvp": ("low-rank", lambda pictures: LowRankGaussian.fit(pictures, rank=5)),
    "tarflow": ("low-rank-stationary", lambda pictures: LowRankStationary.fit(pictures, rank=5)),
}


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def make(description: dict) -> FlowPrior:
    """A small prior with random weights and its surrogate."""
    torch.manual_seed(0)
    flow, pictures = build_flow(description), rand(40, 3, 8, 8, seed=1)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter += 0.05 * torch.randn(parameter.shape)
    flow.initialise(pictures)
    name, fit = SURROGATES[next(key for key, flow in FLOWS.items() if flow is description)]
    card = {"flow": description, "surrogate": name, "licence": "none"}
    return FlowPrior(flow, fit(pictures), card)
