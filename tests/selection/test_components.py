"""A picture taken apart: the parts make the whole, and flat places are the smooth ones."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from aipo.operators import Blur, Identity, Mask, gaussian_kernel, mosaic, random_mask
from aipo.selection.components import ROUGHNESSES, colours, of_colour, places


@given(st.integers(1, 4), st.integers(1, 20), st.integers(1, 20), st.integers(0, 100))
def test_every_pixel_belongs_to_the_places_once(channels, height, width, seed):
    pictures = torch.rand(2, channels, height, width, generator=torch.Generator().manual_seed(seed))
    where = places(pictures)
    assert where.shape == (2, ROUGHNESSES, height, width) and (where >= 0).all()
    assert torch.allclose(where.sum(1), torch.ones(2, height, width), atol=1e-6)
    assert torch.equal(where[1:], places(pictures[1:])), "a picture's places depend on the others"


def test_smooth_places_are_the_flat_ones_whatever_the_contrast():
    noise = torch.randn(1, 3, 60, 60, generator=torch.Generator().manual_seed(0))
    strength = torch.tensor([0.0, 0.01, 0.1]).repeat_interleave(20)  # left, middle, right third
    for contrast in (1.0, 0.2):
        where = places(0.5 + contrast * strength * noise)[0, :, :, [10, 30, 50]]
        assert torch.equal(where.argmax(0), torch.tensor([[0, 1, 2]]).expand(60, 3))
    assert torch.isfinite(places(torch.zeros(1, 3, 8, 8))).all()


def test_luminance_and_the_rest_are_orthogonal_and_make_the_picture():
    x = torch.randn(2, 3, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    luminance, rest = of_colour(x, 0, 2), of_colour(x, 1, 2)
    assert torch.allclose(luminance + rest, x)
    assert abs(float((luminance * rest).sum())) < 1e-12
    assert torch.allclose(of_colour(x.mean(1, keepdim=True).expand_as(x), 1, 2), torch.zeros_like(x))
    assert of_colour(x, 0, 1) is x


@pytest.mark.parametrize(
    ("operator", "count"),
    [
        (Identity((3, 8, 8)), 2),
        (Identity((1, 8, 8)), 1),
        (random_mask((3, 8, 8), 0.5), 2),
        (mosaic((3, 8, 8)), 1),
        (Mask(torch.ones(1, 8, 8, dtype=torch.bool)), 1),
        (Blur((3, 8, 8), gaussian_kernel(1.0)), 1),
    ],
)
def test_colours_are_told_apart_where_each_is_measured_for_itself(operator, count):
    assert colours(operator) == count
