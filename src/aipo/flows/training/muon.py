"""Muon: descent whose steps are orthogonal matrices, for the weights of convolutions and linear maps.

The gradient of a weight matrix mostly lies in a few directions. Adam follows these first, and the others have
to wait. Muon replaces the averaged gradient U S Vᵀ by U Vᵀ, which is a step of the same length in every
direction. This costs a few matrix products.

`torch.optim.Muon` makes the same step for one matrix at a time, in bfloat16. On a CPU without bfloat16
instructions this takes longer than the gradient. Here all matrices of one size go together, in float32.

Source: Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks".
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

# The polynomial of degree five that brings singular values into [0.7, 1.2] fastest (Jordan et al.).
QUINTIC, ITERATIONS = (3.4445, -4.7750, 2.0315), 5
MOMENTUM = 0.95


class Muon(torch.optim.Optimizer):
    """Muon with Nesterov's momentum and no weight decay.

    Args:
        weights: tensors of two dimensions or more; the first dimension gives the rows of the matrix, and all
            others together give its columns.
        lr: length of a step in every singular direction (times √(rows/columns) for a tall matrix).
    """

    def __init__(self, weights: Iterable[Tensor], lr: float):
        super().__init__(weights, {"lr": lr})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        for group in self.param_groups:
            alike: dict[tuple[int, int], list[Tensor]] = {}
            for weight in group["params"]:
                alike.setdefault((len(weight), weight[0].numel()), []).append(weight)
            for (rows, columns), weights in alike.items():
                averaged = [gradient.flatten(1) for gradient in self._averaged(weights)]
                steps = orthogonalised(torch.stack(averaged))
                length = group["lr"] * max(1.0, rows / columns) ** 0.5
                shaped = [step.view_as(weight) for step, weight in zip(steps, weights, strict=True)]
                torch._foreach_sub_(weights, shaped, alpha=length)

    def _averaged(self, weights: list[Tensor]) -> Sequence[Tensor]:
        """The gradients of the weights, with Nesterov's momentum."""
        gradients = []
        for weight in weights:
            assert weight.grad is not None
            gradients.append(weight.grad)
            if not self.state[weight]:
                self.state[weight]["momentum"] = torch.zeros_like(weight)
        momenta = [self.state[weight]["momentum"] for weight in weights]
        torch._foreach_lerp_(momenta, gradients, 1 - MOMENTUM)
        return torch._foreach_lerp(gradients, momenta, MOMENTUM)


def orthogonalised(matrices: Tensor) -> Tensor:
    """Each matrix U S Vᵀ, (N, rows, columns), with its singular values replaced by numbers of about one."""
    a, b, c = QUINTIC
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x
