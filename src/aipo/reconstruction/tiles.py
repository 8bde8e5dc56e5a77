"""Large pictures, tile by tile: memory stays that of one tile, and time grows with the number of pixels.

Tiles overlap, and in the middle of an overlap one restoration fades into the next. What a flow answers for a
pixel depends on its surroundings, the less the farther away they are.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from aipo.basics.arrays import Images
from aipo.basics.errors import Status
from aipo.likelihoods import Likelihood
from aipo.path.state import State
from aipo.reconstruction.progress import Progress
from aipo.reconstruction.result import Reconstruction

# Pictures of more pixels are restored in tiles, whose sides and overlaps have at most and at least so many.
# The overlap is for the bundled prior for photographs: beyond 32 pixels from a cut it answers to within 0.02
# grey levels, root mean square, as it does without the cut.
WHOLE, SIDE, OVERLAP = 3 * 2**18, 448, 64

# Tiles begin at multiples of this, so that every tile sees the flow's grid of squeezed blocks alike.
GRID = 32


@dataclass(frozen=True)
class Tile:
    """A window of the picture, and how much it counts there.

    Attributes:
        rows, columns: the window.
        share: (h, w) in [0, 1]; the shares of all tiles are 1 in sum at every pixel.
    """

    rows: slice
    columns: slice
    share: Tensor


def in_tiles(likelihood: Likelihood) -> bool:
    """Whether the picture is larger than is restored at once, and its measurements fall into tiles."""
    _, height, width = likelihood.operator.shape
    return height * width > WHOLE and likelihood.pixelwise


def tiles(height: int, width: int) -> list[Tile]:
    """The tiles of a picture, row by row."""
    return [
        Tile(rows, columns, down[:, None] * right[None, :])
        for rows, down in _along(height)
        for columns, right in _along(width)
    ]


def restore_tiles(
    likelihood: Likelihood,
    restore: Callable[[Likelihood, Progress], Reconstruction],
    progress: Progress | None = None,
) -> Reconstruction:
    """The result for a large picture, made of those of its tiles.

    Its energies are the sums over tiles by their shares, its evaluations and its status the most and the
    worst of any tile, its weight the mean, and its path the start and the end. A tile in which nothing was
    measured becomes the mean of what was measured elsewhere.

    Args:
        likelihood: `pixelwise`.
        restore: the result for one tile, and what is told of its evaluations.
        progress: told of those of the whole picture.
    """
    tell = progress or (lambda done, expected: None)
    places = tiles(*likelihood.operator.shape[1:])
    blank = _mean_colour(likelihood)
    image, start = torch.zeros_like(blank), torch.zeros_like(blank)
    found: list[tuple[Tile, Reconstruction]] = []
    for index, tile in enumerate(places):
        part = likelihood.window(tile.rows, tile.columns)
        if part is None:
            _add(image, tile, blank[:, :, tile.rows, tile.columns])
            _add(start, tile, blank[:, :, tile.rows, tile.columns])
            continue
        result = restore(part, _of_one(tell, index, len(places)))
        _add(image, tile, result.image)
        _add(start, tile, result.start)
        found.append((tile, _without_pictures(result)))
    return _whole(likelihood, image, start, found)


def _along(length: int) -> Iterator[tuple[slice, Tensor]]:
    """Equal overlapping parts of one axis, and the share of each part, (its length,)."""
    count = max(1, -(-(length - OVERLAP) // (SIDE - OVERLAP)))
    side = min(length, -(-(length + (count - 1) * OVERLAP) // count // GRID) * GRID) if count > 1 else length
    starts = [index * (length - side) // max(1, count - 1) // GRID * GRID for index in range(count)]
    ends = [start + side for start in starts[:-1]] + [length]
    place = torch.arange(length, dtype=torch.float32) + 0.5
    shares = torch.ones(count, length)
    for index in range(1, count):
        overlap = ends[index - 1] - starts[index]
        middle = (ends[index - 1] + starts[index]) / 2
        later = ((place - middle) / (overlap / 2) + 0.5).clamp(0, 1)  # it fades over half of the overlap
        shares[index] *= later
        shares[index - 1] *= 1 - later
    for start, end, share in zip(starts, ends, shares, strict=True):
        yield slice(start, end), share[start:end]


def _add(total: Images, tile: Tile, part: Images) -> None:
    total[:, :, tile.rows, tile.columns] += tile.share.to(part) * part


def _mean_colour(likelihood: Likelihood) -> Images:
    """A picture of one grey, the mean of A⁺y where something was measured."""
    near = likelihood.gaussian()
    linear = near.operator.linear
    seen = linear.pseudoinverse(near.y)
    known = linear.adjoint(torch.ones_like(near.y)) != 0
    mean = (seen * known).flatten(1).sum(1) / known.flatten(1).sum(1).clamp_min(1)
    return mean[:, None, None, None].expand(len(near), *likelihood.operator.shape).contiguous()


def _of_one(progress: Progress, index: int, count: int) -> Progress:
    """What one tile of many tells: the others take as many evaluations as it expects."""

    def tell(done: int, expected: int) -> None:
        progress(index * expected + done, count * expected)

    return tell


def _without_pictures(result: Reconstruction) -> Reconstruction:
    nothing = result.image[:, :, :0]
    return replace(result, image=nothing, start=nothing, path=[], drawn=None)


def _severity(status: Status) -> int:
    """How much a user should worry."""
    order = (Status.BUDGET, Status.STALLED, Status.DIVERGED)
    return order.index(status) + 1 if status in order else 0


def _whole(
    likelihood: Likelihood, image: Images, start: Images, found: list[tuple[Tile, Reconstruction]]
) -> Reconstruction:
    results = [result for _, result in found]
    first, count = results[0], len(image)

    def total(name: str) -> Tensor:
        parts = [float(tile.share.mean()) * getattr(result, name) for tile, result in found]
        return torch.stack(parts).sum(0)

    def most(name: str) -> Tensor:
        return torch.stack([getattr(result, name) for result in results]).amax(0)

    weight = torch.stack([result.weight for result in results]).mean(0)
    by_image = zip(*(result.status for result in results), strict=True)
    end = State(
        index=1,
        weight=weight,
        x=image,
        data_energy=total("data_energy"),
        prior_energy=total("prior_energy"),
        objective=total("objective"),
        decrement=torch.full_like(weight, torch.nan),
        evaluations=most("evaluations"),
        status=torch.tensor([int(max(of_one, key=_severity)) for of_one in by_image]),
        accepted=torch.isfinite(image).flatten(1).all(1),
    )
    unknown = {name: end.decrement for name in ("data_energy", "prior_energy", "objective")}
    begin = replace(end, index=0, x=start, evaluations=torch.zeros_like(end.evaluations), **unknown)
    ones = torch.ones(1, count, 1, 1)
    return replace(
        first,
        image=image,
        weight=weight,
        data_energy=end.data_energy,
        prior_energy=end.prior_energy,
        objective=end.objective,
        evaluations=end.evaluations,
        status=[Status(int(one)) for one in end.status],
        values=torch.full((2, count), torch.nan),
        start=start,
        path=[begin, end],
        chosen=torch.ones(count, dtype=torch.long),
        shares=torch.cat((0 * ones, ones)),
        smooth=most("smooth"),
        likelihood=likelihood,
        residuals={name: max(one.residuals[name] for one in results) for name in first.residuals},
    )
