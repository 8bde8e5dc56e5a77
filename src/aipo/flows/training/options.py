"""How a flow is trained."""

import math
from dataclasses import dataclass
from typing import Literal

from aipo.basics.errors import InputError
from aipo.flows import Precision, check_precision
from aipo.flows.conditional import LEVELS

MOST_AT_ONCE = 65_536


@dataclass(frozen=True)
class TrainingOptions:
    """How a flow is trained.

    Args:
        steps: number of optimiser steps, at least 1.
        batch: pictures per step, of all processes together, from 1 to 65,536.
        learning_rate: rate of Adam after the warm-up, 0 or more; it falls to zero along a cosine. Muon's rate
            is twenty times as large.
        warmup: steps over which the learning rate rises from zero, at least 1.
        clip: longer gradients are shortened to this norm, positive; the loss is in nats per dimension.
        average: decay of the exponential moving average of the weights, in [0, 1).
        noised: share of each batch that carries Gaussian noise, in [0, 1].
        noise_range: smallest and largest standard deviation of that noise, drawn log-uniformly; pictures lie
            in [0, 1].
        told: share of each batch that carries Gaussian noise whose strength the flow is told, in [0, 1]; it
            needs a flow with noise levels. The rest of the batch is for the density at τ = 0, which with
            `noised` stays tame off the data.
        told_range: smallest and largest standard deviation of the noise that it is told, from 0.002 to 1,
            drawn log-uniformly.
        denoising: weight of the denoising error of these pictures beside their −log p per dimension, 0 or
            more (see `aipo.flows.training.loss`).
        seed: determines weights, batches and noise, from 0 to 2³² − 1.
        optimizer: "muon" (Muon for the weights of the networks, Adam for everything else) or "adam".
        precision: "float32" or "bfloat16", of the coupling networks; the map itself is always float32.
        validate_every: steps between validations and checkpoints, at least 1.

    Raises:
        InputError: a value is outside its range.
    """

    steps: int = 10_000
    batch: int = 32
    learning_rate: float = 1e-3
    warmup: int = 300
    clip: float = 1.0
    average: float = 0.999
    noised: float = 0.25
    noise_range: tuple[float, float] = (0.003, 1.0)
    told: float = 0.0
    told_range: tuple[float, float] = (0.004, 0.5)
    denoising: float = 0.0
    seed: int = 0
    optimizer: Literal["muon", "adam"] = "muon"
    precision: Precision = "float32"
    validate_every: int = 250

    def __post_init__(self):
        for name in ("steps", "batch", "warmup", "validate_every"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} = {getattr(self, name)}; it must be at least 1")
        if self.batch > MOST_AT_ONCE or not 0 <= self.seed < 2**32:
            raise InputError(
                f"batch = {self.batch}, seed = {self.seed}; use at most {MOST_AT_ONCE}, and 0 to 2³² − 1"
            )
        if not (0 <= self.learning_rate < math.inf and 0 < self.clip < math.inf):
            raise InputError(
                f"learning_rate = {self.learning_rate}, clip = {self.clip}; use 0 or more, above 0"
            )
        if not (0 <= self.average < 1 and 0 <= self.noised <= 1):
            raise InputError(f"average = {self.average} and noised = {self.noised} must be in [0, 1), [0, 1]")
        if not (0 <= self.told <= 1 and self.told + self.noised <= 1 and 0 <= self.denoising < math.inf):
            raise InputError(
                f"told = {self.told}, denoising = {self.denoising}; use 0 or more, told + noised at most 1"
            )
        if not LEVELS[0] <= self.told_range[0] <= self.told_range[1] <= LEVELS[1]:
            raise InputError(f"told_range = {self.told_range}; use {LEVELS[0]} <= smallest <= largest <= 1")
        if not 0 < self.noise_range[0] <= self.noise_range[1] < math.inf:
            raise InputError(f"noise_range = {self.noise_range}; use 0 < smallest <= largest")
        if self.optimizer not in ("muon", "adam"):
            raise InputError(f"optimizer = {self.optimizer!r}; use muon or adam")
        check_precision(self.precision)
