"""Pictures in tars and idx files, damaged ones and those made to fill the memory: sizes come before bytes."""

import gzip
import struct
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from aipo.basics.errors import InputError
from aipo.io.files import MAX_BYTES
from aipo.io.regular import check_regular

# Pictures of the world hardly compress, drawings by a factor of ten; bombs by a thousand.
MOST_COMPRESSED = 100
LARGEST_IDX, LARGEST_TAR = 2**32, 2**44
_HEADER = 16

# What reading a damaged tar may raise: sizes that are no numbers, or more than memory or integers hold.
_DAMAGE = (OSError, EOFError, tarfile.TarError, zlib.error, ValueError, ArithmeticError, MemoryError)


def members(path: Path, suffixes: set[str]) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the files in an uncompressed tar whose names end in one of the suffixes.

    Raises:
        InputError: it is no such tar, it is damaged, or a file in it is sparse or larger than a picture.
    """
    try:
        check_regular(path, LARGEST_TAR)
        with tarfile.open(path, "r:") as tar:
            for member in _forwards(tar, path):
                if member.isfile() and Path(member.name).suffix.lower() in suffixes:
                    yield member.name, _content(tar, member, path)
    except InputError:
        raise
    except (*_DAMAGE, RecursionError) as error:
        told = f"{type(error).__name__}: {error}" if not isinstance(error, OSError) else str(error)
        raise InputError(
            f"{path} is not a readable tar ({told}); unpack it if it is compressed, or restore it"
        ) from error


def _forwards(tar: tarfile.TarFile, path: Path) -> Iterator[tarfile.TarInfo]:
    """The members; a size below zero would lead back to the same one for ever."""
    last = -1
    while (member := tar.next()) is not None:
        if member.offset <= last or member.size < 0:
            raise InputError(f"{path} is not a readable tar (it leads back into itself); restore it")
        last = member.offset
        yield member
        tar.members.clear()  # type: ignore[attr-defined]  # which it would keep, a kilobyte for each


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> bytes:
    if member.issparse() or member.size > MAX_BYTES:
        raise InputError(
            f"{path}:{member.name} claims {member.size:,} bytes, with holes or more than {MAX_BYTES:,}; pack "
            "pictures as they are"
        )
    stream = tar.extractfile(member)
    assert stream is not None
    data = stream.read()
    if len(data) != member.size:
        raise InputError(f"{path} is not a readable tar ({member.name} is cut short); restore it")
    return data


def read_idx(path: Path) -> np.ndarray:
    """Read an idx file of images, gzipped or not, uint8 (N, H, W).

    Format: http://yann.lecun.com/exdb/mnist. The header says how large it is; no more is ever unpacked.

    Raises:
        InputError: it is no such file, it is damaged, or it would unpack to a hundred times its size.
    """
    try:
        check_regular(path, LARGEST_IDX)
        stored = path.stat().st_size
        with open(path, "rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            stream: BinaryIO = gzip.GzipFile(fileobj=file) if packed else file  # type: ignore[assignment]
            count, height, width = _sizes(stream, path)
            size = count * height * width
            most = min(LARGEST_IDX, MOST_COMPRESSED * stored if packed else stored - _HEADER)
            if size > most:
                raise InputError(
                    f"{path} promises {count:,} pictures of {height} × {width}, but its {stored:,} bytes do "
                    "not hold them; restore it, or give a folder"
                )
            data = stream.read(size + 1)
    except InputError:
        raise
    except (OSError, EOFError, struct.error, zlib.error, MemoryError) as error:
        raise InputError(
            f"{path} is not a readable idx file ({error}); give a folder, a tar or idx"
        ) from error
    if len(data) != size:
        raise InputError(f"{path} is not an idx file of {count:,} images of {height} × {width}; restore it")
    return np.frombuffer(data, np.uint8).reshape(count, height, width)


def _sizes(stream: BinaryIO, path: Path) -> tuple[int, int, int]:
    """Count, height and width of the images."""
    magic, count, height, width = struct.unpack(">IIII", stream.read(_HEADER))
    if magic != 2051 or 0 in (count, height, width):
        raise InputError(
            f"{path} is not an idx file of images (magic number {magic}, {count} of {height} × {width})"
        )
    return count, height, width
