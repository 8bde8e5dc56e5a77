"""Files that may be anything: only regular ones of a bounded size are read.

Reading a pipe or a device may never end, and a sparse file may claim more bytes than any memory has.
"""

import stat
from pathlib import Path


def check_regular(path: Path, largest: int) -> None:
    """Refuse what is no regular file, or is larger than so many bytes, before it is opened.

    Raises:
        OSError: it is a folder, a pipe, a device or a socket, is too large, or cannot be looked at.
    """
    info = path.stat()
    if not stat.S_ISREG(info.st_mode):
        kind = "a folder" if stat.S_ISDIR(info.st_mode) else "a pipe, a device or a socket"
        raise OSError(f"it is {kind}, not a regular file")
    if info.st_size > largest:
        raise OSError(f"it has {info.st_size:,} bytes, more than {largest:,}")


def read_regular(path: Path, largest: int) -> bytes:
    """The content of a regular file of at most so many bytes.

    Raises:
        OSError: as `check_regular`, or it cannot be read.
    """
    check_regular(path, largest)
    with open(path, "rb") as stream:
        data = stream.read(largest + 1)
    if len(data) > largest:
        raise OSError(f"it grew beyond {largest:,} bytes while it was read")
    return data
