"""One flow for every level of noise: p(x; τ), the density of pictures with white noise of deviation τ.

Functions of log τ scale and shift the outputs of every convolution of a plain flow's networks. At one τ these
are constants that the convolutions take up, so that what is evaluated there is a plain flow again.

Pictures without noise may have a flow of their own: their density is decided by the finest detail, which
noise hides, so one set of weights for both serves neither as well.
"""

import math
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import partial

import torch
from torch import Tensor, nn

from aipo.basics.arrays import Images, PerImage
from aipo.basics.derivatives import value_and_gradient
from aipo.basics.errors import InputError
from aipo.flows.flow import Flow, Precision, check_precision, standard_normal

# Below the first τ a flow answers as there, which is what it calls τ = 0. No level lies above the last.
LEVELS = (0.002, 1.0)
FEATURES = 12
# So many frozen flows of one τ each are kept; a flow of a million weights takes 15 MB with its folded copies.
KEPT = 8


def features(tau: PerImage) -> Tensor:
    """Bumps along log τ that sum to 1, between which linear maps interpolate smoothly, (B, FEATURES)."""
    low, high = (math.log(level) for level in LEVELS)
    place = (tau.clamp(*LEVELS).log() - low) / (high - low) * (FEATURES - 1)
    bumps = torch.exp(-0.5 * (place[:, None] - torch.arange(FEATURES, device=tau.device)) ** 2)
    return bumps / bumps.sum(1, keepdim=True)


class ConditionalFlow(Flow):
    """A flow that is told the noise of its pictures. It starts as the plain flow, whatever it is told.

    Without a τ, pictures are taken to have no noise.

    Args:
        plain: gives the architecture and the first weights; it becomes part of this flow.
        clean: the flow of pictures without noise, a trained one, which becomes a constant part of this flow;
            without it, `plain` is told that there is no noise.

    Raises:
        InputError: the plain flow has no convolutions to modulate.
    """

    noise_levels = True

    def __init__(self, plain: Flow, clean: Flow | None = None):
        super().__init__(plain.shape, plain.factor)
        self.plain = plain
        self.clean = clean if clean is None else clean.requires_grad_(False)
        self._sizes = [2 * convolution.out_channels for convolution in _convolutions(plain)]
        if not self._sizes:
            raise InputError(
                f"a {type(plain).__name__} cannot be told noise levels; use the family glow or realnvp"
            )
        self.table = nn.Parameter(torch.zeros(FEATURES, sum(self._sizes)))

    def forward(self, x: Images, tau: PerImage | None = None) -> tuple[Tensor, PerImage]:
        """Latent z, (B, C, H, W), and log |det ∂z/∂x|, (B,), of pictures with noise of τ, (B,), each.

        A flow of clean pictures answers only without τ, or in `at(0)`.
        """
        with self._level(x, tau) as flow:
            return flow(x)

    def log_prob(self, x: Images, tau: PerImage | None = None) -> PerImage:
        """log p(x; τ), nats per image; τ is (B,), from 0 to 1."""
        z, logdet = self(x, tau)
        return logdet + standard_normal(z)

    def inverse_and_logdet(self, z: Tensor) -> tuple[Images, PerImage]:
        with self._level(z) as flow:
            return flow.inverse_and_logdet(z)

    def energies(self, x: Images) -> Tensor:
        with self._level(x) as flow:
            return flow.energies(x)

    @torch.no_grad()
    def at(self, tau: float) -> Flow:
        check_level(tau)
        if self.clean is not None and tau <= LEVELS[0]:
            return deepcopy(self.clean)
        flow = deepcopy(self.plain)
        told = self._modulations(self.table.new_full((1,), tau))
        for convolution, (scale, shift) in zip(_convolutions(flow), told, strict=True):
            assert convolution.bias is not None
            convolution.weight.mul_((1 + scale[0])[:, None, None, None])
            convolution.bias.mul_(1 + scale[0]).add_(shift[0])
        return flow

    def freeze(self, precision: Precision = "float32") -> "FrozenConditional":
        check_precision(precision)
        return FrozenConditional(deepcopy(self), precision)

    def _modulations(self, tau: PerImage) -> list[tuple[Tensor, Tensor]]:
        """What scales and shifts the outputs of each convolution, (B, outputs) both."""
        with torch.autocast(tau.device.type, enabled=False):
            told = features(tau) @ self.table
        return [part.tensor_split(2, 1) for part in told.split(self._sizes, 1)]  # type: ignore[misc]

    @contextmanager
    def _level(self, x: Tensor, tau: PerImage | None = None) -> Iterator[Flow]:
        """A flow whose convolutions, while inside, know the noise of each picture of x; without τ, none."""
        if tau is None and self.clean is not None:
            yield self.clean
            return
        told = self._modulations(x.new_zeros(len(x)) if tau is None else tau)
        parts = zip(_convolutions(self.plain), told, strict=True)
        hooks = [layer.register_forward_hook(partial(_modulate, *part)) for layer, part in parts]
        try:
            yield self.plain
        finally:
            for hook in hooks:
                hook.remove()


class FrozenConditional(Flow):
    """The inference form of a flow that is told the noise: a frozen plain flow for each τ that is asked for.

    Args:
        trained: its weights become constants.
        precision: of the networks.
    """

    noise_levels = True

    def __init__(self, trained: ConditionalFlow, precision: Precision = "float32"):
        super().__init__(trained.shape, trained.factor)
        self.source, self.precision = trained.eval().requires_grad_(False), precision
        self._levels: OrderedDict[float, Flow] = OrderedDict()
        self.register_load_state_dict_post_hook(_forget)

    @property
    def trained(self) -> ConditionalFlow:
        return self.source

    def at(self, tau: float) -> Flow:
        flow = self._levels.pop(tau, None) or self.source.at(tau).freeze(self.precision)
        self._levels[tau] = flow  # the one used last
        while len(self._levels) > KEPT:
            self._levels.popitem(last=False)
        return flow

    def forward(self, x: Images) -> tuple[Tensor, PerImage]:
        return self.at(0.0)(x)

    def inverse_and_logdet(self, z: Tensor) -> tuple[Images, PerImage]:
        return self.at(0.0).inverse_and_logdet(z)

    def energies(self, x: Images) -> Tensor:
        return self.at(0.0).energies(x)

    def _apply(self, fn, recurse: bool = True):
        _forget(self)
        return super()._apply(fn, recurse)

    def __getstate__(self):
        return vars(self) | {"_levels": OrderedDict()}


def posterior_mean(flow: Flow, y: Images, sigma: float) -> Images:
    """The mean of x given y = x + σ n, n white noise, from the density p of y: y + σ² ∇log p(y).

    Source: Robbins 1956, An empirical Bayes approach to statistics (there by Tweedie); Efron 2011, Tweedie's
    formula and selection bias, equation 1.4.
    """
    return y + sigma**2 * value_and_gradient(flow.log_prob, y)[1]


def check_level(tau: float) -> None:
    """Refuse what is no level of noise.

    Raises:
        InputError: τ is not in [0, 1].
    """
    if not 0 <= tau <= LEVELS[1]:
        raise InputError(
            f"tau = {tau}; this flow knows noise with a standard deviation from 0 to {LEVELS[1]:g}"
        )


def _convolutions(flow: nn.Module) -> list[nn.Conv2d]:
    return [module for module in flow.modules() if isinstance(module, nn.Conv2d)]


def _modulate(scale: Tensor, shift: Tensor, layer: nn.Module, inputs: tuple[Tensor], out: Tensor) -> Tensor:
    return out * (1 + scale[:, :, None, None]).to(out.dtype) + shift[:, :, None, None].to(out.dtype)


def _forget(flow: nn.Module, *_: object) -> None:
    """Drop the flows that were made from weights that are no longer there."""
    assert isinstance(flow, FrozenConditional)
    flow._levels.clear()
