"""Likelihoods and priors that do not fit each other get one sentence, whose remedy works; others get none."""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from elsewhere import elsewhere
from noise_models import PRIOR, drawn, every_model, measured
from torch import Tensor, nn

import aipo
from aipo import likelihoods as noise
from aipo import operators as op
from aipo.basics.errors import InputError
from aipo.gaussian import LowRankGaussian, StationaryGaussian
from aipo.likelihoods import Gaussian, Likelihood, measure
from aipo.operators.filters import EVEN
from aipo.posterior.langevin import LangevinOptions
from aipo.priors import FlowPrior, Foreign, build_flow
from aipo.priors.checks import check_inputs

COLOUR, GREY = (3, 8, 8), (1, 8, 8)


def photographs(count: int, shape: tuple[int, int, int] = COLOUR, seed: int = 0) -> Tensor:
    """Smooth pictures in [0, 1]."""
    coarse = torch.rand(count, shape[0], 2, 2, generator=torch.Generator().manual_seed(seed))
    return nn.functional.interpolate(coarse, size=shape[1:], mode="bilinear")


def prior(shape: tuple[int, int | None, int | None] = (3, None, None)) -> FlowPrior:
    torch.manual_seed(0)
    flow = build_flow({"family": "glow", "shape": shape, "levels": 1, "steps": 1, "hidden": 4})
    pictures = photographs(60, (shape[0], shape[1] or 8, shape[2] or 8), seed=1)
    fit = StationaryGaussian.fit if None in shape else lambda pictures: LowRankGaussian.fit(pictures, 8)
    return FlowPrior(flow, fit(pictures), {})


@contextmanager
def no_alarm() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def refused(likelihood: Likelihood, own: object) -> str:
    """The sentence."""
    with pytest.raises(InputError) as caught:
        check_inputs(likelihood, own)  # type: ignore[arg-type]
    return str(caught.value)


def remedied(sentence: str, likelihood: Likelihood) -> Likelihood:
    """By the expression after "use"."""
    return eval(sentence.split("use ")[1], {"likelihood": likelihood, "aipo": aipo})


# Tensors.


def test_another_precision():
    y = photographs(2)
    single, double = (Gaussian(op.Identity(COLOUR), each, 0.1) for each in (y, y.double()))
    assert refused(double, prior()) == "y is float64, the prior float32; use y.float()"
    assert refused(single, prior().double()) == "y is float32, the prior float64; use y.double()"
    with no_alarm():
        check_inputs(single, prior())
        check_inputs(double, prior().double())


def test_another_device():
    likelihood = measure(op.Identity(COLOUR), photographs(2), 0.1)
    with elsewhere() as device:
        sentence = refused(likelihood, prior().to(device))
        assert sentence == f"y is on cpu, the prior on {device}; use likelihood.to('{device}')"
        check_inputs(remedied(sentence, likelihood), prior().to(device))
        assert f"y is on {device}" in refused(likelihood.to(device), prior())


def test_a_flow_names_another_precision_itself():
    own, x = prior(), photographs(1).double()
    for ask in (own.energy, own.encode, own.decode, own.flow.generate, own.flow.trained.log_prob):
        with pytest.raises(InputError, match=r"x is float64, the flow float32; use x.float\(\)"):
            ask(x)
        with pytest.raises(InputError, match="x is a NumPy array"):
            ask(x.numpy())  # type: ignore[arg-type]


class Module(nn.Module):
    """A density of somebody else's, with weights."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 64)

    def log_prob(self, v: Tensor) -> Tensor:
        return -self.layer(v.flatten(1)).square().sum(1)


def test_weights_of_a_foreign_density_are_asked_too():
    likelihood = measure(op.Identity(GREY), photographs(1, GREY), 0.1)
    check_inputs(likelihood, Foreign(Module().log_prob))
    assert "the prior float64" in refused(likelihood, Foreign(Module().double().log_prob))
    unknown = Module().double()
    check_inputs(likelihood, Foreign(lambda v: unknown.log_prob(v.double()).float()))  # it knows how


def test_weights_of_few_bits_are_the_prior_s_own_matter():
    own = Module().bfloat16()
    own.energy = own.log_prob  # type: ignore[assignment]
    check_inputs(measure(op.Identity(GREY), photographs(1, GREY), 0.1), own)  # type: ignore[arg-type]


# Pictures.


@pytest.mark.parametrize(
    "operator", [op.Identity(GREY), op.GaussianSensing(GREY, 20)], ids=["picture", "mixed"]
)
def test_grey_under_a_prior_for_colour(operator):
    likelihood = measure(operator, photographs(2, GREY), 0.1)
    sentence = refused(likelihood, prior())
    assert "is a grey picture, the prior is for colour ones" in sentence
    seen = remedied(sentence, likelihood)
    check_inputs(seen, prior())
    torch.testing.assert_close(seen(photographs(2)), likelihood(op.Grey(COLOUR, EVEN)(photographs(2))))


@pytest.mark.parametrize(
    ("shape", "wanted", "words"),
    [
        ((8, 8, 3), (3, None, None), r"if channels are last, make the operator for \(3, 8, 8\)"),
        ((8, 8, 1), (1, 8, 8), r"if channels are last, make the operator for \(1, 8, 8\)"),
        (COLOUR, (1, None, None), "a colour picture, the prior is for grey ones; convert"),
        ((2, 8, 8), (3, None, None), "a 2-channel picture, the prior is for colour ones; convert"),
        ((3, 8, 10), (3, 8, 8), r"\(3, 8, 10\), but the prior is for \(3, 8, 8\); resize"),
        ((3, 4, 8), (3, 8, 8), r"\(3, 4, 8\), but the prior is for \(3, 8, 8\); resize"),
    ],
    ids=str,
)
def test_pictures_of_another_kind(shape, wanted, words):
    likelihood = Gaussian(op.Identity(shape), torch.rand(1, *shape), 0.1)
    sentence = refused(likelihood, prior(wanted))
    assert re.search(words, sentence) and sentence.startswith("the measured picture")


def test_grey_behind_a_bent_instrument_is_not_sent_through():
    likelihood = measure(op.gamma_curve(op.Identity(GREY), 2.2), photographs(1, GREY), 0.1)
    assert "through" not in refused(likelihood, prior())


def test_a_prior_of_known_size_tells_it_by_its_surrogate():
    likelihood = measure(op.Identity(GREY), photographs(1, GREY), 0.1)
    own = Foreign(Module().log_prob, surrogate=LowRankGaussian.fit(photographs(40, (1, 4, 16)), 4))
    assert "(1, 4, 16)" in refused(likelihood, own)
    assert "(1, 4, 5)" in refused(likelihood, PRIOR)
    mixture = aipo.priors.Mixture(PRIOR.mean[None], (PRIOR.root @ PRIOR.root.T)[None], torch.ones(1))
    assert "(1, 4, 5)" in refused(likelihood, mixture)


def test_what_is_no_prior():
    likelihood = measure(op.Identity(COLOUR), photographs(1), 0.1)
    assert "Gaussian has none; give the likelihood, then the prior" in refused(likelihood, likelihood)


# Values.

INSTRUMENTS = {
    "picture": op.Identity(COLOUR),
    "hole": op.block_mask(COLOUR, 3),
    "mixed": op.GaussianSensing(COLOUR, 60),
    "blurred": op.Blur(COLOUR, op.gaussian_kernel(0.7)),
    "coarse": op.Downsampling(COLOUR, 2),
    "angles": op.Radon(COLOUR, torch.tensor([0.0, 45.0])),
    "some frequencies": op.FourierMask(COLOUR, op.cartesian_mask((8, 8), 0.5)),
    "bent": op.gamma_curve(op.Identity(COLOUR), 2.2),
}
every_instrument = pytest.mark.parametrize("operator", INSTRUMENTS.values(), ids=INSTRUMENTS)


@every_instrument
def test_bytes_are_told_from_pictures(operator):
    clean = operator(photographs(3))
    spread = 25 / 255 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    as_bytes = 255 * (clean + spread)
    assert "lie in [0, 1]: divide" in refused(Gaussian(operator, as_bytes, 25.0), prior())
    with pytest.warns(UserWarning, match="lie in.*bytes") as caught:
        check_inputs(Gaussian(operator, as_bytes, 0.1), prior())
    assert f"y reaches {float(as_bytes.abs().max()):.3g}" in str(caught[0].message)
    with no_alarm():
        check_inputs(Gaussian(operator, as_bytes / 255, 25 / 255), prior())


@every_instrument
def test_a_noise_level_of_bytes_for_pictures(operator):
    y = measure(operator, photographs(3), 25 / 255).y
    sentence = refused(Gaussian(operator, y, 25.0), prior())
    assert sentence.startswith("sigma is 25, but y") and "25 of 255 is 0.098" in sentence


def test_counts_without_their_gain():
    counts = noise.Poisson(op.Identity(COLOUR), torch.zeros(1, *COLOUR), 100.0).simulate(photographs(1)) * 100
    assert "divide by what white gives" in refused(noise.Poisson(op.Identity(COLOUR), counts, 1.0), prior())
    with no_alarm():
        check_inputs(noise.Poisson(op.Identity(COLOUR), counts / 100, 100.0), prior())


@every_instrument
@pytest.mark.parametrize("level", [0.0, 0.02, 0.98, 1.0], ids=["black", "dark", "bright", "white"])
@pytest.mark.parametrize("sigma", [0.003, 0.1, 1.0, 10.0])
def test_honest_measurements_raise_no_alarm(operator, level, sigma):
    x = torch.full((2, *COLOUR), level)
    with no_alarm():
        check_inputs(measure(operator, x, sigma, torch.Generator().manual_seed(0)), prior())


@every_model
def test_honest_measurements_of_every_noise_raise_no_alarm(model):
    with no_alarm():
        check_inputs(measured(model, drawn(4).clamp(0.05, 1)), PRIOR)


def test_values_that_are_unknown_may_have_any_noise():
    y, sigma = photographs(1), torch.full(COLOUR, 0.1)
    y[..., ::2], sigma[..., ::2] = 0, 1e4
    with no_alarm():
        check_inputs(noise.Heteroscedastic(op.Identity(COLOUR), y, sigma), prior())


def test_pictures_have_the_scale_that_the_prior_has():
    """A user's own, for bytes."""
    n = 64
    own = aipo.priors.Gaussian(torch.full(GREY, 128.0), 900.0 * torch.eye(n))
    y = 255 * photographs(2, GREY)
    with no_alarm():
        check_inputs(Gaussian(op.Identity(GREY), y, 25.0), own)


class Own:
    """No more than an energy."""

    def energy(self, x: Tensor) -> Tensor:
        return x.square().flatten(1).sum(1)


def test_a_prior_that_has_only_an_energy_is_left_alone():
    own, odd = Own(), Own()
    odd.shape = "square"  # type: ignore[attr-defined]
    operator = op.Identity((5, 8, 8))
    with no_alarm():
        for each in (own, odd):
            for dtype in (torch.float32, torch.float64):
                check_inputs(Gaussian(operator, 200 * torch.rand(1, 5, 8, 8, dtype=dtype), 25.0), each)


# Where they are asked.


def test_chains_and_branches_ask_first():
    likelihood = measure(op.Identity(GREY), photographs(1, GREY), 0.1)
    for run in (
        lambda: aipo.sample(likelihood, prior(), 1, options=LangevinOptions(evaluations=2, burn_in=1)),
        lambda: aipo.best_of(likelihood, prior(), branches=1),
    ):
        with pytest.raises(InputError, match="grey picture"):
            run()


def test_a_warning_names_the_user_s_own_line():
    likelihood = Gaussian(op.Identity(COLOUR), 255 * photographs(1), 0.1)
    with pytest.warns(UserWarning, match="bytes") as caught:
        aipo.sample(likelihood, prior(), 1, options=LangevinOptions(evaluations=2, burn_in=1))
    assert caught[0].filename == __file__
