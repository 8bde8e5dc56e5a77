"""CUDA graphs: the work of a GPU, recorded once for each shape and then launched as one.

A flow is a thousand small operations, and its derivative is another thousand. With few pictures in a batch a
GPU finishes each operation before the host can send the next one.
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
# A graph keeps the memory in which it was recorded. All graphs together keep at most this share of the GPU's.
SHARE = 1 / 8
# A recording takes as long as about ten evaluations, so shapes that come less often than this get none.
OFTEN = 10
RECORDING = Lock()


def capture(work: Callable[[], Any], after: Any = None) -> tuple[Any, Any]:
    """The graph of some work, and the tensors that the work returns; every replay writes them anew.

    Threads record one after the other, so that the work of one does not get into the recording of another.

    Args:
        work: must do the same whatever the values are, and read tensors that stay in their place.
        after: a graph whose memory the new one shares; the new one must always be replayed after it.
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
    """One direction of a flow and its derivative, recorded for arguments of one shape.

    Args:
        like: an argument, (B, C, H, W), on the GPU.
        direction: what is recorded.
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
        """The result, its log-determinant (B,), and the number of this evaluation, for `pull`."""
        with self._lock:
            self._argument.copy_(h)
            self._there.replay()
            self._turn += 1
            result, logdet = self._results
            return result.clone(), logdet.clone(), self._turn

    def pull(self, turn: int, g: Tensor, logdet: PerImage) -> Tensor | None:
        """The cotangent of an evaluation's argument, given those of its results.

        Args:
            turn: the number of the evaluation.
            g, logdet: cotangents of its result and of its log-determinant.

        Returns:
            Like the argument; None if there was a later evaluation, whose records have replaced its own.
        """
        with self._lock:
            if turn != self._turn:
                return None
            for mine, given in zip(self._cotangents, (g, logdet), strict=True):
                mine.copy_(given)
            self._pull.replay()
            return self._gradient.clone()


class Evaluations:
    """The recorded evaluations of one frozen flow; those that were used longest ago make room for others."""

    def __init__(self):
        self._asked: dict[Any, int] = {}
        self._recorded: OrderedDict[Any, tuple[float, Evaluation]] = OrderedDict()
        self._lock = Lock()

    def of(self, h: Tensor, name: str, direction: Direction, size: float) -> Evaluation | None:
        """The evaluation of arguments like h.

        Args:
            h: an argument.
            name: name of the direction.
            direction: what is recorded, if it is not recorded yet.
            size: bytes that an evaluation keeps for its derivative.

        Returns:
            None without a GPU, or if the shape came too seldom or needs too much memory.
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
    """Bytes that recorded evaluations may keep on a device; negative if none may be recorded."""
    if device.type != "cuda" or torch.cuda.is_current_stream_capturing():
        return -1
    return SHARE * torch.cuda.get_device_properties(device).total_memory
