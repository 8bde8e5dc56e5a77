"""The loss of a training batch and its gradient."""

import torch
from torch import Tensor

from aipo.flows import Flow, Precision
from aipo.flows.graphs import capture


class Loss:
    """The mean of −log p per dimension over a batch, nats; each call leaves its gradient in the parameters.

    On a GPU the computation of the first batch is recorded, and then replayed for each batch. Therefore all
    batches must have one shape, and no other code may set these gradients to None.

    Args:
        flow: the flow that is trained.
        precision: of the coupling networks.
    """

    def __init__(self, flow: Flow, precision: Precision):
        self._flow, self._precision = flow, precision
        self._recorded = None

    def __call__(self, x: Tensor) -> Tensor:
        """The loss of a batch (B, C, H, W), a tensor without dimensions."""
        if x.device.type != "cuda":
            return self._derived(x)
        if self._recorded is None:
            self._batch = x.clone()
            self._recorded = capture(lambda: self._derived(self._batch))
        graph, loss = self._recorded
        self._batch.copy_(x)
        graph.replay()
        return loss.clone()

    def _derived(self, x: Tensor) -> Tensor:
        self._flow.zero_grad()
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self._precision == "bfloat16"):
            loss = -self._flow.log_prob(x).mean() / x[0].numel()
        loss.backward()
        return loss.detach()
