"""Likelihood × prior → posterior: its mean, its spread, and pictures drawn from it."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from numpy.random import SeedSequence
from torch import Tensor

from aipo.basics.arrays import Images, PerImage, White, content_seed
from aipo.basics.errors import InputError
from aipo.gaussian import posterior
from aipo.likelihoods import Likelihood
from aipo.path.metric import uneven, uneven_scale
from aipo.path.objective import objective
from aipo.path.problem import Problem
from aipo.path.starts import solved_start
from aipo.posterior.convergence import Convergence
from aipo.posterior.langevin import Draw, LangevinOptions, langevin
from aipo.priors import Prior
from aipo.priors.checks import check_inputs

# A chain begins so many draws of N(0, metric) away from the start, because a flow's posterior is about half
# as wide as its surrogate's. If it began at the mode itself, F would rise for hundreds of steps, and what is
# measured poorly would keep the mode's size (dev/LOG.md).
BEGUN = 0.5

# The surrogate's solution under the likelihood itself is found so many times, each time with the metric of
# the solution before: the first metric is that of a picture whose dark values are several times too bright.
SOLVES = 2

# R̂ up to which chains agree.
AGREEING = 1.05


@dataclass(frozen=True)
class Samples:
    """What chains of each image found of the density ∝ exp(−D − λR).

    Attributes:
        mean: (B, C, H, W), of all draws of all chains. At λ = 1 it is the posterior mean. If the prior is
            true, no other estimate has a smaller expected squared error.
        std: the standard deviation of every value, like `mean`.
        images: some of the pictures drawn, evenly spread over the chains, (count, B, C, H, W).
        objectives: F along the chains, nats, (steps, chains, B); it should fluctuate, not rise or fall.
        evaluations: of the prior, spent on each image by all of its chains.
        rhat: the split R̂ that 95 % of an image's values do not exceed, (B,); 1, or a little more, where the
            chains agree. See `aipo.posterior.convergence` for formulas and sources.
        effective: how many independent draws would tell an image's posterior mean as well: their expected
            squared error, summed over its values, would be that of `mean`, (B,).
    """

    mean: Images
    std: Images
    images: Tensor
    objectives: Tensor
    evaluations: int
    rhat: PerImage
    effective: PerImage

    def interval(self, coverage: float = 0.9) -> tuple[Images, Images]:
        """Lower and upper end of an interval that holds each true value with that probability, like `mean`.

        They are those of a normal distribution, because a chain of a few hundred steps knows no quantiles.

        Raises:
            InputError: a coverage outside (0, 1).
        """
        if not 0 < coverage < 1:
            raise InputError(f"coverage = {coverage}; a probability lies in (0, 1)")
        width = torch.special.ndtri(torch.tensor((1 + coverage) / 2)) * self.std
        return self.mean - width, self.mean + width

    @property
    def chains(self) -> int:
        """Number of chains of each image."""
        return self.objectives.shape[1]

    @property
    def agree(self) -> Tensor:
        """Whether R̂ ≤ 1.05, so that all halves of an image's chains agree, (B,) bool."""
        return self.rhat <= AGREEING

    @property
    def verdict(self) -> str:
        """One sentence: whether the chains of all images agree, and what to do if not."""
        several, images = self.chains > 1, len(self.rhat)
        rhat = f"R̂ of {self.chains} chains" if several else "R̂ of one chain"
        worst, apart = float(self.rhat.max()), int((~self.agree).sum())
        if apart == 0:
            agree = "they agree" if several else "its halves agree; four chains would tell more"
            return f"{rhat} is at most {worst:.3f}, within {AGREEING}: {agree}."
        where = f" in {apart} of {images} images" if images > 1 else ""
        return f"{rhat} reaches {worst:.3f}, above {AGREEING}{where}: use more evaluations."


def sample(
    likelihood: Likelihood,
    prior: Prior,
    count: int = 8,
    weight: float = 1.0,
    options: LangevinOptions | None = None,
    start: Images | None = None,
    watch: Callable[[Draw], None] | None = None,
) -> Samples:
    """Draw from the posterior of every image of a batch.

    Args:
        likelihood: D, of B measurements.
        prior: R; its `surrogate`, where it has one, gives start and metric.
        count: how many pictures to keep of each image's chains.
        weight: λ, positive; 1 is the posterior.
        options: how many chains each image has, and how they are run.
        start: (B, C, H, W) near which the chains begin; by default the surrogate's own picture.
        watch: called with every draw, for progress bars.

    Raises:
        InputError: more pictures to keep than there are steps after the burn-in, or a weight that is not
            positive.
    """
    check_inputs(likelihood, prior)
    # Equal problems get equal answers.
    likelihood = likelihood.simplest()
    problem = sampling_problem(likelihood, prior)
    return chain(problem, likelihood, count, weight, options, start, watch)


def chain(
    problem: Problem,
    likelihood: Likelihood,
    count: int = 8,
    weight: float = 1.0,
    options: LangevinOptions | None = None,
    start: Images | None = None,
    watch: Callable[[Draw], None] | None = None,
) -> Samples:
    """As `sample`, of a `sampling_problem` at hand: preparing one can take longer than its chain."""
    options = options or LangevinOptions()
    used, chains = options.evaluations - options.burn_in, options.chains
    _check(count, weight, used * chains)
    weights = torch.full((len(likelihood),), weight).to(likelihood.y)
    whites = _whites(likelihood, options)
    first, width = problem.start(weights) if start is None else start, BEGUN * math.sqrt(options.temperature)
    begin = _begun(problem, first, width, weights, whites)
    # Of every chain the same draws are kept, the last one among them.
    rounds = -(-count // chains)
    keep = {(k + 1) * used // rounds - 1 for k in range(rounds)}
    found, images, objectives = Convergence(begin, used), [], []
    for draw in langevin(problem, begin, weights, options, whites):
        objectives.append(draw.objective)
        if watch:
            watch(draw)
        number = draw.index - options.burn_in
        if number >= 0:
            found.add(draw.x)
        if number in keep:
            images.append(draw.x)
    return Samples(
        mean=found.mean,
        std=found.std,
        images=torch.cat(images)[:count],
        objectives=torch.stack(objectives),
        evaluations=chains * (options.evaluations + 1),
        rhat=found.rhat,
        effective=found.effective,
    )


def _check(count: int, weight: float, draws: int) -> None:
    if not 1 <= count <= draws:
        raise InputError(f"count = {count}; keep between 1 and {draws} of the steps after the burn-in")
    if not 0 < weight < float("inf"):
        raise InputError(f"weight = {weight}; use a positive number, 1 for the posterior")


def _whites(likelihood: Likelihood, options: LangevinOptions) -> list[White]:
    """For each chain, the noise of every image.

    It follows from the measurement, so that what chains of different images find is independent. The noise of
    a cold chain, whose mean is a picture to look at, is the same for every image: pictures of measurements
    that hardly differ then hardly differ.
    """
    contents = [content_seed(y) if options.temperature == 1 else 0 for y in likelihood.y]
    return [
        White([int(SeedSequence((content, options.seed, k)).generate_state(1)[0]) for content in contents])
        for k in range(options.chains)
    ]


def _begun(problem: Problem, start: Images, width: float, weights: PerImage, whites: list[White]) -> Tensor:
    """Where the chains begin, (chains, B, C, H, W): each so many draws of N(0, metric) from the start."""
    if problem.noise is None:
        return start.expand(len(whites), *start.shape)
    return torch.stack([start + width * problem.noise(weights, white) for white in whites])


def sampling_problem(likelihood: Likelihood, prior: Prior) -> Problem:
    """D + λR with a metric as wide as the surrogate's posterior, and narrower where single values are surer.

    If single values may be surer, chains begin at the surrogate's solution under the likelihood itself, which
    also tells how sure each value is. A path is better off without either (dev/LOG.md).
    """
    surrogate = getattr(prior, "surrogate", None)
    if surrogate is None:
        return objective(likelihood, prior)
    near = likelihood.gaussian()
    closed = posterior(near.operator.linear, surrogate).for_sampling()
    problem = objective(likelihood, prior, closed=closed)
    if not uneven(likelihood, near):
        return problem
    one = torch.ones(len(likelihood)).to(likelihood.y)
    begin, scale = problem.start, uneven_scale(likelihood, near, closed, problem.start(one))
    for _ in range(SOLVES):
        begin = solved_start(likelihood, surrogate, begin, scale.metric)
        scale = uneven_scale(likelihood, near, closed, begin(one))
    return replace(problem, start=begin, metric=scale.metric, noise=scale.noise)
