"""What the path yields: one point of it, for every image of the batch."""

from dataclasses import dataclass

from torch import Tensor

from aipo.basics.arrays import PerImage
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
        deformation: which prior energy the point belongs to.
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
