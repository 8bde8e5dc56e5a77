"""Priors from the flows and distributions of other packages; none of them is imported here.

Foreign(flow.log_prob)                              # nflows, normflows, torch.distributions on (C, H, W)
Foreign(flow().log_prob, flat=True)                 # zuko, and whatever is a density of vectors
Foreign(lambda v: model.log_prob(v, None))          # normflows' MultiscaleFlow without classes
Foreign(freia(network))                             # FrEIA's SequenceINN and GraphINN
"""

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from torch import Tensor, nn

from aipo.basics.arrays import Images, PerImage, per_image_sum
from aipo.basics.errors import InputError
from aipo.gaussian import Surrogate


class Foreign:
    """A density of somebody else's, as a prior.

    Args:
        log_prob: v -> log q(v), nats, (B,) for a batch of B; differentiable.
        flat: it takes vectors, (B, n), not pictures (B, C, H, W).
        scale, shift: the density is of v = scale · x + shift for pictures x in [0, 1], such as 2 and −1 for a
            flow of values in [−1, 1]; R is of x itself, so log |scale| counts for every entry.
        surrogate: a Gaussian fitted to the same pictures, such as `LowRankGaussian.fit`; without one a path
            begins at A⁺y, which few measurements leave far from any picture.
    """

    def __init__(
        self,
        log_prob: Callable[[Tensor], Tensor],
        flat: bool = False,
        scale: float = 1.0,
        shift: float = 0.0,
        surrogate: Surrogate | None = None,
    ):
        if not (math.isfinite(scale) and math.isfinite(shift)) or scale == 0:
            raise InputError(f"scale = {scale} and shift = {shift}; both must be finite, and scale not 0")
        self._log_prob, self._flat = log_prob, flat
        self._scale, self._shift = scale, shift
        self.surrogate = surrogate

    def parameters(self) -> Iterator[Tensor]:
        """The density's weights, where `log_prob` is a method of a module."""
        module = getattr(self._log_prob, "__self__", None)
        return module.parameters() if isinstance(module, nn.Module) else iter(())

    def energy(self, x: Images) -> PerImage:
        """R(x) = −log q(scale · x + shift) − n log |scale|, nats per image.

        Raises:
            InputError: the density does not give one value per picture.
        """
        v = self._scale * x + self._shift
        found = self._log_prob(v.flatten(1) if self._flat else v)
        if found.shape != (len(x),):
            raise InputError(
                f"log_prob gave shape {tuple(found.shape)} for {len(x)} pictures; it must be ({len(x)},). A "
                "distribution of independent entries needs torch.distributions.Independent"
            )
        return -found - x[0].numel() * math.log(abs(self._scale))


def freia(network: Any) -> Callable[[Tensor], Tensor]:
    """log q of a FrEIA network with a standard normal base: log N(network(v); 0, I) + log |det J|.

    Args:
        network: SequenceINN or GraphINN, with one tensor or several at its end.
    """
    return partial(_standard_normal, network)


def _standard_normal(network: Any, v: Tensor) -> Tensor:
    latents, log_det = network(v)
    latents = (latents,) if isinstance(latents, Tensor) else latents
    entries = sum(z[0].numel() for z in latents)
    squares = sum(per_image_sum(z * z) for z in latents)
    return log_det - 0.5 * squares - 0.5 * math.log(2 * math.pi) * entries
