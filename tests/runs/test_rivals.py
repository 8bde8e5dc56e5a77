import sys
from functools import partial

import numpy as np
import pytest
import rivals
import skimage.data
import torch
from rivals import (
    Baseline,
    biharmonic,
    biharmonic_filling,
    bm3d,
    data_proximal,
    lasso_wavelet,
    plain_total_variation,
    plug_and_play,
    total_variation,
)
from skimage.transform import resize
from torch import Tensor

from aipo.basics.errors import InputError
from aipo.basics.quality import psnr
from aipo.operators import Blur, GaussianSensing, Identity, LinearOperator, Mask

SIGMA = 0.05


def colour(size: int) -> Tensor:
    crop = np.asarray(resize(skimage.data.astronaut()[:256, 96:352] / 255, (size, size), anti_aliasing=True))
    return torch.from_numpy(crop.transpose(2, 0, 1)[None]).float()


def grey(size: int) -> Tensor:
    crop = resize(skimage.data.camera()[60:316, 120:376] / 255, (size, size), anti_aliasing=True)
    return torch.from_numpy(crop[None, None]).float()


def hole(size: int, channels: int) -> Mask:
    mask = torch.ones(1, size, size, dtype=torch.bool)
    mask[:, size // 3 : size // 2, size // 3 : size // 2] = False
    return Mask(mask, channels)


def measure(operator: LinearOperator, truth: Tensor, sigma: float) -> Tensor:
    y = operator(truth)
    return y + sigma * torch.randn(y.shape, generator=torch.Generator().manual_seed(0))


def dense(operator: LinearOperator) -> Tensor:
    """A as an m × n matrix, in float64."""
    n = int(np.prod(operator.shape))
    return operator.forward(torch.eye(n).reshape(n, *operator.shape)).double().flatten(1).T


@pytest.mark.parametrize(
    "operator",
    [
        Identity((3, 6, 5)),
        hole(6, 3),
        GaussianSensing((3, 6, 5), 40, seed=1),
        Blur((3, 6, 5), torch.rand(3, 3, generator=torch.Generator().manual_seed(2))),
    ],
    ids=["identity", "mask", "sensing", "blur"],
)
@pytest.mark.parametrize("rho", [0.01, 2.0])
def test_data_proximal_equals_dense_solve(operator: LinearOperator, rho: float):
    generator = torch.Generator().manual_seed(3)
    y = torch.randn(1, *operator.measurement_shape, generator=generator)
    v = torch.randn(1, *operator.shape, generator=generator)
    a = dense(operator)
    normal = a.T @ a + rho * torch.eye(a.shape[1], dtype=torch.float64)
    expected = torch.linalg.solve(normal, a.T @ y.flatten().double() + rho * v.flatten().double())
    torch.testing.assert_close(
        data_proximal(operator, y, rho)(v).flatten().double(), expected, rtol=1e-5, atol=1e-5
    )


def test_plug_and_play_reaches_the_total_variation_denoiser():
    """For A = I the ADMM's limit is the proximal map itself, at weight = rho · strength."""
    y = measure(Identity((3, 24, 24)), colour(24), 0.1)
    denoise = partial(rivals._tv_denoise, steps=100)
    start = torch.zeros_like(y)
    *_, last = plug_and_play(Identity((3, 24, 24)), y, denoise, start, [0.05] * 30, rho=1.6)
    direct = rivals._tv_denoise(y[0].permute(1, 2, 0).double().numpy(), 0.08, steps=500)
    np.testing.assert_allclose(last[0].permute(1, 2, 0).numpy(), direct, atol=5e-3)


@pytest.mark.parametrize("picture", [colour(32), grey(32)], ids=["colour", "grey"])
@pytest.mark.parametrize(("restore", "gain"), [(total_variation, 3), (lasso_wavelet, 2)])
def test_total_variation_and_sparse_wavelets_denoise(picture: Tensor, restore, gain: float):
    operator = Identity((picture.shape[1], 32, 32))
    y = measure(operator, picture, 0.1)
    assert_restored(restore(operator, y, 0.1, picture), picture, psnr(y, picture) + gain)


def test_plain_total_variation_denoises_but_less_than_in_opponent_colours():
    picture = colour(32)
    y = measure(Identity((3, 32, 32)), picture, 0.1)
    plain = plain_total_variation(y, 0.1, picture)
    assert_restored(plain, picture, psnr(y, picture) + 2)
    assert psnr(plain.image, picture) < psnr(
        total_variation(Identity((3, 32, 32)), y, 0.1, picture).image, picture
    )


@pytest.mark.parametrize("picture", [colour(32), grey(32)], ids=["colour", "grey"])
def test_total_variation_fills(picture: Tensor):
    operator = hole(32, picture.shape[1])
    y = measure(operator, picture, SIGMA)
    before = psnr(operator.pseudoinverse(y), picture)
    assert_restored(total_variation(operator, y, SIGMA, picture), picture, before + 5)


def test_total_variation_senses():
    picture = colour(24)
    operator = GaussianSensing((3, 24, 24), 3 * 24 * 24 // 2)
    y = measure(operator, picture, 0.01)
    before = psnr(operator.pseudoinverse(y), picture)
    assert_restored(total_variation(operator, y, 0.01, picture), picture, before + 8)


def test_total_variation_is_converged(monkeypatch: pytest.MonkeyPatch):
    picture = colour(32)
    operator = hole(32, 3)
    y = measure(operator, picture, SIGMA)
    usual = psnr(rivals._tv_restoration(operator, y, SIGMA / 2), picture)
    monkeypatch.setattr(rivals, "_TV_STEPS", 3 * rivals._TV_STEPS)
    assert abs(psnr(rivals._tv_restoration(operator, y, SIGMA / 2), picture) - usual) < 0.05


def test_weight_beats_its_neighbours():
    picture = colour(32)
    operator = Identity((3, 32, 32))
    y = measure(operator, picture, 0.1)
    best = total_variation(operator, y, 0.1, picture)
    for factor in (0.5, 0.7, 1.4, 2.0):
        neighbour = rivals._tv_restoration(operator, y, factor * best.weight)
        assert psnr(neighbour, picture) < psnr(best.image, picture)


def test_biharmonic_keeps_the_data_then_smooths():
    picture = colour(48)
    operator = hole(48, 3)
    y = measure(operator, picture, SIGMA)
    filled = biharmonic_filling(operator, y)
    torch.testing.assert_close(operator(filled), y)
    assert psnr(filled, picture) > psnr(operator.pseudoinverse(y), picture) + 5
    assert_restored(biharmonic(operator, y, picture), picture, psnr(filled, picture) + 1)


def test_biharmonic_fills_each_channel_by_its_own_mask():
    mask = torch.ones(3, 16, 16, dtype=torch.bool)
    mask[0, 4:7, 4:7] = False
    operator = Mask(mask)
    filled = biharmonic_filling(operator, operator(torch.full((1, 3, 16, 16), 0.4)))
    torch.testing.assert_close(filled, torch.full((1, 3, 16, 16), 0.4), rtol=0, atol=1e-4)


@pytest.mark.parametrize("picture", [colour(32), grey(32)], ids=["colour", "grey"])
def test_bm3d_denoises(picture: Tensor):
    pytest.importorskip("bm3d", reason="the optional package bm3d is not installed")
    operator = Identity((picture.shape[1], 32, 32))
    y = measure(operator, picture, 0.1)
    restored = bm3d(operator, y, 0.1, picture)
    assert_restored(restored, picture, psnr(y, picture) + 4)
    assert any(restored.weight == pytest.approx(level) for level in (0.08, 0.1, 0.12))


@pytest.mark.parametrize(
    "operator", [hole(24, 1), GaussianSensing((1, 24, 24), 288)], ids=["mask", "sensing"]
)
def test_bm3d_fills_and_senses(operator: LinearOperator, monkeypatch: pytest.MonkeyPatch):
    """With a short schedule, to keep the test fast."""
    pytest.importorskip("bm3d", reason="the optional package bm3d is not installed")
    monkeypatch.setattr(rivals, "_bm3d_strengths", lambda *_: [0.2, 0.1, 0.05, 0.03])
    picture = grey(24)
    y = measure(operator, picture, 0.02)
    before = psnr(operator.pseudoinverse(y), picture)
    assert_restored(bm3d(operator, y, 0.02, picture), picture, before + 4)


def test_bm3d_missing_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "bm3d", None)
    with pytest.raises(InputError, match="pip install bm3d"):
        bm3d(Identity((1, 8, 8)), torch.zeros(1, 1, 8, 8), 0.1, torch.zeros(1, 1, 8, 8))


def assert_restored(restored: Baseline, picture: Tensor, least: Tensor):
    assert restored.image.shape == picture.shape
    assert restored.image.dtype == torch.float32
    assert psnr(restored.image, picture) > least


def test_sparse_wavelets_recover_what_is_sparse_from_few_measurements():
    """A picture of a few coarse wavelets is found from a third of its entries; least squares is far off."""
    generator = torch.Generator().manual_seed(0)
    coarse = 0.5 + 0.1 * torch.randn(1, 1, 4, 4, generator=generator)
    picture = torch.nn.functional.interpolate(coarse, size=(32, 32), mode="bicubic")
    operator = GaussianSensing((1, 32, 32), 340, seed=0)
    y = measure(operator, picture, 0.001)
    found = lasso_wavelet(operator, y, 0.001, picture)
    assert psnr(found.image, picture) > psnr(operator.pseudoinverse(y), picture) + 15


def test_the_limit_of_wavelet_shrinkage_is_the_lasso():
    """For A = I the minimiser is one soft threshold; weight = rho · strength."""
    operator, y = Identity((1, 32, 32)), measure(Identity((1, 32, 32)), grey(32), 0.1)
    strengths = [0.1] * 60
    *_, last = plug_and_play(operator, y, rivals._shrink_wavelets, torch.zeros_like(y), strengths, rho=1.5)
    direct = rivals._shrink_wavelets(y[0].permute(1, 2, 0).double().numpy(), 0.15)
    np.testing.assert_allclose(last[0].permute(1, 2, 0).numpy(), direct, atol=1e-4)
