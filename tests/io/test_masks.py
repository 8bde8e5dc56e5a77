"""Masks: each way to draw a hole gives the same mask, and an unusable one is refused with its cause."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from aipo.basics.errors import InputError
from aipo.io.masks import read_mask
from aipo.io.picture import Picture, read_picture

RNG = np.random.default_rng(9)
HOLE = np.zeros((24, 20), bool)
HOLE[6:12, 5:14] = True
PHOTO = np.kron(RNG.integers(40, 215, (6, 5, 3), dtype=np.uint8), np.ones((4, 4, 1), np.uint8))
WHITE = np.full((24, 20, 3), 255, np.uint8)


def painted(base: np.ndarray, colour: tuple, where: np.ndarray = HOLE) -> np.ndarray:
    marked = base.copy()
    marked[where] = colour
    return marked


def layer(colour: tuple) -> np.ndarray:
    """One colour, opaque in the hole, on transparency."""
    return np.dstack(
        [np.zeros((24, 20, 3), np.uint8) + np.array(colour, np.uint8), 255 * HOLE.astype(np.uint8)]
    )


KINDS = {
    "black on white": painted(WHITE, (0, 0, 0)),
    "grey": (~HOLE * 255).astype(np.uint8),
    "values of 0 and 1": (~HOLE).astype(np.uint8),
    "values of 0 and 100": (~HOLE * 100).astype(np.uint8),
    "one bit": ~HOLE,
    "16 bits of 0 and 255": (~HOLE * 255).astype(np.uint16),
    "red on white": painted(WHITE, (255, 0, 0)),
    "green on white": painted(WHITE, (30, 200, 40)),
    "red on the picture": painted(PHOTO, (255, 0, 0)),
    "white on the picture": painted(PHOTO, (255, 255, 255)),
    "black on the picture": painted(PHOTO, (0, 0, 0)),
    "transparent hole in white": np.dstack([painted(WHITE, (0, 0, 0)), 255 * (~HOLE).astype(np.uint8)]),
    "transparent hole in the picture": np.dstack([PHOTO, 255 * (~HOLE).astype(np.uint8)]),
    "red strokes on transparency": layer((255, 0, 0)),
    "black strokes on transparency": layer((0, 0, 0)),
}


def picture(folder: Path, array: np.ndarray = PHOTO) -> Picture:
    Image.fromarray(array).save(folder / "photo.png")
    return read_picture(folder / "photo.png")


def save(folder: Path, array: np.ndarray) -> Path:
    Image.fromarray(array).save(folder / "mask.png")
    return folder / "mask.png"


def refusal(folder: Path, array: np.ndarray, photo: np.ndarray = PHOTO) -> str:
    with pytest.raises(InputError) as caught:
        read_mask(save(folder, array), picture(folder, photo))
    assert "mask.png'" in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_every_way_to_mark_a_hole(tmp_path: Path, kind: str) -> None:
    known = read_mask(save(tmp_path, KINDS[kind]), picture(tmp_path))
    assert known.shape == (1, 24, 20) and known.dtype == torch.bool
    np.testing.assert_array_equal(known[0], ~HOLE)


@pytest.mark.parametrize(
    "values", [(~HOLE).astype("f4"), (~HOLE * 255).astype("f4"), (~HOLE * 7).astype("i4")]
)
def test_masks_in_numbers_of_any_kind(tmp_path: Path, values: np.ndarray) -> None:
    tifffile.imwrite(tmp_path / "m.tif", values)
    np.testing.assert_array_equal(read_mask(tmp_path / "m.tif", picture(tmp_path))[0], ~HOLE)


def test_soft_and_lossy_masks_are_decided_at_half(tmp_path: Path) -> None:
    soft = np.clip(np.linspace(-1, 2, 20)[None] * np.ones((24, 1)), 0, 1)
    known = read_mask(save(tmp_path, (soft * 255).astype(np.uint8)), picture(tmp_path))
    np.testing.assert_array_equal(known[0], soft > 0.5)
    big = np.kron(HOLE, np.ones((8, 8))) > 0
    Image.fromarray(painted(np.full((192, 160, 3), 255, np.uint8), (255, 0, 0), big)).save(tmp_path / "m.jpg")
    found = ~read_mask(tmp_path / "m.jpg")[0].numpy()
    assert not (big & ~found).any() and (found & ~big).mean() < 0.06  # chroma is coarse


def test_an_inverted_mask_is_named(tmp_path: Path) -> None:
    black = painted(PHOTO, (0, 0, 0))
    message = refusal(tmp_path, (HOLE * 255).astype(np.uint8), black)
    assert "marks 11 % of the picture as known" in message and "all black; is it inverted?" in message
    grey = painted(PHOTO, (128, 128, 128))
    assert "of one colour; is it inverted?" in refusal(tmp_path, (HOLE * 255).astype(np.uint8), grey)
    few = RNG.random(HOLE.shape) < 0.2  # scattered pixels of the picture itself are a sound mask
    assert read_mask(save(tmp_path, (few * 255).astype(np.uint8)), picture(tmp_path)).sum() == few.sum()


@pytest.mark.parametrize(
    ("array", "told"),
    [
        (WHITE, "leaves nothing to fill"),
        (np.zeros((24, 20), np.uint8), "knows no pixel; is it inverted?"),
        (np.full((24, 20, 4), 0, np.uint8), "transparent everywhere"),
        (PHOTO, "no marks"),
        (RNG.integers(0, 256, (24, 20, 3), dtype=np.uint8), "no marks"),
        (painted(np.zeros_like(WHITE), (255, 0, 0)), "no marks"),
        (painted(WHITE, (200, 200, 200)), "leaves nothing to fill"),
        (np.dstack([painted(WHITE, (0, 0, 0)), 255 * (np.arange(480).reshape(24, 20) % 3 > 0)]), "ambiguous"),
        (WHITE[:-1], "mask '"),
    ],
)
def test_masks_that_cannot_be_meant(tmp_path: Path, array: np.ndarray, told: str) -> None:
    assert told in refusal(tmp_path, array.astype(np.uint8))
