"""`plan(likelihood, prior, weight)` is the one place that decides how a picture is restored.

A plan asks what the operator measures, whether noise is Gaussian and what the prior's surrogate knows. It
never asks for a class, so equal problems get equal plans, however they are spelled.
"""

from dataclasses import dataclass, replace
from typing import Literal

import torch

from aipo.basics.errors import InputError
from aipo.likelihoods import Likelihood
from aipo.path.options import PathOptions, ending
from aipo.path.splitting import SplittingOptions
from aipo.path.tweedie import TweedieOptions
from aipo.posterior.langevin import LangevinOptions
from aipo.priors.prior import Prior
from aipo.selection.beginning import Begin, beginning
from aipo.selection.combine import Alone, Combine, LowestRisk, NearWeights
from aipo.selection.criteria import Criterion, Discrepancy, Given, LCurve, Mean, Sure
from aipo.selection.defaults import COLD, COLD_WEIGHT, STEPS, is_large, knows_texture, path_to_minima
from aipo.selection.guard import Guard, Unguarded, by_chain, by_path, by_splitting, guard
from aipo.selection.structure import (
    at_once,
    in_steps,
    isotropic,
    knows_noise,
    leaves_wide,
    loses_entries,
    residual_tells,
)

UNGUARDED = Unguarded()

# ε of Stein's estimate where the prior removes noise at once.
EPSILON = 0.03

Weight = float | Literal["auto", "mean", "bayes", "sure", "discrepancy", "l-curve"]


@dataclass(frozen=True)
class Plan:
    """How a picture is restored.

    Attributes:
        options: how the path is followed, how Gaussian noise over a whole picture is removed in steps, or how
            the chain of the posterior mean is run.
        criterion: what judges the states of the path.
        combine: how the states become one picture.
        guard: what looks after holes that the prior fills.
        reason: what is done and why, in one sentence.
        weight: λ of a chain.
        begin: how the picture is found near which a chain begins; None for the surrogate's.
    """

    options: PathOptions | TweedieOptions | SplittingOptions | LangevinOptions
    criterion: Criterion
    combine: Combine
    guard: Guard
    reason: str
    weight: float = 1.0
    begin: Begin | None = None


def plan(
    likelihood: Likelihood,
    prior: Prior,
    weight: Weight = "auto",
    options: PathOptions | None = None,
    chain: LangevinOptions | None = None,
) -> Plan:
    """How `aipo.reconstruct` restores, and why.

    Args:
        likelihood: D.
        prior: R.
        weight: see `aipo.reconstruct`.
        options: the user's own path, followed as it stands; with a given λ it ends there.
        chain: the user's own chain, for "mean".

    Raises:
        InputError: the weight is none of these; there is a chain without "mean", or a path with it; or "sure"
            is asked for under noise for which no such estimate is known.
    """
    likelihood = likelihood.simplest()
    if (weight == "mean" and options is not None) or (weight != "mean" and chain is not None):
        raise InputError(
            f"weight = {weight!r} with options for {'a path' if chain is None else 'a chain'}; the posterior "
            "mean takes chain=LangevinOptions(...), all else takes options=PathOptions(...)"
        )
    if weight == "mean":
        return _mean(likelihood, chain or LangevinOptions())
    if weight == "auto":
        return _automatic(likelihood, prior, options)
    usual = path_to_minima(likelihood.operator, prior)
    if weight == "sure":
        return _sure(likelihood, options or usual)
    if weight == "discrepancy":
        options = options or _once(usual)
        why = "λ is the one whose residual is as large as the noise, as was asked for"
        return _plan(options, Discrepancy(likelihood, options.falls), Alone(), why)
    if weight == "l-curve":
        why = "λ is at the corner of data energy against prior energy, as was asked for"
        return _plan(options or _once(usual), LCurve(likelihood), Alone(), why)
    fixed = _number(weight)
    options = ending(options or usual, fixed)
    return _plan(options, Given(likelihood), Alone(), f"λ ends at {fixed:g}, as was asked for")


def _automatic(likelihood: Likelihood, prior: Prior, options: PathOptions | None) -> Plan:
    """Steps where the prior knows the noise, a cold chain where its surrogate allows one, else a path."""
    if options is not None:
        return _mixed(likelihood, prior, options, options)
    white = at_once(likelihood, prior)
    if white or in_steps(likelihood, prior):
        sure, steps = Sure(likelihood, EPSILON), TweedieOptions() if white else SplittingOptions()
        why = (
            "SURE (Stein's estimate of the error) mixes what they give with the Gaussian surrogate's picture"
        )
        return _plan(steps, sure, LowestRisk(sure), why)
    if is_large(likelihood.operator) and knows_noise(prior) and not likelihood.rough:
        return _large(likelihood, prior)
    alike = knows_texture(prior) and isotropic(likelihood.operator)
    if not knows_texture(prior) or (leaves_wide(likelihood.operator) and not alike):
        usual = path_to_minima(likelihood.operator, prior)
        return _mixed(likelihood, prior, usual, _once(usual))
    draws = COLD.evaluations - COLD.burn_in
    reason = (
        f"The picture is the mean of {draws} draws of a chain at λ = {COLD_WEIGHT:g} and temperature "
        f"{COLD.temperature:g}; it is near the posterior mean, for a quarter of its cost."
    )
    watch = guard(likelihood, by_chain(prior, COLD, COLD_WEIGHT), prior)
    begin = beginning(likelihood, prior, alike)
    return Plan(COLD, Mean(likelihood), Alone(), watch, reason, COLD_WEIGHT, begin)


def _large(likelihood: Likelihood, prior: Prior) -> Plan:
    """Steps for pictures for which a chain takes too long."""
    kept = likelihood.operator.kept()
    whole = kept is not None and not loses_entries(kept)
    steps = SplittingOptions() if whole else STEPS
    watch = guard(likelihood, by_splitting(prior, steps), prior)
    why = "a chain would be a little better, but takes minutes for a picture of this size"
    return _plan(steps, Mean(likelihood), Alone(), why, watch)


def _mixed(likelihood: Likelihood, prior: Prior, twice: PathOptions, once: PathOptions) -> Plan:
    """A mixture of the states of a path, by SURE where it can judge the picture.

    Args:
        twice: the path that is followed for the measurements and for SURE's copies of them.
        once: the path where there are no copies.
    """
    # No estimate from mixed measurements judges what they leave open: the predictive risk is flat in λ. Blur
    # leaves open only detail finer than itself. For photons the discrepancy principle's mixture is as good
    # (docs/results/photons.md).
    stein = likelihood.stein(torch.zeros_like(likelihood.y))
    tells = residual_tells(likelihood.operator)
    if tells and stein is not None and stein.exact:
        sure = Sure(likelihood)
        entries = likelihood.operator.kept() is not None
        known = "single entries were measured" if entries else "only fine detail was lost"
        why = f"SURE (Stein's estimate of the error) mixes its pictures: noise is Gaussian and {known}"
        watch = guard(likelihood, by_path(prior, twice), prior)
        return _plan(twice, sure, LowestRisk(sure), why, watch)
    because = "noise is not Gaussian" if tells else "SURE cannot judge what mixed measurements leave open"
    why = f"pictures whose residual is about as large as the noise are averaged, because {because}"
    watch = guard(likelihood, by_path(prior, once), prior)
    return _plan(once, Discrepancy(likelihood, once.falls), NearWeights(), why, watch)


def _sure(likelihood: Likelihood, options: PathOptions) -> Plan:
    sure = Sure(likelihood)
    why = f"λ is the one of the smallest estimated error ({sure.name.upper()}), as was asked for"
    return _plan(options, sure, Alone(), why)


def _mean(likelihood: Likelihood, chain: LangevinOptions) -> Plan:
    several = "a chain" if chain.chains == 1 else f"each of {chain.chains} chains"
    reason = (
        f"The posterior mean was asked for, over {chain.evaluations - chain.burn_in} draws of {several} at "
        "λ = 1; if the prior is correct, it minimises the expected squared error."
    )
    return Plan(chain, Mean(likelihood), Alone(), UNGUARDED, reason)


def _plan(
    options: PathOptions | TweedieOptions | SplittingOptions,
    criterion: Criterion,
    combine: Combine,
    why: str,
    guard: Guard = UNGUARDED,
) -> Plan:
    return Plan(options, criterion, combine, guard, f"{options.described()}; {why}.")


def _once(options: PathOptions) -> PathOptions:
    """Twice the evaluations, for criteria that follow the path once where SURE follows it twice."""
    return replace(options, evaluations=2 * options.evaluations)


def _number(weight: Weight) -> float:
    fixed = 1.0 if weight == "bayes" else weight
    if isinstance(fixed, str) or not 0 < fixed < float("inf"):
        raise InputError(
            f"weight = {weight!r}; use auto, mean, bayes, sure, discrepancy, l-curve or a positive number"
        )
    return float(fixed)
