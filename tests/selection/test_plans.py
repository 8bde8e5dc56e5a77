"""Equal problems get equal plans and equal pictures, however they are spelled; a plan says what it does."""

import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest
import torch
from closed_form import OPERATORS, Counted, gaussian_prior, measurement
from skimage import data
from torch import Tensor

from aipo import load_prior, reconstruct, sample, trace
from aipo.basics.errors import InputError
from aipo.likelihoods import Coloured, Gaussian, Heteroscedastic, Laplace, Likelihood, Poisson
from aipo.operators import (
    Blur,
    Composition,
    Downsampling,
    Filter,
    FourierMask,
    GaussianSensing,
    Grey,
    Identity,
    LinearOperator,
    Mask,
    Operator,
    Radon,
    Stack,
    block_mask,
    cartesian_mask,
    gamma_curve,
    gaussian_kernel,
    random_mask,
)
from aipo.path.options import PathOptions, ending
from aipo.path.schedules import gaussian_to_prior, geometric, paper, smoothing
from aipo.posterior.langevin import LangevinOptions
from aipo.priors import FlowPrior, Foreign, Prior
from aipo.reconstruction.result import Reconstruction
from aipo.selection import Plan, plan
from aipo.selection.defaults import path_to_minima

SHAPE = (3, 16, 16)
ALL = torch.ones(SHAPE, dtype=torch.bool)
SIGMA = 0.1
WEIGHTS = [0.5, "bayes", "auto", "mean", "sure", "discrepancy", "l-curve"]
SHORT = PathOptions(geometric(0.1, 8.0, 4), evaluations=5, tolerance=1e-3)
FEW = LangevinOptions(evaluations=60, burn_in=20)


@cache
def photos() -> FlowPrior:
    return load_prior("photos")


def photograph(side: int = 16) -> Tensor:
    """The astronaut's eye and hair."""
    picture = data.astronaut()[20 : 20 + side, 190 : 190 + side] / 255
    return torch.from_numpy(picture).permute(2, 0, 1)[None].float()


def measured(operator: Operator, side: int = 16) -> Tensor:
    clean = operator(photograph(side))
    return clean + SIGMA * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))


class Copied(LinearOperator):
    """A user's own identity."""

    shape = measurement_shape = SHAPE

    def forward(self, x: Tensor) -> Tensor:
        return x * 1.0

    def adjoint(self, y: Tensor) -> Tensor:
        return y * 1.0


class Backwards(LinearOperator):
    """A user's own mask, which reads the measured entries from the last one to the first."""

    def __init__(self, mask: Mask):
        self.mask, self.shape, self.measurement_shape = mask, mask.shape, mask.measurement_shape

    def forward(self, x: Tensor) -> Tensor:
        return self.mask.forward(x).flip(1)

    def adjoint(self, y: Tensor) -> Tensor:
        return self.mask.adjoint(y.flip(1))


class Sensed(LinearOperator):
    """A user's own product with a matrix."""

    def __init__(self, matrix: Tensor):
        self.matrix, self.shape, self.measurement_shape = matrix, SHAPE, (len(matrix),)

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.matrix.T.to(x)

    def adjoint(self, y: Tensor) -> Tensor:
        return (y @ self.matrix.to(y)).unflatten(1, SHAPE)


class Blurred(LinearOperator):
    """A user's own blur, which tells nothing but what it does."""

    def __init__(self, blur: Blur):
        self.blur, self.shape, self.measurement_shape = blur, blur.shape, blur.measurement_shape

    def forward(self, x: Tensor) -> Tensor:
        return self.blur.forward(x)

    def adjoint(self, y: Tensor) -> Tensor:
        return self.blur.adjoint(y)


def each(sigma: float, y: Tensor) -> Tensor:
    """σ of every measured value, the same for all."""
    return torch.full_like(y, sigma)


def denoising() -> dict[str, Likelihood]:
    y, one = measured(Identity(SHAPE)), torch.zeros(3, 3)
    one[1, 1] = 1
    flat, both = y.flatten(1), Composition(Identity(SHAPE), Mask(ALL))
    return {
        "identity": Gaussian(Identity(SHAPE), y, SIGMA),
        "σ of each image": Gaussian(Identity(SHAPE), y, torch.tensor([SIGMA])),
        "full mask": Gaussian(Mask(ALL), flat, SIGMA),
        "σ of each value": Heteroscedastic(Identity(SHAPE), y, each(SIGMA, y)),
        "σ of each value, composition, mask": Heteroscedastic(both, flat, each(SIGMA, flat)),
        "composition": Gaussian(Composition(Identity(SHAPE)), y, SIGMA),
        "composition with a mask": Gaussian(both, flat, SIGMA),
        "stack": Gaussian(Stack(Identity(SHAPE)), flat, SIGMA),
        "delta kernel": Gaussian(Blur(SHAPE, one), y, SIGMA),
        "filter of ones": Gaussian(Filter(SHAPE, torch.ones(16, 9)), y, SIGMA),
        "pixels as they are": Gaussian(Downsampling(SHAPE, 1), y, SIGMA),
        "own": Gaussian(Copied(), y, SIGMA),
        "own, backwards": Gaussian(Backwards(Mask(ALL)), flat.flip(1), SIGMA),
        "flat spectrum": Coloured(Identity(SHAPE), y, torch.full((16, 16), SIGMA**2)),
    }


def inpainting() -> dict[str, Likelihood]:
    hole = block_mask(SHAPE, 6)
    y, both = measured(hole), Composition(Identity(SHAPE), hole)
    return {
        "mask": Gaussian(hole, y, SIGMA),
        "composition": Gaussian(both, y, SIGMA),
        "stack": Gaussian(Stack(both), y, SIGMA),
        "σ of each value": Heteroscedastic(hole, y, each(SIGMA, y)),
        "own, backwards": Heteroscedastic(Backwards(hole), y.flip(1), each(SIGMA, y)),
    }


def sensing() -> dict[str, Likelihood]:
    a = GaussianSensing(SHAPE, 200)
    y = measured(a)
    return {
        "sensing": Gaussian(a, y, SIGMA),
        "composition": Gaussian(Composition(Identity(SHAPE), a), y, SIGMA),
        "stack": Gaussian(Stack(a), y, SIGMA),
        "stack of a composition": Gaussian(Stack(Composition(Copied(), a)), y, SIGMA),
        "σ of each value": Heteroscedastic(a, y, each(SIGMA, y)),
    }


def deblurring() -> dict[str, Likelihood]:
    a = Blur(SHAPE, gaussian_kernel(0.5))
    y = measured(a)
    return {
        "blur": Gaussian(a, y, SIGMA),
        "filter": Gaussian(Filter(SHAPE, a.transfer), y, SIGMA),
        "own": Gaussian(Blurred(a), y, SIGMA),
        "composition": Gaussian(Composition(Copied(), a, Identity(SHAPE)), y, SIGMA),
        "stack": Gaussian(Stack(a), y.flatten(1), SIGMA),
        "σ of each value": Heteroscedastic(a, y, each(SIGMA, y)),
        "flat spectrum": Coloured(a, y, torch.full((16, 16), SIGMA**2)),
    }


PROBLEMS: dict[str, Callable[[], dict[str, Likelihood]]] = {
    "denoising": denoising,
    "inpainting": inpainting,
    "sensing": sensing,
    "deblurring": deblurring,
}
SPELLINGS = [(task, name) for task, spelled in PROBLEMS.items() for name in spelled()]
every_task = pytest.mark.parametrize("task", PROBLEMS)


def few(likelihood: Likelihood) -> PathOptions:
    """The path to minima for an operator, with few evaluations at every weight."""
    return replace(path_to_minima(likelihood.simplest().operator, photos()), evaluations=3)


@cache
def first(task: str) -> tuple[Plan, Plan, Reconstruction]:
    """The plainest spelling: its plan, that along its path, and the picture of that path."""
    likelihood = next(iter(PROBLEMS[task]().values()))
    options = few(likelihood)
    along = plan(likelihood, photos(), options=options)
    return plan(likelihood, photos()), along, reconstruct(likelihood, photos(), options=options)


def same_plan(own: Plan, planned: Plan) -> None:
    assert own.options == planned.options and own.reason == planned.reason
    assert own.criterion.name == planned.criterion.name and type(own.combine) is type(planned.combine)
    assert type(own.guard) is type(planned.guard) and own.weight == planned.weight


def same(likelihood: Likelihood, prior: Prior, task: str) -> None:
    planned, along, expected = first(task)
    options = few(likelihood)
    if hasattr(prior, "denoise") or task != "denoising":  # a foreign density does not know noise
        same_plan(plan(likelihood, prior), planned)
    same_plan(plan(likelihood, prior, options=options), along)
    found = reconstruct(likelihood, prior, options=options)
    assert found.reason == expected.reason
    torch.testing.assert_close(found.image, expected.image, rtol=0, atol=1e-5)
    torch.testing.assert_close(found.weight, expected.weight)
    torch.testing.assert_close(found.data_energy, expected.data_energy, rtol=1e-5, atol=1e-2)
    assert torch.equal(found.evaluations, expected.evaluations)


@pytest.mark.parametrize(("task", "name"), SPELLINGS, ids=lambda part: str(part))
def test_a_problem_is_restored_alike_however_it_is_spelled(task, name):
    same(PROBLEMS[task]()[name], photos(), task)


@every_task
def test_the_same_density_of_another_package_restores_alike(task):
    likelihood = next(iter(PROBLEMS[task]().values()))
    same(likelihood, Foreign(photos().log_prob, surrogate=photos().surrogate), task)


@every_task
def test_a_problem_is_restored_alike_by_default(task):
    """The last spelling as the first one."""
    spelled = list(PROBLEMS[task]().values())
    found, other = (reconstruct(likelihood, photos()) for likelihood in (spelled[0], spelled[-1]))
    assert found.reason == other.reason
    torch.testing.assert_close(found.image, other.image, rtol=0, atol=1e-3)


def test_a_matrix_of_ones_own_is_planned_as_the_sensing_that_it_is():
    sensed = PROBLEMS["sensing"]()["sensing"]
    assert isinstance(sensed.operator, GaussianSensing)
    own = Gaussian(Sensed(sensed.operator.matrix), sensed.y, SIGMA)
    planned, along, _ = first("sensing")
    assert few(own) == few(sensed)
    same_plan(plan(own, photos()), planned)
    same_plan(plan(own, photos(), options=few(own)), along)


def test_the_tasks_differ():
    """Or the tests above would say nothing."""
    plans = [first(task)[1] for task in PROBLEMS]
    assert len({str(planned.options) for planned in plans}) == 3
    assert [planned.criterion.name for planned in plans] == ["sure", "sure", "discrepancy", "sure"]


# Nearly equal problems.


def entries(channels: slice) -> Tensor:
    mask = ALL.clone()
    mask[channels, 8, 8] = False
    return mask


@pytest.mark.parametrize("channels", [slice(None), slice(1, 2)], ids=["pixel", "entry"])
@pytest.mark.parametrize("weight", ["auto", "sure", "discrepancy", 0.5])
def test_one_lost_value_changes_no_plan(channels, weight):
    mask = Mask(entries(channels))
    own = plan(Gaussian(mask, measured(mask), SIGMA), photos(), weight)
    planned = plan(PROBLEMS["denoising"]()["identity"], photos(), weight)
    assert own.options == planned.options and own.reason == planned.reason


@pytest.mark.parametrize("channels", [slice(None), slice(1, 2)], ids=["pixel", "entry"])
def test_one_lost_value_changes_little_elsewhere(channels):
    """Gate 27: the error at all other entries by 0.05 dB at most."""
    identity, y, kept = Identity(SHAPE), measured(Identity(SHAPE)), entries(channels)
    found = [
        reconstruct(Gaussian(operator, operator(y), SIGMA), photos()).image
        for operator in (identity, Mask(kept))
    ]
    errors = [(image - photograph())[:, kept].square().mean() for image in found]
    assert abs(10 * float(torch.log10(errors[1] / errors[0]))) <= 0.05
    assert 0 < float((found[1] - found[0])[:, ~kept].abs().max()) < 0.5


@pytest.mark.parametrize("operator", [block_mask(SHAPE, 6), random_mask(SHAPE, 0.5)], ids=["hole", "half"])
def test_what_the_prior_has_to_fill_in_has_another_path_to_minima(operator):
    likelihood = Gaussian(operator, measured(operator), SIGMA)
    assert few(likelihood) != first("denoising")[1].options


# What a plan says.

INSTRUMENTS: dict[str, Operator] = {
    "identity": Identity(SHAPE),
    "hole": block_mask(SHAPE, 6),
    "half": random_mask(SHAPE, 0.5),
    "sensing": GaussianSensing(SHAPE, 200),
    "blur": Blur(SHAPE, gaussian_kernel(0.5)),
    "larger pixels": Downsampling(SHAPE, 2),
    "grey": Grey(SHAPE),
    "frequencies": FourierMask(SHAPE, cartesian_mask((16, 16), 0.5)),
    "tomography": Radon(SHAPE, torch.tensor([0.0, 45.0])),
    "tone curve": gamma_curve(Identity(SHAPE), 0.45),
}
NOISE: dict[str, Callable[[Operator, Tensor], Likelihood]] = {
    "gaussian": lambda a, y: Gaussian(a, y, SIGMA),
    "laplace": lambda a, y: Laplace(a, y, SIGMA),
    "photons": lambda a, y: Poisson(a, y.clamp_min(0).mul(100).round().div(100), 100.0),
}


def one_sentence(text: str) -> bool:
    return bool(re.fullmatch(r"[A-Zλ].*[^.]\.", text)) and not re.search(r"[.!?] ", text) and len(text) < 220


@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("noise", NOISE)
@pytest.mark.parametrize("name", INSTRUMENTS)
def test_every_plan_says_in_one_sentence_what_it_does_and_why(name, noise, weight):
    operator = INSTRUMENTS[name]
    likelihood = NOISE[noise](operator, measured(operator))
    if weight == "sure" and noise == "laplace":
        with pytest.raises(InputError, match="Laplace"):
            plan(likelihood, photos(), weight)
        return
    planned = plan(likelihood, photos(), weight)
    assert one_sentence(planned.reason), planned.reason
    if weight == "auto":
        if name in ("identity", "grey") and noise == "gaussian":
            assert "2 steps by Tweedie's formula; SURE" in planned.reason
        elif name in ("grey", "tomography"):
            assert "pictures whose residual" in planned.reason
        else:
            assert "mean of 70 draws of a chain" in planned.reason and planned.criterion.name == "mean"
        along = plan(likelihood, photos(), options=SHORT)
        judged = noise == "gaussian" and name in ("identity", "hole", "half", "blur")
        assert along.reason.split("; ")[1].startswith("SURE" if judged else "pictures whose residual")
        assert (along.criterion.name == "sure") == judged
    else:
        assert "asked for" in planned.reason


@pytest.mark.parametrize(
    "options",
    [
        SHORT,
        paper(1.0, 10),
        smoothing(),
        gaussian_to_prior(),
        PathOptions((2.0, 1.0, 0.5)),
        PathOptions((1.0,)),
    ],
)
@pytest.mark.parametrize("weight", ["auto", 0.7, "sure", "discrepancy", "l-curve"])
def test_a_plan_along_the_users_own_path_says_so_in_one_sentence(options, weight):
    planned = plan(PROBLEMS["denoising"]()["identity"], photos(), weight, options)
    assert one_sentence(planned.reason), planned.reason
    assert planned.options == (ending(options, weight) if isinstance(weight, float) else options)


# What is followed.


@every_task
def test_trace_gives_the_states_that_reconstruct_visits(task):
    likelihood, (_, along, found) = next(iter(PROBLEMS[task]().values())), first(task)
    assert isinstance(along.options, PathOptions)
    states = list(trace(likelihood, photos(), along.options))
    assert [float(state.weight[0]) for state in states] == pytest.approx(along.options.weights)
    assert 3 < len(found.path) <= len(states)
    for state, visited in zip(states, found.path, strict=False):
        assert torch.equal(state.weight, visited.weight)
        torch.testing.assert_close(state.x, visited.x, rtol=0, atol=1e-5)


@every_task
def test_trace_follows_the_path_to_minima_where_nothing_is_said(task):
    likelihood = next(iter(PROBLEMS[task]().values()))
    options = path_to_minima(likelihood.simplest().operator, photos())
    usual, said = next(trace(likelihood, photos())), next(trace(likelihood, photos(), options))
    assert torch.equal(usual.x, said.x) and torch.equal(usual.evaluations, said.evaluations)


@pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS)
@pytest.mark.parametrize("weight", ["auto", "sure", "discrepancy", "l-curve", 0.7])
def test_no_path_takes_more_evaluations_than_the_users_options_say(operator, weight):
    """At each weight those of the corrector, and one where it starts; a mixture's own energy is one more."""
    prior = gaussian_prior()
    likelihood = measurement(operator, prior)
    options = replace(SHORT, tolerance=1e-12)
    found = reconstruct(likelihood, prior, weight, options)
    expected = ending(options, weight) if isinstance(weight, float) else options
    assert found.plan.options == expected
    copies = 2 if found.criterion == "sure" else 1
    most = copies * len(expected.weights) * (expected.evaluations + 1) + 1
    assert (found.evaluations <= most).all()
    # An image that is finished stays where it is, so the largest λ of the batch tells the path's.
    visited = [float(state.weight.max()) for state in found.path]
    assert visited == pytest.approx(expected.weights[: len(visited)])


# What is refused.


def refused(*arguments, **named) -> str:
    """The sentence, from the plan and from the restoration."""
    prior = gaussian_prior()
    likelihood = measurement(OPERATORS["denoising"], prior)
    said = []
    for made in (plan, reconstruct):
        with pytest.raises(InputError) as error:
            made(likelihood, prior, *arguments, **named)
        said.append(str(error.value))
    assert said[0] == said[1] and "\n" not in said[0] and ". " not in said[0]
    return said[0]


@pytest.mark.parametrize("weight", [0, -1, float("nan"), float("inf"), "foo", "Auto", "1.0", ""])
def test_unknown_weights_are_refused_in_one_sentence(weight):
    sentence = refused(weight)
    assert f"weight = {weight!r}" in sentence
    assert all(
        word in sentence for word in ("auto", "mean", "bayes", "sure", "discrepancy", "l-curve", "number")
    )


@pytest.mark.parametrize("weight", WEIGHTS)
def test_options_that_a_weight_does_not_use_are_refused_in_one_sentence(weight):
    wrong = {"options": SHORT} if weight == "mean" else {"chain": FEW}
    sentence = refused(weight, **wrong)
    assert f"weight = {weight!r}" in sentence and "chain=" in sentence and "options=" in sentence
    assert refused(weight, options=SHORT, chain=FEW)


def test_the_posterior_mean_takes_a_chain_as_it_stands():
    """Evaluations: those of the chain, one where it starts, and one for the mean's own energy."""
    prior = Counted(gaussian_prior())
    likelihood = measurement(OPERATORS["denoising"], gaussian_prior())
    found = reconstruct(likelihood, prior, "mean", chain=FEW)
    assert found.plan.options == FEW and "over 40 draws" in found.reason and found.criterion == "mean"
    assert found.evaluations.tolist() == [FEW.evaluations + 2] * 3
    assert int(found.evaluations.sum()) == prior.images


def test_the_posterior_mean_is_that_of_as_many_chains_as_are_asked_for():
    """And under their seed, as `aipo.sample` draws them."""
    prior, chain = Counted(gaussian_prior()), replace(FEW, chains=2, seed=5)
    likelihood = measurement(OPERATORS["denoising"], gaussian_prior())
    found = reconstruct(likelihood, prior, "mean", chain=chain)
    assert "over 40 draws of each of 2 chains" in found.reason
    assert found.evaluations.tolist() == [2 * (FEW.evaluations + 1) + 1] * 3
    assert int(found.evaluations.sum()) == prior.images
    assert torch.equal(found.image, sample(likelihood, gaussian_prior(), options=chain).mean)
