"""The density of a trained flow as a prior, with its Gaussian surrogate."""

from pathlib import Path
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aipo.basics.arrays import Images, PerImage, check_tensor
from aipo.basics.derivatives import hessian_product
from aipo.basics.errors import InputError
from aipo.flows import Flow, Precision, posterior_mean
from aipo.flows.conditional import LEVELS
from aipo.gaussian import LowRankGaussian, LowRankStationary, StationaryGaussian
from aipo.io import tensors as checkpoints
from aipo.priors.typicality import LARGEST, typicality
from aipo.priors.views import MIRRORED, PLAIN, SHIFTS, View

Fitted: TypeAlias = LowRankGaussian | LowRankStationary | StationaryGaussian


class FlowPrior(nn.Module):
    """The density of a normalizing flow, with its Gaussian surrogate and a description of its origin.

    A flow for any size sees a picture whose sides are not divisible by its factor after reflection at the
    right and bottom border; the energy is then the reflected picture's energy per entry times the number
    of entries of x. This is part of the definition of R.

    Args:
        flow: trained; its weights are frozen here.
        surrogate: fitted to the same pictures.
        card: what the prior was trained on, by which command, how good it is, under which licence.
        precision: of the flow's networks. "bfloat16" is faster where the processor or the GPU knows it, and
            usually restores as well (docs/results/precision.md).

    Raises:
        InputError: a precision that the flow has no evaluation for.
    """

    def __init__(self, flow: Flow, surrogate: Fitted, card: dict[str, Any], precision: Precision = "float32"):
        super().__init__()
        self.flow = flow.freeze(precision)
        self.surrogate = surrogate
        self.card = card

    @property
    def shape(self) -> tuple[int, int | None, int | None]:
        """(C, H, W) of the pictures; None where any size will do."""
        return self.flow.shape

    @property
    def exact(self) -> "FlowPrior":
        """The same prior with all networks in float32; itself where they are."""
        if self.flow.precision == "float32":
            return self
        return FlowPrior(self.flow.trained, self.surrogate, self.card)

    @property
    def noise_levels(self) -> bool:
        """Whether the flow knows pictures with noise as well: `energy` at τ > 0 and `denoise`."""
        return self.flow.noise_levels

    def energy(self, x: Images, tau: float = 0.0) -> PerImage:
        """R(x; τ) = −log p(x; τ), nats per image; p(·; τ) is the density of pictures with noise of τ.

        Args:
            x: (B, C, H, W).
            tau: standard deviation of white noise, 0 to 1; other than 0 only where `noise_levels`.

        Raises:
            InputError: other channels or size than the flow's; sides too short to reflect; a τ that the flow
                does not know.
        """
        padded = self._pad(x)
        return -self.flow.at(tau).log_prob(padded) * (x[0].numel() / padded[0].numel())

    @property
    def loudest(self) -> float:
        """The standard deviation of the strongest noise that the flow was told in training; 0 if of none."""
        if not self.noise_levels:
            return 0.0
        return float(self.card.get("training", {}).get("told_range", LEVELS)[1])

    @property
    def views(self) -> tuple[View, ...]:
        """How a picture may be seen and stay as likely: shifted, if any size will do, or mirrored."""
        if self.shape[1] is None:
            return SHIFTS
        return MIRRORED if self.card.get("training", {}).get("flips", False) else (PLAIN,)

    def denoise(self, y: Images, sigma: float, view: View = PLAIN) -> Images:
        """The posterior mean of pictures x given y = x + σ n, n white noise, by one evaluation.

        It is y + σ² ∇log p(y; σ), exactly the mean if p(·; σ) is exactly the density of noisy pictures. A
        picture whose sides the flow's factor does not divide is reflected before and cut afterwards.

        Args:
            y: (B, C, H, W).
            sigma: σ, 0 to 1, in units of x.
            view: how the flow sees y; one of `views`.

        Raises:
            InputError: as `energy`.

        Source: Tweedie's formula (Robbins 1956; Efron 2011), see `aipo.flows.posterior_mean`.
        """
        seen = view.of(y)
        restored = posterior_mean(self.flow.at(sigma), self._pad(seen), sigma)
        return view.back(restored[:, :, : seen.shape[2], : seen.shape[3]])

    def deviation(self, y: Images, sigma: float, probes: int = 32) -> Images:
        """The standard deviation of each entry of x given y = x + σ n, of which `denoise` is the mean.

        Its square is σ² times the diagonal of the Jacobian of `denoise`, σ² + σ⁴ ∂²log p(y; σ)/∂y_i², exactly
        if p(·; σ) is exactly the density of noisy pictures. The diagonal is found by probes b of random
        signs, as the mean of b ⊙ Jb: unbiased, but with the scatter of so many probes, which a mean over
        neighbours removes. Each probe costs about two evaluations.

        Args:
            y, sigma: as for `denoise`.
            probes: 1 or more.

        Returns:
            (B, C, H, W); 0 where the learnt density has no positive variance.

        Raises:
            InputError: as `energy`; or no probes.

        Source: Efron 2011, Tweedie's formula and selection bias, equation 2.8 (the variance); Bekas,
        Kokiopoulou & Saad 2007, An estimator for the diagonal of a matrix.
        """
        if probes < 1:
            raise InputError(f"probes = {probes}; use 1 or more")
        padded, generator = self._pad(y), torch.Generator().manual_seed(0)
        curved = hessian_product(self.flow.at(sigma).log_prob, padded)
        diagonal = torch.zeros_like(padded)
        for _ in range(probes):
            signs = torch.randn(padded.shape[1:], generator=generator).sign().to(padded).expand_as(padded)
            diagonal += signs * curved(signs) / probes
        variance = sigma**2 + sigma**4 * diagonal[:, :, : y.shape[2], : y.shape[3]]
        return variance.clamp_min(0).sqrt()

    def log_prob(self, x: Images) -> PerImage:
        """log p(x), nats per image."""
        return -self.energy(x)

    def energies(self, x: Images) -> Tensor:
        """−log p(x) of every scale of the flow, nats per entry of the picture, (B, scales), from fine on."""
        padded = self._pad(x)
        return self.flow.energies(padded) / padded[0].numel()

    def untypical(self, x: Images, error: PerImage) -> PerImage | None:
        """How many standard deviations pictures are from those it was trained on; 3 or more is unusual.

        Args:
            x: (B, C, H, W).
            error: how far each may be from the truth, as a standard deviation, (B,).

        Returns:
            0 for a usual picture, (B,); None for a prior whose card does not tell (`aipo.priors.typicality`).
            Of a picture larger than those it was told of, the middle is looked at.
        """
        told = typicality(self.card)
        if told is None:
            return None
        top, left = (max(0, side - LARGEST) // 2 for side in x.shape[2:])
        return told(self.energies, x[:, :, top : top + LARGEST, left : left + LARGEST], error)

    def has_latents(self, shape: tuple[int, int, int]) -> bool:
        """Whether pictures (C, H, W) have latents of their own: no side has to be reflected."""
        return shape[1] % self.flow.factor == 0 and shape[2] % self.flow.factor == 0

    def encode(self, x: Images) -> Tensor:
        """Latent of x (of the reflected picture where sides are not divisible)."""
        return self.flow(self._pad(x))[0]

    def decode(self, z: Tensor) -> Images:
        """Image of a latent."""
        return self.flow.inverse(z)

    def generate(self, z: Tensor) -> tuple[Images, PerImage]:
        """Image x of a latent and R(x), nats per image, in one pass of the flow."""
        x, log_prob = self.flow.generate(z)
        return x, -log_prob

    @torch.no_grad()
    def sample(
        self, count: int, size: tuple[int, int] | None = None, temperature: float = 1.0, seed: int = 0
    ) -> Images:
        """`count` pictures drawn from the prior.

        Args:
            size: (H, W), needed where the prior takes any size.
            temperature: standard deviation of the latents.
        """
        channels, height, width = self.shape
        if size is not None:
            height, width = size
        if height is None or width is None:
            raise InputError("this prior draws pictures of any size; give size=(H, W)")
        generator = torch.Generator().manual_seed(seed)
        z = temperature * torch.randn(count, channels, height, width, generator=generator)
        return self.decode(z.to(next(self.parameters())))

    def save(self, folder: str | Path) -> None:
        """Write a prior folder: config.json and model.safetensors (float16 weights and loadings)."""
        tensors = {f"flow.{name}": value.half() for name, value in self.flow.trained.state_dict().items()}
        tensors |= {f"surrogate.{name}": value for name, value in self.surrogate.state_dict().items()}
        if "surrogate.loadings" in tensors:  # by far the largest tensor of a prior for one size
            tensors["surrogate.loadings"] = tensors["surrogate.loadings"].half()
        checkpoints.save_folder(Path(folder), self.card, tensors)

    def _pad(self, x: Images) -> Images:
        channels, height, width = self.shape
        check_tensor("x", x)
        if not x.is_floating_point():
            raise InputError(
                f"pictures are floating-point numbers in [0, 1], got {x.dtype}; divide bytes by 255"
            )
        factor = self.flow.factor
        if x.ndim != 4 or x.shape[1] != channels or 0 in x.shape[2:]:
            return x  # the flow refuses it
        bottom, right = -x.shape[2] % factor, -x.shape[3] % factor
        if height is not None or width is not None or (bottom == 0 and right == 0):
            return x
        if bottom >= x.shape[2] or right >= x.shape[3]:
            raise InputError(
                f"a picture of {x.shape[2]} × {x.shape[3]} is too small for this prior; both sides must be "
                f"at least {factor // 2 + 1}"
            )
        return F.pad(x, (0, right, 0, bottom), mode="reflect")
