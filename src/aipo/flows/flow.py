"""What every flow is: an invertible map between images and latents, and the density that it gives."""

from copy import deepcopy
from math import log, pi
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from aipo.basics.arrays import Images, PerImage, check_dtype, check_tensor, per_image_sum
from aipo.basics.errors import InputError
from aipo.flows.allocator import keep_freed_memory
from aipo.flows.layers import ActNorm

Precision: TypeAlias = Literal["float32", "bfloat16"]
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16")


def check_precision(precision: str) -> None:
    """Refuse what is no precision of networks.

    Raises:
        InputError: neither float32 nor bfloat16.
    """
    if precision not in PRECISIONS:
        raise InputError(f"precision = {precision!r}; use {' or '.join(PRECISIONS)}")


class Flow(nn.Module):
    """An invertible map between images in [0, 1] and standard normal latents, (B, C, H, W) both.

    The density is of the image x itself: log p(x) = log N(z; 0, I) + log |det ∂z/∂x|, in nats per image.

    Args:
        shape: (C, H, W) of the images, or (C, None, None) for pictures of any size.
        factor: what height and width must be divisible by.

    Raises:
        InputError: height or width not divisible by the factor.
    """

    precision: Precision = "float32"  # of the coupling networks, the map itself apart
    noise_levels: bool = False  # whether it is told the noise of its pictures

    def __init__(self, shape: tuple[int, int | None, int | None], factor: int):
        super().__init__()
        keep_freed_memory()
        self.shape, self.factor = shape, factor
        _, height, width = shape
        if height is not None and width is not None and (height % factor or width % factor):
            raise InputError(
                f"a flow with {factor.bit_length() - 1} levels needs height and width divisible by {factor}, "
                f"got {height} × {width}; use fewer levels or another size"
            )

    def forward(self, x: Images) -> tuple[Tensor, PerImage]:
        """Latent z, (B, C, H, W), and log |det ∂z/∂x|, (B,)."""
        raise NotImplementedError

    def inverse_and_logdet(self, z: Tensor) -> tuple[Images, PerImage]:
        """The image x of a latent and log |det ∂x/∂z|, (B,)."""
        raise NotImplementedError

    def inverse(self, z: Tensor) -> Images:
        """The image of a latent, (B, C, H, W) -> (B, C, H, W)."""
        return self.inverse_and_logdet(z)[0]

    def generate(self, z: Tensor) -> tuple[Images, PerImage]:
        """The image x of a latent and log p(x), nats per image, in one pass."""
        x, logdet = self.inverse_and_logdet(z)
        return x, standard_normal(z) - logdet

    def log_prob(self, x: Images) -> PerImage:
        """log p(x), nats per image."""
        z, logdet = self(x)
        return logdet + standard_normal(z)

    def energies(self, x: Images) -> Tensor:
        """−log p(x) of what leaves the flow at each scale, given what goes on, from fine to coarse.

        Returns:
            (B, scales), nats; the sum is −log p(x). A flow that has one scale only has one energy.
        """
        return -self.log_prob(x)[:, None]

    def at(self, tau: float) -> "Flow":
        """The plain flow of p(x; τ), the density of pictures with white noise of standard deviation τ.

        Args:
            tau: from 0 to 1, in units of x.

        Raises:
            InputError: τ is no such number, or is not 0 and this flow is not told the noise of its pictures.
        """
        if tau != 0:
            raise InputError(
                f"tau = {tau}, but this flow knows pictures without noise only; use tau = 0, or a flow that "
                "was trained with noise_levels"
            )
        return self

    def freeze(self, precision: Precision = "float32") -> "Flow":
        """A copy for evaluation only, with constant weights.

        Args:
            precision: of the coupling networks; the map itself, and with it its inverse and its
                log-determinant, is of the weights' own.

        Raises:
            InputError: a precision that this flow has no evaluation for.
        """
        check_precision(precision)
        if precision != "float32":
            raise InputError(
                f"a {type(self).__name__} is evaluated in float32 only; leave precision as it is"
            )
        return deepcopy(self).eval().requires_grad_(False)

    @property
    def trained(self) -> "Flow":
        """The flow whose weights are saved; itself, where evaluation has no form of its own."""
        return self

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

    def _checked(self, x: Tensor) -> Tensor:
        check_tensor("x", x)
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
        check_dtype("x", x, "the flow", next(self.parameters()).dtype)
        return x


def standard_normal(z: Tensor) -> PerImage:
    """log N(z; 0, I), nats per image."""
    return -0.5 * per_image_sum(z * z) - 0.5 * log(2 * pi) * z[0].numel()


def _initialise_first(layer: nn.Module, inputs: tuple[Tensor]) -> None:
    assert isinstance(layer, ActNorm)
    layer.initialise(inputs[0])
