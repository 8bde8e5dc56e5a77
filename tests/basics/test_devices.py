"""Everything runs where its measurements and its prior are, here on a second device of our own making."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from elsewhere import DEVICE, elsewhere
from noise_models import MODELS, measured, pictures
from random_flows import make, rand
from torch import Tensor

import aipo
from aipo import operators as op
from aipo.basics.devices import usable
from aipo.basics.errors import InputError
from aipo.cli.restore import RestoreOptions, restore_files
from aipo.flows import Glow
from aipo.flows.training.data import PictureData
from aipo.flows.training.loop import TrainingOptions, train
from aipo.gaussian import LowRankGaussian, LowRankStationary, StationaryGaussian
from aipo.io.images import read_image, write_image
from aipo.likelihoods import Likelihood, measure
from aipo.path.options import PathOptions
from aipo.path.predictors import secant
from aipo.path.schedules import gaussian_to_prior, geometric, paper
from aipo.path.solvers.descent import Adam
from aipo.path.solvers.lbfgs import LBFGS
from aipo.path.solvers.newton import NewtonCG
from aipo.path.step_control import StepControl
from aipo.posterior.langevin import LangevinOptions
from aipo.priors import FlowPrior
from aipo.selection.plans import Weight

SHAPE = (3, 8, 8)
Restore = Callable[[Likelihood, FlowPrior], list[Tensor]]
OPTIONS = PathOptions(geometric(0.5, 2.0, 2), evaluations=2)
SURROGATES = {
    "low-rank": lambda images: LowRankGaussian.fit(images, rank=4),
    "low-rank-stationary": lambda images: LowRankStationary.fit(images, rank=4),
    "stationary": StationaryGaussian.fit,
}
OPERATORS = {
    "denoise": op.Identity(SHAPE),
    "hole": op.block_mask(SHAPE, 3),
    "mosaic": op.mosaic(SHAPE),
    "gaussian": op.GaussianSensing(SHAPE, 40),
    "fourier": op.FourierSensing(SHAPE, 40),
    "blur": op.Blur(SHAPE, op.gaussian_kernel(0.7)),
    "downsample": op.Downsampling(SHAPE, 2),
    "grey": op.Grey(SHAPE),
    "frequencies": op.FourierMask(SHAPE, op.cartesian_mask((8, 8), 0.5)),
    "angles": op.Radon(SHAPE, torch.tensor([0.0, 45.0, 90.0])),
    "composition": op.Composition(op.Downsampling(SHAPE, 2), op.block_mask((3, 4, 4), 1)),
    "stack": op.Stack(op.Grey(SHAPE), op.Downsampling(SHAPE, 2)),
    "curve": op.gamma_curve(op.Identity(SHAPE), 2.2),
    "magnitude": op.Magnitude(op.GaussianSensing(SHAPE, 40)),
}


def prior(surrogate: str, shape: tuple[int, int, int] = SHAPE) -> FlowPrior:
    """Of any size where its surrogate is."""
    images = rand(40, *shape, seed=1)
    kind = "any" if surrogate == "stationary" else "fixed"
    size = (shape[1] + shape[1] % 2, shape[2] + shape[2] % 2)
    return FlowPrior(make("glow", kind, shape[0], 1, size), SURROGATES[surrogate](images), {})


def noisy(operator: op.Operator) -> Likelihood:
    return measure(operator, rand(2, *SHAPE), 0.1, torch.Generator().manual_seed(0))


def by_default(likelihood: Likelihood, own: FlowPrior) -> list[Tensor]:
    """The path's picture, a chain's mean, and what is told of both."""
    path = aipo.reconstruct(likelihood, own, options=OPTIONS)
    drawn = aipo.sample(likelihood, own, 2, options=LangevinOptions(evaluations=3, burn_in=1))
    return [path.image, path.start, path.objective, drawn.mean, drawn.std, drawn.interval(0.9)[0]]


def agree(
    likelihood: Likelihood,
    surrogate: str,
    restored: Callable[[Likelihood, FlowPrior], list[Tensor]] = by_default,
) -> None:
    shape = likelihood.operator.shape
    here = restored(likelihood, prior(surrogate, shape))
    with elsewhere() as device:
        there = restored(likelihood.to(device), prior(surrogate, shape).to(device))
        assert all(tensor.device.type == device for tensor in there)
        there = [tensor.cpu() for tensor in there]
    torch.testing.assert_close(there, here, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS)
def test_every_operator(operator):
    agree(noisy(operator), "stationary")


@pytest.mark.parametrize("surrogate", ["low-rank", "low-rank-stationary"])
@pytest.mark.parametrize("task", ["denoise", "hole", "gaussian", "blur"])
def test_every_surrogate(task, surrogate):
    agree(noisy(OPERATORS[task]), surrogate)


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_every_noise_model(model):
    agree(measured(model, pictures(2)), "stationary")


def fixed(options: PathOptions) -> Restore:
    return lambda likelihood, own: [aipo.reconstruct(likelihood, own, 1.0, options).image]


def chosen(weight: Weight) -> Restore:
    return lambda likelihood, own: [aipo.reconstruct(likelihood, own, weight, OPTIONS).image]


WAYS = {
    "sure": chosen("sure"),
    "discrepancy": chosen("discrepancy"),
    "l-curve": chosen("l-curve"),
    "paper": fixed(paper(count=2, steps=2)),
    "adam": fixed(replace(OPTIONS, solver=Adam(0.01), metric="data")),
    "newton": fixed(replace(OPTIONS, solver=NewtonCG())),
    "secant": fixed(replace(OPTIONS, predictor=secant)),
    "latents": fixed(replace(OPTIONS, coordinates="latents", solver=LBFGS(first_step=1e-3))),
    "control": fixed(replace(OPTIONS, control=StepControl(budget=9))),
    "surrogate": fixed(gaussian_to_prior(2, 2)),
    "certificate": lambda likelihood, own: [
        aipo.reconstruct(likelihood, own, 1.0, OPTIONS).certificate.curvature
    ],
    "laplace": lambda likelihood, own: [aipo.reconstruct(likelihood, own, options=OPTIONS).laplace_std],
    "branches": lambda likelihood, own: [aipo.best_of(likelihood, own, 1.0, 2).image],
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_every_way(way):
    agree(noisy(OPERATORS["denoise"]), "stationary", way)


def test_a_command_restores_on_the_device_that_was_asked_for(tmp_path):
    picture = tmp_path / "picture.png"
    write_image(picture, rand(3, 12, 12).float())
    found = []
    with elsewhere() as device:
        for name in ("cpu", device):
            options = RestoreOptions(sigma=0.1, weight=0.25, device=name, reference=str(picture))
            (record,), failures = restore_files(
                [str(picture)], str(tmp_path / name), options, lambda *_: None
            )
            assert not failures
            found.append(read_image(tmp_path / name / "picture.png"))
            assert record.psnr_before is None  # it is its own reference
    # Other convolutions than on the CPU: rounded otherwise.
    torch.testing.assert_close(*found, rtol=0, atol=0.02)


@pytest.mark.filterwarnings("ignore:.*copying from a non-meta parameter")  # which here does copy
def test_training_and_its_resumption(tmp_path):
    pictures = [(255 * rand(1, 8, 8, seed=k)).byte().numpy() for k in range(20)]
    data, held_out = PictureData(pictures, None, True), torch.from_numpy(np.stack(pictures[:4]))

    def trained(steps: int, device: str) -> float:
        torch.manual_seed(0)
        options = TrainingOptions(steps=steps, batch=4, validate_every=2, warmup=1)
        return train(Glow((1, 8, 8), 1, 2, 4), data, held_out, tmp_path / device, options, device)

    with elsewhere() as device:
        trained(2, device)
        there = trained(4, device)
    trained(2, "cpu")
    assert there == pytest.approx(trained(4, "cpu"), abs=1e-3)  # other convolutions, rounded otherwise


def test_a_device_that_is_not_there_is_refused_in_one_sentence(tmp_path):
    with pytest.raises(InputError, match="device = 'nowhere'"):
        usable("nowhere")
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="device = 'cuda' cannot be used here"):
            restore_files(["picture.png"], str(tmp_path), RestoreOptions(device="cuda"), lambda *_: None)


def test_the_other_device_refuses_what_a_gpu_refuses():
    with elsewhere() as device:
        there = torch.ones(3, device=device)
        with pytest.raises(RuntimeError, match="on the CPU"):
            torch.add(there, torch.ones(3))
        with pytest.raises(RuntimeError, match="generator"):
            torch.rand(3, device=device, generator=torch.Generator())
        with pytest.raises(TypeError, match="CPU"):
            there.numpy()
        assert (there + torch.ones(())).cpu().tolist() == [2, 2, 2] and device == DEVICE


class Fixed(op.LinearOperator):
    """Its matrix stays where it was made."""

    def __init__(self, device: str):
        self.shape, self.measurement_shape = SHAPE, (40,)
        self.matrix = op.GaussianSensing(SHAPE, 40).matrix.double().to(device)
        self.device = self.matrix.device

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1).double() @ self.matrix.T

    def adjoint(self, y: Tensor) -> Tensor:
        return (y.double() @ self.matrix).unflatten(1, SHAPE)


def test_an_operator_that_does_not_follow_says_where_it_is():
    """As deepinv's physics; alone, and as a part of others."""

    def norms(device: str) -> list[float]:
        own = Fixed(device)
        first = op.Composition(op.Blur(SHAPE, op.gaussian_kernel(0.7)), own)
        every = (own, first, op.Stack(op.Grey(SHAPE), own), op.Magnitude(own).linear)
        return [operator.norm_squared for operator in every]

    with elsewhere() as device:
        there = norms(device)
        drawn = measure(Fixed(device), rand(2, *SHAPE).to(device), 0.1, None)
        assert by_default(drawn, prior("stationary").to(device))[0].device.type == device
    assert there == pytest.approx(norms("cpu"))
