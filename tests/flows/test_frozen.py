"""The inference form of a flow: the same map, its derivatives by hand, the same for every batch."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from copy import deepcopy
from itertools import product

import pytest
import torch
from random_flows import MULTISCALE, make, rand, randn
from torch import Tensor
from torch.autograd import gradcheck

from aipo.flows import MultiScaleFlow, frozen
from aipo.flows.inference import single_precision
from aipo.flows.multiscale import FrozenFlow

SIZE = (8, 16)
STORED, RECOMPUTED = 2**40, 0
every_flow = pytest.mark.parametrize(
    ("family", "kind", "levels"), list(product(MULTISCALE, ["fixed", "any"], [1, 3])), ids=str
)
either_memory = pytest.mark.parametrize("memory", [STORED, RECOMPUTED])


def both(family: str, kind: str, levels: int, memory: int = STORED) -> tuple[MultiScaleFlow, FrozenFlow]:
    flow = make(family, kind, 3, levels, SIZE)
    assert isinstance(flow, MultiScaleFlow)
    frozen = flow.freeze()
    frozen.memory = memory
    return flow, frozen


def close(a: Tensor, b: Tensor, tolerance: float = 1e-10) -> bool:
    return bool((a - b).abs().max() <= tolerance * (1 + b.abs().max()))


@every_flow
def test_the_map_is_the_same_in_both_directions(family, kind, levels):
    flow, frozen = both(family, kind, levels)
    x, z = rand(3, 3, *SIZE), randn(3, 3, *SIZE)
    for there, expected in (
        (frozen(x), flow(x)),
        (frozen.inverse_and_logdet(z), flow.inverse_and_logdet(z)),
        (frozen.generate(z), flow.generate(z)),
    ):
        assert close(there[0], expected[0]) and close(there[1], expected[1])
    assert close(frozen.log_prob(x), flow.log_prob(x))
    assert close(frozen.inverse(frozen(x)[0]), x)


@every_flow
@either_memory
def test_derivatives_are_those_of_automatic_differentiation(family, kind, levels, memory):
    flow, frozen = both(family, kind, levels, memory)
    weights = randn(2, 3, *SIZE, seed=7)

    def gradient(run, argument: Tensor) -> Tensor:
        argument = argument.clone().requires_grad_(True)
        result, logdet = run(argument)
        # Cotangents of both results that differ from picture to picture.
        return torch.autograd.grad((result * weights).sum() + (logdet**2).sum(), argument)[0]

    x, z = rand(2, 3, *SIZE), randn(2, 3, *SIZE)
    assert close(gradient(frozen, x), gradient(flow, x))
    assert close(gradient(frozen.inverse_and_logdet, z), gradient(flow.inverse_and_logdet, z))


@pytest.mark.parametrize("family", MULTISCALE)
@either_memory
def test_the_derivative_passes_gradcheck(family, memory):
    frozen = make(family, "any", 1, 2, (4, 8)).freeze()
    frozen.memory = memory
    x = rand(2, 1, 4, 8).requires_grad_(True)
    assert gradcheck(frozen, x)
    assert gradcheck(frozen.generate, x)


@every_flow
def test_second_derivatives_are_those_of_automatic_differentiation(family, kind, levels):
    flow, frozen = both(family, kind, levels)
    v = randn(2, 3, *SIZE, seed=7)

    def product_with_hessian(run, argument: Tensor) -> Tensor:
        argument = argument.clone().requires_grad_(True)
        gradient = torch.autograd.grad(run(argument).sum(), argument, create_graph=True)[0]
        return torch.autograd.grad(gradient, argument, v)[0]

    x, z = rand(2, 3, *SIZE), randn(2, 3, *SIZE)
    assert close(product_with_hessian(frozen.log_prob, x), product_with_hessian(flow.log_prob, x))
    expected = product_with_hessian(lambda z: flow.generate(z)[1], z)
    assert close(product_with_hessian(lambda z: frozen.generate(z)[1], z), expected)


@every_flow
@either_memory
def test_one_graph_can_be_walked_twice(family, kind, levels, memory):
    _, frozen = both(family, kind, levels, memory)
    x = rand(2, 3, *SIZE).requires_grad_(True)
    total = frozen.log_prob(x).sum()
    first = torch.autograd.grad(total, x, retain_graph=True)[0]
    assert torch.equal(torch.autograd.grad(total, x)[0], first)


@pytest.mark.parametrize("family", MULTISCALE)
@pytest.mark.parametrize(("size", "hidden"), [((16, 24), 12), ((24, 40), 32), ((64, 64), 32)], ids=str)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_what_a_picture_gives_does_not_depend_on_its_batch(family, size, hidden, precision):
    torch.manual_seed(0)
    flow = MULTISCALE[family]((3, None, None), levels=3, steps=2, hidden=hidden)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    frozen = flow.freeze(precision)
    x = rand(9, 3, *size).float()

    def everything(x: Tensor) -> list[Tensor]:
        x = x.clone().requires_grad_(True)
        energy, (picture, log_prob) = frozen.log_prob(x), frozen.generate(x)
        gradient = torch.autograd.grad(energy.sum(), x)[0]
        latent = torch.autograd.grad(log_prob.sum() + (picture**2).sum(), x)[0]
        return [energy, gradient, picture, log_prob, latent]

    alone = [everything(picture) for picture in x.split(1)]
    for count in (2, 5, 9):
        together = everything(x[:count])
        for i, results in enumerate(alone[:count]):
            assert all(torch.equal(a[0], b[i]) for a, b in zip(results, together, strict=True))


def test_freezing_leaves_the_flow_trainable_and_the_copy_constant():
    flow = MULTISCALE["glow"]((1, 4, 4), levels=1, steps=1, hidden=3)
    frozen = flow.freeze()
    assert all(parameter.requires_grad for parameter in flow.parameters())
    assert not any(parameter.requires_grad for parameter in frozen.parameters())
    x = rand(1, 1, 4, 4).float()
    before = frozen.log_prob(x)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter += 0.1
    assert torch.equal(frozen.log_prob(x), before)


def test_what_was_folded_does_not_outlive_its_weights():
    flow = make("glow", "fixed", 3, 2, SIZE)
    other = deepcopy(flow)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter += 0.05 * torch.sin(torch.arange(parameter.numel()).reshape(parameter.shape))
    frozen, x = flow.freeze(), rand(2, 3, *SIZE)
    before = frozen.log_prob(x)
    frozen.load_state_dict(other.freeze().state_dict())
    assert close(frozen.log_prob(x), other.log_prob(x)) and not close(frozen.log_prob(x), before, 1e-4)
    copied = deepcopy(frozen).float()
    assert copied.log_prob(x.float()).dtype == torch.float32
    assert close(copied.log_prob(x.float()).double(), other.log_prob(x), 1e-5)


def test_memory_bounds_what_a_derivative_keeps():
    x = rand(1, 3, *SIZE).requires_grad_(True)
    for memory, kept in ((STORED, 3 * (1 + 2 * 2) + 2 + 1), (RECOMPUTED, None)):
        _, frozen = both("glow", "any", 3, memory)
        tape = frozen(x)[0].grad_fn.tape  # squeezes, mixes and couplings, splits, base
        assert tape is None if kept is None else len(tape) == kept


def test_convolutions_keep_single_precision_on_gpus(monkeypatch):
    """There PyTorch's own choice is 11 bits of mantissa; afterwards it is the user's choice again."""
    setting = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    before, seen = setting.fp32_precision, []
    convolve = frozen._convolve

    def watched(h, weight, bias):
        seen.append(setting.fp32_precision)
        return convolve(h, weight, bias)

    flow = make("glow", "fixed", 3, 2, (8, 8)).freeze()
    monkeypatch.setattr(frozen, "_convolve", watched)
    with torch.no_grad():
        flow(rand(1, 3, 8, 8))
    x = rand(1, 3, 8, 8).requires_grad_()
    forward = len(seen)
    z, logdet = flow(x)
    (z.sum() + logdet.sum()).backward()
    assert len(seen) == 3 * forward and set(seen) == {"ieee"}
    assert setting.fp32_precision == before != "ieee"


def test_the_last_to_leave_gives_the_precision_back():
    """Two evaluations that overlap, as those of two threads do: the first one in is the first one out."""
    setting = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    before, first, second = setting.fp32_precision, ExitStack(), ExitStack()
    first.enter_context(single_precision)
    second.enter_context(single_precision)
    first.close()
    assert setting.fp32_precision == "ieee"
    second.close()
    assert setting.fp32_precision == before != "ieee"


def test_threads_evaluate_a_flow_together():
    flow, setting = make("glow", "fixed", 3, 2, SIZE).freeze(), torch.backends.cudnn.conv  # type: ignore[attr-defined]
    before = setting.fp32_precision

    def derived(seed: int) -> Tensor:
        x = rand(2, 3, *SIZE, seed=seed).requires_grad_()
        return torch.autograd.grad(flow.log_prob(x).sum(), x)[0]

    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(derived, range(40)))
    assert setting.fp32_precision == before
    assert all(torch.equal(gradient, derived(seed)) for seed, gradient in enumerate(found))
