"""The places that a path remembers, against a list of them per image."""

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aipo.path.problem import Terms, reweighted, weighted
from aipo.path.solvers.solver import Point
from aipo.path.visited import Visited

IMAGES = 3
ONE = torch.ones(IMAGES, dtype=torch.float64)


def a_place(numbers: list[int]) -> Point:
    """One number per image stands for its picture; every other entry follows from it."""
    x = torch.tensor(numbers, dtype=torch.float64)[:, None].expand(-1, 2)
    return weighted(x, Terms(10 * x[:, 0], x[:, 0] ** 2, 3 * x, -x), ONE)


def walk(steps: list[list[bool]]) -> Iterator[Point]:
    """Everyone's first place, and one for each step, where the images that it names have moved on."""
    numbers = [100, 200, 300]
    yield a_place(numbers)
    for moves in steps:
        numbers = [number + moved for number, moved in zip(numbers, moves, strict=True)]
        yield a_place(numbers)


STEPS = st.lists(st.lists(st.booleans(), min_size=IMAGES, max_size=IMAGES), max_size=20)


@settings(deadline=None, max_examples=100)
@given(size=st.integers(1, 5), steps=STEPS)
def test_each_image_has_its_own_last_places(size, steps):
    visited, weight = Visited(size), torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    had: list[list[Point]] = [[] for _ in range(IMAGES)]
    for point in walk(steps):
        visited.add(point)
        for image, own in enumerate(had):
            if not own or own[-1].x[image, 0] != point.x[image, 0]:
                own.append(point)
    found = list(visited.at(weight))
    assert len(found) == min(size, max(len(own) for own in had))
    for image, own in enumerate(had):
        last = own[-size:]
        expected = [last[0]] * (len(found) - len(last)) + last
        for point, place in zip(found, expected, strict=True):
            seen = reweighted(place, weight)
            assert torch.equal(point.x[image], place.x[image])
            assert torch.equal(point.value[image], seen.value[image])
            assert torch.equal(point.gradient[image], seen.gradient[image])


def test_nothing_is_kept_where_nothing_is_learnt():
    visited = Visited(0)
    for point in walk([[True] * IMAGES] * 3):
        visited.add(point)
    assert list(visited.at(ONE)) == []


def test_places_are_copies():
    """A point that went on in place would change what was seen of it."""
    visited, point = Visited(2), a_place([1, 2, 3])
    visited.add(point)
    point.info["data"] += 1
    (kept,) = visited.at(ONE)
    assert kept.info["data"].tolist() == [10, 20, 30]


@pytest.mark.parametrize("stop", [0, 1, 4])
def test_it_goes_on_from_its_tensors(stop):
    points = list(walk([[True, False, True], [True, True, False], [False, False, True], [True] * 3]))
    whole, first, second = Visited(3), Visited(3), Visited(3)
    for point in points:
        whole.add(point)
    for point in points[:stop]:
        first.add(point)
    second.restore(first.tensors())
    for point in points[stop:]:
        second.add(point)
    for one, other in zip(whole.at(ONE), second.at(ONE), strict=True):
        assert torch.equal(one.x, other.x) and torch.equal(one.gradient, other.gradient)
