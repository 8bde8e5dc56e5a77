"""White noise over the whole picture, removed at once by a prior that knows it."""

import pickle

import pytest
import torch
from skimage import data
from torch import Tensor

from aipo import load_prior
from aipo.basics.errors import InputError, Status
from aipo.basics.quality import psnr
from aipo.likelihoods import Gaussian, Heteroscedastic, measure
from aipo.operators import Blur, Grey, Identity, Mask, gaussian_kernel
from aipo.operators.filters import EVEN
from aipo.path.objective import objective
from aipo.path.tweedie import WIDER, Step, TweedieOptions, tweedie
from aipo.priors import Gaussian as ClosedGaussian
from aipo.priors import Mixture
from aipo.priors.views import MIRRORED, PLAIN, SHIFTS, View
from aipo.reconstruction.reconstruct import reconstruct
from aipo.selection.structure import at_once

SHAPE = (1, 6, 6)
N = 36


class TwoKinds(Mixture):
    """Bright and dark pictures, with a surrogate that knows neither; the posterior mean is known."""

    loudest, views = 0.5, (PLAIN,)

    def __init__(self):
        means = torch.stack([torch.full(SHAPE, 0.2), torch.full(SHAPE, 0.8)]).double()
        super().__init__(means, 0.01 * torch.eye(N, dtype=torch.float64).expand(2, N, N), torch.ones(2))

    def denoise(self, y: Tensor, sigma: float, view: View = PLAIN) -> Tensor:
        seen = view.of(y).detach().requires_grad_()
        (slope,) = torch.autograd.grad(self.energy(seen, sigma).sum(), seen)
        return view.back((seen - sigma**2 * slope).detach())


def noisy(count: int = 3, sigma: float | Tensor = 0.1) -> Gaussian:
    generator = torch.Generator().manual_seed(0)
    x = 0.8 + 0.1 * torch.randn(count, *SHAPE, generator=generator, dtype=torch.float64)
    noise = torch.randn(count, *SHAPE, generator=generator, dtype=torch.float64)
    return Gaussian(Identity(SHAPE), x + torch.as_tensor(sigma).reshape(-1, 1, 1, 1) * noise, sigma)


def bright_posterior_mean(y: Tensor, sigma: Tensor) -> Tensor:
    share = (0.01 / (0.01 + sigma**2)).reshape(-1, 1, 1, 1)
    return 0.8 + share * (y - 0.8)


ONE = TweedieOptions((Step(1.0, 1),))


def test_the_first_step_ends_in_the_posterior_mean():
    sigma = torch.tensor([0.05, 0.1, 0.3], dtype=torch.float64)
    likelihood, prior = noisy(3, sigma), TwoKinds()
    first, second = tweedie(objective(likelihood, prior), likelihood, prior, ONE)
    torch.testing.assert_close(second.x, bright_posterior_mean(likelihood.y, sigma), rtol=1e-6, atol=1e-8)
    assert second.status.tolist() == 3 * [int(Status.DENOISED)] and bool(second.accepted.all())
    assert first.evaluations.tolist() == [0, 0, 0] and second.evaluations.tolist() == [1, 1, 1]
    torch.testing.assert_close(second.objective, likelihood(second.x) + prior.energy(second.x))


def test_the_second_step_begins_where_a_part_of_the_noise_was_put_back():
    likelihood, prior = noisy(), TwoKinds()
    options = TweedieOptions((Step(1.0, 1), Step(0.5, 1)))
    _, first, second = tweedie(objective(likelihood, prior), likelihood, prior, options)
    mixed, left = (likelihood.y + first.x) / 2, torch.full((3,), WIDER * 0.05, dtype=torch.float64)
    torch.testing.assert_close(second.x, bright_posterior_mean(mixed, left), rtol=1e-6, atol=1e-8)
    assert second.evaluations.tolist() == [2, 2, 2]


def test_the_default_path_is_this_one_and_its_result_is_whole():
    likelihood, prior = noisy(), TwoKinds()
    told: list[tuple[int, int]] = []
    result = reconstruct(likelihood, prior, progress=lambda done, expected: told.append((done, expected)))
    assert "in 2 steps by Tweedie" in result.reason and result.criterion == "sure"
    assert len(result.path) == 3
    assert all(done <= expected for done, expected in told) and told[-1][0] == told[-1][1] == 3 * 4
    again = pickle.loads(pickle.dumps(result))
    assert torch.equal(again.image, result.image) and again.certificate.verdict
    torch.testing.assert_close(result.objective, likelihood(result.image) + prior.energy(result.image))


def test_stein_takes_the_better_of_surrogate_and_posterior_mean():
    class Knowing(TwoKinds):
        surrogate = ClosedGaussian(torch.full(SHAPE, 0.5).double(), 100 * torch.eye(N).double())

    class Misled(TwoKinds):
        def denoise(self, y: Tensor, sigma: float, view: View = PLAIN) -> Tensor:
            return torch.zeros_like(y)

    knowing, misled = reconstruct(noisy(), Knowing()), reconstruct(noisy(), Misled())
    assert float(knowing.shares[1:].sum(0).mean()) > 0.6 and float(misled.shares[1:].sum(0).mean()) < 0.1


def test_each_picture_is_restored_as_if_it_were_alone():
    sigma, prior = torch.tensor([0.05, 0.1, 0.1, 0.3], dtype=torch.float64), TwoKinds()
    likelihood = noisy(4, sigma)
    together = reconstruct(likelihood, prior).image
    for k in range(4):
        alone = reconstruct(likelihood.select(torch.tensor([k])), prior).image
        torch.testing.assert_close(together[k : k + 1], alone, rtol=1e-9, atol=1e-9)


def test_only_white_noise_of_a_known_strength_over_the_whole_picture_is_removed_at_once():
    y, prior = noisy().y, TwoKinds()
    lost = torch.ones(SHAPE, dtype=torch.bool)
    lost[0, 2, 2] = False
    uneven = torch.linspace(0.1, 0.2, N, dtype=torch.float64).reshape(SHAPE)
    assert at_once(Gaussian(Identity(SHAPE), y, 0.1).simplest(), prior)
    assert at_once(Gaussian(Mask(torch.ones_like(lost)), y.flatten(1), 0.1).simplest(), prior)
    assert at_once(Gaussian(Mask(lost), y[:, lost], 0.1), prior)
    others = [
        Gaussian(Identity(SHAPE), y, 0.6),
        Gaussian(Mask(~lost), y[:, ~lost], 0.1),
        Gaussian(Blur(SHAPE, gaussian_kernel(0.5)), y, 0.1),
        Heteroscedastic(Identity(SHAPE), y, uneven.expand_as(y)),
    ]
    assert not any(at_once(other.simplest(), prior) for other in others)
    plain = Mixture(prior.means, 0.01 * torch.eye(N, dtype=torch.float64).expand(2, N, N), torch.ones(2))
    assert not at_once(Gaussian(Identity(SHAPE), y, 0.1), plain)


def test_the_mean_over_views_costs_one_evaluation_each_and_copies_one():
    class Seen(TwoKinds):
        views = SHIFTS

        def __init__(self):
            super().__init__()
            self.asked: list[tuple[View, int]] = []

        def denoise(self, y: Tensor, sigma: float, view: View = PLAIN) -> Tensor:
            self.asked.append((view, len(y)))
            moved = view.back(view.of(y))
            assert torch.equal(moved, y)
            return moved + view.down

    likelihood, prior = noisy(2), Seen()
    options = TweedieOptions((Step(1.0, 3),))
    states = list(tweedie(objective(likelihood, prior), likelihood, prior, options, copies=2))
    assert prior.asked == [(SHIFTS[0], 2), (SHIFTS[1], 1), (SHIFTS[2], 1)]
    assert states[-1].evaluations.tolist() == [3, 1]
    moved = (SHIFTS[0].down + SHIFTS[1].down + SHIFTS[2].down) / 3
    torch.testing.assert_close(states[-1].x, likelihood.y + moved)


def test_views_that_reach_beyond_a_small_picture_are_left_out():
    y = torch.full((1, 1, 3, 8), 0.5, dtype=torch.float64)

    class Wide(TwoKinds):
        views = SHIFTS

        def denoise(self, y: Tensor, sigma: float, view: View = PLAIN) -> Tensor:
            assert view.reach < 3
            return view.back(view.of(y))

        def energy(self, x: Tensor, tau: float = 0.0) -> Tensor:
            return x.flatten(1).sum(1)

    likelihood, prior = Gaussian(Identity((1, 3, 8)), y, 0.1), Wide()
    prior.surrogate = None
    assert list(tweedie(objective(likelihood, prior), likelihood, prior, ONE))[-1].evaluations == 1


@pytest.mark.parametrize("view", [*SHIFTS, *MIRRORED, View(2, 1, mirrored=True)])
def test_a_view_comes_back(view):
    x = torch.rand(2, 3, 5, 7)
    seen = view.of(x)
    assert seen.shape == (2, 3, 5 + view.down, 7 + view.right) and torch.equal(view.back(seen), x)


@pytest.mark.parametrize(("part", "views"), [(1.0, 0), (0.0, 1), (1.5, 1)])
def test_steps_out_of_range_are_refused(part, views):
    with pytest.raises(InputError, match=f"part = {part}, views = {views}"):
        Step(part, views)


def test_a_lost_pixel_changes_little_elsewhere():
    """Gate 27: the error at all other entries by 0.05 dB at most."""
    likelihood, prior = noisy(), TwoKinds()
    lost = torch.ones(SHAPE, dtype=torch.bool)
    lost[0, 2, 2] = False
    other = Gaussian(Mask(lost), likelihood.y[:, lost], 0.1)
    found = [reconstruct(one, prior).image for one in (likelihood, other)]
    errors = [(image - 0.8)[:, lost].square().mean() for image in found]
    assert abs(10 * float(torch.log10(errors[1] / errors[0]))) <= 0.05


@pytest.mark.parametrize("weights", [EVEN, (0.2, 0.5, 0.3)], ids=["even", "uneven"])
def test_grey_goes_to_the_prior_with_white_noise(weights):
    """Of deviation σ/|w|, on a picture of one colour, whose colour the prior's surrogate tells."""
    seen: list[tuple[Tensor, float]] = []

    class Recording(ClosedGaussian):
        loudest, views = 1.0, (PLAIN,)

        def denoise(self, y: Tensor, sigma: float, view: View = PLAIN) -> Tensor:
            seen.append((y, sigma))
            return y

    shape = (3, 8, 8)
    mean = torch.tensor([0.7, 0.5, 0.4], dtype=torch.float64)[:, None, None].expand(shape)
    prior = Recording(mean, 1e-6 * torch.eye(192, dtype=torch.float64))
    grey, sigma = Grey(shape, weights), 0.1
    noise = torch.randn(300, 1, 8, 8, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    likelihood = Gaussian(grey, grey.forward(mean[None]) + sigma * noise, sigma)
    list(tweedie(objective(likelihood, prior), likelihood, prior, ONE))
    (y, told), tau = seen[0], sigma / sum(weight**2 for weight in weights) ** 0.5
    assert told == pytest.approx(tau)
    along = torch.tensor(weights, dtype=torch.float64)
    along = along / along.norm()
    colours = [along, mean[:, 0, 0], mean.new_tensor([1.0, -1.0, 0.0])]
    beside = torch.linalg.qr(torch.stack(colours, 1))[0][:, 1:]
    error = (y - mean).movedim(1, -1)
    assert float((error @ along).std()) == pytest.approx(tau, rel=0.03)
    # One draw serves all pictures, therefore the two other colours have 64 values each.
    assert float((error @ beside).square().mean().sqrt()) == pytest.approx(tau, rel=0.25)
    assert abs(float(((error @ along)[..., None] * (error @ beside)).mean())) < 0.03 * tau**2


def test_a_noisy_grey_photograph_under_a_prior_for_colour():
    picture = torch.from_numpy(data.camera()[100:228:2, 200:328:2].copy())[None, None].float() / 255
    grey, prior = Grey((3, 64, 64), EVEN), load_prior("photos")
    likelihood = measure(grey, picture.expand(-1, 3, -1, -1), 0.1, torch.Generator().manual_seed(0))
    result = reconstruct(likelihood, prior)
    assert int(result.evaluations) <= 6
    gained = [float(psnr(grey(x), picture)) for x in (result.start, result.image)]
    assert gained[1] > gained[0] + 1.0
