"""CUDA graphs: what a GPU is to do, recorded once for a shape and then launched as one.

A flow is a thousand small operations and its derivative another thousand; a GPU is done with a batch of few
pictures before the next operation of the host arrives.
"""

from collections import OrderedDict
from collections.abc import Callable
from threading import Lock
from typing import Any

import torch
from torch import Tensor

from aipo.basics.arrays import PerImage
from aipo.flows.inference import Direction, finish, single_precision

WARM_UPS = 3  # libraries choose and prepare their kernels before anything is recorded
# A graph keeps the memory that it was recorded in; together they keep at most this share of the GPU's.
SHARE = 1 / 8
# Shapes that come less often are not worth a recording, which takes as long as some ten evaluations.
OFTEN = 10
RECORDING = Lock()


def capture(work: Callable[[], Any], after: Any = None) -> tuple[Any, Any]:
    """The graph of this work, and what it gives: tensors that every replay writes anew.

    Threads record one after the other: what one prepares must not get into the recording of another.

    Args:
        work: asks nothing of the host that depends on values, and reads tensors that stay where they are.
        after: a graph whose memory it shares, being always replayed later than that one.
    """
    with RECORDING:
        return _record(work, after)


def _record(work: Callable[[], Any], after: Any) -> tuple[Any, Any]:
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM_UPS):
            work()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    pool = None if after is None else after.pool()
    # Other threads may go on with what they do, ask for memory for example, while this one records.
    with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
        made = work()
    return graph, made


class Evaluation:
    """A walk and its derivative for arguments of one shape, recorded.

    Args:
        like: an argument.
        direction: the walk and its derivative.
    """

    @torch.no_grad()
    def __init__(self, like: Tensor, direction: Direction):
        self._turn, self._lock = 0, Lock()
        self._argument = like.detach().clone()
        tape = []

        def there() -> tuple[Tensor, PerImage]:
            tape.clear()
            return finish(direction.there(self._argument), tape)

        def pull() -> Tensor:
            with single_precision:
                return direction.pull(self._cotangents[0], self._cotangents[1], reversed(tape))

        self._there, self._results = capture(there)
        self._cotangents = tuple(torch.zeros_like(result) for result in self._results)
        self._pull, self._gradient = capture(pull, after=self._there)

    def evaluate(self, h: Tensor) -> tuple[Tensor, PerImage, int]:
        """The walk's result and log-determinant, and which evaluation this was."""
        with self._lock:
            self._argument.copy_(h)
            self._there.replay()
            self._turn += 1
            result, logdet = self._results
            return result.clone(), logdet.clone(), self._turn

    def pull(self, turn: int, g: Tensor, logdet: PerImage) -> Tensor | None:
        """Cotangents of what that evaluation gave to that of its argument; None if there was a later one."""
        with self._lock:
            if turn != self._turn:
                return None
            for mine, given in zip(self._cotangents, (g, logdet), strict=True):
                mine.copy_(given)
            self._pull.replay()
            return self._gradient.clone()


class Evaluations:
    """The recorded evaluations of one frozen flow, those of the shapes that were asked for last."""

    def __init__(self):
        self._asked: dict[Any, int] = {}
        self._recorded: OrderedDict[Any, tuple[float, Evaluation]] = OrderedDict()
        self._lock = Lock()

    def of(self, h: Tensor, name: str, direction: Direction, size: float) -> Evaluation | None:
        """That of arguments like h; None without a GPU, or where it is not worth its memory.

        Args:
            name: of the direction.
            size: bytes that an evaluation keeps for its derivative.
        """
        room = _room(h.device)
        if size > room:
            return None
        key = (name, tuple(h.shape), h.dtype)
        with self._lock:
            self._asked[key] = self._asked.get(key, 0) + 1
            if key not in self._recorded:
                if self._asked[key] < OFTEN:
                    return None
                while self._recorded and size + sum(size for size, _ in self._recorded.values()) > room:
                    self._recorded.popitem(last=False)
                self._recorded[key] = size, Evaluation(h, direction)
            self._recorded.move_to_end(key)
            return self._recorded[key][1]


def _room(device: torch.device) -> float:
    """Bytes that recorded evaluations may keep on a device."""
    if device.type != "cuda" or torch.cuda.is_current_stream_capturing():
        return -1
    return SHARE * torch.cuda.get_device_properties(device).total_memory
