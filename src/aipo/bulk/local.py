"""Worker processes on this machine."""

import multiprocessing
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Protocol

from aipo.basics.errors import AipoError, InputError
from aipo.bulk.protocol import Item, Manifest, Outcome, identity, is_finished, lines
from aipo.io.files import printable

# A worker that dies with an item in hand may have been killed by chance. The second time it is the item's.
TRIES = 2

Restore = Callable[[Item, bytes], Outcome]
Line = dict[str, Any]


class Work(Protocol):
    """What is done with each input; it is pickled to every worker.

    Attributes:
        run: the identity of the options and the prior.
    """

    @property
    def run(self) -> str: ...
    def start(self) -> Restore:
        """Called once in every worker, which then calls the result with each item and its content."""
        ...


class NoRoomError(AipoError):
    """The output folder takes no more: everything stops, and what is finished is kept."""


@dataclass
class _Worker:
    process: Any
    connection: Connection
    item: Item | None = None


def run(items: Iterable[Item], work: Work, out: Path, workers: int) -> Iterator[Line]:
    """Do the work on all items, and yield a manifest's line for each as soon as it is committed.

    Work that is finished already is verified and yielded with `"again": True`. An item that fails, or that
    kills its worker twice, gets a line with status "failed", and the others go on.

    Args:
        items: asked for one at a time, so there may be millions.
        work: see `Work`.
        out: the output folder; it exists.
        workers: number of processes, at least 1.

    Raises:
        NoRoomError: an output or a line could not be written.
    """
    known = {line["id"]: line for line in lines(out) if line["status"] == "done"}
    pending, tried = iter(items), dict[str, int]()
    again: list[Item] = []
    driver = Manifest(out)
    pool = [_begun(work, out) for _ in range(workers)]
    try:
        while True:
            for worker in pool:
                if worker.item is None:
                    worker.item = again.pop() if again else next(pending, None)
                    if worker.item is not None:
                        _tell(worker, worker.item)
            busy = {worker.connection: worker for worker in pool if worker.item is not None}
            if not busy:
                return
            for connection in wait(list(busy)):
                worker = busy[connection]  # type: ignore[index]
                item = worker.item
                assert item is not None
                try:
                    kind, value = worker.connection.recv()
                except (EOFError, OSError):
                    pool[pool.index(worker)] = _begun(work, out)
                    tried[item.source] = tried.get(item.source, 0) + 1
                    if tried[item.source] < TRIES:
                        again.append(item)
                        continue
                    kind, value = "line", driver.append(_failed(item, _died(worker)))
                if kind == "known?":
                    _tell(worker, known.get(value))
                    continue
                if kind == "no room":
                    raise NoRoomError(value)
                worker.item = None
                yield value
    finally:
        _end(pool)
        driver.close()


def _context() -> Any:
    """Processes that begin without this one's state; forked from a clean one where that can be done."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])  # what is slow to import is imported once
    return context


def _begun(work: Work, out: Path) -> _Worker:
    context = _context()
    mine, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, work, out), daemon=True)
    process.start()
    theirs.close()
    return _Worker(process, mine)


def _tell(worker: _Worker, what: Any) -> None:
    """Send something to a worker. If it has just died, the end of its connection tells so."""
    with suppress(OSError):
        worker.connection.send(what)


def _end(pool: list[_Worker]) -> None:
    for worker in pool:
        worker.connection.close()
        if worker.item is not None:
            worker.process.kill()  # what it was writing is not there yet
    for worker in pool:
        worker.process.join(5)
        worker.process.kill()


def _died(worker: _Worker) -> str:
    worker.process.join(5)
    code = worker.process.exitcode
    how = f"was killed by signal {-code}" if code is not None and code < 0 else f"ended with status {code}"
    return f"its worker {how}, {TRIES} times; if memory ran out, use fewer --workers"


def _serve(connection: Connection, work: Work, out: Path) -> None:
    """A worker's life: one item after the other, until the driver hangs up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver decides
    restore, manifest = work.start(), Manifest(out)
    while True:
        try:
            item = connection.recv()
        except (EOFError, OSError):
            return
        try:
            connection.send(_done(connection, item, restore, work.run, manifest, out))
        except (BrokenPipeError, EOFError):
            return


def _done(
    connection: Connection, item: Item, restore: Restore, run: str, manifest: Manifest, out: Path
) -> tuple[str, Any]:
    try:
        content = item.read()
        of = identity(content, item, run)
        connection.send(("known?", of))
        line = connection.recv()
        if is_finished(line, out):
            assert line is not None
            same = {**line, "source": item.source}
            if line["source"] != item.source:  # the same content under another name
                manifest.append(same)
            return "line", {**same, "again": True}
        outcome = restore(item, content)
    except (BrokenPipeError, EOFError):
        raise
    except Exception as error:  # any file may hold anything; the others must go on
        sentence = str(error) if isinstance(error, AipoError) else f"{type(error).__name__}: {error}"
        outcome = None
        failed = _failed(item, printable(sentence))
    try:
        if outcome is None:
            return "line", manifest.append(failed)
        return "line", manifest.commit(item, of, outcome)
    except (OSError, InputError) as error:
        return "no room", f"cannot write to {out} ({error}); free some space and run the same command again"


def _failed(item: Item, why: str) -> Line:
    return {"source": item.source, "status": "failed", "error": why}
