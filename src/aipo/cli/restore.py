"""Restore the user's own files one after the other: what `aipo restore` runs."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import torch

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
from aipo.likelihoods import Likelihood
from aipo.noise import Noise, NoiseOptions, flat_noise, named_noise
from aipo.noise.named import FREEDOM, Kind
from aipo.operators import Grey, Identity, LinearOperator, Mask, Operator
from aipo.operators.filters import BRIGHTNESS, EVEN
from aipo.operators.operator import image_shape
from aipo.posterior.langevin import LangevinOptions
from aipo.priors import FlowPrior, load_prior
from aipo.priors.checks import check_pictures
from aipo.selection.plans import Weight

MEASUREMENT_SUFFIX = ".safetensors"

NEEDS_MASK = "inpainting needs --mask, a picture of the same size that is white where it is known"


@dataclass(frozen=True)
class RestoreOptions:
    """How files are restored.

    Args:
        task: "denoise" or "inpaint"; a measurement file names its own task.
        noise: its kind; "gaussian" is white. "auto" tells it from the picture, if no sigma is given: white,
            correlated, growing with brightness, of whole columns or rows, and impulses.
        sigma: standard deviation of the noise as a share of the file's white, 255 or 65535; in the file's own
            numbers where these are floating point, signed or of 32 bits; estimated where not given.
        gain: photons of white, for poisson and poisson-gaussian; estimated where not given.
        freedom: degrees of freedom of student-t, more than 2.
        flat: a picture of something even by the same camera, which tells the noise.
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
    noise: Kind = "auto"
    sigma: float | None = None
    gain: float | None = None
    freedom: float = FREEDOM
    flat: str | None = None
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
        noise_options(self, self.sigma)
        if self.flat is not None and (self.noise, self.sigma, self.gain) != ("auto", None, None):
            raise InputError("--flat tells the noise; leave --noise, --sigma and --gain out")
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
        raise InputError(NEEDS_MASK)
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
    picture, told = None, list[str]()
    if _is_measurement(file):
        task, likelihood = load_measurement(file)
        if len(likelihood) > 1:
            raise InputError(
                f"{file} holds {len(likelihood)} measurements; save each in a file of its own, for example "
                "likelihood.select(torch.tensor([0]))"
            )
    else:
        picture = read_picture(file, parsed_range(options.range), options.page)
        noise = noise_of(picture, options)
        task, likelihood = options.task, measured(file, picture, noise, options)
        told = [*picture.remarks, *([] if options.sigma is not None else [noise.sentence])]
    seen = seen_by(likelihood.operator, prior)
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
    return replace(record, remarks=[*told, *_levels_of_noise(record, picture), *record.remarks])


def _levels_of_noise(record: Record, picture: Picture) -> list[str]:
    """A sentence on the reported σ, where it is not a share of the file's white."""
    if picture.unit == 1:
        return []
    low, high = picture.range
    return [f"sigma {record.sigma:.3g} of its range is {record.sigma * (high - low):.3g} of its own levels"]


def seen_by(operator: Operator, prior: FlowPrior) -> LinearOperator:
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


def noise_options(options: RestoreOptions, sigma: float | None) -> NoiseOptions:
    """The kind of noise; a σ without a kind is that of white noise.

    Args:
        sigma: on the scale of the picture's values.
    """
    white = options.noise == "auto" and sigma is not None
    return NoiseOptions("gaussian" if white else options.noise, sigma, options.gain, options.freedom)


def noise_of(picture: Picture, options: RestoreOptions) -> Noise:
    """What noise a picture has, as it is given, or as the flat field or the picture itself tells."""
    if options.flat is not None:
        flat = read_picture(options.flat, picture.range, name=options.flat)
        found = flat_noise(flat.values, flat.known)
        if len(flat.values) != len(picture.values):
            raise InputError(
                f"the flat field {options.flat} has {len(flat.values)} channels, the picture "
                f"{len(picture.values)}; take both in the same way"
            )
        return replace(found, impulses=torch.zeros_like(picture.values, dtype=torch.bool))
    sigma = None if options.sigma is None else _given_sigma(options.sigma, picture)
    return named_noise(picture.values, picture.known, noise_options(options, sigma))


def measured(file: str, picture: Picture, noise: Noise, options: RestoreOptions) -> Likelihood:
    """A noisy picture as a measurement of what is known of it."""
    known, values = picture.known, picture.values
    if options.task == "inpaint":
        if options.mask is None:
            raise InputError(NEEDS_MASK)
        known = known & read_mask(options.mask, picture, file)
    kept = Identity(image_shape(values.shape)) if known.all() else Mask(known, len(values))
    return noise.likelihood(kept, kept.forward(values[None]))


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
