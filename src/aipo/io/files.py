"""Bytes of picture files: read without surprises, written whole, named so that no name can do harm."""

import os
import stat
from pathlib import Path
from typing import BinaryIO

from aipo.basics.errors import InputError
from aipo.io.tensors import write_atomic

MAX_PIXELS = 64_000_000
MAX_BYTES = 8 * MAX_PIXELS  # the largest honest file: uncompressed, four channels of 16 bits


def printable(text: str) -> str:
    """The text with every control character, line break and undecodable byte as a backslash escape.

    Names of files and texts inside files come from anywhere; printed raw, they could steer a terminal.
    """
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def shown_name(source: object, name: str | None = None) -> str:
    """The source's name for messages. It is quoted, so that odd characters cannot break the line."""
    if name is None and isinstance(source, str | os.PathLike):
        name = os.fsdecode(source)
    return repr(str(getattr(source, "name", f"<{type(source).__name__}>") if name is None else name))


def read_bytes(source: str | os.PathLike | BinaryIO, shown: str) -> bytes:
    """The content of a file or binary stream.

    Raises:
        InputError: it cannot be read, is no regular file, or has more than `MAX_BYTES` bytes.
    """
    data = _from_path(source, shown) if isinstance(source, str | os.PathLike) else _from_stream(source, shown)
    if len(data) > MAX_BYTES:
        raise too_big(shown, f"more than {MAX_BYTES} bytes")
    return data


def write_bytes(path: str | os.PathLike, data: bytes) -> None:
    """Write a file whole or not at all; a link in its place is replaced, never followed.

    Raises:
        InputError: the place cannot be written to.
    """
    try:
        write_atomic(Path(os.fsdecode(path)), data)
    except (OSError, ValueError) as error:
        shown = shown_name(path)
        raise InputError(f"Cannot write {shown}: {reason(error)}; give a writable place.") from error


def _from_path(path: str | os.PathLike, shown: str) -> bytes:
    """The content of a regular file. A pipe or device may never end, so it is refused unopened."""
    try:
        info = Path(os.fsdecode(path)).stat()
        if stat.S_ISREG(info.st_mode) and info.st_size <= MAX_BYTES:
            with open(path, "rb") as file:
                return file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise unreadable(shown, reason(error), "give the path of a readable picture file") from error
    if stat.S_ISREG(info.st_mode):
        raise too_big(shown, f"{info.st_size} bytes")
    kind = "a folder" if stat.S_ISDIR(info.st_mode) else "not a regular file"
    raise unreadable(shown, f"it is {kind}", "give the path of one picture file")


def _from_stream(stream: BinaryIO, shown: str) -> bytes:
    """The rest of the stream, up to one byte more than is allowed."""
    try:
        data = stream.read(MAX_BYTES + 1)
    except Exception as error:  # any object may come in here, and its `read` may raise anything
        raise unreadable(shown, reason(error), "give a path or an open binary stream") from error
    if not isinstance(data, bytes):
        raise unreadable(shown, f"it yields {type(data).__name__}, not bytes", "open it in binary mode")
    return data


def check_size(size: tuple[int, int], shown: str) -> None:
    """Refuse a size (width, height) with no pixels or too many, before any memory is taken for them."""
    if size[0] * size[1] == 0:
        raise unreadable(shown, f"it is {size[0]} x {size[1]} pixels", "give a picture that is not empty")
    if size[0] * size[1] > MAX_PIXELS:
        raise too_big(shown, f"{size[0]} x {size[1]} pixels")


def check_page(page: int, pages: int, shown: str) -> None:
    """Refuse a page, counted from 1, that a file of so many pages does not have."""
    if not 1 <= page <= pages:
        have = f"it has {pages} page{'s' if pages > 1 else ''}, and page {page} was asked for"
        raise unreadable(shown, have, f"give a page from 1 to {pages}")


def reason(error: Exception) -> str:
    """The text of an exception, on one line and without the full stop that ends our own sentence."""
    text = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
    return printable(" ".join(text.split())[:200].rstrip(".: "))


def unreadable(shown: str, problem: str, remedy: str) -> InputError:
    """The error for a picture that cannot be read."""
    return InputError(f"Cannot read the picture {shown}: {problem}; {remedy}.")


def too_big(shown: str, size: str) -> InputError:
    """The error for a picture that is larger than is safe to decode."""
    limits = f"{MAX_PIXELS} pixels and {MAX_BYTES} bytes"
    return unreadable(shown, f"it has {size}", f"shrink it to at most {limits}")


def damaged(shown: str, problem: str) -> InputError:
    """The error for a picture whose file is not whole."""
    return unreadable(shown, f"it is {problem}", "copy, download or save the file again")
