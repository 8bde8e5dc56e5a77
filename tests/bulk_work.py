"""Toy work for worker processes: the bytes of a file reversed, and files that fail or kill on demand."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from aipo.basics.errors import InputError
from aipo.bulk.protocol import Item, Outcome


@dataclass(frozen=True)
class Reverse:
    """Reverse the content; every call leaves a mark in `marks`, if given."""

    run: str = "reverse"
    marks: str | None = None
    seconds: float = 0.0

    def start(self):
        return self

    def __call__(self, item: Item, content: bytes) -> Outcome:
        if self.marks is not None:
            with open(self.marks, "ab", buffering=0) as file:
                file.write(item.source.encode() + b"\n")
        if content.startswith(b"bad"):
            raise InputError(f"{item.source} is bad; mend it")
        if content.startswith(b"odd"):
            raise RuntimeError("an odd\x1b[31m error")
        if content.startswith(b"kill"):
            os.kill(os.getpid(), signal.SIGKILL)
        if content.startswith(b"once") and not Path(item.path + ".tried").exists():
            Path(item.path + ".tried").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(self.seconds)
        return Outcome(content[::-1], ".bin", {"length": len(content), **item.options})
