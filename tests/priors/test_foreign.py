"""Densities of other packages as priors: the real packages, not stand-ins for them."""

import math
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Independent, MixtureSameFamily, MultivariateNormal, Normal
from torch.distributions.categorical import Categorical

import aipo
from aipo.basics.errors import InputError, Status
from aipo.gaussian import LowRankGaussian
from aipo.likelihoods import measure
from aipo.operators import GaussianSensing, Identity
from aipo.priors import Gaussian
from aipo.priors.foreign import Foreign, freia

SHAPE = (1, 4, 4)
N = 16


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def pictures(count: int = 64) -> Tensor:
    """Smooth pictures around grey."""
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand(count, 1, 2, 2, generator=generator)
    return 0.3 + 0.4 * nn.functional.interpolate(coarse, size=SHAPE[1:], mode="bilinear")


def zuko_flow() -> tuple[Foreign, Callable[[Tensor], Tensor]]:
    zuko = pytest.importorskip("zuko", reason="the package zuko is not installed")
    flow = zuko.flows.MAF(N, transforms=2, hidden_features=(16,))
    return Foreign(flow().log_prob, flat=True), lambda x: flow().log_prob(x.flatten(1))


def nflows_flow() -> tuple[Foreign, Callable[[Tensor], Tensor]]:
    pytest.importorskip("nflows", reason="the package nflows is not installed")
    from nflows.distributions import StandardNormal
    from nflows.flows import Flow
    from nflows.transforms import CompositeTransform, OneByOneConvolution, SqueezeTransform

    flow = Flow(CompositeTransform([SqueezeTransform(), OneByOneConvolution(4)]), StandardNormal((4, 2, 2)))
    return Foreign(flow.log_prob), flow.log_prob


def normflows_flow() -> tuple[Foreign, Callable[[Tensor], Tensor]]:
    nf = pytest.importorskip("normflows", reason="the package normflows is not installed")
    layers = [[nf.flows.GlowBlock(4, 8, split_mode="channel", scale=True), nf.flows.Squeeze()]]
    model = nf.MultiscaleFlow([nf.distributions.DiagGaussian((4, 2, 2))], layers, [], class_cond=False)
    model.log_prob(pictures(), None)  # sets its actnorm
    return Foreign(lambda v: model.log_prob(v, None)), lambda x: model.log_prob(x, None)


def freia_network() -> tuple[Foreign, Callable[[Tensor], Tensor]]:
    pytest.importorskip("FrEIA", reason="the package FrEIA is not installed")
    from FrEIA.framework import SequenceINN
    from FrEIA.modules import AllInOneBlock, Flatten

    network = SequenceINN(*SHAPE)
    network.append(Flatten)
    network.append(AllInOneBlock, subnet_constructor=lambda i, o: nn.Linear(i, o))

    def log_prob(x: Tensor) -> Tensor:
        z, log_det = network(x)
        return MultivariateNormal(torch.zeros(N), torch.eye(N)).log_prob(z) + log_det

    return Foreign(freia(network)), log_prob


def mixture() -> tuple[Foreign, Callable[[Tensor], Tensor]]:
    components = Independent(Normal(torch.rand(3, *SHAPE), 0.2), 3)
    distribution = MixtureSameFamily(Categorical(torch.ones(3)), components)
    return Foreign(distribution.log_prob), distribution.log_prob


MODELS = [zuko_flow, nflows_flow, normflows_flow, freia_network, mixture]
every_model = pytest.mark.parametrize("model", MODELS)


@every_model
def test_the_energy_is_the_model_s_own_and_has_a_gradient(model):
    prior, log_prob = model()
    x = pictures(3).requires_grad_(True)
    torch.testing.assert_close(prior.energy(x), -log_prob(x))
    gradient = torch.autograd.grad(prior.energy(x).sum(), x)[0]
    step = 1e-3 * gradient / gradient.flatten(1).norm(dim=1)[:, None, None, None]
    risen = prior.energy(x + step) - prior.energy(x - step)
    expected = 2e-3 * gradient.flatten(1).norm(dim=1)
    torch.testing.assert_close(risen, expected, rtol=0.05, atol=1e-3)


@pytest.mark.parametrize("model", [nflows_flow, mixture])
def test_it_is_pickled_where_the_model_is(model):
    """Functions without a name are not pickled: those above for zuko and normflows, and one inside FrEIA."""
    prior, _ = model()
    other, x = pickle.loads(pickle.dumps(prior)), pictures(2)
    torch.testing.assert_close(other.energy(x), prior.energy(x))


@every_model
@pytest.mark.parametrize("operator", [Identity(SHAPE), GaussianSensing(SHAPE, 8, seed=0)], ids=type)
def test_it_reconstructs(model, operator):
    prior, _ = model()
    prior.surrogate = LowRankGaussian.fit(pictures(), 4)
    x = pictures(2)
    likelihood = measure(operator, x, 0.1, torch.Generator().manual_seed(0))
    found = aipo.reconstruct(likelihood, prior, weight=1.0)
    with torch.no_grad():
        start = likelihood(found.start) + prior.energy(found.start)
        end = likelihood(found.image) + prior.energy(found.image)
    assert bool((end <= start + 1e-4 * start.abs()).all())
    assert Status.DIVERGED not in found.status


def test_a_change_of_scale_keeps_the_density_of_the_picture():
    mean, root = torch.rand(SHAPE).double(), 0.2 * torch.eye(N).double()
    exact = Gaussian(mean, root @ root.T)
    scaled = MultivariateNormal(2 * mean.flatten() - 1, scale_tril=2 * root)
    prior = Foreign(scaled.log_prob, flat=True, scale=2.0, shift=-1.0)
    x = torch.rand(3, *SHAPE).double()
    torch.testing.assert_close(prior.energy(x), exact.energy(x))


def test_densities_without_one_value_per_picture_are_refused():
    with pytest.raises(InputError, match=r"\(2, 1, 4, 4\).*Independent"):
        Foreign(Normal(torch.zeros(SHAPE), 1.0).log_prob).energy(torch.rand(2, *SHAPE))


@pytest.mark.parametrize(("scale", "shift"), [(0.0, 0.0), (math.inf, 0.0), (1.0, math.nan)])
def test_scales_that_are_none_are_refused(scale, shift):
    with pytest.raises(InputError, match="scale = "):
        Foreign(lambda v: v, scale=scale, shift=shift)
