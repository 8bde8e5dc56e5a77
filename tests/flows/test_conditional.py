"""Flows that are told the noise of their pictures: one plain flow at every τ."""

import pickle
from copy import deepcopy

import pytest
import torch
from random_flows import MULTISCALE, make, rand, randn, randomise
from torch import Tensor

from aipo.basics.derivatives import value_and_gradient
from aipo.basics.errors import InputError
from aipo.flows import ConditionalFlow, Glow, TarFlow, posterior_mean
from aipo.flows.conditional import KEPT

SIZE = (8, 16)
TAUS = (0.0, 0.03, 0.4)
every_family = pytest.mark.parametrize("family", MULTISCALE)


def told(family: str, kind: str = "any") -> ConditionalFlow:
    """A random flow in float64 that depends on τ."""
    flow = ConditionalFlow(deepcopy(make(family, kind, 3, 2, SIZE))).double()
    with torch.no_grad():
        flow.table += 0.3 * randn(*flow.table.shape, seed=5)
    return flow


def batch() -> tuple[Tensor, Tensor]:
    """A picture for each τ."""
    return rand(len(TAUS), 3, *SIZE), torch.tensor(TAUS, dtype=torch.float64)


@every_family
@pytest.mark.parametrize("kind", ["fixed", "any"])
def test_it_starts_as_the_plain_flow_at_every_level(family, kind):
    plain, (x, tau) = make(family, kind, 3, 2, SIZE), batch()
    flow = ConditionalFlow(deepcopy(plain)).double()
    assert torch.equal(flow.log_prob(x, tau), plain.log_prob(x))
    assert torch.equal(flow.at(0.1).log_prob(x), plain.log_prob(x))


@every_family
def test_every_picture_has_the_density_of_its_own_level(family):
    flow, (x, tau) = told(family), batch()
    together = flow.log_prob(x, tau)
    for i, level in enumerate(TAUS):
        own = x[i : i + 1]
        for plain in (flow.at(level), flow.freeze().at(level)):
            torch.testing.assert_close(plain.log_prob(own)[0], together[i], rtol=1e-10, atol=1e-8)
            torch.testing.assert_close(plain.inverse(plain(own)[0]), own, rtol=0, atol=1e-9)
    assert (flow.log_prob(x[:1].expand_as(x), tau).diff().abs() > 1e-2).all(), "τ matters"


@every_family
def test_without_a_level_pictures_have_no_noise(family):
    flow, (x, _), z = told(family), batch(), randn(2, 3, *SIZE)
    none = flow.at(0.0)
    for form in (flow, flow.freeze()):
        torch.testing.assert_close(form.log_prob(x), none.log_prob(x), rtol=1e-10, atol=1e-8)
        torch.testing.assert_close(form.energies(x), none.energies(x), rtol=1e-10, atol=1e-8)
        torch.testing.assert_close(form.inverse(z), none.inverse(z), rtol=1e-8, atol=1e-8)


def test_levels_change_the_density_gradually():
    """Neighbouring τ share what they have learnt: no jump between two of them."""
    flow, x = told("glow"), rand(1, 3, *SIZE)
    taus = torch.logspace(-2.6, 0, 400, dtype=torch.float64)
    found = torch.stack([flow.log_prob(x, tau[None])[0] for tau in taus])
    assert found.diff().abs().max() < 0.05 * (found.max() - found.min())


def test_a_frozen_flow_keeps_few_levels_the_last_ones():
    frozen, x = told("glow").freeze(), rand(1, 3, *SIZE)
    first = frozen.at(0.5)
    for step in range(KEPT):
        frozen.at(0.01 * step)
        assert frozen.at(0.01 * step) is frozen.at(0.01 * step)
    assert len(frozen._levels) == KEPT
    again = frozen.at(0.5)
    assert again is not first and torch.equal(again.log_prob(x), first.log_prob(x))


def test_new_weights_are_used_at_levels_that_were_asked_for_before():
    frozen, x = told("glow").freeze(), rand(1, 3, *SIZE)
    before = frozen.at(0.1).log_prob(x)
    state = {name: 1.01 * tensor for name, tensor in frozen.state_dict().items()}
    frozen.load_state_dict(state)
    assert not torch.equal(frozen.at(0.1).log_prob(x), before)
    assert frozen.float().at(0.1).log_prob(x.float()).dtype == torch.float32


def test_copies_and_pickles_are_the_same_flow():
    frozen, x = told("glow").freeze(), rand(2, 3, *SIZE)
    expected = frozen.at(0.1).log_prob(x)
    for other in (deepcopy(frozen), pickle.loads(pickle.dumps(frozen))):
        assert torch.equal(other.at(0.1).log_prob(x), expected)
        assert torch.equal(other.log_prob(x), frozen.log_prob(x))


def test_networks_answer_in_bfloat16_at_every_level():
    flow, x = told("glow").float(), rand(2, 3, *SIZE).float()
    near, exact = (flow.freeze(precision).at(0.1).log_prob(x) for precision in ("bfloat16", "float32"))
    assert not torch.equal(near, exact)
    torch.testing.assert_close(near, exact, rtol=0.05, atol=5.0)


@pytest.mark.parametrize("tau", [-0.1, 1.5, float("nan"), float("inf")])
def test_other_levels_are_refused(tau):
    for form in (told("glow"), told("glow").freeze()):
        with pytest.raises(InputError, match=f"tau = {tau}.*from 0 to 1"):
            form.at(tau)


def test_a_flow_that_is_told_nothing_knows_pictures_without_noise():
    plain = make("glow", "any", 3, 2, SIZE)
    assert plain.at(0.0) is plain and not plain.noise_levels
    for form in (plain, plain.freeze()):
        with pytest.raises(InputError, match=r"tau = 0\.1.*noise_levels"):
            form.at(0.1)


@every_family
def test_pictures_without_noise_may_have_weights_of_their_own(family):
    """Without τ, or at τ = 0, the clean flow answers in every form; at other levels the told one."""
    clean, levels = make(family, "fixed", 3, 2, SIZE), told(family, "fixed")
    flow = ConditionalFlow(deepcopy(levels.plain), deepcopy(clean)).double()
    with torch.no_grad():
        flow.table.copy_(levels.table)
    x, z = rand(2, 3, *SIZE), randn(2, 3, *SIZE)
    for form in (flow, flow.freeze(), flow.at(0.0), flow.freeze().at(0.0)):
        torch.testing.assert_close(form.log_prob(x), clean.log_prob(x), rtol=1e-10, atol=1e-8)
        torch.testing.assert_close(form.inverse(z), clean.inverse(z), rtol=0, atol=1e-9)
        torch.testing.assert_close(form.energies(x), clean.energies(x), rtol=1e-10, atol=1e-8)
    for tau in (0.01, 0.4):
        expected = levels.at(tau).log_prob(x)
        assert (expected - clean.log_prob(x)).abs().min() > 1e-2
        torch.testing.assert_close(flow.at(tau).log_prob(x), expected)
        torch.testing.assert_close(flow.log_prob(x, torch.full((2,), tau, dtype=x.dtype)), expected)


def test_the_flow_of_pictures_without_noise_is_constant():
    clean = make("glow", "fixed", 3, 2, SIZE)
    flow = ConditionalFlow(deepcopy(clean), deepcopy(clean)).double()
    flow.log_prob(rand(2, 3, *SIZE), torch.tensor((0.1, 0.2), dtype=torch.float64)).sum().backward()
    moved = {name for name, value in flow.named_parameters() if value.requires_grad}
    assert moved == {name for name, _ in flow.named_parameters() if not name.startswith("clean.")}
    assert all(value.grad is None for value in flow.clean.parameters())


def test_a_flow_without_convolutions_cannot_be_told():
    with pytest.raises(InputError, match=r"TarFlow cannot be told.*glow"):
        ConditionalFlow(TarFlow((3, 8, 8), levels=1, steps=1, hidden=32))


def test_the_posterior_mean_of_a_gaussian():
    """An untrained Glow is N(½, 1); as the density of y = x + σ n it leaves N(½, 1 − σ²) for x."""
    torch.manual_seed(0)
    flow, y, sigma = Glow((1, None, None), levels=1, steps=2, hidden=4).double(), rand(2, 1, 4, 4), 0.6
    expected = 0.5 + (1 - sigma**2) * (y - 0.5)
    torch.testing.assert_close(posterior_mean(flow, y, sigma), expected, rtol=0, atol=1e-6)


def test_the_score_of_a_level_is_the_gradient_at_it():
    flow, (x, tau) = told("realnvp"), batch()
    found = value_and_gradient(lambda x: flow.log_prob(x, tau), x)[1]
    for i, level in enumerate(TAUS):
        own = value_and_gradient(flow.freeze().at(level).log_prob, x[i : i + 1])[1]
        torch.testing.assert_close(own[0], found[i], rtol=1e-8, atol=1e-8)


def test_every_convolution_is_modulated():
    """A gradient reaches every entry of the table."""
    flow = randomise(told("realnvp"))
    x, tau = batch()
    flow.log_prob(x, tau).sum().backward()  # type: ignore[union-attr]
    table = flow.table.grad
    assert table is not None and (table != 0).any(0).all()
