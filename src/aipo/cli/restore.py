"""Restore the user's own files one after the other: what `aipo restore` runs."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from skimage.restoration import estimate_sigma

from aipo.basics.arrays import Images
from aipo.basics.devices import usable
from aipo.basics.errors import AipoError, InputError
from aipo.cli.outputs import check_ours, check_unread, names_of, written_by
from aipo.cli.record import Record, restore
from aipo.cli.report import prepare_folder, write_pictures, write_summary
from aipo.flows import Precision
from aipo.flows.training.data import PICTURE_SUFFIXES
from aipo.io.files import printable
from aipo.io.images import read_image
from aipo.io.masks import read_mask
from aipo.io.measurements import load_measurement
from aipo.io.picture import Picture, read_like, read_picture
from aipo.io.ranges import parsed_range
from aipo.likelihoods import Gaussian, Likelihood
from aipo.operators import Grey, Identity, LinearOperator, Mask, Operator
from aipo.operators.filters import BRIGHTNESS, EVEN
from aipo.posterior.langevin import LangevinOptions
from aipo.priors import FlowPrior, load_prior
from aipo.priors.checks import check_pictures
from aipo.selection.plans import Weight

# A picture of 8 bits is never cleaner than its rounding, 1/(255·√12).
SMALLEST_SIGMA = 1 / 255 / 12**0.5
SAMPLE = 10_000_000  # torch.quantile takes no more than 2²⁴ values

MEASUREMENT_SUFFIX = ".safetensors"


@dataclass(frozen=True)
class RestoreOptions:
    """How files are restored.

    Args:
        task: "denoise" or "inpaint"; a measurement file names its own task.
        sigma: standard deviation of the noise as a share of the file's white, 255 or 65535; in the file's own
            numbers where these are floating point, signed or of 32 bits; estimated where not given.
        range: MIN,MAX, the file's levels that are 0 and 1 to the prior (--range=-5,5 with a minus); "auto" is
            black and white, or the lowest and highest level of more than 8 bits that use little of it or go
            beyond; the result has the file's own levels again.
        page: which page of a file of several is restored, from 1.
        mask: for inpainting, a picture of the same size, white where the picture is known and black where
            not; or transparent, or marked in one colour, where not.
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
    range: str = "auto"
    page: int = 1
    mask: str | None = None
    prior: str = "photos"
    weight: Weight = "auto"
    device: str = "cpu"
    precision: Precision = "float32"
    chain: LangevinOptions = LangevinOptions()
    reference: str | None = None

    def __post_init__(self):
        parsed_range(self.range)
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
    files: Sequence[str],
    out: str,
    options: RestoreOptions,
    bar: Callable[[str, int, int], None],
    overwrite: bool = False,
) -> tuple[list[Record], list[str]]:
    """Restore every file to `out`; a file that cannot be used is reported, and the other files go on.

    Args:
        overwrite: replace also files in `out` that aipo did not write, but never one that is read.

    Returns:
        The records, and one sentence per file that failed.
    """
    names, folder = names_of(files), Path(out)
    written = written_by(files, names, options.page)
    read = [*files, *(_reference_of(file, options) for file in files), options.mask]
    check_unread(folder, written, filter(None, read))
    if not overwrite:
        check_ours(folder, written)
    prepare_folder(folder)
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
    picture = None
    if _is_measurement(file):
        task, likelihood = load_measurement(file)
    else:
        picture = read_picture(file, parsed_range(options.range), options.page)
        task, likelihood = options.task, _picture(file, picture, options)
    seen = _seen(likelihood.operator, prior)
    check_pictures(seen, prior, file)
    if tuple(seen.shape) != tuple(likelihood.operator.shape):
        likelihood = likelihood.through(seen)
    likelihood = likelihood.to(options.device)
    truth = _reference(options, file, seen.measurement_shape, picture)
    record, result = restore(
        task,
        name,
        likelihood,
        prior,
        options.weight,
        truth,
        progress=partial(bar, printable(name)),
        view=seen,
        chain=options.chain if options.weight == "mean" else None,
    )
    write_pictures(folder, name, likelihood, result, truth, seen, picture)
    if picture is None:
        return record
    return replace(record, remarks=[*picture.remarks, *_levels_of_noise(record, picture), *record.remarks])


def _levels_of_noise(record: Record, picture: Picture) -> list[str]:
    """A sentence on the reported σ, where it is not a share of the file's white."""
    if picture.unit == 1:
        return []
    low, high = picture.range
    return [f"sigma {record.sigma:.3g} of its range is {record.sigma * (high - low):.3g} of its own levels"]


def _seen(operator: Operator, prior: FlowPrior) -> LinearOperator:
    """How the prior's pictures are viewed: only their grey, if a grey picture was measured.

    As the mean of equal channels if it is whole. Where the prior has to fill in, the path does better with
    the weights of brightness, under which colours are not as symmetric.
    """
    channels, height, width = operator.shape
    if channels == 1 and prior.shape[0] == 3 and operator.linear is operator:
        kept = operator.kept()
        whole = kept is not None and bool(kept.all())
        return Grey((3, height, width), EVEN if whole else BRIGHTNESS)
    return Identity(operator.shape)


def _picture(file: str, picture: Picture, options: RestoreOptions) -> Likelihood:
    """A noisy picture as a measurement of what is known of it."""
    channels, height, width = picture.values.shape
    sigma = estimated_sigma(picture) if options.sigma is None else _given_sigma(options.sigma, picture)
    known = picture.known
    if options.task == "inpaint":
        assert options.mask is not None
        known = known & read_mask(options.mask, picture, file)
    if known.all():
        return Gaussian(Identity((channels, height, width)), picture.values[None], sigma)
    kept = Mask(known, channels)
    return Gaussian(kept, kept(picture.values[None]), sigma)


def _given_sigma(sigma: float, picture: Picture) -> float:
    """The σ that a user gave, for values of which 0 and 1 are the ends of the picture's range."""
    if sigma * picture.unit <= 1:
        return sigma * picture.unit
    white = picture.stored.white
    if white is not None and white > 1 and sigma > 1:
        raise InputError(
            f"--sigma {sigma:g} is more than pictures in [0, 1] have room for; a noise of {sigma:g} of "
            f"{white:g} is --sigma {sigma / white:.3g}"
        )
    low, high = picture.range
    raise InputError(
        f"--sigma {sigma:g} is more than the picture's levels {low:g} to {high:g} have room for; give the "
        "standard deviation of its noise, or a wider --range"
    )


def estimated_sigma(picture: Picture) -> float:
    """Noise level of a picture's values, by the median of its finest wavelet coefficients.

    Source: Donoho & Johnstone 1994, as in scikit-image's `estimate_sigma`; where pixels are unknown, by the
    Haar wavelets that see only known ones.
    """
    values, known = picture.values, picture.known[0]
    if min(known.shape) < 2:
        raise InputError("the noise of a picture of one row or column cannot be estimated; give --sigma")
    if known.all():
        estimate = estimate_sigma(values.numpy(), average_sigmas=True, channel_axis=0)
    else:
        detail = (values[:, 1:, 1:] - values[:, 1:, :-1] - values[:, :-1, 1:] + values[:, :-1, :-1]) / 2
        whole = known[1:, 1:] & known[1:, :-1] & known[:-1, 1:] & known[:-1, :-1]
        if not whole.any():
            raise InputError("the noise cannot be estimated from pixels that stand alone; give --sigma")
        estimate = float(torch.quantile(detail[:, whole].abs().flatten()[:SAMPLE], 0.5)) / 0.6745
    return max(float(np.mean(estimate)), SMALLEST_SIGMA)


def _reference(
    options: RestoreOptions, file: str, shape: tuple[int, ...], picture: Picture | None
) -> Images | None:
    """The clean picture, (1, C, H, W) on the scale of the noisy one."""
    path = _reference_of(file, options)
    if path is None:
        return None
    clean = read_image(path) if picture is None else read_like(path, picture)
    if tuple(clean.shape) != shape:
        raise InputError(f"reference {path} is {tuple(clean.shape)}, the measured picture is {shape}")
    return clean[None].to(options.device)


def _is_measurement(file: str) -> bool:
    return Path(file).suffix.lower() == MEASUREMENT_SUFFIX


def _reference_of(file: str, options: RestoreOptions) -> Path | None:
    """The clean picture that belongs to a noisy one, if the user named it."""
    if options.reference is None:
        return None
    path = Path(options.reference)
    return path / Path(file).name if path.is_dir() else path
