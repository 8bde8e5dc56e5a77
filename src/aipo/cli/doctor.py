"""Is this installation sound: what `aipo doctor` tells and tries."""

import math
import platform
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from aipo.basics.arrays import Images
from aipo.basics.errors import AipoError
from aipo.basics.quality import psnr
from aipo.io.tensors import load_config
from aipo.likelihoods import measure
from aipo.operators import Identity
from aipo.path.options import PathOptions
from aipo.priors import FlowPrior, bundled_priors, load_prior
from aipo.reconstruction.reconstruct import reconstruct

PACKAGES = ("torch", "numpy", "scipy", "scikit-image", "pillow", "safetensors", "tifffile", "imagecodecs")
# Pictures drawn from a density have about the bits of held-out ones, not the same: the mean of eight.
DRAWN, SIDE, FAR = 8, 32, 1.5
# White noise on the picture that is restored, the dB that must be gained, and the evaluations of the path.
SIGMA, GAIN, EVALUATIONS = 0.1, 1.0, 16
# How far a picture may come back from its latent, in [0, 1].
ROUNDING = 1e-3


def facts() -> list[tuple[str, str]]:
    """What this installation runs on: names and what they are."""
    versions = [
        ("aipo", _version("aipo")),
        ("Python", f"{platform.python_version()} on {platform.platform()}"),
    ]
    versions += [(name, _version(name)) for name in PACKAGES]
    return [
        *versions,
        ("device cpu", f"{platform.machine()}, {torch.get_num_threads()} threads"),
        ("CPU kernels", torch.backends.cpu.get_cpu_capability()),
        *((f"device cuda:{i}", torch.cuda.get_device_name(i)) for i in range(torch.cuda.device_count())),
    ]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not found"


def wrong_numbers() -> list[str]:
    """One sentence for each kernel of this processor that gives a wrong result."""
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(1, 8, 24, 24, generator=generator)
    kernel = torch.randn(4, 8, 3, 3, generator=generator)
    turned = torch.nn.functional.conv2d(a, kernel, padding=1)
    exact = torch.nn.functional.conv2d(a.double(), kernel.double(), padding=1)
    back = torch.fft.irfft2(torch.fft.rfft2(a), s=a.shape[2:])
    found = {"convolutions": (turned.double() - exact, exact), "Fourier transforms": (back - a, a)}
    return [
        f"{name} are wrong by {float(off.abs().max()):.2g} here; try ATEN_CPU_CAPABILITY=default"
        for name, (off, like) in found.items()
        if not float(off.abs().max()) <= 1e-4 * float(like.abs().max())
    ]


def unsound_priors(tell: Callable[[str], None]) -> list[str]:
    """Try every bundled prior; one sentence for each failure.

    Args:
        tell: is given one line for each prior that is sound.
    """
    priors = bundled_priors()
    if not priors:
        return ["no prior came with this installation; install aipo again"]
    failures = []
    for name, folder in priors.items():
        try:
            tell(f"prior {name:<10} {_tried(folder)}")
        except AipoError as error:
            failures.append(f"prior {name}: {error}")
    return failures


def _tried(folder: Path) -> str:
    """What was found of a prior; the checksums of its files are compared as it is loaded.

    Raises:
        AipoError: a file is damaged, or the prior does not do what its card says.
    """
    prior = load_prior(folder)
    x = prior.sample(DRAWN, None if prior.shape[1] else (SIDE, SIDE))
    bits = float(prior.energy(x).double().mean()) / (x[0].numel() * math.log(2)) + 8
    stated = float(prior.card["validation_bits_per_dim"])
    if not abs(bits - stated) <= FAR:
        raise AipoError(
            f"pictures drawn from it take {bits:.3f} bits per dimension, and its card says {stated:.3f}; "
            "install aipo again"
        )
    off = float((prior.decode(prior.encode(x)) - x).abs().max())
    if not off <= ROUNDING:
        raise AipoError(
            f"pictures come back from their latents with an error of {off:.2g}; install aipo again"
        )
    gain = _gain(prior, x[:1].clamp(0, 1))
    if not gain >= GAIN:
        raise AipoError(f"restoring a picture gains {gain:.1f} dB, less than {GAIN:g}; install aipo again")
    digest = load_config(folder)["sha256"]["model.safetensors"]
    return (
        f"sha256 {digest[:12]}, {bits:.2f} bits per dimension (card {stated:.2f}), restores by {gain:.1f} dB"
    )


def _gain(prior: FlowPrior, x: Images) -> float:
    """What restoring a noisy picture gains, in dB."""
    noisy = measure(Identity(_shape(x)), x, SIGMA, torch.Generator().manual_seed(0))
    found = reconstruct(noisy, prior, 1.0, PathOptions((1.0,), evaluations=EVALUATIONS))
    return float(psnr(found.image, x) - psnr(noisy.y, x))


def _shape(x: Images) -> tuple[int, int, int]:
    _, channels, height, width = x.shape
    return channels, height, width
