"""Networks in bfloat16: an exact density of a nearby flow, and float32 for the last steps."""

from itertools import product

import pytest
import torch
from elsewhere import elsewhere
from random_flows import MULTISCALE, make, rand, randn
from torch import Tensor

from aipo.basics.errors import InputError
from aipo.flows import Flow, Glow, RealNVP
from aipo.gaussian import LowRankGaussian
from aipo.likelihoods import Gaussian, measure
from aipo.operators import GaussianSensing, Identity, Mask
from aipo.path.options import PathOptions
from aipo.path.schedules import geometric
from aipo.posterior.chain import sample
from aipo.posterior.langevin import LangevinOptions
from aipo.priors import FlowPrior, bundled_priors, load_prior
from aipo.reconstruction.reconstruct import reconstruct

SIZE = (8, 16)
# Eight bits of mantissa: 2⁻⁸ for one rounding, amplified by a dozen layers.
NEAR = 0.06
every_flow = pytest.mark.parametrize(
    ("family", "kind", "levels"), list(product(MULTISCALE, ["fixed", "any"], [1, 3])), ids=str
)


def both(family: str, kind: str, levels: int) -> tuple[Flow, Flow]:
    flow = make(family, kind, 3, levels, SIZE)
    return flow.freeze(), flow.freeze("bfloat16")


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


def gradient(flow: Flow, x: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    return torch.autograd.grad(flow.log_prob(x).sum(), x)[0]


@every_flow
def test_the_map_is_near_and_rounded(family, kind, levels):
    exact, rounded = both(family, kind, levels)
    x, z = rand(3, 3, *SIZE), randn(3, 3, *SIZE)
    for a, b in ((rounded(x), exact(x)), (rounded.inverse_and_logdet(z), exact.inverse_and_logdet(z))):
        assert 0 < relative(a[0], b[0]) < NEAR
        assert ((a[1] - b[1]).abs() < 3).all()  # nats
    assert (rounded.precision, exact.precision) == ("bfloat16", "float32")


@every_flow
def test_the_rounded_map_is_inverted_exactly(family, kind, levels):
    """Rounding is within the networks, so it is the same on the way back: no density is lost."""
    rounded = both(family, kind, levels)[1]
    x = rand(3, 3, *SIZE)
    z, there = rounded(x)
    again, back = rounded.inverse_and_logdet(z)
    assert (again - x).abs().max() < 1e-10 and (there + back).abs().max() < 1e-8


@every_flow
@pytest.mark.parametrize("memory", [2**40, 0])
def test_its_gradient_is_near(family, kind, levels, memory):
    exact, rounded = both(family, kind, levels)
    rounded.memory = memory
    x = rand(3, 3, *SIZE)
    assert 0 < relative(gradient(rounded, x), gradient(exact, x)) < NEAR


def test_second_derivatives_are_near():
    """They go through the trained flow, from the rounded latent."""
    exact, rounded = both("glow", "fixed", 1)
    x, v = rand(2, 3, *SIZE), randn(2, 3, *SIZE, seed=7)

    def product_with_hessian(flow: Flow) -> Tensor:
        moving = x.clone().requires_grad_()
        first = torch.autograd.grad(flow.log_prob(moving).sum(), moving, create_graph=True)[0]
        return torch.autograd.grad(first, moving, v)[0]

    assert 0 < relative(product_with_hessian(rounded), product_with_hessian(exact)) < NEAR


def test_half_as_many_bytes_are_kept():
    flow = Glow((3, 16, 16), levels=1, steps=2, hidden=64)
    sizes = [flow.freeze(precision)._bytes_per_entry for precision in ("float32", "bfloat16")]
    assert 0.5 < sizes[1] / sizes[0] < 0.65  # the maps between networks stay in float32


def test_where_there_is_no_such_evaluation():
    with pytest.raises(InputError, match="a TarFlow is evaluated in float32 only"):
        make("tarflow", "fixed", 3, 1, (8, 8)).freeze("bfloat16")
    for flow in (make("tarflow", "fixed", 3, 1, (8, 8)), make("glow", "fixed", 3, 1, (8, 8))):
        with pytest.raises(InputError, match="precision = 'half'; use float32 or bfloat16"):
            flow.freeze("half")  # type: ignore[arg-type]


# Priors and restorations.

SHAPE = (3, 8, 8)
OPTIONS = PathOptions(geometric(0.1, 2.0, 4), evaluations=10, tolerance=1e-3)
SHORT = LangevinOptions(evaluations=60, burn_in=20)
OPERATORS = {
    "denoising": Identity(SHAPE),
    "inpainting": Mask(torch.arange(64).reshape(1, 8, 8) % 3 > 0, channels=3),
    "sensing": GaussianSensing(SHAPE, 60, seed=0),
}


def prior_of(precision, side: int = 8) -> FlowPrior:
    torch.manual_seed(0)
    flow = RealNVP((3, side, side), levels=2, steps=1, hidden=8)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    flow.initialise(pictures(64, seed=1, side=side))
    surrogate = LowRankGaussian.fit(pictures(256, seed=2, side=side), rank=24)
    return FlowPrior(flow, surrogate, {}, precision)


def pictures(count: int, seed: int, side: int = 8) -> Tensor:
    x = rand(count, 3, side, side, seed=seed).float()
    return 0.3 * x + rand(count, 3, 1, 1, seed=seed + 9).float() / 2


EXACT, ROUNDED = prior_of("float32"), prior_of("bfloat16")
every_task = pytest.mark.parametrize("task", OPERATORS)


def measured(task: str) -> Gaussian:
    return measure(OPERATORS[task], pictures(3, seed=3), 0.1, torch.Generator().manual_seed(4))


def test_the_exact_form_of_a_prior():
    x = pictures(4, seed=5)
    assert EXACT.exact is EXACT
    assert torch.equal(ROUNDED.exact.energy(x), EXACT.energy(x))
    assert not torch.equal(ROUNDED.energy(x), EXACT.energy(x))


@every_task
@pytest.mark.parametrize("weight", [0.5, "bayes", "auto", "sure", "discrepancy", "l-curve"])
def test_energies_that_are_reported_are_exact(task, weight):
    likelihood = measured(task)
    found = reconstruct(likelihood, ROUNDED, weight, OPTIONS)
    assert torch.equal(found.prior_energy, torch.cat([EXACT.energy(x) for x in found.image.split(1)]))
    assert torch.equal(found.objective, found.data_energy + found.weight * found.prior_energy)
    assert not any(torch.equal(found.prior_energy, state.prior_energy) for state in found.path[:-1])


@every_task
@pytest.mark.parametrize("coordinates", ["pictures", "latents"])
def test_a_fixed_weight_ends_in_the_minimum_of_the_exact_objective(task, coordinates):
    options = PathOptions((0.5,), evaluations=400, tolerance=1e-4, coordinates=coordinates)
    likelihood = measured(task)
    found, exact = (reconstruct(likelihood, prior, 0.5, options) for prior in (ROUNDED, EXACT))
    assert len(found.path) == 2 and len(exact.path) == 1
    led = found.path[0].x
    before = likelihood(led) + 0.5 * EXACT.energy(led)
    assert (found.objective <= before).all() and (found.objective < before).any()
    assert (found.objective <= exact.objective + 1e-3).all()
    assert (found.evaluations > found.path[0].evaluations).all()
    assert [state.index for state in found.path] == [0, 1]


@every_task
def test_restorations_are_near(task):
    likelihood = measured(task)
    rounded, exact = (reconstruct(likelihood, prior, "auto", OPTIONS).image for prior in (ROUNDED, EXACT))
    assert 0 < relative(rounded, exact) < NEAR
    drawn = [sample(likelihood, prior, options=SHORT).mean for prior in (ROUNDED, EXACT, ROUNDED)]
    assert 0 < relative(drawn[0], drawn[1]) < NEAR and torch.equal(drawn[0], drawn[2])


def test_energies_of_the_posterior_mean_are_exact():
    found = reconstruct(measured("denoising").select(torch.tensor([0])), ROUNDED, "mean")
    assert torch.equal(found.prior_energy, EXACT.energy(found.image))


@pytest.mark.parametrize(("weight", "side"), [(0.5, 8), ("auto", 32)])
def test_on_another_device(weight, side):
    """What is evaluated in float32 at the end is there too.

    Two devices' bfloat16 moves states. Shares of a mixture follow an estimated risk, which few entries would
    leave to rounding: "auto" has a larger picture.
    """
    likelihood = measure(
        Identity((3, side, side)), pictures(3, 3, side), 0.1, torch.Generator().manual_seed(4)
    )
    with elsewhere() as device:
        there = reconstruct(likelihood.to(device), prior_of("bfloat16", side).to(device), weight, OPTIONS)
        found = [tensor.to("cpu") for tensor in (there.image, there.objective)]
    here = reconstruct(likelihood, prior_of("bfloat16", side), weight, OPTIONS)
    assert relative(found[0], here.image) < 1e-2
    if weight != "auto":  # shares carry single entries of a mixture further
        assert torch.allclose(found[0], here.image, atol=1e-2)
    assert torch.allclose(found[1], here.objective, rtol=0.02)


def test_load_prior_takes_a_precision():
    name = next(iter(bundled_priors()))
    assert load_prior(name).flow.precision == "float32"
    assert load_prior(name, "bfloat16").flow.precision == "bfloat16"
    with pytest.raises(InputError, match="precision = 'half'"):
        load_prior(name, "half")  # type: ignore[arg-type]
