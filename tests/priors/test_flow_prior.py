"""Flow priors: energy and samples, other sizes by reflection, and copies that are the same prior."""

import pickle
from copy import deepcopy

import numpy as np
import pytest
import torch
from flow_priors import ANY, FIXED, TARFLOW, make, rand

from aipo.basics.derivatives import value_and_gradient
from aipo.basics.errors import InputError
from aipo.flows import ConditionalFlow
from aipo.gaussian import LowRankStationary
from aipo.priors import FlowPrior, build_flow, load_prior


def test_energy_is_minus_the_log_density_of_the_flow(prior):
    x = rand(3, 3, 8, 8)
    assert torch.equal(prior.energy(x), -prior.flow.log_prob(x))
    assert torch.equal(prior.log_prob(x), prior.flow.log_prob(x))


@pytest.mark.parametrize("size", [(8, 8), (7, 8), (8, 5), (9, 10), (3, 13), (3, 3)], ids=str)
def test_other_sides_are_reflected_at_the_right_and_bottom(size):
    prior, x = make(ANY), rand(2, 3, *size)
    bottom, right = -size[0] % 4, -size[1] % 4
    padded = np.pad(x.numpy(), ((0, 0), (0, 0), (0, bottom), (0, right)), mode="reflect")
    expected = -prior.flow.log_prob(torch.from_numpy(padded)) * (x[0].numel() / padded[0].size)
    torch.testing.assert_close(prior.energy(x), expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(prior.log_prob(x), -expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("size", [(2, 8), (8, 2), (1, 1), (1, 8)], ids=str)
def test_sides_too_short_to_reflect_are_refused(size):
    with pytest.raises(InputError, match=f"{size[0]} × {size[1]} is too small.*at least 3"):
        make(ANY).energy(rand(1, 3, *size))


@pytest.mark.parametrize("shape", [(1, 1, 8, 8), (1, 4, 8, 8), (3, 8, 8), (8, 8), (1, 3, 0, 8)], ids=str)
def test_other_shapes_are_refused(prior, shape):
    for function in (prior.energy, prior.log_prob, prior.encode):
        with pytest.raises(InputError, match=r"\(B, 3, .*" + str(shape)[1:-1]):
            function(torch.zeros(shape))


@pytest.mark.parametrize("size", [(12, 8), (7, 8), (4, 4)], ids=str)
def test_a_fixed_size_prior_refuses_other_sizes(size):
    with pytest.raises(InputError, match=r"\(B, 3, 8, 8\)"):
        make(FIXED).energy(rand(1, 3, *size))


def test_a_prior_in_float64_works_in_float64(prior):
    prior.double()
    assert prior.sample(1, size=(8, 8)).dtype == torch.float64
    assert prior.energy(rand(1, 3, 8, 8).double()).dtype == torch.float64


@pytest.mark.parametrize("architecture", [FIXED, ANY], ids=["fixed", "any"])
def test_bytes_are_refused(architecture):
    with pytest.raises(InputError, match="uint8"):
        make(architecture).log_prob(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))


def test_decode_inverts_encode(prior):
    x = rand(3, 3, 8, 8)
    assert (prior.decode(prior.encode(x)) - x).abs().max() <= 1e-4


def test_the_latent_of_odd_sides_is_that_of_the_reflected_picture():
    prior, x = make(ANY), rand(2, 3, 7, 10)
    z = prior.encode(x)
    assert z.shape == (2, 3, 8, 12)
    assert (prior.decode(z)[:, :, :7, :10] - x).abs().max() <= 1e-4


def test_samples_are_decoded_standard_normal_latents(prior):
    samples = prior.sample(300, size=(8, 8), seed=3)
    assert samples.shape == (300, 3, 8, 8)
    latents = prior.encode(samples)
    assert abs(float(latents.mean())) <= 5 / latents.numel() ** 0.5
    assert abs(float(latents.var()) - 1) <= 5 * (2 / latents.numel()) ** 0.5
    cooler = prior.encode(prior.sample(300, size=(8, 8), temperature=0.5, seed=3))
    torch.testing.assert_close(cooler, 0.5 * latents, rtol=0, atol=1e-2)


def test_samples_follow_the_seed(prior):
    first, same, other = (prior.sample(2, size=(8, 8), seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    assert not torch.equal(first[0], first[1])


def test_samples_of_a_prior_for_any_size_have_the_size_asked_for():
    assert make(ANY).sample(2, size=(4, 12)).shape == (2, 3, 4, 12)
    with pytest.raises(InputError, match="size"):
        make(ANY).sample(2)


def test_samples_of_a_fixed_size_prior_need_no_size():
    assert make(FIXED).sample(2).shape == (2, 3, 8, 8)
    with pytest.raises(InputError, match="8, 8"):
        make(FIXED).sample(2, size=(4, 12))


def test_copies_and_pickles_are_the_same_prior(prior):
    x = rand(2, 3, 8, 8)
    for other in (deepcopy(prior), pickle.loads(pickle.dumps(prior))):
        assert torch.equal(other.energy(x), prior.energy(x)) and other.card == prior.card
        assert torch.equal(other.surrogate.mean, prior.surrogate.mean)
        gradient = value_and_gradient(other.energy, x)[1]
        assert torch.equal(gradient, value_and_gradient(prior.energy, x)[1])
        before = prior.energy(x)
        with torch.no_grad():
            for parameter in other.parameters():
                parameter.mul_(1.01)
        other.load_state_dict(other.state_dict())  # it still folds what is loaded
        assert not torch.equal(other.energy(x), before) and torch.equal(prior.energy(x), before)


def test_a_pickle_is_not_larger_than_its_weights():
    surrogate = LowRankStationary.fit(rand(40, 3, 8, 8), rank=5)
    prior = FlowPrior(build_flow({**FIXED, "hidden": 64}), surrogate, {})
    surrogate.precision(prior.sample(2))  # for which it makes matrices that it keeps
    weights = sum(tensor.nbytes for tensor in prior.state_dict().values())
    assert len(pickle.dumps(prior)) < weights + 50_000


def told() -> FlowPrior:
    """A prior for any size whose density depends on τ."""
    plain = make(ANY)
    flow = ConditionalFlow(deepcopy(plain.flow.trained))
    with torch.no_grad():
        flow.table += 0.2 * torch.randn(flow.table.shape, generator=torch.Generator().manual_seed(5))
    return FlowPrior(flow, plain.surrogate, {**plain.card, "flow": {**ANY, "noise_levels": True}})


def test_the_energy_of_a_noise_level_is_that_of_its_flow():
    prior, x = told(), rand(2, 3, 8, 8)
    flow = prior.flow.trained
    assert isinstance(flow, ConditionalFlow)
    for tau in (0.0, 0.1):
        expected = -flow.log_prob(x, torch.full((2,), tau))
        torch.testing.assert_close(prior.energy(x, tau), expected, rtol=1e-4, atol=1e-3)
    assert torch.equal(prior.energy(x), prior.energy(x, tau=0.0))
    assert torch.equal(prior.log_prob(x), -prior.energy(x))
    assert (prior.decode(prior.encode(x)) - x).abs().max() <= 1e-4
    reflected = np.pad(x[:, :, :7].numpy(), ((0, 0), (0, 0), (0, 1), (0, 0)), mode="reflect")
    expected = prior.energy(torch.from_numpy(reflected), 0.1) * (7 / 8)
    torch.testing.assert_close(prior.energy(x[:, :, :7], 0.1), expected)


def test_denoising_goes_up_the_gradient_at_the_noise():
    prior, y, sigma = told(), rand(2, 3, 8, 8), 0.1
    gradient = value_and_gradient(lambda x: prior.energy(x, sigma), y)[1]
    torch.testing.assert_close(prior.denoise(y, sigma), y - sigma**2 * gradient)
    reflected = np.pad(y[:, :, :, :7].numpy(), ((0, 0), (0, 0), (0, 0), (0, 1)), mode="reflect")
    cut = prior.denoise(torch.from_numpy(reflected), sigma)[:, :, :, :7]
    torch.testing.assert_close(prior.denoise(y[:, :, :, :7], sigma), cut)


def test_the_deviation_is_the_diagonal_of_the_jacobian():
    prior, y, sigma = told(), rand(1, 3, 8, 8), 0.1
    step, exact = 1e-3, torch.empty(y.numel())
    for k in range(y.numel()):
        moved = torch.zeros(y.numel())
        moved[k] = step
        there, back = (prior.denoise(y + sign * moved.view_as(y), sigma) for sign in (1, -1))
        exact[k] = sigma**2 * (there - back).flatten()[k] / (2 * step)
    found = prior.deviation(y, sigma, probes=400).flatten() ** 2
    assert exact.min() > 0
    assert (found - exact).abs().mean() <= 0.1 * exact.mean()
    cut = prior.deviation(y[:, :, :, :7], sigma, probes=2)
    assert cut.shape == (1, 3, 8, 7) and bool((cut >= 0).all()) and float(cut.mean()) > 0.05
    with pytest.raises(InputError, match="probes = 0"):
        prior.deviation(y, sigma, probes=0)


def test_a_saved_prior_knows_its_noise_levels(tmp_path):
    prior, x = told(), rand(2, 3, 8, 8)
    prior.save(tmp_path)
    loaded = load_prior(tmp_path)
    assert loaded.noise_levels and loaded.exact is loaded
    torch.testing.assert_close(loaded.energy(x, 0.1), prior.energy(x, 0.1), rtol=0.01, atol=0.5)  # in float16


def test_a_prior_without_noise_levels_knows_pictures_without_noise(prior):
    x = rand(1, 3, 8, 8)
    for ask in (prior.energy, prior.denoise):
        with pytest.raises(InputError, match=r"tau = 0\.1.*noise_levels"):
            ask(x, 0.1)
    with pytest.raises(InputError, match="from 0 to 1"):
        told().denoise(x, 25)


def test_a_flow_that_cannot_be_told_is_refused():
    with pytest.raises(InputError, match="TarFlow cannot be told"):
        build_flow({**TARFLOW, "noise_levels": True})
