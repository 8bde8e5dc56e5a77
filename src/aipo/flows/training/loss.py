"""The loss of a training batch and its gradient."""

import torch
from torch import Tensor

from aipo.basics.arrays import PerImage, expand, per_image_sum
from aipo.flows import ConditionalFlow, Flow
from aipo.flows.graphs import capture
from aipo.flows.training.batches import Batch
from aipo.flows.training.options import TrainingOptions


class Loss:
    """The mean over a batch of −log p(y; τ)/d + w e, nats; each call leaves its gradient in the parameters.

    d is the number of entries of a picture, w is `options.denoising`, and e is the denoising error of the
    pictures y = x + τ n whose noise the flow is told, ‖x − (y + τ² ∇log p(y; τ))‖²/(d τ²). Without w and told
    noise this is maximum likelihood. e is least when p(·; τ) is the density of noisy pictures, as −log p is:
    but −log p is decided by the finest detail, and e by how well p restores.

    On a GPU the computation of the first batch, with its double backward, is recorded, and then replayed for
    each batch. Therefore all batches must have one shape, and no other code may set these gradients to None.

    Args:
        flow: the flow that is trained; a `ConditionalFlow` if batches have told noise.
        options: precision of the coupling networks, and weight of the denoising error.

    Source: Vincent 2011, A connection between score matching and denoising autoencoders; Guth et al. 2025,
    Learning normalized image densities via dual score matching, for both terms together.
    """

    def __init__(self, flow: Flow, options: TrainingOptions):
        self._flow, self._options = flow, options
        self._recorded = None

    def __call__(self, batch: Batch) -> Tensor:
        """The loss of a batch, a tensor without dimensions."""
        if batch.pictures.device.type != "cuda":
            return self._derived(batch)
        if self._recorded is None:
            self._batch = batch.each(torch.clone)
            self._recorded = capture(lambda: self._derived(self._batch))
        graph, loss = self._recorded
        for mine, given in zip(self._batch, batch, strict=True):
            mine.copy_(given)
        graph.replay()
        return loss.clone()

    def _derived(self, batch: Batch) -> Tensor:
        self._flow.zero_grad()
        reduced = self._options.precision == "bfloat16"
        with torch.autocast(batch.pictures.device.type, torch.bfloat16, enabled=reduced):
            terms = [-self._flow.log_prob(batch.pictures)] if len(batch.pictures) else []
            if len(batch.noisy):
                assert isinstance(self._flow, ConditionalFlow)
                terms.append(noisy_terms(self._flow, batch, self._options.denoising))
            loss = torch.cat(terms).mean() / batch.noisy.shape[1:].numel()
        loss.backward()
        return loss.detach()


def noisy_terms(flow: ConditionalFlow, batch: Batch, weight: float) -> PerImage:
    """−log p(y; τ) + weight · d · e of the pictures whose noise is told, (N,)."""
    if weight == 0:
        return -flow.log_prob(batch.noisy, batch.tau)
    y = batch.noisy.detach().requires_grad_()
    log_prob = flow.log_prob(y, batch.tau)
    score = torch.autograd.grad(log_prob.sum(), y, create_graph=True)[0]
    error = per_image_sum((batch.noise + expand(batch.tau, score) * score) ** 2)
    return weight * limited(error, y[0].numel()) - log_prob


def limited(error: PerImage, nothing: float) -> PerImage:
    """Errors, none larger than that of doing nothing; the gradient of a larger one is shortened as much.

    A crop on which the score is far off can have two hundred times the mean error, and would decide the step.
    """
    return error * (nothing / error.detach()).clamp(max=1.0)
