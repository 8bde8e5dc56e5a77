"""Large pictures in tiles: no seam is seen, nothing is left out, and the result says what was done."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import data
from torch import Tensor

from aipo import load_prior
from aipo.basics.errors import Status
from aipo.basics.quality import psnr
from aipo.likelihoods import Gaussian, Likelihood, measure
from aipo.operators import Identity, Mask
from aipo.reconstruction import tiles
from aipo.reconstruction.reconstruct import reconstruct
from aipo.reconstruction.result import Reconstruction

SHAPE = (3, 144, 232)


@pytest.fixture
def small_tiles(monkeypatch):
    """Pictures of more than 128 × 128 pixels are restored in tiles of 128 with the overlap of large ones."""
    monkeypatch.setattr(tiles, "WHOLE", 128**2)
    monkeypatch.setattr(tiles, "SIDE", 128)


def photograph() -> Tensor:
    return torch.from_numpy(data.coffee()[60:204, 150:382].copy()).permute(2, 0, 1)[None].float() / 255


@settings(max_examples=30, deadline=None)
@given(height=st.integers(1, 1500), width=st.integers(1, 1000))
def test_tiles_cover_every_pixel_once(height, width):
    total = torch.zeros(height, width)
    for tile in tiles.tiles(height, width):
        assert tile.rows.start % tiles.GRID == 0 and tile.columns.start % tiles.GRID == 0
        assert max(tile.share.shape) <= tiles.SIDE + tiles.GRID
        total[tile.rows, tile.columns] += tile.share
    torch.testing.assert_close(total, torch.ones(height, width), rtol=0, atol=1e-5)


@settings(max_examples=50, deadline=None)
@given(length=st.integers(tiles.SIDE + 1, 30000))
def test_a_tile_counts_nothing_near_its_cuts(length):
    """There a flow answers otherwise than it would without the cut."""
    parts = list(tiles._along(length))
    for (before, early), (after, late) in pairwise(parts):
        assert before.stop - after.start >= tiles.OVERLAP - tiles.GRID
        margin = (before.stop - after.start) // 4 - 1
        assert float(early[-margin:].max()) == 0 and float(late[:margin].max()) == 0


def test_noise_is_removed_as_from_the_whole_picture(small_tiles, monkeypatch):
    x, prior, told = photograph(), load_prior("photos"), []
    likelihood = measure(Identity(SHAPE), x, 0.1, torch.Generator().manual_seed(0))
    found = reconstruct(likelihood, prior, progress=lambda done, expected: told.append((done, expected)))
    monkeypatch.setattr(tiles, "WHOLE", 10**9)
    whole = reconstruct(likelihood, prior)
    seen = [float(psnr(result.image.clamp(0, 1), x)) for result in (found, whole)]
    assert seen[0] > seen[1] - 0.02
    # SURE chooses its shares for every tile, so pixels differ a little; a seam would be a line.
    difference = 255 * (found.image - whole.image)
    assert float(difference.square().mean().sqrt()) < 0.7
    for lines in (difference.mean(2), difference.mean(3)):
        assert float(lines.diff(dim=-1).abs().max()) < 0.5
    assert found.evaluations.tolist() == whole.evaluations.tolist()
    assert float(found.data_energy) == pytest.approx(float(whole.data_energy), rel=0.02)
    assert float(found.prior_energy) == pytest.approx(float(whole.prior_energy), rel=0.05)
    assert told == sorted(told) and told[-1][0] == told[-1][1]
    assert found.status == [Status.DENOISED] and found.reason == whole.reason
    assert found.likelihood is likelihood and found.image.shape == x.shape


def test_a_tile_in_which_nothing_was_measured(small_tiles):
    known = torch.ones(1, 144, 320, dtype=torch.bool)
    known[:, :, 150:] = False
    x = photograph()[:, :, :, :150]
    x = torch.cat((x, torch.zeros(1, 3, 144, 170)), 3)
    operator = Mask(known, 3)

    def seen(part: Likelihood, tell) -> Reconstruction:
        placed = part.operator.linear.adjoint(part.y)  # lost entries are black, as they are in x
        return reconstruct(Gaussian(Identity(part.operator.shape), placed, 0.01), load_prior("photos"))

    result = tiles.restore_tiles(Gaussian(operator, operator(x), 0.05), seen)
    mean = float(x[:, :, :, :150].mean())
    torch.testing.assert_close(result.image[..., 290:], torch.full((1, 3, 144, 30), mean), rtol=0, atol=1e-3)
    assert float((result.image - x)[..., :100].abs().mean()) < 0.05


@pytest.mark.parametrize(
    ("found", "told"),
    [
        ([Status.DENOISED, Status.DENOISED], Status.DENOISED),
        ([Status.DENOISED, Status.DIVERGED], Status.DIVERGED),
        ([Status.STALLED, Status.BUDGET], Status.STALLED),
        ([Status.AVERAGED, Status.BUDGET], Status.BUDGET),
    ],
)
def test_the_status_is_the_worst_of_all_tiles(found, told):
    assert max(found, key=tiles._severity) == told
