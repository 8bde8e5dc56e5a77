"""The multi-scale flow that RealNVP and Glow share: image -> latent of the same shape, and back.

Each scale halves the resolution, transforms, and lets half of its channels leave the flow, made standard
normal given the rest. The latent collects all of them in the image's own shape.
"""

from math import log, pi

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aipo.arrays import Images, PerImage, per_image_sum
from aipo.errors import InputError
from aipo.flows.layers import ActNorm, ConditionalBase, GaussianBase, Invertible


class MultiScaleFlow(nn.Module):
    """An invertible map between images in [0, 1] and standard normal latents, (B, C, H, W) both.

    The density is of the image x itself: log p(x) = log N(z; 0, I) + log |det ∂z/∂x|, in nats per image.

    Args:
        shape: (C, H, W) of the images, or (C, None, None) for pictures of any size, in which case the
            base density is stationary (the same at every position).
        scales: for each scale its layers, which halve height and width exactly once.

    Raises:
        InputError: height or width not divisible by 2^levels.
    """

    def __init__(self, shape: tuple[int, int | None, int | None], scales: list[list[Invertible]]):
        super().__init__()
        self.shape = shape
        channels, height, width = shape
        self.factor = 2 ** len(scales)
        if height is not None and width is not None and (height % self.factor or width % self.factor):
            raise InputError(
                f"a flow with {len(scales)} levels needs height and width divisible by {self.factor}, "
                f"got {height} × {width}; use fewer levels or another size"
            )
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
        h, logdet = self._checked(x) - 0.5, x.new_zeros(len(x))
        left = []
        for level, layers in enumerate(self.scales):
            for layer in layers:  # type: ignore[union-attr]
                h, contribution = layer(h)
                logdet = logdet + contribution
            if level < len(self.splits):
                h, leaving = h.chunk(2, dim=1)
                leaving, contribution = self.splits[level](leaving, h)
                logdet = logdet + contribution
                left.append(leaving)
        z, contribution = self.base(h)
        for leaving in reversed(left):
            z = torch.cat((F.pixel_shuffle(z, 2), leaving), dim=1)
        return F.pixel_shuffle(z, 2), logdet + contribution

    def inverse(self, z: Tensor) -> Images:
        """The image of a latent, (B, C, H, W) -> (B, C, H, W)."""
        return self._generate(z)[0]

    def generate(self, z: Tensor) -> tuple[Images, PerImage]:
        """The image x of a latent and log p(x), nats per image, in one pass."""
        x, logdet = self._generate(z)
        return x, self._normal(z) - logdet

    def _generate(self, z: Tensor) -> tuple[Images, PerImage]:
        """The image and log |det ∂x/∂z|, (B,)."""
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

    def log_prob(self, x: Images) -> PerImage:
        """log p(x), nats per image."""
        z, logdet = self(x)
        return logdet + self._normal(z)

    def _normal(self, z: Tensor) -> PerImage:
        """log N(z; 0, I)."""
        return -0.5 * per_image_sum(z * z) - 0.5 * log(2 * pi) * z[0].numel()

    @torch.no_grad()
    def initialise(self, x: Images) -> None:
        """Set every ActNorm from a first batch of training images, layer after layer."""
        hooks = [
            module.register_forward_pre_hook(_initialise_first)
            for module in self.modules()
            if isinstance(module, ActNorm)
        ]
        try:
            self(x)
        finally:
            for hook in hooks:
                hook.remove()

    def freeze(self) -> "MultiScaleFlow":
        """Make the weights constants (evaluation only), which spares their gradients; returns itself."""
        return self.eval().requires_grad_(False)

    def _checked(self, x: Tensor) -> Tensor:
        expected = [want for want in self.shape]
        fits = x.ndim == 4 and all(
            have > 0 and want in (None, have) for want, have in zip(expected, x.shape[1:], strict=True)
        )
        if not fits or x.shape[2] % self.factor or x.shape[3] % self.factor:
            shown = ", ".join("any" if want is None else str(want) for want in expected)
            raise InputError(
                f"this flow takes images of shape (B, {shown}) with sides divisible by {self.factor}, "
                f"got {tuple(x.shape)}"
            )
        return x


def _initialise_first(layer: nn.Module, inputs: tuple[Tensor]) -> None:
    assert isinstance(layer, ActNorm)
    layer.initialise(inputs[0])
