"""What a job is made of: a folder, a pattern, a tar, a CSV list, or any number of them."""

import csv
import glob
import os
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from aipo.basics.errors import InputError
from aipo.bulk.protocol import Item
from aipo.io.files import printable

# The column of a list that names the picture; every other one is an option of its own.
PATH = "path"

REMEDY = "give a folder, a pattern, a tar or a list"


def items(sources: Sequence[str], suffixes: frozenset[str]) -> Iterator[Item]:
    """The inputs, one at a time, in the order of names.

    - A folder gives the pictures in it and in its subfolders; links to folders are not followed.
    - A pattern with *, ? or [ gives the files that fit, ** also those of subfolders.
    - A .tar gives its members with these suffixes; they are read where they lie.
    - A .csv has a column "path", from the list's own folder on, and columns of options such as "sigma".

    Args:
        sources: as above, or single files.
        suffixes: of pictures, lower case with the dot.

    Raises:
        InputError: a source does not exist, fits nothing, or is a list or a tar that cannot be read.
    """
    for source in sources:
        found = 0
        for item in _of(source, suffixes):
            found += 1
            yield item
        if not found:
            raise InputError(f"{printable(source)} has no pictures; {REMEDY}")


def _of(source: str, suffixes: frozenset[str]) -> Iterator[Item]:
    path = Path(source)
    if path.is_dir():
        return _in_folder(path, suffixes)
    if not path.exists() and glob.has_magic(source):
        found = sorted(glob.glob(source, recursive=True))  # noqa: PTH207 - the pattern may be absolute
        return (Item(file, file) for file in found if Path(file).is_file())
    if not path.exists():
        raise InputError(f"{printable(source)} does not exist; {REMEDY}")
    kind = path.suffix.lower()
    if kind == ".tar":
        return _in_tar(path, suffixes)
    return _in_list(path) if kind == ".csv" else iter([Item(source, source)])


def _in_folder(folder: Path, suffixes: frozenset[str]) -> Iterator[Item]:
    for top, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(files):
            file = os.path.join(top, name)  # noqa: PTH118 - names need not be UTF-8
            if Path(name).suffix.lower() in suffixes:
                yield Item(file, file)


def _in_tar(file: Path, suffixes: frozenset[str]) -> Iterator[Item]:
    try:
        with tarfile.open(file, "r:") as archive:
            for member in archive:
                if member.isreg() and not member.issparse() and Path(member.name).suffix.lower() in suffixes:
                    yield Item(f"{file}::{member.name}", str(file), member.offset_data, member.size)
    except (OSError, tarfile.TarError) as error:
        raise InputError(f"{printable(str(file))} is no sound tar ({error}); make it again") from error


def _in_list(file: Path) -> Iterator[Item]:
    try:
        with open(file, newline="") as stream:
            rows = csv.DictReader(stream)
            if PATH not in (rows.fieldnames or ()):
                raise InputError(
                    f"{printable(str(file))} has no column {PATH!r}; name the columns in its first line"
                )
            for number, row in enumerate(rows, 2):
                if None in row or not row[PATH]:
                    raise InputError(f"line {number} of {printable(str(file))} does not fit its first line")
                options = {name: value for name, value in row.items() if name != PATH and value}
                source = str(file.parent / row[PATH])
                yield Item(source, source, options=options)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{printable(str(file))} is no list ({error}); save it as CSV in UTF-8") from error
