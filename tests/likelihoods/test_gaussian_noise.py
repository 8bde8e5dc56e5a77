"""The Gaussian likelihood: D against scipy's density, noise with the stated strength, bad input named."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.autograd import gradcheck

from aipo.basics.errors import InputError
from aipo.likelihoods import Gaussian, measure
from aipo.operators import Blur, GaussianSensing, Grey, Identity, LinearOperator, Magnitude, Mask

SHAPE = (3, 4, 5)
OPERATORS = {
    "identity": Identity(SHAPE),
    "mask": Mask(torch.rand(SHAPE, generator=torch.Generator().manual_seed(0)) > 0.4),
    "sensing": GaussianSensing(SHAPE, 17, seed=1),
}
SIGMAS = {"one": 0.3, "per-image": torch.tensor([0.01, 0.3, 7.0], dtype=torch.float64)}
every_operator = pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS)
every_sigma = pytest.mark.parametrize("sigma", SIGMAS.values(), ids=SIGMAS)


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def example(operator: LinearOperator, sigma: float | Tensor) -> tuple[Gaussian, Tensor]:
    return Gaussian(operator, rand(3, *operator.measurement_shape, seed=1), sigma), rand(3, *SHAPE, seed=2)


@every_operator
@every_sigma
def test_energy_is_minus_the_log_density(operator, sigma):
    likelihood, x = example(operator, sigma)
    scale = np.broadcast_to(np.asarray(sigma), 3)
    for i in range(3):
        density = stats.norm(operator(x)[i].numpy(), scale[i])
        expected = -density.logpdf(likelihood.y[i].numpy()).sum()
        assert abs(likelihood(x)[i].item() - expected) <= 1e-10 * max(1, abs(expected))


@every_operator
@every_sigma
def test_energy_passes_gradcheck(operator, sigma):
    likelihood, x = example(operator, sigma)
    assert gradcheck(likelihood, x.requires_grad_(True))


@every_operator
def test_residual_squared(operator):
    likelihood, x = example(operator, 0.3)
    expected = ((operator(x) - likelihood.y).flatten(1).numpy() ** 2).sum(1)
    np.testing.assert_allclose(likelihood.residual_squared(x).numpy(), expected, rtol=1e-12)


@every_operator
@every_sigma
def test_select_and_append_keep_each_picture_with_its_sigma(operator, sigma):
    likelihood, x = example(operator, sigma)
    energies = likelihood(x)
    indices = torch.tensor([2, 0])
    assert torch.equal(likelihood.select(indices)(x[indices]), energies[indices])
    assert len(likelihood.select(indices)) == 2
    other = Gaussian(operator, likelihood.y + 1, sigma)
    both = likelihood.append(likelihood.y + 1)
    assert len(both) == 6
    torch.testing.assert_close(both(torch.cat((x, x))), torch.cat((energies, other(x))))


def test_append_refuses_another_number_of_measurements():
    likelihood, _ = example(OPERATORS["identity"], 0.3)
    with pytest.raises(InputError, match=r"\(2, 3, 4, 5\)"):
        likelihood.append(likelihood.y[:2])


@every_operator
def test_noise_has_the_stated_strength(operator):
    # 4 000 measurements per strength: the estimated standard deviation is within 4 of its own.
    sigma = torch.tensor([0.05, 2.0], dtype=torch.float64).repeat_interleave(4000 // operator.measurements)
    x = rand(1, *SHAPE).expand(len(sigma), *SHAPE)
    generator = torch.Generator().manual_seed(5)
    likelihood = measure(operator, x, sigma, generator)
    for y in (likelihood.y, likelihood.simulate(x, generator)):
        noise = ((y - operator(x)).flatten(1) / sigma[:, None]).numpy()
        for part in np.split(noise, 2):
            assert abs(part.std() - 1) <= 4 / np.sqrt(2 * part.size)
            assert abs(part.mean()) <= 4 / np.sqrt(part.size)
        assert stats.kstest(noise.ravel(), "norm").pvalue > 1e-3


def test_noise_follows_the_generator():
    x = rand(2, *SHAPE)
    first, same, other = (
        measure(OPERATORS["identity"], x, 0.1, torch.Generator().manual_seed(seed)).y for seed in (1, 1, 2)
    )
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    assert not torch.equal(first[0] - x[0], first[1] - x[1])


@pytest.mark.parametrize(
    "value", [0.0, -0.1, float("nan"), float("inf"), torch.tensor([0.1, 0.0, 0.1])], ids=str
)
def test_sigma_must_be_positive(value):
    with pytest.raises(InputError, match="sigma must be positive"):
        Gaussian(OPERATORS["identity"], rand(3, *SHAPE), value)
    with pytest.raises(InputError, match="sigma must be positive"):
        measure(OPERATORS["identity"], rand(3, *SHAPE), value)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_sigma_must_be_one_or_one_per_picture(count):
    with pytest.raises(InputError, match="one per image"):
        Gaussian(OPERATORS["identity"], rand(3, *SHAPE), torch.ones(count))
    with pytest.raises(InputError, match="one per image"):
        measure(OPERATORS["identity"], rand(3, *SHAPE), torch.ones(count))


def test_sigma_of_several_pictures_does_not_multiply_one():
    with pytest.raises(InputError, match="one per image"):
        measure(OPERATORS["identity"], rand(1, *SHAPE), torch.ones(3))


@every_operator
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_measurements_must_be_finite(operator, bad):
    y = rand(3, *operator.measurement_shape)
    y[1].view(-1)[3] = bad
    with pytest.raises(InputError, match="y must be finite"):
        Gaussian(operator, y, 0.1)


def test_measurements_must_be_floating_point():
    with pytest.raises(InputError, match="uint8"):
        Gaussian(OPERATORS["identity"], torch.zeros(3, *SHAPE, dtype=torch.uint8), 0.1)


@pytest.mark.parametrize("shape", [(3, 18), (17,), (3, 17, 1), (0, 17)], ids=str)
def test_measurements_must_have_the_operators_shape(shape):
    with pytest.raises(InputError, match=r"GaussianSensing measures \(B, 17\)") as caught:
        Gaussian(OPERATORS["sensing"], torch.zeros(shape), 0.1)
    assert str(shape) in str(caught.value)


def test_energy_refuses_pictures_of_another_shape():
    likelihood, _ = example(OPERATORS["mask"], 0.3)
    with pytest.raises(InputError, match=r"\(3, 3, 5, 4\)"):
        likelihood(rand(3, 3, 5, 4))


def test_measurements_of_grey_are_measurements_of_colour_through_grey():
    x, kernel = torch.rand(2, 3, 5, 6), torch.rand(3, 3)
    grey = Grey((3, 5, 6))
    for operator in (Identity((1, 5, 6)), Blur((1, 5, 6), kernel)):
        likelihood = measure(operator, grey(x), torch.tensor([0.1, 0.2]))
        through = likelihood.through(grey)
        torch.testing.assert_close(through(x), likelihood(grey(x)))
        assert through.operator.shape == (3, 5, 6) and likelihood.operator is operator
    assert type(measure(Identity((1, 5, 6)), grey(x), 0.1).through(grey).simplest().operator) is Grey


def test_through_refuses_other_shapes_and_what_is_not_linear():
    grey = Grey((3, 5, 6))
    with pytest.raises(InputError, match="takes"):
        measure(Identity((1, 6, 6)), torch.rand(1, 1, 6, 6), 0.1).through(grey)
    with pytest.raises(InputError, match="not linear"):
        measure(Magnitude(Identity((1, 5, 6))), torch.rand(1, 1, 5, 6), 0.1).through(grey)
