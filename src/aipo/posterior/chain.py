"""Likelihood × prior → posterior: its mean, its spread, and pictures drawn from it."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from numpy.random import SeedSequence
from torch import Tensor

from aipo.basics.arrays import Images, White, content_seed
from aipo.basics.errors import InputError
from aipo.gaussian import posterior
from aipo.likelihoods import Likelihood
from aipo.path.metric import uneven, uneven_scale
from aipo.path.objective import objective
from aipo.path.problem import Problem
from aipo.path.starts import solved_start
from aipo.posterior.langevin import Draw, LangevinOptions, langevin
from aipo.priors import Prior
from aipo.priors.checks import check_inputs

# How far off the start a chain begins, of what the metric would have: a flow's posterior is about half as
# wide as its surrogate's. From the mode itself F takes hundreds of steps to rise to what it is of draws, and
# what is measured poorly keeps the mode's size (dev/LOG.md).
BEGUN = 0.5

# How often the surrogate's solution under the likelihood itself is solved for, each time with the metric of
# the solution before: the first metric is of a picture in which dark values are several times too bright.
SOLVES = 2


@dataclass(frozen=True)
class Samples:
    """What a chain of each image found of the density ∝ exp(−D − λR).

    Attributes:
        mean: (B, C, H, W); at λ = 1 the posterior mean, of all estimates that with the least expected squared
            error if the prior is true.
        std: the standard deviation of every value, like `mean`.
        images: some of the pictures drawn, evenly spread over the chain, (count, B, C, H, W).
        objectives: F along the chain, nats, (steps, B); it should fluctuate, not rise or fall.
        evaluations: of the prior, spent on each image.
    """

    mean: Images
    std: Images
    images: Tensor
    objectives: Tensor
    evaluations: int

    def interval(self, coverage: float = 0.9) -> tuple[Images, Images]:
        """Lower and upper end of an interval that holds each true value with that probability.

        Of a normal distribution with `mean` and `std`: a chain of a few hundred steps knows no quantiles.

        Raises:
            InputError: a coverage outside (0, 1).
        """
        if not 0 < coverage < 1:
            raise InputError(f"coverage = {coverage}; a probability lies in (0, 1)")
        width = torch.special.ndtri(torch.tensor((1 + coverage) / 2)) * self.std
        return self.mean - width, self.mean + width


def sample(
    likelihood: Likelihood,
    prior: Prior,
    count: int = 8,
    weight: float = 1.0,
    options: LangevinOptions | None = None,
    start: Images | None = None,
    watch: Callable[[Draw], None] | None = None,
    seed: int = 0,
) -> Samples:
    """Draw from the posterior of every image of a batch.

    Args:
        likelihood: D.
        prior: R; its `surrogate`, where it has one, gives start and metric.
        count: pictures to keep of each chain.
        weight: λ; 1 is the posterior.
        options: length and step of the chain.
        start: (B, C, H, W) near which the chains begin; by default the surrogate's own picture.
        watch: called with every draw, for progress bars.
        seed: 0 or more; the same seed gives the same chains, another seed gives others. The noise of an
            image follows from its measurement and the seed, whatever else is in its batch.

    Raises:
        InputError: more pictures to keep than steps after the burn-in, a weight that is not positive, or a
            negative seed.
    """
    check_inputs(likelihood, prior)
    # Equal problems get equal answers.
    likelihood = likelihood.simplest()
    problem = sampling_problem(likelihood, prior)
    return chain(problem, likelihood, count, weight, options, start, watch, seed)


def chain(
    problem: Problem,
    likelihood: Likelihood,
    count: int = 8,
    weight: float = 1.0,
    options: LangevinOptions | None = None,
    start: Images | None = None,
    watch: Callable[[Draw], None] | None = None,
    seed: int = 0,
) -> Samples:
    """As `sample`, of a `sampling_problem` at hand: preparing one can take longer than its chain."""
    options = options or LangevinOptions()
    used = options.evaluations - options.burn_in
    if not 1 <= count <= used:
        raise InputError(f"count = {count}; keep between 1 and {used} of the steps after the burn-in")
    if not 0 < weight < float("inf"):
        raise InputError(f"weight = {weight}; use a positive number, 1 for the posterior")
    if seed < 0:
        raise InputError(f"seed = {seed}; use a whole number, 0 or more")
    weights = torch.full((len(likelihood),), weight).to(likelihood.y)
    white = _white(likelihood, seed)
    begin = problem.start(weights) if start is None else start
    if problem.noise is not None:
        begin = begin + BEGUN * problem.noise(weights, white)
    keep = set(torch.linspace(0, used - 1, count + 1)[1:].round().long().tolist())
    mean, squares = torch.zeros_like(begin), torch.zeros_like(begin)
    images, objectives = [], []
    for draw in langevin(problem, begin, weights, options, white):
        objectives.append(draw.objective)
        if watch:
            watch(draw)
        number = draw.index - options.burn_in
        if number >= 0:
            change = draw.x - mean
            mean = mean + change / (number + 1)
            squares = squares + change * (draw.x - mean)
        if number in keep:
            images.append(draw.x)
    std = (squares / max(1, used - 1)).sqrt()
    return Samples(mean, std, torch.stack(images), torch.stack(objectives), options.evaluations + 1)


def _white(likelihood: Likelihood, seed: int) -> White:
    """Noise of every image that follows from its measurement and the seed."""
    seeds = [SeedSequence((content_seed(y), seed)).generate_state(1)[0] for y in likelihood.y]
    return White([int(own) for own in seeds])


def sampling_problem(likelihood: Likelihood, prior: Prior) -> Problem:
    """D + λR with a metric as wide as the surrogate's posterior, and narrower where single values are surer.

    There a chain begins at the surrogate's solution under the likelihood itself, and from that solution the
    metric knows how sure each value is. A path is better off without either (dev/LOG.md).
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
