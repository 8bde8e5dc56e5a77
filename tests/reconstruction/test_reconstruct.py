"""The main function: every way to choose the weight, and results that do not depend on the batch."""

import math
from copy import deepcopy
from dataclasses import fields, replace

import pytest
import torch
from closed_form import (
    OPERATORS,
    Counted,
    WithoutSurrogate,
    WithSurrogate,
    gaussian_prior,
    measurement,
    minimiser,
    relative,
)
from torch import Tensor

from aipo import priors
from aipo import reconstruct as public_reconstruct
from aipo.basics.errors import InputError, Status
from aipo.flows import Glow
from aipo.gaussian import LowRankGaussian, StationaryGaussian
from aipo.likelihoods import Gaussian, measure
from aipo.operators import GaussianSensing, Identity, LinearOperator, Mask, block_mask
from aipo.path.objective import objective
from aipo.path.options import PathOptions
from aipo.path.predictors import cold, warm
from aipo.path.schedules import geometric, paper
from aipo.path.solvers.descent import GradientDescent
from aipo.path.solvers.lbfgs import LBFGS
from aipo.path.state import State
from aipo.posterior.langevin import Draw, LangevinOptions
from aipo.priors import FlowPrior
from aipo.reconstruction.follow import PATIENCE, trace
from aipo.reconstruction.reconstruct import reconstruct
from aipo.reconstruction.result import Reconstruction
from aipo.selection.components import EVERYWHERE, places
from aipo.selection.criteria import Discrepancy, Sure
from aipo.selection.defaults import path_to_minima
from aipo.selection.mixture import mixture

SHAPE = (3, 8, 8)
SHORT = PathOptions(geometric(0.1, 8.0, 4), evaluations=5, tolerance=1e-3)
EXACTLY = PathOptions(geometric(0.1, 12.0, 8), evaluations=20, tolerance=1e-9)
FLOW_OPERATORS: dict[str, LinearOperator] = {
    "denoising": Identity(SHAPE),
    "inpainting": Mask(torch.arange(64).reshape(1, 8, 8) % 3 > 0, channels=3),
    "sensing": GaussianSensing(SHAPE, 60, seed=0),
}
flow_operators = pytest.mark.parametrize("operator", FLOW_OPERATORS.values(), ids=FLOW_OPERATORS)
choices = pytest.mark.parametrize("weight", [0.7, "bayes", "auto", "sure", "discrepancy", "l-curve"])
single_choices = pytest.mark.parametrize("weight", [0.7, "bayes", "sure", "discrepancy", "l-curve"])


def pictures(count: int, seed: int) -> Tensor:
    """Smooth ones: every entry near its neighbours."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 3, 3, generator=generator)
    fine = torch.nn.functional.interpolate(coarse, size=(8, 8), mode="bilinear", align_corners=True)
    return fine + 0.02 * torch.randn(fine.shape, generator=generator)


def glow_prior() -> FlowPrior:
    """A Glow with random couplings, which no closed form describes."""
    torch.manual_seed(0)
    flow = Glow(SHAPE, levels=2, steps=1, hidden=4)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    flow.initialise(pictures(64, seed=1))
    return FlowPrior(flow, LowRankGaussian.fit(pictures(256, seed=2), rank=24), {})


def any_size_prior() -> FlowPrior:
    flow = Glow((3, None, None), levels=2, steps=1, hidden=4)
    return FlowPrior(flow, StationaryGaussian.fit(pictures(256, seed=2)), {})


PRIOR = glow_prior()


def noisy(operator: LinearOperator, count: int = 4, sigma: float = 0.1) -> Gaussian:
    return measure(operator, pictures(count, seed=3), sigma, torch.Generator().manual_seed(4))


def single(likelihood: Gaussian, image: int) -> Gaussian:
    return likelihood.select(torch.tensor([image]))


# The weight.


@pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS)
@pytest.mark.parametrize("weight", [0.05, 0.7, 1.0, 30])
def test_a_fixed_weight_gives_its_minimiser(operator, weight):
    prior = gaussian_prior()
    likelihood = measurement(operator, prior)
    found = reconstruct(likelihood, prior, weight, EXACTLY)
    assert found.weight.tolist() == [float(weight)] * 3
    assert relative(found.image, minimiser(likelihood, prior, weight)) < 1e-5
    assert found.criterion == "fixed"
    assert found.values.isnan().all() and found.values.shape == (len(found.path), 3)
    assert found.status == [Status.CONVERGED] * 3


@pytest.mark.parametrize("weight", [0.7, "auto", "discrepancy"])
def test_a_falling_path_finds_what_a_rising_one_does(weight):
    """Where every point is the minimiser, it does not matter from where it was reached."""
    prior = gaussian_prior()
    likelihood = measurement(OPERATORS["sensing"], prior)
    weights = geometric(0.05, 16.0, 12)[1:]
    rising, falling = (
        reconstruct(likelihood, prior, weight, replace(EXACTLY, weights=each))
        for each in (weights, weights[::-1])
    )
    assert rising.weight.tolist() == pytest.approx(falling.weight.tolist())
    assert relative(falling.image, rising.image) < 1e-4


def test_a_fixed_weight_ends_the_path_there():
    options = replace(SHORT, weights=(0.0, 0.1, 0.3, 4.0))
    found = reconstruct(noisy(FLOW_OPERATORS["denoising"]), PRIOR, 0.3, options)
    assert torch.stack([state.weight[0] for state in found.path]).tolist() == pytest.approx([0, 0.1, 0.3])


def test_bayes_is_the_weight_one():
    likelihood = noisy(FLOW_OPERATORS["inpainting"])
    bayes, one = (reconstruct(likelihood, PRIOR, weight, SHORT) for weight in ("bayes", 1.0))
    assert torch.equal(bayes.image, one.image)
    assert bayes.weight.tolist() == [1.0] * 4


@pytest.mark.parametrize(
    ("task", "criterion"), [("inpainting", "sure"), ("denoising", "sure"), ("sensing", "discrepancy")]
)
def test_auto_mixes_the_states_that_its_criterion_judged(task, criterion):
    """With so much noise that one probe of 192 values tells enough of a map's divergence."""
    likelihood = noisy(FLOW_OPERATORS[task], sigma=0.2)
    options = replace(SHORT, weights=geometric(0.1, 8.0, 12))
    auto, single = (reconstruct(likelihood, PRIOR, weight, options) for weight in ("auto", criterion))
    assert auto.criterion == single.criterion == criterion
    assert torch.equal(auto.weight, single.weight) and torch.equal(auto.chosen, single.chosen)
    assert (auto.shares >= 0).all() and torch.allclose(auto.shares.sum(0), torch.ones(auto.shares.shape[1:]))
    assert (auto.shares > 0.01).sum(0).max() > 1, "nothing was mixed"
    assert (auto.shares[0] == 0)[auto.chosen > 0].all(), "λ = 0 is no candidate unless it is the best"
    states = torch.stack([state.x for state in auto.path])
    where = EVERYWHERE if task == "sensing" else places(single.image)
    assert auto.shares.shape[3] == where.shape[1]
    assert torch.equal(auto.image, mixture(states, auto.shares, where))
    assert torch.equal(mixture(states, single.shares), single.image)


@pytest.mark.parametrize("weight", [0, 0.0, -1, math.nan, math.inf, -math.inf, "foo", "", "1.0"])
def test_other_weights_are_refused(weight):
    with pytest.raises(InputError, match="weight = "):
        reconstruct(noisy(FLOW_OPERATORS["denoising"]), PRIOR, weight, SHORT)


@flow_operators
@pytest.mark.parametrize("name", ["sure", "discrepancy"])
def test_the_state_chosen_is_the_best_one_visited(operator, name):
    likelihood = noisy(operator)
    criterion = {"sure": Sure, "discrepancy": Discrepancy}[name](likelihood)
    found = reconstruct(likelihood, PRIOR, name, SHORT)
    weights = torch.tensor(SHORT.weights)
    assert found.criterion == name
    assert found.values.shape == (len(found.path), 4)
    best = found.values.argmin(0)
    for image, index in enumerate(best.tolist()):
        state = found.path[index]
        assert torch.equal(found.image[image], state.x[image])
        assert found.weight[image] == state.weight[image]
        assert torch.isclose(found.weight[image], weights).any()
    if name == "discrepancy":
        assert torch.allclose(found.values.min(0).values, criterion(found.image), rtol=1e-4)


def test_sure_chooses_nearly_as_well_as_the_truth():
    """Many pictures, of 144 entries each, under the right Gaussian prior."""
    generator = torch.Generator().manual_seed(0)
    places = torch.cartesian_prod(torch.arange(12.0), torch.arange(12.0))
    covariance = 0.05 * torch.exp(-torch.cdist(places, places).double() / 3)
    prior = priors.Gaussian(torch.zeros(1, 12, 12, dtype=torch.float64), covariance)
    truth = prior.factor(torch.randn(32, 144, generator=generator, dtype=torch.float64))
    found = reconstruct(measure(Identity((1, 12, 12)), truth, 0.2, generator), prior, "sure", EXACTLY)
    best, *_, worst = sorted(float(((state.x - truth) ** 2).mean()) for state in found.path)
    chosen = float(((found.image - truth) ** 2).mean())
    assert chosen < best + 0.1 * (worst - best)
    assert found.weight.std() > 0, "each picture has a weight of its own"


def test_the_path_stops_where_the_criterion_has_passed_its_best_for_every_image():
    prior = gaussian_prior()
    options = PathOptions(geometric(0.1, 1e4, 12))
    found = reconstruct(measurement(OPERATORS["denoising"], prior), prior, "discrepancy", options)
    assert 3 <= len(found.path) < len(options.weights)
    assert (len(found.path) - 1 - found.values.argmin(0)).min() == PATIENCE


# The result.


@flow_operators
@choices
def test_the_fields_agree_with_the_public_objects(operator, weight):
    likelihood = noisy(operator)
    found = reconstruct(likelihood, PRIOR, weight, SHORT)
    data, prior = likelihood(found.image), PRIOR.energy(found.image)
    assert torch.allclose(found.data_energy, data, rtol=1e-4, atol=1e-2)
    assert torch.allclose(found.prior_energy, prior, rtol=1e-4, atol=1e-2)
    assert torch.allclose(found.objective, data + found.weight * prior, rtol=1e-4, atol=1e-2)
    for field in fields(State):
        value = getattr(found.path[-1], field.name)
        assert not isinstance(value, Tensor) or len(value) == 4, f"{field.name} counts the criterion's copies"
    assert len(found.status) == len(found.image) == len(found.evaluations) == 4
    assert all(isinstance(status, Status) for status in found.status)
    assert not found.image.requires_grad


@choices
def test_the_evaluations_reported_are_the_priors(weight):
    counted = Counted(PRIOR)
    found = reconstruct(noisy(FLOW_OPERATORS["sensing"]), counted, weight, SHORT)
    assert int(found.evaluations.sum()) == counted.images
    copies = 2 if weight == "sure" else 1
    assert (found.path[0].evaluations * copies <= found.evaluations).all()


@single_choices
def test_no_search_ends_above_its_start(weight):
    """Gate 6: the closed-form picture at the chosen weight is where a cold path begins."""
    likelihood = noisy(FLOW_OPERATORS["inpainting"])
    found = reconstruct(likelihood, PRIOR, weight, replace(SHORT, predictor=cold))
    start = likelihood(found.start) + found.weight * PRIOR.energy(found.start)
    assert (found.objective <= start + 1e-4 * start.abs()).all()
    assert (found.objective < start - 1).any(), "there was something to gain"


@pytest.mark.parametrize("weight", [0.7, "sure"])
def test_start_is_the_closed_form_at_the_chosen_weight(weight):
    prior = gaussian_prior()
    likelihood = measurement(OPERATORS["sensing"], prior)
    found = reconstruct(likelihood, prior, weight, EXACTLY)
    for i in range(3):
        chosen = max(float(found.weight[i]), 1e-4)
        assert relative(found.start[i : i + 1], minimiser(single(likelihood, i), prior, chosen)) < 1e-6


@choices
def test_every_state_is_shown_to_the_watcher(weight):
    seen: list[State | Draw] = []
    found = reconstruct(noisy(FLOW_OPERATORS["denoising"]), PRIOR, weight, SHORT, seen.append)
    assert [state.index for state in seen] == [state.index for state in found.path] == list(range(len(seen)))
    assert all(torch.equal(a.x[:4], b.x) for a, b in zip(seen, found.path, strict=True))


def test_every_draw_is_shown_to_the_watcher():
    seen: list[State | Draw] = []
    reconstruct(single(noisy(FLOW_OPERATORS["denoising"]), 0), PRIOR, "mean", watch=seen.append)
    assert [draw.index for draw in seen] == list(range(LangevinOptions().evaluations))


def test_the_package_offers_it():
    assert public_reconstruct is reconstruct


# Gates 7 and 8.


def identical(a: Reconstruction, b: Reconstruction) -> bool:
    tensors = [field.name for field in fields(Reconstruction) if isinstance(getattr(a, field.name), Tensor)]
    same = all(torch.equal(getattr(a, n).nan_to_num(), getattr(b, n).nan_to_num()) for n in tensors)
    return same and a.status == b.status


@choices
def test_a_repetition_is_identical_to_the_bit(weight):
    likelihood = noisy(FLOW_OPERATORS["inpainting"])
    torch.manual_seed(1)
    first = reconstruct(likelihood, PRIOR, weight, SHORT)
    torch.manual_seed(2)
    assert identical(first, reconstruct(noisy(FLOW_OPERATORS["inpainting"]), PRIOR, weight, SHORT))


@flow_operators
@pytest.mark.parametrize("weight", [0.7, "auto", "sure", "discrepancy", "l-curve"])
def test_a_batch_gives_what_batches_of_one_give(operator, weight):
    """In float64, where nothing but rounding of 1e-16 can differ, converged or not."""
    prior, likelihood = deepcopy(PRIOR).double(), noisy(operator)
    likelihood = Gaussian(operator, likelihood.y.double(), likelihood.sigma.double())
    batch = reconstruct(likelihood, prior, weight, SHORT)
    for i in range(4):
        alone = reconstruct(single(likelihood, i), prior, weight, SHORT)
        assert alone.status == [batch.status[i]]
        assert alone.weight[0] == batch.weight[i]
        assert (alone.image[0] - batch.image[i]).abs().max() <= 1e-8


@flow_operators
def test_a_batch_gives_what_batches_of_one_give_in_single_precision(operator):
    """Bit by bit: gate 8 allows 1e-3, but what differs at all is amplified by the next solver or prior."""
    likelihood = noisy(operator)
    batch = reconstruct(likelihood, PRIOR, "auto", replace(SHORT, evaluations=100))
    for i in range(4):
        alone = reconstruct(single(likelihood, i), PRIOR, "auto", replace(SHORT, evaluations=100))
        assert torch.equal(alone.image[0], batch.image[i])


def test_the_order_of_the_batch_does_not_matter():
    likelihood, order = noisy(FLOW_OPERATORS["denoising"]), torch.tensor([2, 0, 3, 1])
    found = reconstruct(likelihood, PRIOR, "sure", SHORT)
    other = reconstruct(likelihood.select(order), PRIOR, "sure", SHORT)
    assert torch.equal(other.image, found.image[order])
    assert torch.equal(other.weight, found.weight[order])


# What a prior may lack, or do.


@choices
def test_a_prior_without_a_surrogate_starts_from_the_measurement(weight):
    """Every state lowers F from there. A mixture of them promises no lower F, only a picture that fits."""
    prior = WithoutSurrogate(gaussian_prior())
    likelihood = measurement(OPERATORS["denoising"], gaussian_prior())
    found = reconstruct(likelihood, prior, weight, SHORT)
    assert torch.equal(found.start, likelihood.y)
    data, energy = likelihood(likelihood.y), prior.energy(likelihood.y)
    gained = torch.stack([data + state.weight * energy - state.objective for state in found.path])
    assert (gained >= -1e-9 * data.abs()).all() and gained.max() > 1
    assert torch.isfinite(found.objective).all() and (likelihood.misfit(found.image) < 2).all()


class Broken(WithSurrogate):
    """NaN for bright pictures."""

    def energy(self, x: Tensor) -> Tensor:
        return torch.where(x.flatten(1).mean(1) > 2, torch.nan, super().energy(x))


@pytest.mark.filterwarnings("ignore:y reaches")
@choices
def test_an_image_that_diverges_says_so_and_spoils_no_other(weight):
    prior = gaussian_prior()
    likelihood = measurement(OPERATORS["denoising"], prior)
    likelihood.y[1] += 5
    found, healthy = (reconstruct(likelihood, p, weight, SHORT) for p in (Broken(prior, prior), prior))
    assert found.status[1] == Status.DIVERGED
    assert [found.status[i] for i in (0, 2)] == [healthy.status[i] for i in (0, 2)]
    assert torch.allclose(found.image[[0, 2]], healthy.image[[0, 2]], atol=1e-8)


@single_choices
def test_the_papers_path_with_every_choice_of_weight(weight):
    prior = gaussian_prior()
    likelihood = measurement(OPERATORS["denoising"], prior, sigma=0.1)
    found = reconstruct(likelihood, prior, weight, paper(last=2.0, count=4, steps=20))
    assert found.path[0].weight.tolist() == [0.0] * 3
    assert torch.equal(found.path[0].x, likelihood.y)
    for i in range(3):
        if found.weight[i] > 0:
            expected = minimiser(single(likelihood, i), prior, float(found.weight[i]))
            assert relative(found.image[i : i + 1], expected) < 1e-5


def test_large_batches_are_evaluated_in_chunks(monkeypatch):
    likelihood = noisy(FLOW_OPERATORS["denoising"])
    whole = reconstruct(likelihood, PRIOR, 0.7, SHORT)
    monkeypatch.setattr("aipo.path.objective.LARGEST_CHUNK", 200)
    sizes: list[int] = []

    class Chunked(WithSurrogate):
        def energy(self, x: Tensor) -> Tensor:
            sizes.append(len(x))
            return super().energy(x)

    chunked = reconstruct(likelihood, Chunked(PRIOR, PRIOR.surrogate), 0.7, SHORT)
    assert set(sizes) == {1}
    assert (chunked.image - whole.image).abs().max() <= 1e-3


def test_trace_is_the_path_that_reconstruct_follows():
    likelihood = noisy(FLOW_OPERATORS["sensing"])
    options = replace(SHORT, weights=(0.0, 0.3, 1.0), solver=GradientDescent(0.3))
    states, found = list(trace(likelihood, PRIOR, options)), reconstruct(likelihood, PRIOR, 1.0, options)
    assert all(torch.equal(a.x, b.x) for a, b in zip(states, found.path, strict=True))


def test_the_usual_path_follows_from_what_prior_and_operator_are():
    complete = Mask(torch.ones(1, 8, 8, dtype=torch.bool), channels=3)
    hole = block_mask((3, 8, 8), 6)
    for prior in (gaussian_prior(), any_size_prior(), PRIOR):
        assert path_to_minima(hole, prior).stiffness > 1 or path_to_minima(hole, prior).metric == "data"
        for operator in (FLOW_OPERATORS["denoising"], FLOW_OPERATORS["sensing"], complete):
            assert path_to_minima(operator, prior).stiffness == 1
    for operator in FLOW_OPERATORS.values():
        assert (
            path_to_minima(operator, PRIOR).evaluations
            > path_to_minima(operator, any_size_prior()).evaluations
        )


def test_the_usual_path_is_what_is_followed():
    operator = FLOW_OPERATORS["inpainting"]
    likelihood = measure(operator, pictures(1, 0), 0.05, torch.Generator().manual_seed(0))
    usual, said = (reconstruct(likelihood, PRIOR, 1.0, o) for o in (None, path_to_minima(operator, PRIOR)))
    assert torch.equal(usual.image, said.image)


LATENT = PathOptions(
    (0.0, 0.5, 1.0), warm, LBFGS(memory=40, first_step=1e-3), 400, 1e-6, coordinates="latents"
)


def test_both_coordinates_find_the_same_minimum():
    single_precision, prior = noisy(FLOW_OPERATORS["denoising"]), deepcopy(PRIOR).double()
    likelihood = Gaussian(single_precision.operator, single_precision.y.double(), 0.1)
    inside = reconstruct(likelihood, prior, 1.0, LATENT)
    outside = reconstruct(likelihood, prior, 1.0, PathOptions((0.5, 1.0), evaluations=400, tolerance=1e-8))
    assert inside.status == [Status.CONVERGED] * len(likelihood)
    assert torch.allclose(inside.objective, outside.objective, atol=1e-3)
    assert torch.allclose(inside.image, outside.image, atol=1e-3)
    assert torch.allclose(inside.objective, likelihood(inside.image) + prior.energy(inside.image))


def test_states_and_start_of_a_path_over_latents_are_pictures():
    likelihood, prior = noisy(FLOW_OPERATORS["inpainting"]), PRIOR
    found = reconstruct(likelihood, prior, 1.0, replace(LATENT, evaluations=2))
    for state in found.path:
        assert torch.allclose(state.data_energy, likelihood(state.x), rtol=1e-4)
        assert torch.allclose(state.prior_energy, prior.energy(state.x), rtol=1e-4)
    closed = objective(likelihood, prior).start(found.weight)
    assert torch.allclose(found.start, closed, atol=1e-4)
    with pytest.raises(InputError, match="coordinates = pictures"):
        _ = found.certificate


def test_latents_need_a_flow_and_sides_it_divides():
    with pytest.raises(InputError, match="Gaussian has no latents"):
        trace(measurement(OPERATORS["denoising"], gaussian_prior()), gaussian_prior(), LATENT)
    odd = measure(Identity((3, 9, 8)), torch.full((1, 3, 9, 8), 0.5), 0.1)
    with pytest.raises(InputError, match="9 × 8"):
        trace(odd, any_size_prior(), LATENT)


def test_the_discrepancy_principle_goes_on_while_the_residual_is_below_the_noise(monkeypatch):
    """A residual far below the noise may shrink by chance for a while; that is not its minimum passed."""
    ratios = iter([0.5, 0.3, 0.3, 0.3, 0.3, 0.3, 1.1, 2.0, 2.0, 2.0])
    seen = []

    def value(self, x):
        seen.append(next(ratios))
        return torch.tensor([abs(seen[-1] - 1)])

    monkeypatch.setattr(Discrepancy, "__call__", value)
    monkeypatch.setattr(Discrepancy, "early", lambda self, x: torch.tensor([seen[-1] < 1]))
    likelihood = single(noisy(FLOW_OPERATORS["sensing"]), 0)
    path = PathOptions(geometric(0.1, 8.0, 10), evaluations=1, tolerance=1e-3)
    found = reconstruct(likelihood, PRIOR, "discrepancy", path)
    assert int(found.chosen[0]) == 6 and len(found.path) == 7 + PATIENCE


def test_the_report_says_what_was_asked_for():
    likelihood = measure(Identity((1, 4, 4)), torch.full((1, 1, 4, 4), 0.5), 0.1)
    prior = priors.Gaussian(torch.full((1, 4, 4), 0.5), 0.04 * torch.eye(16))
    for weight, words in (
        (0.7, "λ ends at 0.7"),
        ("sure", "smallest estimated error (SURE)"),
        ("discrepancy", "residual is as large as the noise"),
        ("l-curve", "corner"),
        ("mean", "posterior mean"),
    ):
        reason = reconstruct(likelihood, prior, weight).reason
        assert words in reason and "asked for" in reason
