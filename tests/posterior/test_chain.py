"""Which draws a chain makes and keeps: seeds, batches, several chains; and what it refuses."""

import pickle
from dataclasses import replace

import pytest
import torch
from smooth_posterior import OPERATORS, PRIOR, SHAPE, measured

from aipo.basics.errors import InputError
from aipo.likelihoods import Gamma
from aipo.operators import Composition, Identity
from aipo.posterior.chain import sample
from aipo.posterior.langevin import LangevinOptions


def test_an_image_gets_the_same_chain_alone_and_in_a_batch():
    likelihood, _ = measured(OPERATORS["sense"], 5)
    options = LangevinOptions(evaluations=60, burn_in=20)
    together = sample(likelihood, PRIOR, 2, options=options)
    alone = sample(likelihood.select(torch.tensor([3])), PRIOR, 2, options=options)
    torch.testing.assert_close(together.mean[3:4], alone.mean, rtol=0, atol=1e-8)
    torch.testing.assert_close(together.images[:, 3:4], alone.images, rtol=0, atol=1e-8)
    again = sample(likelihood, PRIOR, 2, options=options)
    assert torch.equal(again.mean, together.mean)


def test_a_seed_decides_the_chain():
    """Each of six images has other draws under another seed, and the same bits under the same."""
    likelihood, _ = measured(OPERATORS["sense"], 6)
    five, six = (LangevinOptions(evaluations=40, burn_in=20, seed=seed) for seed in (5, 6))
    first, again, other = (sample(likelihood, PRIOR, options=options) for options in (five, five, six))
    assert all(torch.equal(getattr(first, name), getattr(again, name)) for name in ("mean", "images"))
    apart = (first.images[-1] - other.images[-1]).abs().flatten(1).amax(1)
    assert (apart > 0.01).all(), "spreads are 0.1 to 0.2"
    alone = sample(likelihood.select(torch.tensor([3])), PRIOR, options=five)
    torch.testing.assert_close(first.images[:, 3:4], alone.images, rtol=0, atol=1e-8)


def test_chains_run_side_by_side_as_each_does_alone():
    likelihood, _ = measured(OPERATORS["inpaint"], 3)
    short = LangevinOptions(evaluations=40, burn_in=20)
    one, three = (sample(likelihood, PRIOR, k, 0.7, replace(short, chains=k)) for k in (1, 3))
    assert three.objectives.shape == (40, 3, 3) and three.images.shape == (3, 3, *SHAPE)
    assert one.evaluations == 41 and three.evaluations == 3 * 41
    torch.testing.assert_close(three.objectives[:, :1], one.objectives, rtol=0, atol=1e-7)
    torch.testing.assert_close(three.images[:1], one.images, rtol=0, atol=1e-8)
    apart = torch.cdist(three.images.transpose(0, 1).flatten(2), three.images.transpose(0, 1).flatten(2))
    assert (apart.flatten(1).sort(1).values[:, 3:] > 0.01).all(), "every chain is somewhere else"


def test_mean_and_spread_are_of_all_draws_of_all_chains():
    likelihood, _ = measured(OPERATORS["denoise"], 2)
    found = sample(likelihood, PRIOR, 80, options=LangevinOptions(evaluations=30, burn_in=10, chains=4))
    torch.testing.assert_close(found.mean, found.images.mean(0))
    torch.testing.assert_close(found.std, found.images.std(0))


@pytest.mark.parametrize("count", [1, 3, 20])
def test_pictures_are_spread_over_the_chain_and_end_with_its_last(count):
    seen = []
    likelihood, _ = measured(OPERATORS["denoise"], 1)
    options = LangevinOptions(evaluations=30, burn_in=10)
    found = sample(likelihood, PRIOR, count, options=options, watch=seen.append)
    kept = [next(draw.index for draw in seen if torch.equal(draw.x[0], image)) for image in found.images]
    assert kept == [9 + 20 * (k + 1) // count for k in range(count)]


def test_samples_are_pickled():
    likelihood, _ = measured(OPERATORS["sense"], 2)
    found = sample(likelihood, PRIOR, 2, options=LangevinOptions(evaluations=30, burn_in=10, chains=2))
    again = pickle.loads(pickle.dumps(found))
    assert all(torch.equal(*pair) for pair in zip(found.interval(), again.interval(), strict=True))
    assert again.verdict == found.verdict and torch.equal(again.images, found.images)


def test_equal_measurements_are_drawn_alike():
    """However their operator is spelled: speckle on single values, whose metric knows how sure each is."""
    plain = Gamma(Identity(SHAPE), torch.linspace(0.05, 1, 40, dtype=torch.float64).reshape(2, *SHAPE), 20.0)
    other = Gamma(Composition(Identity(SHAPE), Identity(SHAPE)), plain.y, 20.0)
    options = LangevinOptions(evaluations=40, burn_in=20)
    assert torch.equal(sample(other, PRIOR, options=options).mean, sample(plain, PRIOR, options=options).mean)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda lik: LangevinOptions(evaluations=10, burn_in=10), "burn_in = 10"),
        (lambda lik: LangevinOptions(step=0.0), r"step = 0\.0"),
        (lambda lik: LangevinOptions(friction=-1.0), r"friction = -1\.0"),
        (lambda lik: sample(lik, PRIOR, 0), "count = 0"),
        (lambda lik: sample(lik, PRIOR, 8, 0.0), r"weight = 0\.0"),
        (lambda lik: sample(lik, PRIOR, 9, options=LangevinOptions(6, 2, chains=2)), "between 1 and 8"),
        (lambda lik: LangevinOptions(seed=-1), "seed = -1"),
        (lambda lik: LangevinOptions(chains=0), "chains = 0"),
        (lambda lik: sample(lik, PRIOR).interval(1.5), r"coverage = 1\.5"),
    ],
)
def test_impossible_wishes_are_refused(make, named):
    likelihood, _ = measured(OPERATORS["denoise"], 1)
    with pytest.raises(InputError, match=named):
        make(likelihood)
