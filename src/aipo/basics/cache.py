"""A cache that is limited by memory: it keeps what was made for the last keys."""

from collections.abc import Callable, Hashable, Sequence
from threading import RLock
from typing import Generic, TypeVar

from torch import Tensor

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value", bound=Tensor | tuple[Tensor, ...])

# Bytes of one cache.
LARGEST = 1 << 30


class Cache(Generic[Key, Value]):
    """Tensors by key, such as what belongs to each noise level of a batch.

    If the values take too many bytes, those that were used longest ago go first. Values that the present
    batch needs never go: otherwise a batch with many levels would make all of them anew at every step. A
    copy, pickled or deep, begins empty, because its owner may go to another device.

    Args:
        largest: how many bytes the values may take together, if the present batch does not need more.
    """

    def __init__(self, largest: int = LARGEST):
        self._largest = largest
        self._kept: dict[Key, Value] = {}
        self._lock = RLock()

    def serve(self, keys: Sequence[Key], make: Callable[[Key], Value]) -> list[Value]:
        """The value of each key of a batch; missing values are made.

        Threads wait for one another, so that nothing is made twice.
        """
        with self._lock:
            for key in dict.fromkeys(keys):
                value = self._kept.pop(key, None)
                # The last one used is the last of the dictionary.
                self._kept[key] = make(key) if value is None else value
                self._shrink(set(keys))
            return [self._kept[key] for key in keys]

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._kept.clear()

    def __len__(self) -> int:
        return len(self._kept)

    def _shrink(self, needed: set[Key]) -> None:
        held = sum(_bytes(value) for value in self._kept.values())
        for key in [key for key in self._kept if key not in needed]:
            if held <= self._largest:
                return
            held -= _bytes(self._kept.pop(key))

    def __reduce__(self):
        return Cache, (self._largest,)


def _bytes(value: Tensor | tuple[Tensor, ...]) -> int:
    tensors = (value,) if isinstance(value, Tensor) else value
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
