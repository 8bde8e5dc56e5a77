"""White noise of a batch of images."""

import torch

from aipo.basics.arrays import White


def test_white_noise_of_an_image_comes_from_its_own_seed():
    like = torch.empty(3, 2, 5)
    together, alone = White([1, 2, 3])(like), White([2])(like[:1])
    assert torch.equal(together[1:2], alone)
    assert White([])(like[:0]).shape == (0, 2, 5)
