"""Restore the user's own files one after the other: what `aipo restore` runs."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, count
from pathlib import Path
from typing import Literal

from skimage.restoration import estimate_sigma

from aipo.basics.arrays import Images
from aipo.basics.devices import usable
from aipo.basics.errors import AipoError, InputError
from aipo.cli.record import Record, restore
from aipo.cli.report import pictures_of, prepare_folder, write_pictures, write_summary
from aipo.flows import Precision
from aipo.flows.training.data import PICTURE_SUFFIXES
from aipo.io.images import read_image
from aipo.io.measurements import load_measurement
from aipo.likelihoods import Gaussian, Likelihood
from aipo.operators import Grey, Identity, LinearOperator, Mask, Operator
from aipo.operators.filters import EVEN
from aipo.posterior.langevin import LangevinOptions
from aipo.priors import FlowPrior, load_prior
from aipo.priors.checks import check_pictures
from aipo.selection.plans import Weight

# A picture of 8 bits is never cleaner than its rounding, 1/(255·√12).
SMALLEST_SIGMA = 1 / 255 / 12**0.5

MEASUREMENT_SUFFIX = ".safetensors"


@dataclass(frozen=True)
class RestoreOptions:
    """How files are restored.

    Args:
        task: "denoise" or "inpaint"; a measurement file names its own task.
        sigma: standard deviation of the noise, pictures in [0, 1]; estimated where not given.
        mask: for inpainting, a picture of the same size, white where the picture is known.
        prior: name of a bundled prior or folder of a trained one.
        weight: "auto"; "mean" for the posterior mean; "bayes", "sure", "discrepancy", "l-curve" or a positive
            number.
        device: "cpu", or "cuda" for a GPU.
        precision: of the prior's networks; "bfloat16" is faster where the processor or the GPU knows it.
        chain: how the chains of "mean" are run; longer ones give slightly better pictures, and several tell
            whether they agree.
        reference: the clean picture, or a folder with clean pictures of the same names, to report PSNR.
    """

    task: Literal["denoise", "inpaint"] = "denoise"
    sigma: float | None = None
    mask: str | None = None
    prior: str = "photos"
    weight: Weight = "auto"
    device: str = "cpu"
    precision: Precision = "float32"
    chain: LangevinOptions = LangevinOptions()
    reference: str | None = None

    def __post_init__(self):
        if self.weight != "mean" and self.chain != LangevinOptions():
            raise InputError(
                f"--weight {self.weight} runs no chain; use --weight mean, or leave --chain options out"
            )


def listed(sources: Sequence[str]) -> list[str]:
    """The files as they are; in place of a folder the pictures and measurement files in it, by name.

    A folder that has none, or that cannot be read, stays in the list, so that it is reported.
    """
    return [file for source in sources for file in _within(source) or [source]]


def _within(folder: str) -> list[str]:
    if not Path(folder).is_dir() or not os.access(folder, os.R_OK | os.X_OK):
        return []
    kinds = PICTURE_SUFFIXES | {MEASUREMENT_SUFFIX}
    files = sorted(path for path in Path(folder).iterdir() if path.is_file())
    return [str(path) for path in files if path.suffix.lower() in kinds]


def restore_files(
    files: Sequence[str], out: str, options: RestoreOptions, bar: Callable[[str, int, int], None]
) -> tuple[list[Record], list[str]]:
    """Restore every file to `out`; a file that cannot be used is reported, and the other files go on.

    Returns:
        The records, and one sentence per file that failed.
    """
    if options.sigma is not None and options.sigma > 1:
        raise InputError(
            f"--sigma {options.sigma:g} is more than pictures in [0, 1] have room for; a noise of "
            f"{options.sigma:g} of 255 is --sigma {options.sigma / 255:.3g}"
        )
    names = _names(files)
    _check_kept(files, names, Path(out), options)
    folder = prepare_folder(out)
    prior = load_prior(options.prior, options.precision).to(usable(options.device))
    if options.task == "inpaint" and options.mask is None and any(not _is_measurement(f) for f in files):
        raise InputError(
            "inpainting needs --mask, a picture of the same size that is white where it is known"
        )
    records: list[Record] = []
    failures: list[str] = []
    for file, name in zip(files, names, strict=True):
        try:
            records.append(_restore_file(file, name, folder, prior, options, bar))
        except AipoError as error:
            failures.append(str(error))
            continue
        write_summary(folder, records)
    return records, failures


def _restore_file(
    file: str,
    name: str,
    folder: Path,
    prior: FlowPrior,
    options: RestoreOptions,
    bar: Callable[[str, int, int], None],
) -> Record:
    if Path(file).is_dir():
        raise InputError(
            f"the folder {file} has no pictures that can be read; expected files such as .png, .jpg or .tif"
        )
    task, likelihood = load_measurement(file) if _is_measurement(file) else _picture(file, options)
    seen = _seen(likelihood.operator, prior)
    check_pictures(seen, prior, file)
    if tuple(seen.shape) != tuple(likelihood.operator.shape):
        likelihood = likelihood.through(seen)
    likelihood = likelihood.to(options.device)
    truth = _reference(options, file, seen.measurement_shape)
    record, result = restore(
        task,
        name,
        likelihood,
        prior,
        options.weight,
        truth,
        progress=partial(bar, name),
        view=seen,
        chain=options.chain if options.weight == "mean" else None,
    )
    write_pictures(folder, name, likelihood, result, truth, seen)
    return record


def _seen(operator: Operator, prior: FlowPrior) -> LinearOperator:
    """How the prior's pictures are viewed: only their grey, if a grey picture was measured."""
    channels, height, width = operator.shape
    if channels == 1 and prior.shape[0] == 3 and operator.linear is operator:
        return Grey((3, height, width), EVEN)
    return Identity(operator.shape)


def _picture(file: str, options: RestoreOptions) -> tuple[str, Likelihood]:
    """The task, and a noisy picture as a measurement."""
    image = read_image(file)[None]
    channels, height, width = image.shape[1:]
    sigma = options.sigma if options.sigma is not None else estimated_sigma(image)
    if options.task == "denoise":
        return "denoise", Gaussian(Identity((channels, height, width)), image, sigma)
    assert options.mask is not None
    mask = read_image(options.mask)[:1] > 0.5
    if mask.shape[1:] != image.shape[2:]:
        raise InputError(
            f"mask {options.mask} is {mask.shape[1]} × {mask.shape[2]}, {file} is {height} × {width}; "
            "give a mask of the picture's size"
        )
    known = Mask(mask, channels)
    return "inpaint", Gaussian(known, known(image), sigma)


def estimated_sigma(image: Images) -> float:
    """Noise level of one picture (1, C, H, W), by the median of its finest wavelet coefficients.

    Source: Donoho & Johnstone 1994, as in scikit-image's `estimate_sigma`.
    """
    if min(image.shape[2:]) < 2:
        raise InputError("the noise of a picture of one row or column cannot be estimated; give --sigma")
    estimate = estimate_sigma(image[0].numpy(), average_sigmas=True, channel_axis=0)
    return max(float(estimate), SMALLEST_SIGMA)


def _reference(options: RestoreOptions, file: str, shape: tuple[int, ...]) -> Images | None:
    path = _reference_of(file, options)
    if path is None:
        return None
    clean = read_image(path)[None]
    if tuple(clean.shape[1:]) != shape:
        raise InputError(f"reference {path} is {tuple(clean.shape[1:])}, the measured picture is {shape}")
    return clean.to(options.device)


def _is_measurement(file: str) -> bool:
    return Path(file).suffix.lower() == MEASUREMENT_SUFFIX


def _names(files: Sequence[str]) -> list[str]:
    """Names for the results: the file's stem, with a number if it would replace another file's results."""
    names: list[str] = []
    taken: set[str] = set()
    for file in files:
        stem = Path(file).stem
        numbered = (f"{stem}-{number}" for number in count(2))
        names.append(next(name for name in chain([stem], numbered) if taken.isdisjoint(pictures_of(name))))
        taken |= pictures_of(names[-1])
    return names


def _check_kept(files: Sequence[str], names: Sequence[str], folder: Path, options: RestoreOptions) -> None:
    """Refuse to replace a file that is read by one that is written."""
    written = {(folder / picture).resolve() for name in names for picture in pictures_of(name)}
    read = [*files, *(_reference_of(file, options) for file in files), options.mask]
    for file in filter(None, read):
        if Path(file).resolve() in written:
            raise InputError(f"restoring into {folder} would replace {file}; choose another --out")


def _reference_of(file: str, options: RestoreOptions) -> Path | None:
    """The clean picture that belongs to a noisy one, if the user named it."""
    if options.reference is None:
        return None
    path = Path(options.reference)
    return path / Path(file).name if path.is_dir() else path
