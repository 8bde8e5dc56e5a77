"""How far each image's next weight is from its last one."""

from dataclasses import dataclass

import torch
from torch import Tensor

from aipo.basics.arrays import PerImage
from aipo.basics.errors import InputError, Status


@dataclass(frozen=True)
class StepControl:
    """Each image's own step in λ: longer where the corrector arrives early, shorter after a rejection.

    If a correction converges after k of its K evaluations, log(λ'/λ) is multiplied by √(K/2k), within
    [½, 2]. If it runs out of evaluations, the step stays as it is. A point is rejected if it is NaN, or
    higher than the last solution is at the new weight. The image then goes back and tries half the step.

    Args:
        ratio: λ'/λ of the first step.
        smallest, largest: limits of λ'/λ; an image that is rejected at the smallest ends there.
        budget: evaluations of each image over the whole path; it is never exceeded.

    Source: step-length adaptation by the corrector's contraction, Allgower & Georg 2003, section 6.1.
    """

    ratio: float = 1.5
    smallest: float = 1.02
    largest: float = 4.0
    budget: int = 400

    def __post_init__(self):
        if not 1 < self.smallest <= self.ratio <= self.largest < float("inf"):
            raise InputError(
                f"ratios {self.smallest}, {self.ratio}, {self.largest}; use 1 < smallest <= ratio <= largest"
            )
        if self.budget < 2:
            raise InputError(f"budget = {self.budget}; an image needs at least 2 evaluations")

    def adapt(self, ratio: PerImage, accepted: Tensor, status: Tensor, share: PerImage) -> PerImage:
        """The ratio for the next step.

        Args:
            ratio: the ratio that was just tried.
            accepted: whether its point was kept.
            status: how the correction ended.
            share: the part of its evaluations that the correction needed.
        """
        factor = (0.5 / share.clamp_min(1e-3)).sqrt().clamp(0.5, 2.0)
        factor = torch.where(status == Status.CONVERGED, factor, torch.ones_like(factor))
        longer = ratio.pow(factor).clamp(self.smallest, self.largest)
        return torch.where(accepted, longer, ratio.sqrt().clamp_min(self.smallest))

    def ended(self, ratio: PerImage, accepted: Tensor) -> Tensor:
        """Images that were rejected at the smallest step."""
        return ~accepted & (ratio <= self.smallest)
