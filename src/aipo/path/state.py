"""One point of the path, for every image of the batch."""

import math
from dataclasses import dataclass

from torch import Tensor

from aipo.basics.arrays import PerImage
from aipo.basics.errors import Status
from aipo.path.problem import PLAIN, Deformation


@dataclass(frozen=True)
class State:
    """One point of the path, for every image of the batch.

    Attributes:
        index: number of the point, 0 at the path's beginning.
        weight: λ, (B,).
        x: (B, C, H, W).
        data_energy, prior_energy, objective: D, R and D + λR in nats, (B,).
        decrement: nats that the metric predicts could still be gained at this λ, (B,).
        evaluations: flow evaluations spent so far, (B,).
        status: how the correction at this λ ended, (B,) integers of `Status`.
        accepted: (B,) bool; where false the point is not part of the path.
        deformation: the prior energy that the point uses.
    """

    index: int
    weight: PerImage
    x: Tensor
    data_energy: PerImage
    prior_energy: PerImage
    objective: PerImage
    decrement: PerImage
    evaluations: Tensor
    status: Tensor
    accepted: Tensor
    deformation: Deformation = PLAIN

    def summary(self) -> list[str]:
        """How the correction at this λ ended and what it left to gain, such as "budget: 34 nats to gain".

        One text for each image. The nats are `decrement`, an estimate that is as good as the metric. A path
        whose states are mixed leaves much on purpose.
        """
        return [
            Status(status).name.lower() + ("" if math.isnan(nats) else f": {_short(nats)} nats to gain")
            for status, nats in zip(self.status.tolist(), self.decrement.tolist(), strict=True)
        ]


def _short(nats: float) -> str:
    return f"{nats:.2g}" if nats < 10 else f"{nats:,.0f}"
