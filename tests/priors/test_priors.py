"""Priors: energies of known densities, padding as documented, and folders that give the same prior back."""

import json
import pickle
import shutil
from copy import deepcopy

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from torch import Tensor
from torch.autograd import forward_ad, gradcheck

from aipo import priors
from aipo.basics.derivatives import hessian_product, value_and_gradient
from aipo.basics.errors import CheckpointError, InputError
from aipo.gaussian import LowRankGaussian, LowRankStationary, StationaryGaussian
from aipo.priors import FlowPrior, Gaussian, Mixture, build_flow, load_prior

FIXED = {"family": "glow", "shape": [3, 8, 8], "levels": 2, "steps": 2, "hidden": 6}
ANY = {"family": "glow", "shape": [3, None, None], "levels": 2, "steps": 2, "hidden": 6}
FIXED_REALNVP = {**FIXED, "family": "realnvp"}
TARFLOW = {"family": "tarflow", "shape": [3, 8, 8], "levels": 1, "steps": 2, "hidden": 32}
FLOWS = {"fixed": FIXED, "any": ANY, "realnvp": FIXED_REALNVP, "tarflow": TARFLOW}
SURROGATES = {
    "fixed": ("low-rank", lambda pictures: LowRankGaussian.fit(pictures, rank=5)),
    "any": ("stationary", StationaryGaussian.fit),
    "realnvp": ("low-rank", lambda pictures: LowRankGaussian.fit(pictures, rank=5)),
    "tarflow": ("low-rank-stationary", lambda pictures: LowRankStationary.fit(pictures, rank=5)),
}


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def make(description: dict) -> FlowPrior:
    """A small prior with random weights and its surrogate."""
    torch.manual_seed(0)
    flow, pictures = build_flow(description), rand(40, 3, 8, 8, seed=1)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter += 0.05 * torch.randn(parameter.shape)
    flow.initialise(pictures)
    name, fit = SURROGATES[next(key for key, flow in FLOWS.items() if flow is description)]
    card = {"flow": description, "surrogate": name, "licence": "none"}
    return FlowPrior(flow, fit(pictures), card)


@pytest.fixture(params=FLOWS)
def prior(request) -> FlowPrior:
    return make(FLOWS[request.param])


# Gaussian.


def gaussian() -> tuple[Gaussian, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    root = generator.standard_normal((24, 24))
    mean, covariance = generator.standard_normal(24), root @ root.T / 24 + 0.01 * np.eye(24)
    return Gaussian(torch.from_numpy(mean.reshape(2, 3, 4)), torch.from_numpy(covariance)), mean, covariance


def test_gaussian_energy_is_minus_the_log_density():
    prior, mean, covariance = gaussian()
    x = torch.from_numpy(np.random.default_rng(1).standard_normal((5, 2, 3, 4)))
    expected = -multivariate_normal(mean, covariance).logpdf(x.flatten(1).numpy())
    np.testing.assert_allclose(prior.energy(x).numpy(), expected, rtol=1e-10)
    assert prior.surrogate is prior
    assert gradcheck(prior.energy, x.requires_grad_(True))


# Flow priors: energy.


def test_energy_is_minus_the_log_density_of_the_flow(prior):
    x = rand(3, 3, 8, 8)
    assert torch.equal(prior.energy(x), -prior.flow.log_prob(x))
    assert torch.equal(prior.log_prob(x), prior.flow.log_prob(x))


def test_weights_are_constants_and_the_picture_has_a_gradient(prior):
    x = rand(2, 3, 8, 8).requires_grad_(True)
    gradient = torch.autograd.grad(prior.energy(x).sum(), x)[0]
    assert bool((gradient != 0).all())
    assert not any(parameter.requires_grad for parameter in prior.parameters())


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


@pytest.mark.parametrize("name", ["gaussian", "mixture"])
def test_closed_priors_are_pickled(name):
    exact, _, _ = gaussian()
    covariance = exact.root @ exact.root.T
    prior = exact if name == "gaussian" else Mixture(exact.mean[None], covariance[None], torch.ones(1))
    x = torch.rand(2, *exact.mean.shape, generator=torch.Generator().manual_seed(0)).double()
    before = prior.energy(x, 0.1), prior.surrogate.mean
    other = pickle.loads(pickle.dumps(prior))
    assert torch.equal(other.energy(x, 0.1), before[0]) and torch.equal(other.surrogate.mean, before[1])


@pytest.mark.parametrize("size", [(8, 8), (3, 5)], ids=str)
def test_the_transforms_of_torch_func_know_the_energy(prior, size):
    if size != (8, 8) and None not in prior.shape:
        pytest.skip("this prior is for one size")
    prior, x, v = prior.double(), rand(2, 3, *size).double(), rand(2, 3, *size, seed=1).double()
    energies, gradient = value_and_gradient(prior.energy, x)
    product = hessian_product(prior.energy, x)(v)

    def one(picture: Tensor) -> Tensor:
        return prior.energy(picture[None])[0]

    def total(x: Tensor) -> Tensor:
        return prior.energy(x).sum()

    found = {
        "grad": (torch.func.grad(total)(x), gradient),
        "vmap": (torch.func.vmap(one)(x), energies),
        "vmap of grad": (torch.func.vmap(torch.func.grad(one))(x), gradient),
        "jvp": (torch.func.jvp(total, (x,), (v,))[1], (gradient * v).sum()),
        "jvp of grad": (torch.func.jvp(torch.func.grad(total), (x,), (v,))[1], product),
        "hessian": (torch.einsum("bchwdefg,defg->bchw", torch.func.hessian(total)(x), v), product),
    }
    for name, (mine, expected) in found.items():
        torch.testing.assert_close(mine, expected, rtol=1e-8, atol=1e-8, msg=name)


def test_forward_mode_knows_the_energy(prior):
    prior, x, v = prior.double(), rand(2, 3, 8, 8).double(), rand(2, 3, 8, 8, seed=1).double()
    with forward_ad.dual_level():
        slope = forward_ad.unpack_dual(prior.energy(forward_ad.make_dual(x, v))).tangent
    expected = (value_and_gradient(prior.energy, x)[1] * v).sum((1, 2, 3))
    torch.testing.assert_close(slope, expected, rtol=1e-8, atol=1e-8)


# Flow priors: latents and samples.


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


def test_a_prior_in_float64_works_in_float64(prior):
    prior.double()
    assert prior.sample(1, size=(8, 8)).dtype == torch.float64
    assert prior.energy(rand(1, 3, 8, 8).double()).dtype == torch.float64


# Folders.


def test_a_saved_prior_differs_by_the_rounding_of_its_weights_alone(prior, tmp_path):
    x = rand(3, 3, 8, 8)
    before = prior.energy(x)
    prior.save(tmp_path / "prior")
    loaded = load_prior(tmp_path / "prior")
    # 11 bits of each weight: far less than a nat per entry, and not nothing.
    assert 0 < (loaded.energy(x) - before).abs().max() <= 0.01 * x[0].numel()
    for parameter in prior.flow.trained.parameters():
        parameter.copy_(parameter.half().float())
    rounded = FlowPrior(prior.flow.trained, prior.surrogate, prior.card)
    assert torch.equal(loaded.energy(x), rounded.energy(x))
    v = rand(2, 3, 8, 8)
    assert torch.equal(loaded.surrogate.precision(v), prior.surrogate.precision(v))
    assert torch.equal(loaded.surrogate.mean_like(v), prior.surrogate.mean_like(v))
    assert type(loaded.flow.trained) is type(prior.flow.trained) and loaded.shape == prior.shape
    assert {name: loaded.card[name] for name in prior.card} == prior.card


def test_loading_and_saving_again_changes_nothing(prior, tmp_path):
    prior.save(tmp_path / "one")
    load_prior(tmp_path / "one").save(tmp_path / "two")
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    x = rand(3, 3, 8, 8)
    assert torch.equal(load_prior(tmp_path / "one").energy(x), load_prior(tmp_path / "two").energy(x))


def test_energies_have_second_derivatives(prior):
    prior.double()
    x, step = rand(2, 3, 8, 8).double(), 1e-5 * rand(2, 3, 8, 8, seed=3).double()
    ahead, behind = (value_and_gradient(prior.energy, x + s * step)[1] for s in (1, -1))
    expected = (ahead - behind) / 2
    error = (hessian_product(prior.energy, x)(step) - expected).abs().max()
    assert error <= 1e-4 * expected.abs().max()


@pytest.mark.parametrize("name", ["no-such-prior", "folder/file"])
def test_unknown_priors_are_refused_by_name(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_text("not a folder")
    with pytest.raises(InputError, match=f"there is no prior {name}"):
        load_prior(name)


def test_unknown_families_are_refused_by_name():
    with pytest.raises(InputError, match="no flow family spline; use one of glow, realnvp, tarflow"):
        build_flow({**FIXED, "family": "spline"})


def rewrite(prior: FlowPrior, folder, **changes) -> None:
    """Save the prior with a consistent card that says something else."""
    FlowPrior(prior.flow.trained, prior.surrogate, {**prior.card, **changes}).save(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"flow": {**FIXED, "family": "spline"}},
        {"flow": {**FIXED, "levels": 1}},
        {"flow": {**FIXED, "hidden": 7}},
        {"flow": {**FIXED, "shape": [3, 16, 8]}},
        {"flow": {"family": "glow"}},
        {"flow": {**FIXED, "levels": "two"}},
        {"surrogate": "stationary"},
        {"surrogate": "other"},
    ],
    ids=["family", "levels", "hidden", "shape", "incomplete", "text", "wrong-surrogate", "no-surrogate"],
)
def test_cards_that_do_not_fit_their_tensors_are_refused(changes, tmp_path):
    rewrite(make(FIXED), tmp_path / "prior", **changes)
    with pytest.raises(CheckpointError, match="prior"):
        load_prior(tmp_path / "prior")


@pytest.mark.parametrize(
    ("name", "shape"), [("mean", (3, 4, 4)), ("loadings", (5, 192)), ("variances", (191,))], ids=str
)
def test_misshapen_surrogates_are_refused(name, shape, tmp_path):
    prior = make(FIXED)
    setattr(prior.surrogate, name, torch.zeros(shape))
    prior.save(tmp_path / "prior")
    with pytest.raises(CheckpointError, match=name):
        load_prior(tmp_path / "prior")


def test_surrogates_for_other_pictures_are_refused(tmp_path):
    prior = make(FIXED)
    prior.surrogate = LowRankGaussian.fit(rand(20, 3, 4, 4), rank=5)
    prior.save(tmp_path / "prior")
    with pytest.raises(CheckpointError, match=r"surrogate.*\(3, 4, 4\)"):
        load_prior(tmp_path / "prior")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_damaged_folders_are_refused(name, tmp_path):
    make(FIXED).save(tmp_path / "prior")
    path = tmp_path / "prior" / name
    data = bytearray(path.read_bytes())
    for position in np.linspace(0, len(data) - 1, 20, dtype=int):
        damaged = data.copy()
        damaged[position] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=name):
            load_prior(tmp_path / "prior")
    path.unlink()
    with pytest.raises(CheckpointError, match=name):
        load_prior(tmp_path / "prior")


def test_the_tensors_of_another_prior_are_refused(tmp_path):
    make(FIXED).save(tmp_path / "one")
    make(ANY).save(tmp_path / "two")
    shutil.copy(tmp_path / "two" / "model.safetensors", tmp_path / "one" / "model.safetensors")
    with pytest.raises(CheckpointError, match="checksum"):
        load_prior(tmp_path / "one")


def test_the_configuration_is_plain_json(tmp_path):
    make(FIXED).save(tmp_path / "prior")
    card = json.loads((tmp_path / "prior" / "config.json").read_text())
    assert card["flow"] == FIXED
    assert set(card["sha256"]) == {"config.json", "model.safetensors"}


@pytest.mark.parametrize("architecture", [FIXED, ANY], ids=["fixed", "any"])
def test_bytes_are_refused(architecture):
    with pytest.raises(InputError, match="uint8"):
        make(architecture).log_prob(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))


def mixture() -> priors.Mixture:
    generator = torch.Generator().manual_seed(3)
    roots = torch.randn(3, 4, 4, generator=generator, dtype=torch.float64)
    covariances = roots @ roots.mT + 0.1 * torch.eye(4, dtype=torch.float64)
    means = torch.randn(3, 1, 2, 2, generator=generator, dtype=torch.float64)
    return priors.Mixture(means, covariances, torch.tensor([1.0, 2.0, 5.0], dtype=torch.float64))


@pytest.mark.parametrize("tau", [0.0, 0.7])
def test_a_mixtures_energy_is_that_of_torch(tau):
    prior = mixture()
    covariances = prior.vectors @ torch.diag_embed(prior.values + tau**2) @ prior.vectors.mT
    components = torch.distributions.MultivariateNormal(prior.means.flatten(1), covariances)
    weights = torch.distributions.Categorical(prior.log_weights.exp())
    expected = torch.distributions.MixtureSameFamily(weights, components)
    x = torch.randn(5, 1, 2, 2, dtype=torch.float64)
    assert torch.allclose(prior.energy(x, tau), -expected.log_prob(x.flatten(1)), rtol=1e-10)


def test_a_mixtures_surrogate_has_its_moments():
    prior = mixture()
    weights, means = prior.log_weights.exp(), prior.means.flatten(1)
    second = sum(
        w * (v @ torch.diag(e) @ v.T + m[:, None] * m)
        for w, v, e, m in zip(weights, prior.vectors, prior.values, means, strict=True)
    )
    mean = weights @ means
    surrogate = prior.surrogate
    assert torch.allclose(surrogate.mean.flatten(), mean)
    assert torch.allclose(surrogate.root @ surrogate.root.T, second - mean[:, None] * mean)


def test_a_smoothed_gaussian_is_wider():
    mean, covariance = torch.zeros(1, 1, 2, dtype=torch.float64), torch.eye(2, dtype=torch.float64)
    wide = priors.Gaussian(mean, 1.25 * covariance)
    x = torch.randn(4, 1, 1, 2, dtype=torch.float64)
    assert torch.allclose(priors.Gaussian(mean, covariance).energy(x, tau=0.5), wide.energy(x))


def test_a_mixture_whose_parts_do_not_fit_is_refused():
    with pytest.raises(InputError, match="do not fit"):
        priors.Mixture(torch.zeros(2, 1, 1, 2), torch.eye(2)[None], torch.ones(2))
