"""Priors: densities of images as energies R(x) = −log p(x), in nats per image.

A prior is any object with `energy(x) -> (B,)`. Optional and used when present: `surrogate`, a Gaussian
with closed-form posterior (`aipo.surrogates`), and `energy(x, tau=τ)`, the energy of p ∗ N(0, τ² I), the
density of pictures with noise, which the smoothing path follows.
"""

import math
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aipo.basics.arrays import Images, PerImage
from aipo.basics.errors import CheckpointError, InputError
from aipo.flows import Flow, Glow, Precision, RealNVP, TarFlow
from aipo.gaussian.surrogates import LowRankGaussian, LowRankStationary, StationaryGaussian, Surrogate, energy
from aipo.io import tensors as checkpoints

FAMILIES: dict[str, type[Glow] | type[RealNVP] | type[TarFlow]] = {
    "glow": Glow,
    "realnvp": RealNVP,
    "tarflow": TarFlow,
}


Fitted: TypeAlias = LowRankGaussian | LowRankStationary | StationaryGaussian
SURROGATES: dict[str, type[Fitted]] = {
    "low-rank": LowRankGaussian,
    "low-rank-stationary": LowRankStationary,
    "stationary": StationaryGaussian,
}


class Prior(Protocol):
    """What the reconstruction asks of a prior."""

    def energy(self, x: Images) -> PerImage:
        """−log p(x), nats per image."""
        ...


class Gaussian:
    """N(μ, Σ) with a full covariance, for small images and for tests: every minimiser is known.

    Args:
        mean: (C, H, W).
        covariance: (n, n), positive definite, n = C·H·W.
    """

    def __init__(self, mean: Tensor, covariance: Tensor):
        self.mean = mean
        self.root = torch.linalg.cholesky(covariance)
        self._log_det = 2 * self.root.diagonal().log().sum()

    @property
    def surrogate(self) -> Surrogate:
        return self

    def energy(self, x: Images, tau: float = 0.0) -> PerImage:
        """−log of N(x; μ, Σ + τ² I), nats per image."""
        if tau == 0:
            constant = 0.5 * (self._log_det + x[0].numel() * math.log(2 * math.pi))
            return energy(self, x) + constant.to(x)
        return self._component.energy(x, tau)

    @cached_property
    def _component(self) -> "Mixture":
        return Mixture(self.mean[None], self.root[None] @ self.root.T, torch.ones(1))

    def mean_like(self, x: Images) -> Images:
        return self.mean.to(x)

    def coordinates(self, x: Images) -> Tensor:
        return x.flatten(1)

    def factor(self, u: Tensor) -> Images:
        return (u.flatten(1) @ self.root.to(u).T).unflatten(1, self.mean.shape)

    def factor_adjoint(self, v: Images) -> Tensor:
        return (v.flatten(1) @ self.root.to(v)).unflatten(1, self.mean.shape)

    def precision(self, v: Images) -> Images:
        return torch.cholesky_solve(v.flatten(1).T, self.root.to(v)).T.unflatten(1, self.mean.shape)


class Mixture:
    """Σ_k w_k N(μ_k, Σ_k), for small images: a prior with many modes whose smoothed densities are exact.

    Args:
        means: (K, C, H, W).
        covariances: (K, n, n), positive definite, n = C·H·W.
        weights: (K,), positive; they are scaled to sum to 1.
    """

    def __init__(self, means: Tensor, covariances: Tensor, weights: Tensor):
        n = means[0].numel()
        if covariances.shape != (len(means), n, n) or weights.shape != (len(means),):
            raise InputError(
                f"means {tuple(means.shape)}, covariances {tuple(covariances.shape)} and weights "
                f"{tuple(weights.shape)} do not fit; they are (K, C, H, W), (K, n, n) and (K,) with n = C·H·W"
            )
        self.means = means
        self.values, self.vectors = torch.linalg.eigh(covariances)
        self.log_weights = (weights / weights.sum()).log()

    def energy(self, x: Images, tau: float = 0.0) -> PerImage:
        """−log p_τ(x) of p_τ = p ∗ N(0, τ² I), nats per image."""
        variances = self.values.to(x) + tau**2
        centred = x.flatten(1)[:, None] - self.means.to(x).flatten(1)
        rotated = torch.einsum("bki,kij->bkj", centred, self.vectors.to(x))
        squares = (rotated**2 / variances).sum(2)
        constants = variances.log().sum(1) + variances.shape[1] * math.log(2 * math.pi)
        return -torch.logsumexp(self.log_weights.to(x) - 0.5 * (squares + constants), 1)

    @cached_property
    def surrogate(self) -> Gaussian:
        """The Gaussian with the mixture's mean and covariance."""
        weights, flat = self.log_weights.exp().to(self.means), self.means.flatten(1)
        mean = weights @ flat
        inner = torch.einsum("k,kij,kj,klj->il", weights, self.vectors, self.values, self.vectors)
        between = (flat - mean).T @ (weights[:, None] * (flat - mean))
        return Gaussian(mean.reshape(self.means.shape[1:]), inner + between)


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

    def energy(self, x: Images) -> PerImage:
        """R(x) = −log p(x), nats per image.

        Raises:
            InputError: other channels or size than the flow's; sides too short to reflect.
        """
        padded = self._pad(x)
        return -self.flow.log_prob(padded) * (x[0].numel() / padded[0].numel())

    def log_prob(self, x: Images) -> PerImage:
        """log p(x), nats per image."""
        return -self.energy(x)

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


def bundled_priors() -> dict[str, Path]:
    """Folders of the priors that ship with the package, by name."""
    root = Path(str(resources.files("aipo"))) / "weights"
    return {path.parent.name: path.parent for path in sorted(root.glob(f"*/{checkpoints.CONFIG_NAME}"))}


def load_prior(name: str | Path, precision: Precision = "float32") -> FlowPrior:
    """A bundled prior by name, or any prior from its folder.

    Args:
        precision: of the flow's networks, see `FlowPrior`.

    Raises:
        InputError: no such prior, or a precision that its flow has no evaluation for.
        CheckpointError: the folder is damaged or belongs to another version.
    """
    folder = bundled_priors().get(str(name), Path(name))
    if not folder.is_dir():
        known = ", ".join(bundled_priors())
        raise InputError(f"there is no prior {name}; use one of {known}, or the folder of a trained prior")
    card, tensors = checkpoints.load_folder(folder)
    groups: dict[str, dict[str, Tensor]] = {"flow": {}, "surrogate": {}}
    try:
        for key, tensor in tensors.items():
            group, rest = key.split(".", 1)
            groups[group][rest] = tensor
        flow = build_flow(card["flow"])
        surrogate = SURROGATES[card["surrogate"]](**groups["surrogate"])
        _check_surrogate(surrogate, flow.shape)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{folder} does not describe a prior of this version ({error!r})") from error
    checkpoints.load_state(flow, groups["flow"], str(folder))
    return FlowPrior(flow, surrogate, card, precision)


def _check_surrogate(surrogate: Fitted, shape: tuple[int, int | None, int | None]) -> None:
    mean = tuple(surrogate.mean.shape)
    expected = shape[:1] if isinstance(surrogate, StationaryGaussian) else shape
    if mean != expected:
        raise InputError(f"the surrogate's mean has shape {mean}, but the flow's pictures {tuple(shape)}")


def build_flow(description: dict[str, Any]) -> Flow:
    """The untrained flow of a configuration: family, shape, levels, steps, hidden.

    Raises:
        InputError: unknown family.
    """
    family = description["family"]
    if family not in FAMILIES:
        raise InputError(f"there is no flow family {family}; use one of {', '.join(FAMILIES)}")
    channels, height, width = description["shape"]
    return FAMILIES[family](
        (channels, height, width),
        levels=description["levels"],
        steps=description["steps"],
        hidden=description["hidden"],
    )
