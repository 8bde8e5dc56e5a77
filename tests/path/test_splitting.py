"""Splitting along falling τ: uneven noise over whole pictures, and first pictures of bent measurements."""

import pytest
import torch
from surrogates import stationary
from torch import Tensor

from aipo.basics.errors import InputError, Status
from aipo.gaussian import StationaryGaussian
from aipo.likelihoods import Coloured, Gaussian, Heteroscedastic, Laplace, OneBit, Poisson
from aipo.operators import Blur, FourierSensing, Identity, Magnitude, Mask, gaussian_kernel
from aipo.path.splitting import SplittingOptions, _near, splitting
from aipo.posterior.chain import sampling_problem
from aipo.priors.views import PLAIN, SHIFTS, View
from aipo.reconstruction.reconstruct import reconstruct
from aipo.selection.beginning import BENT, beginning
from aipo.selection.plans import plan
from aipo.selection.structure import in_steps

SHAPE = (3, 16, 16)


class Knowing:
    """A Gaussian prior whose posterior means are known, and which counts how often it is asked."""

    loudest, views, shape = 0.4, (PLAIN,), (3, None, None)

    def __init__(self):
        wide = stationary(SHAPE)
        grey = torch.full((3,), 0.5, dtype=torch.float64)
        self.surrogate = StationaryGaussian(grey, wide.colours, 0.05 * wide.spectrum)
        self.asked: list[tuple[float, int, View]] = []

    def energy(self, x: Tensor, tau: float = 0.0) -> Tensor:
        centred = x - self.surrogate.mean_like(x)
        return 0.5 * (centred * self.surrogate.precision(centred)).flatten(1).sum(1)

    def denoise(self, y: Tensor, sigma: float, view: View = PLAIN) -> Tensor:
        self.asked.append((sigma, len(y), view))
        mean = self.surrogate.mean_like(y)
        return mean + self.surrogate.wiener(y - mean, torch.full((len(y),), sigma**2).to(y)).to(y)


def pictures(count: int = 2) -> Tensor:
    prior = Knowing().surrogate
    generator = torch.Generator().manual_seed(0)
    u = torch.randn(count, *SHAPE, generator=generator, dtype=torch.float64)
    return prior.mean_like(u) + prior.factor(u)


def ramp() -> Tensor:
    return torch.linspace(0.02, 0.2, 16, dtype=torch.float64).expand(SHAPE)


def uneven(count: int = 2) -> Heteroscedastic:
    blank = Heteroscedastic(Identity(SHAPE), torch.zeros(count, *SHAPE, dtype=torch.float64), ramp())
    y = blank.simulate(pictures(count), torch.Generator().manual_seed(1))
    return Heteroscedastic(Identity(SHAPE), y, ramp())


def test_the_levels_fall_from_first_to_last():
    prior, likelihood = Knowing(), uneven(1)
    options = SplittingOptions(steps=5, first=2.0, last=0.5, views=1)
    states = list(splitting(sampling_problem(likelihood, prior), likelihood, prior, options))
    asked = torch.tensor([sigma for sigma, _, _ in prior.asked])
    assert len(asked) == 5 and len(states) == 6
    assert asked[0] / asked[-1] == pytest.approx(4.0, rel=0.05)  # levels are rounded to 4 %
    assert (asked[:-1] / asked[1:] - 4**0.25).abs().max() <= 0.06
    # What the surrogate's posterior leaves open is between the least noise and the most.
    assert 0.02 < asked[0] / 2 < 0.2
    assert states[-1].evaluations.tolist() == [5] and states[-1].status.tolist() == [int(Status.DENOISED)]


def test_the_data_step_is_the_weighted_mean_of_picture_and_measurement():
    likelihood, z = uneven(), pictures() + 0.1
    variance = torch.tensor([0.01, 0.0004], dtype=torch.float64)
    found, wide = _near(likelihood, z, variance), variance.reshape(-1, 1, 1, 1)
    expected = (wide * likelihood.y + ramp() ** 2 * z) / (wide + ramp() ** 2)
    assert (found - expected).abs().max() <= 0.02 * float((z - expected).abs().max())


def test_no_entry_moves_farther_than_a_few_levels_whatever_the_prior_says():
    class Wild(Knowing):
        def denoise(self, y: Tensor, sigma: float, view: View = PLAIN) -> Tensor:
            wild = torch.full_like(y, torch.inf)
            wild[:, :, 0] = torch.nan
            return wild

    prior, likelihood = Wild(), uneven()
    problem = sampling_problem(likelihood, prior)
    first, *_, last = splitting(problem, likelihood, prior, SplittingOptions(steps=3))
    assert bool(torch.isfinite(last.x).all())
    assert (last.x - first.x).abs().max() <= 3 * 4 * 0.2 * 2.5


def test_copies_are_seen_in_one_view_and_images_in_several_at_the_end():
    class Seen(Knowing):
        views = SHIFTS

    prior, likelihood = Seen(), uneven()
    options, told = SplittingOptions(steps=3, views=3), []
    batch = likelihood.append(likelihood.y + 0.01)
    *_, last = splitting(sampling_problem(batch, prior), batch, prior, options, copies=2, spent=told.append)
    assert [view for _, _, view in prior.asked if view != prior.asked[0][2]]
    assert last.evaluations.tolist() == [5, 5, 3, 3] and sum(told) == 2 * options.cost(len(SHIFTS), 2) == 16


def test_each_picture_is_restored_as_if_it_were_alone():
    prior, likelihood = Knowing(), uneven(3)
    together = reconstruct(likelihood, prior).image
    for k in range(3):
        alone = reconstruct(likelihood.select(torch.tensor([k])), prior).image
        torch.testing.assert_close(together[k : k + 1], alone, rtol=1e-4, atol=1e-4)


def test_uneven_noise_is_removed_by_the_default_nearly_as_well_as_can_be():
    """Under a Gaussian prior the best picture is known: the surrogate's own, which the path starts with."""
    x, prior, told = pictures(8), Knowing(), []
    likelihood = uneven(8)
    result = reconstruct(likelihood, prior, progress=lambda done, expected: told.append((done, expected)))
    error = float((result.image - x).square().mean())
    best = sampling_problem(likelihood, prior).start(torch.ones(8, dtype=torch.float64))
    assert error <= 1.1 * float((best - x).square().mean())
    assert error < 0.5 * float((likelihood.y - x).square().mean())
    assert "steps of falling τ" in result.reason and result.criterion == "sure"
    assert told[-1][0] == told[-1][1]


def test_which_noise_is_removed_in_steps():
    prior, y = Knowing(), torch.full((1, *SHAPE), 0.5, dtype=torch.float64)
    spectrum = torch.full((16, 16), 0.001, dtype=torch.float64)
    spectrum[:, 0] = 0.01
    lost = torch.ones(SHAPE, dtype=torch.bool)
    lost[:, :8] = False
    whole = Identity(SHAPE)
    assert in_steps(Heteroscedastic(whole, y, ramp()), prior)
    assert in_steps(Coloured(whole, y, spectrum), prior)
    others = [
        Heteroscedastic(whole, y, 10 * ramp()),
        Heteroscedastic(Mask(lost), y[:, lost], ramp()[lost]),
        Coloured(Blur(SHAPE, gaussian_kernel(1.0)), y, spectrum),
        Laplace(whole, y, 0.1),
        Poisson(whole, y, gain=50.0),
    ]
    assert not any(in_steps(other, prior) for other in others)
    deaf = Knowing()
    deaf.loudest = 0.0
    assert not in_steps(Heteroscedastic(whole, y, ramp()), deaf)


def bent(sigma: float = 0.01) -> Gaussian:
    operator = Magnitude(FourierSensing(SHAPE, 384, seed=0))
    y = operator(pictures()) + sigma * torch.randn(
        2, *operator.measurement_shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64
    )
    return Gaussian(operator, y, sigma)


def test_a_chain_begins_where_bent_measurements_are_explained():
    prior, likelihood = Knowing(), bent().simplest()
    begin = beginning(likelihood, prior, alike=False)
    assert begin is not None and begin.most == BENT.steps
    told: list[int] = []
    found, evaluations = begin.picture(sampling_problem(likelihood, prior), likelihood, told.append)
    start = sampling_problem(likelihood, prior).start(torch.ones(2, dtype=torch.float64))
    assert bool((likelihood.misfit(start) > 2).all()), "else this test asks nothing"
    assert bool((likelihood.misfit(found) < 0.2 * likelihood.misfit(start)).all())
    assert evaluations.tolist() == 2 * [BENT.steps] and sum(told) == 2 * BENT.steps


def test_pictures_that_are_explained_begin_as_they_are():
    prior, likelihood = Knowing(), bent(sigma=100.0).simplest()
    begin = beginning(likelihood, prior, alike=False)
    assert begin is not None
    found, evaluations = begin.picture(sampling_problem(likelihood, prior), likelihood, lambda images: None)
    start = sampling_problem(likelihood, prior).start(torch.ones(2, dtype=torch.float64))
    torch.testing.assert_close(found, start)
    assert evaluations.tolist() == [0, 0] and prior.asked == []


def test_signs_alone_and_straight_measurements_begin_at_the_surrogate():
    prior, y = Knowing(), torch.full((1, *SHAPE), 0.5, dtype=torch.float64)
    sensing = FourierSensing(SHAPE, 384, seed=0)
    signs = OneBit(sensing, torch.ones(1, 384, dtype=torch.float64), threshold=0.0, sigma=0.1)
    assert beginning(signs, prior, alike=False) is None
    assert beginning(Gaussian(Blur(SHAPE, gaussian_kernel(1.0)), y, 0.01), prior, alike=False) is None
    assert plan(bent(), prior).begin is not None


@pytest.mark.parametrize(
    "wrong", [{"steps": 1}, {"views": 0}, {"first": 0.5, "last": 0.7}, {"ratio": 0.0}, {"kick": -0.1}]
)
def test_options_out_of_range_are_refused(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        SplittingOptions(**wrong)
