"""Flows: one contract for every family, size, number of channels and levels; and for every layer."""

from itertools import product
from math import log, pi

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_flows import FAMILIES, HIDDEN, MULTISCALE, make, rand, randn, randomise
from scipy.stats import norm, qmc
from torch import Tensor, nn
from torch.autograd import gradcheck
from torch.autograd.functional import jacobian
from torch.func import functional_call
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from aipo.basics.arrays import per_image_sum
from aipo.basics.errors import InputError
from aipo.flows import Glow, TarFlow
from aipo.flows.layers import (
    LOG_SCALE_BOUND,
    ActNorm,
    ChannelCoupling,
    CheckerboardCoupling,
    ConditionalBase,
    GaussianBase,
    Invertible,
    InvertibleConv1x1,
    Squeeze,
)
from aipo.io.tensors import load_state, load_tensors, save_tensors

KINDS = [*product(MULTISCALE, ["fixed", "any"]), ("tarflow", "fixed")]
CASES = [(*kind, *rest) for kind in KINDS for rest in product([1, 3], [1, 2, 3])]
every_kind = pytest.mark.parametrize(("family", "kind"), KINDS, ids=str)
every_case = pytest.mark.parametrize(("family", "kind", "channels", "levels"), CASES, ids=str)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def smallest(kind: str, channels: int, levels: int) -> tuple[int, int, int]:
    """The smallest pictures, not square where the Jacobian stays small."""
    side = 2**levels
    return (channels, side, side if levels == 3 else 2 * side)


def log_abs_det(f, x: Tensor) -> Tensor:
    """log |det ∂f/∂x| of one picture, from the full Jacobian."""
    matrix = jacobian(f, x, vectorize=True).reshape(x.numel(), x.numel())
    return torch.linalg.slogdet(matrix).logabsdet


# Whole flows.


@every_kind
@settings(max_examples=12, deadline=None)
@given(
    channels=st.sampled_from([1, 3]),
    levels=st.integers(1, 3),
    rows=st.integers(1, 3),
    columns=st.integers(1, 3),
    batch=st.integers(1, 3),
    seed=st.integers(0, 2**32),
)
def test_inverse(family, kind, channels, levels, rows, columns, batch, seed):
    size = (rows << levels, columns << levels)
    flow = make(family, kind, channels, levels, size if kind == "fixed" else (16, 8))
    x = rand(batch, channels, *size, seed=seed)
    assert (flow.inverse(flow(x)[0]) - x).abs().max() <= 1e-10
    single = FAMILIES[family](flow.shape, levels=levels, steps=2, hidden=HIDDEN[family])
    single.load_state_dict(flow.state_dict())
    assert (single.inverse(single(x.float())[0]) - x).abs().max() <= 1e-4


@every_case
def test_inverse_of_latents(family, kind, channels, levels):
    shape = smallest(kind, channels, levels)
    flow, z = make(family, kind, channels, levels, shape[1:]), randn(4, *shape)
    assert (flow(flow.inverse(z))[0] - z).abs().max() <= 1e-9  # such pictures lie far outside [0, 1]


@every_case
def test_generated_pictures_know_their_log_prob(family, kind, channels, levels):
    shape = smallest(kind, channels, levels)
    flow, z = make(family, kind, channels, levels, shape[1:]), randn(4, *shape)
    x, log_prob = flow.generate(z)
    assert torch.equal(x, flow.inverse(z))
    assert torch.allclose(log_prob, flow.log_prob(x), rtol=1e-10)


@every_case
def test_logdet_is_that_of_the_jacobian(family, kind, channels, levels):
    shape = smallest(kind, channels, levels)
    flow = make(family, kind, channels, levels, shape[1:])
    x = rand(1, *shape, seed=2)
    truth = log_abs_det(lambda x: flow(x)[0], x)
    assert abs(flow(x)[1] - truth) <= 1e-8 * truth.abs()


@every_case
def test_log_prob_adds_a_standard_normal_latent(family, kind, channels, levels):
    shape = smallest(kind, channels, levels)
    flow = make(family, kind, channels, levels, shape[1:])
    z, logdet = flow(rand(3, *shape))
    expected = torch.from_numpy(norm.logpdf(z.detach().numpy())).sum((1, 2, 3)) + logdet
    torch.testing.assert_close(flow.log_prob(rand(3, *shape)), expected, rtol=1e-12, atol=1e-10)


@every_case
def test_energies_of_the_scales_sum_to_that_of_the_picture(family, kind, channels, levels):
    shape = smallest(kind, channels, levels)
    flow, x = make(family, kind, channels, levels, shape[1:]), rand(3, *shape)
    for form in (flow, flow.freeze()):
        energies = form.energies(x)
        assert energies.shape == (3, 1 if family == "tarflow" else levels)
        torch.testing.assert_close(energies.sum(1), -flow.log_prob(x), rtol=1e-10, atol=1e-8)


@pytest.mark.parametrize("family", MULTISCALE)
def test_the_energy_of_a_coarse_scale_does_not_depend_on_finer_detail(family):
    flow, z = make(family, "any", 3, 3, (8, 8)), randn(2, 3, 8, 8)
    changed = pixel_unshuffle(z, 2)
    changed[:, 6:] += 1  # what leaves at the finest scale
    x, other = flow.inverse(z), flow.inverse(pixel_shuffle(changed, 2))
    energies, others = flow.energies(x), flow.energies(other)
    assert ((energies - others)[:, 0].abs() > 1e-3).all()
    torch.testing.assert_close(energies[:, 1:], others[:, 1:], rtol=1e-8, atol=1e-8)


@every_case
def test_pictures_of_a_batch_are_independent(family, kind, channels, levels):
    shape = smallest(kind, channels, levels)
    flow = make(family, kind, channels, levels, shape[1:])
    x = rand(4, *shape)
    z, logdet = flow(x)
    for i in range(4):
        alone, contribution = flow(x[i : i + 1])
        torch.testing.assert_close(alone[0], z[i], rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(contribution[0], logdet[i], rtol=1e-10, atol=1e-10)


@every_kind
def test_log_prob_passes_gradcheck(family, kind):
    flow = make(family, kind, 1, 2, (4, 8))
    assert gradcheck(flow.log_prob, rand(2, 1, 4, 8).requires_grad_(True))


@every_kind
def test_random_flows_are_not_affine(family, kind):
    # The premise of this file: were the couplings trivial, the Jacobian would be the same everywhere.
    flow = make(family, kind, 3, 2, (4, 8))
    logdet = flow(rand(8, 3, 4, 8))[1]
    assert logdet.std() > 0.1


@every_kind
def test_density_in_four_dimensions_integrates_to_one(family, kind):
    # Quasi Monte Carlo: 2^15 Sobol points of a Gaussian twice as wide as the flow's own samples.
    flow = make(family, kind, 1, 1, (2, 2))
    samples = flow.inverse(randn(2000, 1, 2, 2)).detach().flatten(1)
    root = 2 * torch.linalg.cholesky(torch.cov(samples.T))
    uniform = qmc.Sobol(4, seed=0).random_base2(15)
    normal = torch.from_numpy(norm.ppf(uniform.clip(1e-12, 1 - 1e-12)))
    points = samples.mean(0) + normal @ root.T
    proposal = -0.5 * normal.square().sum(1) - 2 * log(2 * pi) - root.diagonal().log().sum()
    with torch.no_grad():
        ratio = (flow.log_prob(points.reshape(-1, 1, 2, 2)) - proposal).exp()
    assert abs(ratio.mean() - 1) <= 1e-3


@every_kind
def test_saved_weights_give_the_same_density(family, kind, tmp_path):
    flow = make(family, kind, 3, 2, (8, 4))
    x = rand(2, 3, 8, 4)
    save_tensors(tmp_path / "flow.safetensors", flow.state_dict(), {})
    other = FAMILIES[family](flow.shape, levels=2, steps=2, hidden=HIDDEN[family]).double()
    before, picture = other.log_prob(x), other.inverse(x)  # whatever these cache must not survive
    load_state(other, load_tensors(tmp_path / "flow.safetensors")[0], "test")
    assert torch.equal(other.log_prob(x), flow.log_prob(x))
    assert torch.equal(other.inverse(x), flow.inverse(x))
    assert not torch.equal(other.log_prob(x), before)
    assert not torch.equal(other.inverse(x), picture)


@every_kind
def test_initialise_whitens_after_every_actnorm(family, kind):
    flow = FAMILIES[family](
        (3, 8, 8) if kind == "fixed" else (3, None, None), levels=2, steps=2, hidden=HIDDEN[family]
    )
    x = 0.2 + 0.3 * rand(16, 3, 8, 8)
    randomise(flow).initialise(x)
    outputs: list[Tensor] = []
    for module in flow.modules():
        if isinstance(module, ActNorm):
            module.register_forward_hook(lambda module, inputs, output: outputs.append(output[0]))
    flow(x)
    assert len(outputs) == {"glow": 4, "realnvp": 8, "tarflow": 1}[family]
    for output in outputs:
        std, mean = torch.std_mean(output, (0, 2, 3))
        assert mean.abs().max() <= 1e-10
        assert (std - 1).abs().max() <= 0.02  # 1e-3 is added to each standard deviation


def test_initialise_happens_once():
    flow = Glow((1, 4, 4), levels=1, steps=1, hidden=3)
    flow.initialise(torch.rand(4, 1, 4, 4))
    state = {name: tensor.clone() for name, tensor in flow.state_dict().items()}
    flow(torch.rand(4, 1, 4, 4))
    assert all(torch.equal(tensor, state[name]) for name, tensor in flow.state_dict().items())


def test_a_refused_initialise_leaves_nothing_behind():
    flow = Glow((1, 4, 4), levels=1, steps=1, hidden=3)
    state = {name: tensor.clone() for name, tensor in flow.state_dict().items()}
    with pytest.raises(InputError):
        flow.initialise(torch.rand(4, 1, 4, 6))
    flow(torch.rand(4, 1, 4, 4))
    assert all(torch.equal(tensor, state[name]) for name, tensor in flow.state_dict().items())


@every_kind
def test_energies_far_from_the_data_stay_finite(family, kind):
    flow = make(family, kind, 3, 3, (8, 8))
    for scale in (1.0, 1e3, 1e6):
        assert torch.isfinite(flow.log_prob(scale * randn(2, 3, 8, 8))).all()


@pytest.mark.parametrize("family", MULTISCALE)
@pytest.mark.parametrize("size", [(4, 4), (4, 12), (20, 8), (64, 4)], ids=str)
def test_latents_have_the_shape_of_the_picture(family, size):
    flow = make(family, "any", 3, 2, (8, 8))
    assert flow(rand(2, 3, *size))[0].shape == (2, 3, *size)
    assert flow.inverse(randn(2, 3, *size)).shape == (2, 3, *size)


@every_kind
@pytest.mark.parametrize(
    "shape", [(3, 8, 8), (1, 1, 8, 8), (1, 3, 8, 6), (1, 3, 7, 8), (1, 3, 0, 8), (1, 1, 3, 8, 8)], ids=str
)
def test_other_shapes_are_refused(family, kind, shape):
    flow = make(family, kind, 3, 2, (8, 8))
    for function in (flow, flow.log_prob, flow.inverse):
        with pytest.raises(InputError, match=str(shape).replace("(", r"\(").replace(")", r"\)")):
            function(torch.zeros(shape, dtype=torch.float64))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_fixed_size_flow_refuses_other_sizes(family):
    with pytest.raises(InputError, match=r"\(B, 3, 8, 8\).*\(1, 3, 12, 8\)"):
        make(family, "fixed", 3, 2, (8, 8))(rand(1, 3, 12, 8))


@pytest.mark.parametrize("family", FAMILIES)
def test_sides_that_cannot_be_halved_are_refused(family):
    with pytest.raises(InputError, match="divisible by 8, got 12 × 16"):
        FAMILIES[family]((3, 12, 16), levels=3)


@pytest.mark.parametrize(("shape", "hidden"), [((3, None, None), 32), ((3, 8, 8), 48)])
def test_tarflow_refuses_any_size_and_other_widths(shape, hidden):
    with pytest.raises(InputError, match="one size and a multiple of 32"):
        TarFlow(shape, levels=2, steps=1, hidden=hidden)


def test_every_patch_of_a_tarflow_depends_on_every_other():
    # Blocks in one order only would leave the density of the first patch a plain Gaussian.
    flow = make("tarflow", "fixed", 1, 1, (4, 4))
    whole = jacobian(lambda x: flow(x)[0], rand(1, 1, 4, 4), vectorize=True).reshape(16, 16).abs()
    patches = pixel_unshuffle(torch.arange(16).reshape(1, 1, 4, 4), 2).flatten(2)[0].T
    for i, j in product(range(4), range(4)):
        assert whole[patches[i]][:, patches[j]].max() > 0


# Single layers.


class Given(Invertible):
    """A conditional base with its condition held fixed."""

    def __init__(self, base: ConditionalBase, condition: Tensor):
        super().__init__()
        self.base = base
        self.register_buffer("condition", condition)

    def forward(self, h: Tensor) -> tuple[Tensor, Tensor]:
        return self.base(h, self.condition[: len(h)])

    def inverse(self, h: Tensor) -> tuple[Tensor, Tensor]:
        return self.base.inverse(h, self.condition[: len(h)])


MAP = (2, 4, 2, 6)
LAYERS = {
    "squeeze": lambda: Squeeze(),
    "actnorm": lambda: ActNorm(4),
    "convolution": lambda: InvertibleConv1x1(4),
    "channel": lambda: ChannelCoupling(4, 3),
    "channel-swapped": lambda: ChannelCoupling(4, 3, swap=True),
    "checkerboard": lambda: CheckerboardCoupling(4, 3),
    "checkerboard-odd": lambda: CheckerboardCoupling(4, 3, odd=True),
    "base": lambda: GaussianBase(4, (2, 6)),
    "base-stationary": lambda: GaussianBase(4, (1, 1)),
    "conditional": lambda: Given(ConditionalBase(4, (2, 6)), randn(*MAP, seed=5)),
    "conditional-stationary": lambda: Given(ConditionalBase(4, (1, 1)), randn(*MAP, seed=5)),
}


@pytest.fixture(params=LAYERS)
def layer(request) -> nn.Module:
    return randomise(LAYERS[request.param](), 0.3)


def test_layer_inverse(layer):
    h = randn(*MAP)
    image, logdet = layer(h)
    back, inverse_logdet = layer.inverse(image)
    assert (back - h).abs().max() <= 1e-10
    assert (logdet + inverse_logdet).abs().max() <= 1e-10
    assert (layer(back)[0] - image).abs().max() <= 1e-10


def test_layer_logdet_is_that_of_the_jacobian(layer):
    h = randn(*MAP)[:1]
    truth = log_abs_det(lambda h: layer(h)[0], h)
    torch.testing.assert_close(layer(h)[1][0], truth, rtol=1e-8, atol=1e-12)


def test_layer_passes_gradcheck_in_input_and_weights(layer):
    names, weights = zip(*layer.named_parameters(), strict=True) if list(layer.parameters()) else ((), ())

    def function(h: Tensor, *values: Tensor) -> tuple[Tensor, Tensor]:
        return functional_call(layer, dict(zip(names, values, strict=True)), (h,))

    assert gradcheck(function, (randn(1, *MAP[1:]).requires_grad_(True), *weights))


def test_layer_treats_pictures_independently(layer):
    h = randn(*MAP)
    other = torch.cat((h[:1], 10 + h[1:]))
    assert torch.equal(layer(h)[0][0], layer(other)[0][0])
    assert torch.equal(layer(h)[1][0], layer(other)[1][0])


def test_couplings_start_as_the_identity():
    h = randn(*MAP).float()
    for coupling in (ChannelCoupling(4, 3), CheckerboardCoupling(4, 3)):
        image, logdet = coupling(h)
        assert torch.equal(image, h)
        assert torch.equal(logdet, torch.zeros(2))


def white(odd: bool) -> Tensor:
    squares = (torch.arange(6)[:, None] + torch.arange(6)) % 2 != int(odd)
    return squares.expand(4, 6, 6)


def half(first: bool) -> Tensor:
    return (torch.arange(4) < 2)[:, None, None].expand(4, 6, 6) == first


@pytest.mark.parametrize(
    ("coupling", "changed"),
    [
        (ChannelCoupling(4, 8), half(first=False)),
        (ChannelCoupling(4, 8, swap=True), half(first=True)),
        (CheckerboardCoupling(4, 8), white(odd=False)),
        (CheckerboardCoupling(4, 8, odd=True), white(odd=True)),
    ],
    ids=["channel", "channel-swapped", "checkerboard", "checkerboard-odd"],
)
def test_coupling_scales_are_bounded(coupling, changed):
    randomise(coupling, 1.0)
    h = (1e6 * randn(8, 4, 6, 6)).requires_grad_(True)
    image = coupling(h)[0]
    assert torch.equal(image[:, ~changed], h[:, ~changed])
    # A changed entry meets only its own scale, and no kept entry meets a changed one.
    scale = torch.autograd.grad(image.sum(), h)[0][:, changed]
    assert scale.log().abs().max() <= LOG_SCALE_BOUND + 1e-9
    assert scale.log().max() > 0.99 * LOG_SCALE_BOUND  # the bound was reached
    assert scale.log().min() < -0.99 * LOG_SCALE_BOUND


def test_density_in_two_dimensions_integrates_to_one():
    layers = nn.Sequential(
        InvertibleConv1x1(2),
        ChannelCoupling(2, 8),
        InvertibleConv1x1(2),
        ChannelCoupling(2, 8, swap=True),
        ActNorm(2),
    )
    randomise(layers, 0.5)
    axis = torch.linspace(-25, 25, 601, dtype=torch.float64)
    h = torch.cartesian_prod(axis, axis)[:, :, None, None]
    log_density = torch.full((len(h),), -log(2 * pi), dtype=torch.float64)
    with torch.no_grad():
        for layer in layers:
            h, logdet = layer(h)
            log_density += logdet
    density = (log_density - 0.5 * per_image_sum(h * h)).exp().reshape(601, 601)
    edge = torch.cat((density[0], density[-1], density[:, 0], density[:, -1])).max()
    assert edge <= 1e-9  # nothing lies beyond the grid
    assert abs(torch.trapezoid(torch.trapezoid(density, axis), axis) - 1) <= 1e-3
