"""Evaluations recorded on a GPU: the same values, and a derivative that is never another evaluation's.

Without a GPU a stand-in for its graphs runs what they would replay, into the same tensors.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from threading import Barrier
from time import sleep
from typing import Any

import pytest
import torch
from random_flows import make, rand, randn
from torch import Tensor

from aipo.basics.arrays import expand
from aipo.flows import ConditionalFlow, graphs
from aipo.flows.graphs import OFTEN, Evaluation, Evaluations
from aipo.flows.inference import Direction
from aipo.flows.training.batches import Batch
from aipo.flows.training.loss import Loss
from aipo.flows.training.options import TrainingOptions

GPU = torch.cuda.is_available()
on_gpu = pytest.mark.skipif(not GPU, reason="needs a GPU")
SIZE = (8, 16)


class Again:
    """A graph that runs its work again and writes what it gives where the first time wrote."""

    def __init__(self, work: Callable[[], Any], made: tuple[Tensor, ...]):
        self.work, self.made = work, made

    def replay(self) -> None:
        found = self.work()
        for old, new in zip(self.made, found if isinstance(found, tuple) else (found,), strict=True):
            old.copy_(new)


def record(work: Callable[[], Any], after: Any) -> tuple[Any, Any]:
    made = work()
    return Again(work, made if isinstance(made, tuple) else (made,)), made


@pytest.fixture(params=["stand-in", pytest.param("cuda", marks=on_gpu)])
def device(request, monkeypatch) -> str:
    if request.param == "cuda":
        return "cuda"
    monkeypatch.setattr(graphs, "_record", record)
    return "cpu"


def frozen(family: str, device: str):
    """A flow and the same flow with every evaluation recorded."""
    plain = make(family, "fixed", 3, 2, SIZE).freeze().to(device)
    recorded = deepcopy(plain)
    kept: dict[Any, Evaluation] = {}

    def of(self: Evaluations, h: Tensor, name: str, direction: Any, size: float) -> Evaluation:
        key = (name, h.shape)
        if key not in kept:
            kept[key] = Evaluation(h, direction)
        return kept[key]

    recorded._recorded = type("Always", (Evaluations,), {"of": of})()
    return plain, recorded


def gradient(flow: Any, x: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    return torch.autograd.grad(flow.log_prob(x).sum(), x)[0]


@pytest.mark.parametrize("family", ["glow", "realnvp"])
def test_values_and_gradients_are_those_of_the_flow(family, device):
    plain, recorded = frozen(family, device)
    for seed in range(3):  # the first records, the others replay
        x, z = (values.to(device) for values in (rand(3, 3, *SIZE, seed=seed), randn(3, 3, *SIZE, seed=seed)))
        for a, b in zip(recorded(x), plain(x), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(gradient(recorded, x), gradient(plain, x), rtol=1e-10, atol=1e-10)
        latents = [z.clone().requires_grad_() for _ in range(2)]
        found = [flow.generate(latent) for flow, latent in zip((recorded, plain), latents, strict=True)]
        torch.testing.assert_close(found[0], found[1], rtol=1e-10, atol=1e-10)
        first, second = (
            torch.autograd.grad(picture.square().sum() + density.sum(), latent)[0]
            for (picture, density), latent in zip(found, latents, strict=True)
        )
        torch.testing.assert_close(first, second, rtol=1e-10, atol=1e-10)


def test_an_earlier_evaluation_keeps_its_own_derivative(device):
    plain, recorded = frozen("glow", device)
    first, second = (rand(2, 3, *SIZE, seed=seed).to(device).requires_grad_() for seed in (1, 2))
    values = [recorded.log_prob(x) for x in (first, second)]
    kept = [value.clone() for value in values]
    found = [torch.autograd.grad(value.sum(), x)[0] for value, x in zip(values, (first, second), strict=True)]
    for x, gradient_found in zip((first, second), found, strict=True):
        torch.testing.assert_close(gradient_found, gradient(plain, x.detach()), rtol=1e-9, atol=1e-9)
    recorded.log_prob(rand(2, 3, *SIZE, seed=3).to(device))
    assert all(torch.equal(a, b) for a, b in zip(values, kept, strict=True))


def test_only_shapes_that_come_often_are_recorded_and_few_are_kept(device, monkeypatch):
    flow = make("glow", "any", 3, 1, (4, 4)).freeze().to(device)
    latest = 3 * 14 * 4 * flow._bytes_per_entry
    monkeypatch.setattr(graphs, "_room", lambda device: 2 * latest)
    for side in range(2, 16, 2):
        x = rand(1, 3, side, 4).to(device)
        for _ in range(OFTEN - 1):
            flow(x)
        assert ("forward", tuple(x.shape), x.dtype) not in flow._recorded._recorded
        flow(x)
        assert ("forward", tuple(x.shape), x.dtype) in flow._recorded._recorded
        assert sum(size for size, _ in flow._recorded._recorded.values()) <= 2 * latest
    assert len(flow._recorded._recorded) == 2
    assert len(deepcopy(flow)._recorded._recorded) == 0
    flow.double()
    assert len(flow._recorded._recorded) == 0  # its weights may be others


def in_threads(work: Callable[[int], Any], count: int = 4) -> list[Any]:
    """What each of several threads gives that begin together."""
    together = Barrier(count)

    def begun(number: int) -> Any:
        together.wait()
        return work(number)

    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(begun, range(count)))


def slowly(monkeypatch) -> list[int]:
    """How many threads record whenever one begins to; each takes long enough for the others to come."""
    inside, found, recorder = [], [], graphs._record

    def watched(work: Callable[[], Any], after: Any) -> tuple[Any, Any]:
        inside.append(work)
        found.append(len(inside))
        sleep(0.02)
        made = recorder(work, after)
        inside.remove(work)
        return made

    monkeypatch.setattr(graphs, "_record", watched)
    return found


def test_threads_record_one_after_the_other(device, monkeypatch):
    plain, _ = frozen("glow", device)
    recording, scale = slowly(monkeypatch), plain._scale
    direction = Direction(scale.forward, scale.inverse, scale.pull, plain.source)
    arguments = [rand(1, 3, *SIZE, seed=seed).to(device) for seed in range(4)]
    made = in_threads(lambda k: Evaluation(arguments[k] - 0.5, direction))
    assert recording == [1] * 8  # an evaluation and its derivative each
    for x, own in zip(arguments, made, strict=True):
        torch.testing.assert_close(own.evaluate(x - 0.5)[1], plain(x)[1], rtol=1e-12, atol=1e-12)


def test_threads_record_a_shape_once(device, monkeypatch):
    flow, x = make("glow", "fixed", 3, 2, SIZE).freeze().to(device), rand(1, 3, *SIZE).to(device)
    monkeypatch.setattr(graphs, "_room", lambda device: 2**40)
    monkeypatch.setattr(graphs, "OFTEN", 1)
    recording = slowly(monkeypatch)
    in_threads(lambda _: flow(x))
    assert recording == [1, 1]


def test_threads_that_share_a_flow_get_their_own_values_and_gradients(device, monkeypatch):
    """Shapes come and go as well: there is room for two recordings."""
    flow = make("glow", "any", 3, 1, (4, 4)).freeze().to(device)
    monkeypatch.setattr(graphs, "_room", lambda device: 2 * 3 * 8 * 4 * flow._bytes_per_entry)
    monkeypatch.setattr(graphs, "OFTEN", 1)

    def restored(number: int) -> None:
        for step in range(12):
            x = rand(1, 3, 2 + 2 * (step % 4), 4, seed=100 * number + step).to(device)
            exact = gradient(flow.source, x)
            torch.testing.assert_close(gradient(flow, x), exact, rtol=1e-9, atol=1e-9)

    in_threads(restored)


def test_nothing_is_recorded_on_a_cpu():
    flow = make("glow", "fixed", 3, 1, (4, 4)).freeze()
    for _ in range(OFTEN + 1):
        flow(rand(1, 3, 4, 4))
    assert not flow._recorded._recorded and not flow._recorded._asked


@on_gpu
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("told", [0, 2])
def test_a_training_loss_that_is_replayed_has_the_gradients_of_the_batch(precision, told):
    """With told noise the score and its double backward are replayed as well."""
    flow = ConditionalFlow(deepcopy(make("glow", "fixed", 3, 2, SIZE))).float().cuda()
    options = TrainingOptions(precision=precision, denoising=1.0)
    loss = Loss(flow, options)
    for seed in range(3):
        x, noise = rand(4, 3, *SIZE, seed=seed), randn(told, 3, *SIZE, seed=seed)
        tau = torch.full((told,), 0.1 * (seed + 1))
        batch = Batch(x, x[:told] + expand(tau, noise) * noise, tau, noise)
        batch = batch.each(lambda part: part.float().cuda())
        value = loss(batch)
        found = [parameter.grad.clone() for parameter in flow.parameters()]
        reference = deepcopy(flow)
        expected = Loss(reference, options)._derived(batch)
        torch.testing.assert_close(value, expected, rtol=1e-3, atol=1e-3)
        for a, b in zip(found, reference.parameters(), strict=True):
            torch.testing.assert_close(a, b.grad, rtol=0.05, atol=1e-3)
        with torch.no_grad():
            for parameter in flow.parameters():  # what is replayed reads the weights as they are
                parameter.mul_(1.01)
