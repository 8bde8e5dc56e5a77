"""Restore any number of pictures by worker processes: what `aipo bulk` runs."""

import csv
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import torch

from aipo.basics.devices import usable
from aipo.basics.errors import InputError, Status
from aipo.bulk import local
from aipo.bulk.protocol import MANIFESTS, Item, Outcome, latest
from aipo.bulk.sources import items
from aipo.cli.record import restore
from aipo.cli.report import prepare_folder
from aipo.cli.restore import RestoreOptions, measured, noise_of, seen_by
from aipo.flows.training.data import PICTURE_SUFFIXES
from aipo.io.files import shown_name, write_bytes
from aipo.io.picture import encoded, read_picture
from aipo.io.ranges import parsed_range
from aipo.priors import FlowPrior, load_prior
from aipo.priors.checks import check_pictures

# What the manifest says of every restoration, beside its source and its output.
FIGURES = ("sigma", "weight", "data_energy", "prior_energy", "evaluations", "seconds", "remarks")

# Options that a list may give for each picture.
OWN = {"sigma": float, "mask": str, "page": int}

SUMMARY, FAILURES, LOCK = "summary.json", "failures.csv", "lock"


@dataclass(frozen=True)
class Restoring:
    """The work: every picture as `aipo restore` restores it, without panel and plot.

    Args:
        options: of all pictures; a list may give some of them for each.
        run: the identity of the options and of the prior.
    """

    options: RestoreOptions
    run: str

    def start(self) -> local.Restore:
        """The prior is loaded once in every worker, which computes with one thread."""
        torch.set_num_threads(1)
        prior = load_prior(self.options.prior, self.options.precision).to(usable(self.options.device))
        return partial(restored, self.options, prior)


def bulk(
    sources: Sequence[str], out: str, options: RestoreOptions, workers: int, tell: Callable[[dict], None]
) -> tuple[int, int]:
    """Restore all pictures into `out`; what is finished there is verified and not made again.

    Args:
        sources: see `aipo.bulk.sources.items`.
        out: folder of the outputs, their manifests, `summary.json` and `failures.csv`.
        options: of all pictures.
        workers: number of processes, at least 1.
        tell: called with the manifest's line of each picture.

    Returns:
        How many are done and how many failed, in this run.

    Raises:
        InputError: the sources, the options or the folder cannot be used, or another run is writing there.
        NoRoomError: the disk is full; what is finished is kept.
    """
    if workers < 1:
        raise InputError(f"--workers {workers}; give 1 or more")
    folder = prepare_folder(out)
    work, counts = Restoring(options, _run(options)), {"done": 0, "failed": 0}
    with _alone(folder):
        try:
            for line in local.run(items(sources, frozenset(PICTURE_SUFFIXES)), work, folder, workers):
                counts[line["status"]] += 1
                tell(line)
        finally:
            _summarise(folder)
    return counts["done"], counts["failed"]


def restored(options: RestoreOptions, prior: FlowPrior, item: Item, content: bytes) -> Outcome:
    """One picture."""
    own = _own(options, item)
    picture = read_picture(BytesIO(content), parsed_range(own.range), own.page, name=item.source)
    likelihood = measured(item.source, picture, noise_of(picture, own), own)
    view = seen_by(likelihood.operator, prior)
    check_pictures(view, prior, shown_name(item.source))
    if tuple(view.shape) != tuple(likelihood.operator.shape):
        likelihood = likelihood.through(view)
    chain = own.chain if own.weight == "mean" else None
    likelihood = likelihood.to(own.device)
    record, result = restore(own.task, item.source, likelihood, prior, own.weight, view=view, chain=chain)
    if record.status == Status.DIVERGED.name.lower():
        raise InputError(f"{item.source} diverged; give its --sigma, or another --weight")
    data = encoded(picture, view(result.image)[0], shown_name(item.source))
    figures = {name: getattr(record, name) for name in FIGURES} | {"search": record.status}
    return Outcome(data, picture.suffix, figures)


def _own(options: RestoreOptions, item: Item) -> RestoreOptions:
    """The options of one picture."""
    unknown = set(item.options) - set(OWN)
    if unknown:
        raise InputError(f"a list has the column {min(unknown)}; known are path, {', '.join(OWN)}")
    try:
        return replace(options, **{name: OWN[name](value) for name, value in item.options.items()})
    except ValueError as error:
        raise InputError(f"{item.source} has options {item.options}; {error}") from error


def _run(options: RestoreOptions) -> str:
    """The identity of a run: all options that change a picture, and the prior's checksums."""
    card = load_prior(options.prior).card
    text = json.dumps([{**asdict(options), "prior": None}, card["sha256"]], sort_keys=True)
    files = [Path(file).read_bytes() for file in (options.mask, options.flat) if file is not None]
    return hashlib.sha256(b"\n".join([text.encode(), *files])).hexdigest()


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """While inside, no other run on this machine writes to the folder."""
    import fcntl  # only here: not every system has it

    (folder / MANIFESTS).mkdir(exist_ok=True)
    with open(folder / MANIFESTS / LOCK, "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(f"another run is writing to {folder}; wait for it, or choose another") from error
        yield


def _summarise(folder: Path) -> None:
    """summary.json and failures.csv of all runs on this folder."""
    known = latest(folder)
    failed = {source: line["error"] for source, line in known.items() if line["status"] == "failed"}
    summary: dict[str, Any] = {"done": len(known) - len(failed), "failed": len(failed)}
    write_bytes(folder / SUMMARY, (json.dumps(summary, indent=2) + "\n").encode())
    table = StringIO()
    csv.writer(table).writerows([("source", "error"), *sorted(failed.items())])
    write_bytes(folder / FAILURES, table.getvalue().encode(errors="backslashreplace"))
