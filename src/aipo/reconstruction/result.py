"""What a reconstruction tells: the picture, how it was found, how sure it is."""

from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from aipo.basics.arrays import Images, PerImage, content_seed
from aipo.basics.errors import Status
from aipo.likelihoods import Likelihood
from aipo.path.problem import Problem
from aipo.path.state import State
from aipo.posterior.chain import Samples, chain, sampling_problem
from aipo.posterior.laplace import laplace_std
from aipo.priors import Prior
from aipo.reconstruction.certificate import Certificate, certify

REASONS = {
    "fixed": "The weight was given.",
    "mean": "A posterior mean needs no weight: λ = 1 is the posterior.",
    "sure": "Noise is Gaussian, so Stein's estimate of the error is unbiased for what is measured.",
    "pure": "Noise is of photons, so its estimate of the error (PURE) is unbiased to first order for what is "
    "measured.",
    "discrepancy": "Stein's estimate needs Gaussian noise, and of mixed entries it sees only what was "
    "measured; a residual as large as the noise holds for all.",
    "l-curve": "The corner of data energy against prior energy was asked for.",
}


@dataclass(frozen=True)
class Reconstruction:
    """The restored pictures and how they were found.

    Attributes:
        image: (B, C, H, W), not clipped to [0, 1].
        weight: the chosen λ, (B,); for a mixture that of the best single state.
        data_energy, prior_energy, objective: D, R and D + λR at the image, nats, (B,).
        evaluations: flow evaluations spent on each image, the criterion's copies included, (B,).
        status: how the search at the chosen weight ended, one per image.
        criterion: what chose the weight: "fixed", "sure", "pure", "discrepancy" or "l-curve"; "mean" where
            the picture is the posterior mean.
        values: the criterion at every state of the path, (states, B); NaN where a weight was fixed.
        start: the closed-form picture at the chosen weight that the path would begin with there.
        path: every state visited, of the B measurements alone.
        chosen: which of them is the answer, for a mixture the best single one, (B,).
        shares: what part each state has in the image, (states, B, colours, places): of luminance and of
            chrominance, in smooth, middling and rough places; 1 of each where they are treated alike.
        problem: what the path was followed through.
        likelihood, prior: D and R.
        drawn: the chain, where the picture is the posterior mean.
    """

    image: Images
    weight: PerImage
    data_energy: PerImage
    prior_energy: PerImage
    objective: PerImage
    evaluations: Tensor
    status: list[Status]
    criterion: str
    values: Tensor
    start: Images
    path: list[State]
    chosen: Tensor
    shares: Tensor
    problem: Problem
    likelihood: Likelihood
    prior: Prior
    drawn: Samples | None = None

    @property
    def reason(self) -> str:
        """One sentence: why the criterion is the one that chose the weight."""
        return REASONS[self.criterion]

    @cached_property
    def certificate(self) -> Certificate:
        """Whether the assumptions of the paper's theorem held on the path (25 evaluations a state).

        Raises:
            InputError: a path over latents, whose curvature is not that of F over pictures.
        """
        return certify(self.problem, self.path, self.chosen)

    def samples(self, count: int) -> Tensor:
        """Pictures drawn from the posterior p(x | y), by a chain from the image on, (count, B, C, H, W)."""
        return chain(self._sampling, self.likelihood, count, start=self.image).images

    @cached_property
    def posterior(self) -> Samples:
        """Mean, spread and intervals of the posterior p(x | y), by a chain from the image on."""
        return self.drawn or chain(self._sampling, self.likelihood, start=self.image)

    @property
    def std(self) -> Images:
        """The posterior's standard deviation of every value, like `image`."""
        return self.posterior.std

    @cached_property
    def laplace_std(self) -> Images:
        """The standard deviation of every value if F were quadratic around the image, at its own λ.

        About 200 Hessian-vector products of the prior; a chain (`std`) is usually cheaper and better.
        """
        seeds = [content_seed(y) for y in self.likelihood.y]
        return laplace_std(self._sampling, self.image, self.weight, seeds)

    @cached_property
    def _sampling(self) -> Problem:
        """D + λR as chains need it; preparing it can take longer than a chain."""
        return sampling_problem(self.likelihood, self.prior)
