"""The command line: `aipo demo | restore | bulk | measure | priors | train | doctor`."""

import logging
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace
from tqdm import tqdm

from aipo.basics.errors import AipoError, InputError
from aipo.cli import demo, doctor
from aipo.cli.bulk import bulk
from aipo.cli.measure import MeasureOptions, measure_picture
from aipo.cli.report import prepare_folder, table
from aipo.cli.restore import MEASUREMENT_SUFFIX, RestoreOptions, listed, restore_files
from aipo.flows.training.data import PictureData, load_pictures
from aipo.flows.training.distributed import join, leads
from aipo.flows.training.loop import TrainingOptions
from aipo.io.files import printable, reason
from aipo.io.measurements import save_measurement
from aipo.io.tensors import load_config
from aipo.priors import bundled_priors, load_prior
from aipo.priors.fit import FlowOptions, Origin, fit_prior

log = logging.getLogger("aipo")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        0 if everything succeeded, 1 if some pictures failed, 2 if nothing could start, 130 if interrupted,
        141 if whoever read the output has left.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        try:
            return _run(arguments)
        finally:
            sys.stdout.flush()  # here, because Python's own flush at the end could only complain
    except AipoError as error:
        log.error("aipo: %s", printable(str(error)))
        return 2
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + 13  # as a shell says of a program that SIGPIPE ends
    except OSError as error:
        log.error("aipo: %s", printable(f"{error.filename or 'a file'}: {reason(error)}; check the place"))
        return 2
    except MemoryError:
        log.error("aipo: the memory is too small for this; use smaller pictures or batches")
        return 2
    except KeyboardInterrupt:
        log.error("aipo: interrupted; what was finished is kept")
        return 130


def _run(arguments: Sequence[str] | None) -> int:
    commands = _commands()
    parser = ArgumentParser(prog="aipo", description="Restore pictures with a normalizing-flow prior (AIPO).")
    subcommands = parser.add_subcommands(required=True)
    for name, (command, _) in commands.items():
        subcommands.add_subcommand(name, command, help=command.description)
    parsed = parser.parse_args(arguments)
    run = commands[parsed.subcommand][1]
    # Options check themselves as they are made.
    return run(parser.instantiate(parsed)[parsed.subcommand])


class Bar:
    """A progress bar over pictures. It is called with a picture's name, its evaluations and those expected.

    Args:
        pictures: number of pictures.
    """

    def __init__(self, pictures: int):
        form = "{desc} |{bar}| {percentage:3.0f} % {elapsed} < {remaining}"
        self.bar = tqdm(total=pictures, bar_format=form, smoothing=0)
        self.name, self.finished = "", -1

    def __enter__(self) -> "Bar":
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def __call__(self, name: str, done: int, expected: int) -> None:
        if name != self.name:
            self.name, self.finished = name, self.finished + 1
        self.bar.set_description_str(f"{name}, {done} of about {expected} evaluations", refresh=False)
        self.bar.n = self.finished + done / expected
        self.bar.refresh()


def _commands() -> dict[str, tuple[ArgumentParser, Callable[[Namespace], int]]]:
    return {
        "demo": (_demo_parser(), _demo),
        "restore": (_restore_parser(), _restore),
        "bulk": (_bulk_parser(), _bulk),
        "measure": (_measure_parser(), _measure),
        "priors": (ArgumentParser(description="List the priors that ship with aipo."), _priors),
        "train": (_train_parser(), _train),
        "doctor": (ArgumentParser(description="Check this installation and the priors in it."), _doctor),
    }


def _demo_parser() -> ArgumentParser:
    parser = ArgumentParser(description="Measure a photograph in three ways and restore each.")
    parser.add_argument("--out", type=str, default="aipo-demo", help="folder for pictures and summary")
    parser.add_argument("--prior", type=str, default="photos", help="prior for colour pictures of any size")
    return parser


def _demo(config: Namespace) -> int:
    with Bar(len(demo.TASKS)) as bar:
        records = demo.run(config.out, config.prior, bar)
    print(table(records))
    print(f"pictures, path plots and summary.json are in {printable(config.out)}")
    return 0


def _restore_parser() -> ArgumentParser:
    parser = ArgumentParser(description="Restore pictures or measurement files.")
    parser.add_argument(
        "files",
        nargs="+",
        type=str,
        help="pictures, .safetensors files from aipo measure, or folders of either",
    )
    parser.add_argument("--out", type=str, required=True, help="folder for the restored pictures")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace also files in --out that aipo did not write"
    )
    parser.add_class_arguments(RestoreOptions, as_group=False)
    return parser


def _restore(config: Namespace) -> int:
    options = _restore_options(config)
    files = listed(config.files)
    with Bar(len(files)) as bar:
        records, failures = restore_files(files, config.out, options, bar, config.overwrite)
    if records:
        print(table(records))
        print(f"pictures, path plots and summary.json are in {printable(config.out)}")
    for failure in failures:
        log.error("aipo: %s", printable(failure))
    return 1 if failures else 0


def _bulk_parser() -> ArgumentParser:
    parser = ArgumentParser(description="Restore any number of pictures; a second run goes on with the rest.")
    parser.add_argument(
        "sources",
        nargs="+",
        type=str,
        help="folders, patterns, tars, or lists (.csv with a column path, and sigma, mask or page)",
    )
    parser.add_argument("--out", type=str, required=True, help="folder for the restored pictures")
    parser.add_argument("--workers", type=int, default=1, help="processes, each with one thread")
    parser.add_class_arguments(RestoreOptions, as_group=False)
    return parser


def _bulk(config: Namespace) -> int:
    options = _restore_options(config)
    with tqdm(unit=" pictures") as progress:
        failures = 0

        def tell(line: dict) -> None:
            nonlocal failures
            failures += line["status"] == "failed"
            progress.set_postfix(failed=failures, refresh=False)
            progress.update()

        done, failed = bulk(config.sources, config.out, options, config.workers, tell)
    print(f"{done} restored and {failed} failed; {printable(config.out)} has the pictures and failures.csv")
    return 1 if failed else 0


def _restore_options(config: Namespace) -> RestoreOptions:
    return RestoreOptions(**{name: config[name] for name in RestoreOptions.__dataclass_fields__})


def _measure_parser() -> ArgumentParser:
    parser = ArgumentParser(description="Simulate a measurement of a clean picture and write it to a file.")
    parser.add_argument("picture", type=str, help="the clean one")
    parser.add_argument("--out", type=str, required=True, help="file to write, .safetensors")
    parser.add_class_arguments(MeasureOptions, as_group=False)
    return parser


def _measure(config: Namespace) -> int:
    options = MeasureOptions(**{name: config[name] for name in MeasureOptions.__dataclass_fields__})
    if Path(config.out).suffix.lower() != MEASUREMENT_SUFFIX:
        raise InputError(
            f"--out {config.out} is no measurement file; let its name end in {MEASUREMENT_SUFFIX}"
        )
    likelihood = measure_picture(config.picture, options)
    prepare_folder(Path(config.out).parent)
    save_measurement(config.out, options.task, likelihood)
    told = f"{likelihood.operator.measurements} measurements of {config.picture} are in {config.out}"
    print(printable(told))
    return 0


def _priors(config: Namespace) -> int:
    for name, folder in bundled_priors().items():
        card = load_config(folder)
        size = " × ".join("any" if side is None else str(side) for side in card["flow"]["shape"])
        print(f"{name}: {size}, {card['flow']['family']}, {card['parameters']:,} weights")
        print(f"  trained on  {card['data']}")
        print(f"  validation  {card['validation_bits_per_dim']:.3f} bits per dimension")
        print(f"  licence     {card['licence']}")
    return 0


def _doctor(config: Namespace) -> int:
    facts = doctor.facts()
    width = max(len(name) for name, _ in facts)
    print("\n".join(f"{name:<{width}}  {printable(fact)}" for name, fact in facts), flush=True)
    failures = [
        *doctor.wrong_numbers(),
        *doctor.unsound_priors(lambda fact: print(printable(fact), flush=True)),
    ]
    for failure in failures:
        log.error("aipo: %s", printable(failure))
    print("all is well" if not failures else f"{len(failures)} of the checks failed")
    return 1 if failures else 0


def _train_parser() -> ArgumentParser:
    parser = ArgumentParser(description="Fit a prior to your own pictures.")
    parser.add_argument("data", type=str, help="folder of pictures, folder of tars, a tar, or an idx file")
    parser.add_argument(
        "--out", type=str, required=True, help="folder of the prior; training resumes from it"
    )
    parser.add_argument("--name", type=str, default=None, help="of the prior; default the folder's name")
    parser.add_argument("--holdout", type=int, default=20, help="last pictures, kept for validation")
    parser.add_argument("--crop", type=int, default=None, help="side of square training crops; default whole")
    parser.add_argument("--flips", type=bool, default=True, help="mirror half of the crops left to right")
    parser.add_argument(
        "--zoomed", type=float, default=0.0, help="share of the crops that are smaller windows, enlarged"
    )
    parser.add_argument(
        "--zoom_range",
        type=tuple[float, float],
        default=(0.8, 1.0),
        help="smallest and largest side of these windows, as parts of the crop's",
    )
    parser.add_argument("--about", type=str, default="the user's own pictures", help="data, for the card")
    parser.add_argument("--licence", type=str, default="that of the pictures", help="terms, for the card")
    parser.add_argument("--device", type=str, default="cpu", help="cpu or cuda; several GPUs by torchrun")
    parser.add_argument(
        "--initial", type=str, default=None, help="prior (name or folder) whose weights training goes on from"
    )
    parser.add_argument("--flow", type=FlowOptions, default=FlowOptions())
    parser.add_argument("--training", type=TrainingOptions, default=TrainingOptions())
    return parser


def _train(config: Namespace) -> int:
    folder = prepare_folder(config.out)
    pictures = load_pictures(config.data)
    if not 0 < config.holdout < len(pictures):
        raise InputError(
            f"holdout = {config.holdout} of {len(pictures)} pictures leaves none to train or validate on"
        )
    training = PictureData(
        pictures[: -config.holdout], config.crop, config.flips, config.zoomed, config.zoom_range
    )
    validation = PictureData(pictures[-config.holdout :], config.crop, False)
    command = shlex.join(["aipo", *sys.argv[1:]])
    origin = Origin(config.name or folder.name, config.about, config.licence, command)
    device = join(config.device)
    initial = None if config.initial is None else load_prior(config.initial)
    prior = fit_prior(training, validation, folder, config.flow, config.training, origin, device, initial)
    if leads():
        print(
            f"{folder}: {prior.card['validation_bits_per_dim']:.3f} bits per dimension on held-out pictures"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
