"""Training pictures from a folder of pictures, a folder of tars, or idx files, kept in memory as bytes.

A batch depends only on the seed and the step. A training that goes on after a stop therefore sees the same
pictures as one that never stopped.
"""

import hashlib
import io
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate
from tqdm import tqdm

from aipo.basics.arrays import Images
from aipo.basics.errors import InputError
from aipo.flows.training.archives import members, read_idx
from aipo.io.images import read_image

# How many batches are prepared at the same time. A GPU takes a batch every few milliseconds, a CPU one every
# second.
PREPARED = max(1, min(8, (os.cpu_count() or 1) // 2))
# Part of the memory that training pictures may take.
SHARE = 0.75
T = TypeVar("T")
PICTURE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}


def load_pictures(source: str | Path) -> list[np.ndarray]:
    """Read all pictures of a source, uint8 (C, H, W) each, sorted by name.

    Args:
        source: a folder of pictures (searched recursively), a folder of tars with pictures, one tar, or
            an idx file of images (MNIST's format, gzipped or not).

    Raises:
        InputError: the source has nothing usable, or more than the memory holds.
    """
    source = Path(source)
    try:
        if not source.exists():
            raise InputError(f"training data {source} does not exist; give a folder, a tar or an idx file")
        if source.is_file() and source.suffix != ".tar":
            return list(read_idx(source)[:, None])
        tars = [source] if source.is_file() else sorted(source.glob("*.tar"))
        files = [] if tars else sorted(p for p in source.rglob("*") if p.suffix.lower() in PICTURE_SUFFIXES)
    except OSError as error:
        raise InputError(f"training data {source} cannot be read ({error.strerror}); check it") from error
    if tars:
        return _held(picture for tar in tqdm(tars, desc="reading tars") for picture in _read_tar(tar))
    if not files:
        raise InputError(f"{source} has no pictures or tars; expected files such as .png, .jpg or .tar")
    return _held(_as_bytes(read_image(path)) for path in tqdm(files, desc="reading pictures"))


def _as_bytes(image: Tensor) -> np.ndarray:
    return (image * 255).round().to(torch.uint8).numpy()


def _read_tar(path: Path) -> Iterator[np.ndarray]:
    found = False
    for name, content in members(path, PICTURE_SUFFIXES):
        found = True
        yield _as_bytes(read_image(io.BytesIO(content), f"{path}:{name}"))
    if not found:
        raise InputError(f"{path} holds no pictures; expected files such as .png or .jpg in the tar")


def _held(pictures: Iterable[np.ndarray]) -> list[np.ndarray]:
    """The pictures, if together they leave the memory some room; a few small files can unpack to a lot."""
    held, size, most = [], 0, int(SHARE * _memory())
    for picture in pictures:
        size += picture.nbytes
        if size > most:
            raise InputError(
                f"after {len(held):,} pictures the training data take {size:,} bytes of {most:,}; use fewer, "
                "or smaller ones"
            )
        held.append(picture)
    return held


def _memory() -> int:
    """Bytes of memory of this machine; where the system does not tell, those of a small one."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return 2**34


@dataclass(frozen=True)
class PictureData:
    """Pictures to draw training crops from.

    Args:
        pictures: uint8 (C, H, W) each, all with the same number of channels.
        crop: side of the square crops in pixels; None takes whole pictures, which must then have one size.
        flips: mirror half of the crops left to right.
        zoomed: share of the crops, in [0, 1], that are smaller windows at a random place, enlarged to the
            crop's size. Enlarged pictures have less fine detail, so the rest stays as it is.
        zoom_range: smallest and largest side of such a window, as parts of the crop's side, in (0, 1]; drawn
            uniformly, then rounded to pixels.

    Raises:
        InputError: there is no picture, pictures differ in channels or, without a crop, in size, the crop
            is not positive or larger than a picture, or a share or range is outside its limits.
    """

    pictures: list[np.ndarray]
    crop: int | None
    flips: bool
    zoomed: float = 0.0
    zoom_range: tuple[float, float] = (0.8, 1.0)

    def __post_init__(self):
        if not self.pictures:
            raise InputError("there is no picture to train on; check the source")
        if self.crop is not None and self.crop < 1:
            raise InputError(f"crop = {self.crop}; use a positive side, or none for whole pictures")
        shapes = {picture.shape for picture in self.pictures}
        if len({shape[0] for shape in shapes}) != 1:
            raise InputError("the pictures mix grey and colour; train on one kind")
        if self.crop is None and len(shapes) != 1:
            raise InputError(f"the pictures have {len(shapes)} sizes; set a crop, for example crop=48")
        if self.crop is not None and min(min(shape[1:]) for shape in shapes) < self.crop:
            raise InputError(f"crop = {self.crop} is larger than the smallest picture; use a smaller crop")
        if not 0 <= self.zoomed <= 1:
            raise InputError(f"zoomed = {self.zoomed}; use a share from 0 to 1")
        if not 0 < self.zoom_range[0] <= self.zoom_range[1] <= 1:
            raise InputError(f"zoom_range = {self.zoom_range}; use 0 < smallest <= largest <= 1")

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the crops."""
        channels, height, width = self.pictures[0].shape
        return (channels, self.crop or height, self.crop or width)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What tells these crops from others: a SHA-256 of the pictures, and how crops are made of them."""
        digest = hashlib.sha256()
        for picture in self.pictures:
            digest.update(repr(picture.shape).encode())
            digest.update(np.ascontiguousarray(picture).data)
        how = {"crop": self.crop, "flips": self.flips, "zoomed": self.zoomed, "zoom_range": self.zoom_range}
        return {"pictures": digest.hexdigest()} | how

    def batch(self, seed: int, step: int, size: int) -> Tensor:
        """`size` crops, uint8 (size, C, H, W), determined by (seed, step)."""
        rng = np.random.Generator(np.random.PCG64([seed, step]))
        crops = np.stack([self._crop(int(i), rng) for i in rng.integers(len(self.pictures), size=size)])
        return torch.from_numpy(crops)

    def _crop(self, index: int, rng: np.random.Generator) -> np.ndarray:
        picture = self.pictures[index]
        _, height, width = self.shape
        part = rng.uniform(*self.zoom_range) if self.zoomed and rng.random() < self.zoomed else 1.0
        rows, columns = max(1, round(part * height)), max(1, round(part * width))
        top = rng.integers(picture.shape[1] - rows + 1)
        left = rng.integers(picture.shape[2] - columns + 1)
        window = picture[:, top : top + rows, left : left + columns]
        crop = window if (rows, columns) == (height, width) else enlarged(window, height, width)
        return crop[:, :, ::-1] if self.flips and rng.random() < 0.5 else crop


def enlarged(levels: np.ndarray, height: int, width: int) -> np.ndarray:
    """A picture, uint8 (C, H, W), resampled to (C, height, width), at least as large.

    Source: Keys 1981, Cubic convolution interpolation for digital image processing, with a = −1/2, which
    leaves slopes as they are. PyTorch has this filter as its antialiased one.
    """
    given = torch.from_numpy(levels[None].astype(np.float32))
    found = interpolate(given, (height, width), mode="bicubic", antialias=True)
    return found[0].round().clamp(0, 255).to(torch.uint8).numpy()


def dequantize(pixels: Tensor, generator: torch.Generator) -> Images:
    """Turn levels k, uint8, into numbers (k + u)/256 in [0, 1), with u uniform in [0, 1).

    A density can be fitted to these; one fitted to the levels themselves could rise without bound.
    """
    noise = torch.rand(pixels.shape, generator=generator)
    return (pixels.float() + noise) / 256


def ahead(make: Callable[[int], T], start: int, stop: int) -> Iterator[T]:
    """make(start), …, make(stop − 1) in turn; a few are made by threads while earlier ones are used."""
    with ThreadPoolExecutor(PREPARED) as workers:
        steps = iter(range(start, stop))
        made = deque(workers.submit(make, step) for step in islice(steps, PREPARED))
        while made:
            batch = made.popleft().result()
            made.extend(workers.submit(make, step) for step in islice(steps, 1))
            yield batch
