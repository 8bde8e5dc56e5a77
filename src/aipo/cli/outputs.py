"""Where results go: names that clash with nothing, and files of the user's that are never replaced."""

import json
import os
from collections.abc import Iterable, Sequence
from itertools import chain, count
from pathlib import Path

from aipo.basics.errors import InputError
from aipo.io.picture import restored_suffix

# How the files of a restoration end, after its name: the picture, beside the measurement, and the path.
PANEL, PATH = "-panel.png", "-path.png"
SUMMARIES = ("summary.txt", "summary.json")

# What aipo writes into its own PNG and TIFF files as the software that made them.
_MARKS = {b"\x89PNG": b"Software\0aipo", b"II*\0": b"aipo\0", b"II+\0": b"aipo\0"}


def outputs_of(name: str, suffix: str = ".png") -> set[str]:
    """The files of the restoration with this name, whose picture ends in the suffix."""
    return {name + ending for ending in (suffix, PANEL, PATH)}


def names_of(files: Sequence[str]) -> list[str]:
    """Names for the results: the file's stem, with a number if it would replace another file's results."""
    names: list[str] = []
    taken: set[str] = set()
    for file in files:
        stem = Path(file).stem
        numbered = (f"{stem}-{number}" for number in count(2))
        names.append(next(name for name in chain([stem], numbered) if taken.isdisjoint(_claimed(name))))
        taken |= _claimed(names[-1])
    return names


def _claimed(name: str) -> set[str]:
    """All files that a restoration with this name might write, whatever kind of file it reads."""
    return outputs_of(name, ".png") | outputs_of(name, ".tif")


def written_by(files: Sequence[str], names: Sequence[str], page: int) -> list[str]:
    """The names of all files that restoring this page of these files will write."""
    pairs = zip(files, names, strict=True)
    pictures = (outputs_of(name, restored_suffix(file, page)) for file, name in pairs)
    return [*sorted(chain.from_iterable(pictures)), *SUMMARIES]


def check_unread(folder: Path, written: Iterable[str], read: Iterable[str | Path]) -> None:
    """Refuse to replace a file that is read by one that is written.

    Raises:
        InputError: it names the file.
    """
    places = {
        os.path.realpath(folder / name) for name in written
    }  # unlike Path.resolve, bears a loop of links
    for file in read:
        if os.path.realpath(file) in places:
            raise InputError(f"restoring into {folder} would replace {file}; choose another --out")


def check_ours(folder: Path, written: Iterable[str]) -> None:
    """Refuse to replace a file that aipo did not write.

    Raises:
        InputError: it names the file.
    """
    for path in (folder / name for name in written):
        if os.path.lexists(path) and not _is_ours(path):
            raise InputError(
                f"{path} is there already and was not written by aipo; choose another --out, or give "
                "--overwrite to replace it"
            )


def _is_ours(path: Path) -> bool:
    """Whether aipo wrote the file. A link is the user's, wherever it leads."""
    if path.is_symlink() or not path.is_file():
        return False
    try:
        if path.name == "summary.json":
            return all(
                {"task", "image", "psnr_after"} <= record.keys() for record in json.loads(path.read_bytes())
            )
        with open(path, "rb") as file:
            beginning = file.read(1 << 16)
    except (OSError, ValueError, TypeError, AttributeError):
        return False
    if path.name == "summary.txt":
        return beginning.startswith(b"task ")
    mark = _MARKS.get(beginning[:4])
    return mark is not None and mark in beginning
