"""The multi-scale flow that RealNVP and Glow share: image -> latent of the same shape, and back.

Each scale halves the resolution, transforms, and lets half of its channels leave the flow, made standard
normal given the rest. The latent collects all of them in the image's own shape.
"""

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aipo.basics.arrays import Images, PerImage
from aipo.flows.flow import Flow, Precision, check_precision, standard_normal
from aipo.flows.frozen import Mix, Record, Step
from aipo.flows.graphs import Evaluations
from aipo.flows.inference import Direction, Evaluate, Scale, finish, transformed
from aipo.flows.layers import ConditionalBase, GaussianBase, Invertible

# Bytes of activations that a derivative may keep: a batch of a hundred small pictures, or one photograph.
LARGEST_TAPE = 2**30
# What a frozen flow makes of its weights: copies, pickled ones too, make their own.
FOLDED = {"_scale", "_bytes_per_entry", "_recorded"}


class MultiScaleFlow(Flow):
    """A `Flow` of several scales.

    Args:
        shape: (C, H, W) of the images, or (C, None, None) for pictures of any size, in which case the
            base density is stationary (the same at every position).
        scales: for each scale its layers, which halve height and width exactly once.

    Raises:
        InputError: height or width not divisible by 2^levels.
    """

    def __init__(self, shape: tuple[int, int | None, int | None], scales: list[list[Invertible]]):
        super().__init__(shape, 2 ** len(scales))
        channels = shape[0]
        self.scales = nn.ModuleList(nn.ModuleList(layers) for layers in scales)
        self.splits = nn.ModuleList()
        for level in range(1, len(scales)):
            channels *= 2
            self.splits.append(ConditionalBase(channels, self._map_size(level)))
        self.base = GaussianBase(4 * channels, self._map_size(len(scales)))

    def _map_size(self, level: int) -> tuple[int, int]:
        _, height, width = self.shape
        return (1, 1) if height is None or width is None else (height >> level, width >> level)

    def forward(self, x: Images) -> tuple[Tensor, PerImage]:
        """Latent z, (B, C, H, W), and log |det ∂z/∂x|, (B,)."""
        left, logdet = zip(*self._leaving(x), strict=True)
        z = left[-1]
        for leaving in reversed(left[:-1]):
            z = torch.cat((F.pixel_shuffle(z, 2), leaving), dim=1)
        return F.pixel_shuffle(z, 2), logdet[-1]

    def energies(self, x: Images) -> Tensor:
        left, logdet = zip(*self._leaving(x), strict=True)
        total = torch.stack(logdet, 1)
        own = total.diff(dim=1, prepend=torch.zeros_like(total[:, :1]))
        return -own - torch.stack([standard_normal(z) for z in left], 1)

    def _leaving(self, x: Images) -> Iterator[tuple[Tensor, PerImage]]:
        """What leaves the flow at each scale, made standard normal, and log |det ∂z/∂x| so far."""
        h, logdet = self._checked(x) - 0.5, x.new_zeros(len(x))
        for level, layers in enumerate(self.scales):
            for layer in layers:  # type: ignore[union-attr]
                h, contribution = layer(h)
                logdet = logdet + contribution
            if level < len(self.splits):
                h, leaving = h.chunk(2, dim=1)
                leaving, contribution = self.splits[level](leaving, h)
                logdet = logdet + contribution
                yield leaving, logdet
        z, contribution = self.base(h)
        yield z, logdet + contribution

    def inverse_and_logdet(self, z: Tensor) -> tuple[Images, PerImage]:
        z = F.pixel_unshuffle(self._checked(z), 2)
        left = []
        for _ in self.splits:
            z, leaving = z.chunk(2, dim=1)
            left.append(leaving)
            z = F.pixel_unshuffle(z, 2)
        h, logdet = self.base.inverse(z)
        for level in reversed(range(len(self.scales))):
            if level < len(self.splits):
                leaving, contribution = self.splits[level].inverse(left[level], h)  # type: ignore[operator]
                h, logdet = torch.cat((h, leaving), dim=1), logdet + contribution
            for layer in reversed(self.scales[level]):  # type: ignore[arg-type]
                h, contribution = layer.inverse(h)
                logdet = logdet + contribution
        return h + 0.5, logdet

    def freeze(self, precision: Precision = "float32") -> "FrozenFlow":
        """A copy for evaluation only: constant weights, folded where they can be, and derivatives by hand."""
        check_precision(precision)
        return FrozenFlow(deepcopy(self), precision)


class FrozenFlow(Flow):
    """The inference form of a trained flow: the same map, evaluated several times faster.

    Actnorm and 1 × 1 convolutions are folded in float64, inverses and log-determinants are kept, and what
    one image gives does not depend on the others of its batch. First derivatives are written by hand;
    derivatives of derivatives, and everything under torch.func's transforms, go through `trained`.

    Networks may answer in bfloat16: scale and shift of a coupling can be any function of the other half, so
    what is evaluated is the exact density of a flow near the trained one.

    Args:
        trained: its weights become constants.
        precision: of the networks, "float32" standing for that of the weights.
        memory: bytes of stored activations of a batch above which a derivative recomputes them by running
            the flow in the other direction.
    """

    def __init__(self, trained: MultiScaleFlow, precision: Precision = "float32", memory: int = LARGEST_TAPE):
        super().__init__(trained.shape, trained.factor)
        self.source, self.memory = trained.eval().requires_grad_(False), memory
        self.precision = precision
        self._fold()
        self.register_load_state_dict_post_hook(_fold_again)

    @property
    def trained(self) -> MultiScaleFlow:
        return self.source

    def _fold(self) -> None:
        self._scale = _folded(self.source if self.precision == "float32" else _rounded(self.source))
        smallest = [side or self.factor for side in self.shape]
        tape: list[Record] = []
        with torch.no_grad():
            zeros = next(self.source.parameters()).new_zeros(1, *smallest)
            h, _ = finish(self._scale.forward(zeros), tape)
        self._bytes_per_entry = _bytes(tape) / h.numel()
        self._recorded = Evaluations()

    def forward(self, x: Images) -> tuple[Tensor, PerImage]:
        def exact(h: Tensor) -> tuple[Tensor, PerImage]:
            return self.source(h + 0.5)

        scale = self._scale
        there = Direction(scale.forward, scale.inverse, scale.pull, exact)
        return self._evaluate(self._checked(x) - 0.5, "forward", there)

    def energies(self, x: Images) -> Tensor:
        return self.source.energies(x)

    def inverse_and_logdet(self, z: Tensor) -> tuple[Images, PerImage]:
        def exact(z: Tensor) -> tuple[Tensor, PerImage]:
            x, logdet = self.source.inverse_and_logdet(z)
            return x - 0.5, logdet

        scale = self._scale
        back = Direction(scale.inverse, scale.forward, scale.pull_inverse, exact)
        h, logdet = self._evaluate(self._checked(z), "inverse", back)
        return h + 0.5, logdet

    def _evaluate(self, h: Tensor, name: str, direction: Direction) -> tuple[Tensor, PerImage]:
        if transformed(h):
            return direction.exact(h)
        size = h.numel() * self._bytes_per_entry
        recorded = self._recorded.of(h, name, direction, size) if size <= self.memory else None
        if not (torch.is_grad_enabled() and h.requires_grad):
            return finish(direction.there(h)) if recorded is None else recorded.evaluate(h)[:2]
        return Evaluate.apply(h, direction, size <= self.memory, recorded)

    def _apply(self, fn, recurse: bool = True):
        super()._apply(fn, recurse)
        self._fold()
        return self

    def __getstate__(self):
        return {name: value for name, value in vars(self).items() if name not in FOLDED}

    def __setstate__(self, state):
        super().__setstate__(state)
        self._fold()


def _fold_again(flow: nn.Module, _: Any) -> None:
    assert isinstance(flow, FrozenFlow)
    flow._fold()


def _rounded(flow: MultiScaleFlow) -> MultiScaleFlow:
    """A copy whose networks are of bfloat16."""
    flow = deepcopy(flow)
    for module in flow.modules():
        if isinstance(module, nn.Conv2d):  # nothing but networks is made of these
            module.to(torch.bfloat16)
    return flow


def _folded(flow: MultiScaleFlow) -> Scale:
    """From the coarsest scale outwards; neighbouring pointwise maps become one."""
    scale = None
    for level in reversed(range(len(flow.scales))):
        steps = _steps([layer for layer in flow.scales[level]])  # type: ignore[union-attr]
        if scale is None:
            scale = Scale([*steps, flow.base.frozen()])
        else:
            scale = Scale(steps, flow.splits[level].frozen(), scale)  # type: ignore[operator]
    assert scale is not None
    return scale


def _steps(layers: list[Invertible]) -> list[Step]:
    steps: list[Step] = []
    for layer in layers:
        step = layer.frozen()
        if steps and isinstance(step, Mix) and isinstance(steps[-1], Mix):
            steps[-1] = steps[-1].then(step)
        else:
            steps.append(step)
    return steps


def _bytes(record: Record) -> int:
    """Of a record of tensors, nested."""
    if isinstance(record, Tensor):
        return record.nbytes
    return 0 if record is None else sum(_bytes(part) for part in record)
