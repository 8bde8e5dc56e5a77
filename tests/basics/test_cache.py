"""What is kept, what goes first, and what never goes."""

import copy
import pickle
from threading import Barrier, Thread

import torch
from torch import Tensor

from aipo.basics.cache import Cache


class Maker:
    """Makes 800 bytes for a level, and counts how often."""

    def __init__(self):
        self.made: list[float] = []

    def __call__(self, level: float) -> Tensor:
        self.made.append(level)
        return torch.full((100,), level, dtype=torch.float64)


def test_each_level_is_made_once_and_served_in_order():
    cache, make = Cache(1 << 20), Maker()
    for _ in range(2):
        values = cache.serve([3.0, 1.0, 3.0], make)
        assert [float(value[0]) for value in values] == [3.0, 1.0, 3.0]
    assert make.made == [3.0, 1.0] and len(cache) == 2


def test_beyond_its_bytes_the_one_used_longest_ago_goes():
    cache, make = Cache(2400), Maker()
    for level in (1.0, 2.0, 3.0, 1.0, 4.0):
        cache.serve([level], make)
    assert len(cache) == 3
    cache.serve([1.0, 3.0, 4.0], make)
    assert make.made == [1.0, 2.0, 3.0, 4.0], "2 went, 1 had been used again"
    cache.serve([2.0], make)
    assert make.made[4:] == [2.0]


def test_nothing_goes_that_the_batch_at_hand_needs():
    cache, make = Cache(800), Maker()
    batch = [float(level) for level in range(20)]
    for _ in range(3):
        cache.serve(batch, make)
    assert make.made == batch
    cache.serve([99.0], make)
    assert len(cache) == 1, "of an earlier batch everything may go"


def test_values_of_several_tensors_count_whole():
    cache: Cache[int, tuple[Tensor, ...]] = Cache(3200)
    for key in range(5):
        cache.serve([key], lambda key: (torch.zeros(100), torch.zeros(100, dtype=torch.float64)))
    assert len(cache) == 2


def test_copies_begin_empty():
    cache, make = Cache(2400), Maker()
    cache.serve([1.0], make)
    for other in (copy.deepcopy(cache), pickle.loads(pickle.dumps(cache))):
        assert len(other) == 0
        other.serve([1.0, 2.0, 3.0], make)
        other.serve([4.0], make)
        assert len(other) == 3
    cache.clear()
    assert len(cache) == 0


def test_threads_make_nothing_twice():
    cache, make, together = Cache(), Maker(), Barrier(8)

    def work() -> None:
        together.wait()
        for level in range(50):
            cache.serve([float(level)], make)

    threads = [Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(make.made) == [float(level) for level in range(50)]
