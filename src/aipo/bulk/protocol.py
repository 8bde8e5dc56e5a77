"""How one result among millions is committed, so that no kill and no second run can lose or spoil any.

A result's identity is a hash of the input's bytes, of the options and of the prior, and its file's name ends
in it. The file is written beside its place, synced and renamed; then one line is appended to the writer's own
manifest and synced. So a file without a line may be whole or absent but is never partial, and is made again.
A line whose file has the hash that it states is finished work, which a later run takes over.
"""

import hashlib
import json
import os
import secrets
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aipo.io.files import MAX_BYTES, read_bytes, shown_name, too_big, write_bytes

MANIFESTS = "manifest"

# Characters of the identity in a file's name; 2⁶⁴ names do not collide among ten million pictures.
SHORT = 16


@dataclass(frozen=True)
class Item:
    """One input.

    Args:
        source: how it is called in manifests and messages.
        path: the file that it is in.
        offset, size: where in that file, in bytes; size None for the rest of the file.
        options: its own, beside those of the run, such as its noise level.
    """

    source: str
    path: str
    offset: int = 0
    size: int | None = None
    options: dict[str, str] = field(default_factory=dict)

    def read(self) -> bytes:
        """The content. Raises OSError or InputError."""
        if self.size is None:
            return read_bytes(self.path, shown_name(self.source))
        if self.size > MAX_BYTES:
            raise too_big(shown_name(self.source), f"{self.size} bytes")
        with open(self.path, "rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


@dataclass(frozen=True)
class Outcome:
    """What was made of one input.

    Args:
        data: the content of the output file.
        suffix: the end of its name, such as ".png".
        figures: what else the manifest says of it.
    """

    data: bytes
    suffix: str
    figures: dict[str, Any]


def identity(content: bytes, item: Item, run: str) -> str:
    """The identity of the result of an input under a run's options and prior, 64 hexadecimal digits."""
    own = json.dumps(item.options, sort_keys=True)
    parts = (hashlib.sha256(content).hexdigest(), own, run)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def output_name(item: Item, of: str, suffix: str) -> str:
    """A name that says where the output comes from, and is no other result's."""
    stem = "".join(c if c.isalnum() or c in "-_." else "_" for c in Path(item.source).stem)[:80]
    return f"{stem}-{of[:SHORT]}{suffix}"


def is_finished(line: dict[str, Any] | None, out: Path) -> bool:
    """Whether a manifest's line is of work whose output is still there, unchanged."""
    if line is None or line["status"] != "done":
        return False
    try:
        return hashlib.sha256((out / line["output"]).read_bytes()).hexdigest() == line["sha256"]
    except OSError:
        return False


class Manifest:
    """The lines of one writer; nobody else appends to its file.

    Args:
        out: the output folder of the run.

    Raises:
        OSError: the folder cannot be written to.
    """

    def __init__(self, out: Path):
        (out / MANIFESTS).mkdir(parents=True, exist_ok=True)
        name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}.jsonl"
        self._out, self._file = out, open(out / MANIFESTS / name, "ab", buffering=0)  # noqa: SIM115

    def commit(self, item: Item, of: str, outcome: Outcome) -> dict[str, Any]:
        """Write the output, then its line. Raises OSError or InputError if there is no room for either."""
        name = output_name(item, of, outcome.suffix)
        write_bytes(self._out / name, outcome.data)
        digest = hashlib.sha256(outcome.data).hexdigest()
        line = {"id": of, "source": item.source, "status": "done", "output": name, "sha256": digest}
        return self.append(outcome.figures | line)

    def append(self, line: dict[str, Any]) -> dict[str, Any]:
        """Add a line and wait until it is on the disk."""
        self._file.write((json.dumps(line, allow_nan=False) + "\n").encode())
        os.fsync(self._file.fileno())
        return line

    def close(self) -> None:
        """No more lines."""
        self._file.close()


def lines(out: Path) -> Iterator[dict[str, Any]]:
    """The lines of all writers, from the oldest file on; a line that a kill cut short is passed over."""
    folder = out / MANIFESTS
    if not folder.is_dir():
        return
    for file in sorted(folder.glob("*.jsonl"), key=lambda path: path.stat().st_mtime_ns):
        with open(file, "rb") as stream:
            for text in stream:
                try:
                    line = json.loads(text)
                except ValueError:
                    continue
                if isinstance(line, dict) and {"source", "status"} <= line.keys():
                    yield line


def latest(out: Path) -> dict[str, dict[str, Any]]:
    """What is known of each source, by its last line; done wins over failed."""
    found: dict[str, dict[str, Any]] = {}
    for line in lines(out):
        before = found.get(line["source"])
        if before is None or line["status"] == "done" or before["status"] != "done":
            found[line["source"]] = line
    return found
