"""Likelihood + weight × prior → path → picture: the main public function."""

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from aipo.basics.arrays import Images, PerImage
from aipo.basics.errors import InputError, Status
from aipo.likelihoods import Likelihood
from aipo.path.options import PathOptions, ending
from aipo.path.state import State
from aipo.posterior.chain import chain, sampling_problem
from aipo.posterior.langevin import Draw, LangevinOptions
from aipo.priors import Prior
from aipo.reconstruction.final_steps import exact_form, final_steps, last_accepted
from aipo.reconstruction.follow import (
    PATIENCE,
    PathWatch,
    followed,
    problem_of,
    reconstruction,
    select,
    trace,
)
from aipo.reconstruction.result import Reconstruction
from aipo.selection.components import EVERYWHERE, entrywise, places
from aipo.selection.criteria import Discrepancy, Sure, l_curve
from aipo.selection.defaults import automatic, for_mixtures, residual_tells
from aipo.selection.mixture import mixture, near_shares, sure_shares

Weight = float | Literal["auto", "mean", "bayes", "sure", "discrepancy", "l-curve"]
Watch = Callable[[State | Draw], None]


def reconstruct(
    likelihood: Likelihood,
    prior: Prior,
    weight: Weight = "auto",
    options: PathOptions | None = None,
    watch: Watch | None = None,
    chain: LangevinOptions | None = None,
) -> Reconstruction:
    """Restore pictures from their measurements.

    Args:
        likelihood: what was measured, (B, ...).
        prior: density of pictures. Where its networks are of bfloat16 they lead the way, and float32 has the
            last steps to a fixed λ and the energies that are reported.
        weight: λ, a positive number; "bayes" (λ = 1, the maximum a posteriori); "mean" for the posterior
            mean, a chain at λ = 1 instead of a path (`aipo.sample`); "sure", "discrepancy" or "l-curve",
            which choose one state of the path; "auto", which mixes its states: where measured
            values are entries of the picture or blurred (denoising, inpainting, deblurring) and noise is
            Gaussian so that SURE is lowest, and elsewhere the state of the discrepancy principle, in equal
            parts with those of smaller λ, down to a quarter of its own. "sure" is PURE where noise is of
            photons.
        options: how the path is followed, by default `automatic(operator, prior)`, or for "auto"
            `for_mixtures(likelihood, prior)`. With a fixed λ it ends there. The other criteria follow the
            path once where SURE follows it twice, so they may spend twice the evaluations at each weight;
            the L-curve takes the whole path.
        watch: called with every state of a path and every draw of a chain, for progress bars.
        chain: how the chain of "mean" is run, by default `LangevinOptions()`.

    Raises:
        InputError: a weight that is none of these.
    """
    if options is None:
        mixed = weight == "auto"
        options = for_mixtures(likelihood, prior) if mixed else automatic(likelihood.operator, prior)
    if weight == "mean":
        found = _mean(likelihood, prior, chain, watch)
    else:
        found = _by_weight(likelihood, prior, weight, options, watch)
    exact = exact_form(prior)
    return found if exact is prior else _ended_at(found, found.image, exact)


def _by_weight(
    likelihood: Likelihood, prior: Prior, weight: Weight, options: PathOptions, watch: Watch | None
) -> Reconstruction:
    if weight == "auto":
        return _auto(likelihood, prior, options, watch)
    if weight == "sure":
        return select(Sure(likelihood), likelihood, prior, options, watch)
    if weight == "discrepancy":
        return _by_discrepancy(likelihood, prior, options, watch)
    if weight == "l-curve":
        return _corner(likelihood, prior, _doubled(options), watch)
    fixed = 1.0 if weight == "bayes" else weight
    if isinstance(fixed, str) or not 0 < fixed < float("inf"):
        raise InputError(
            f"weight = {weight!r}; use auto, mean, bayes, sure, discrepancy, l-curve or a positive number"
        )
    return _fixed(float(fixed), likelihood, prior, options, watch)


def _mean(
    likelihood: Likelihood, prior: Prior, options: LangevinOptions | None, watch: Watch | None
) -> Reconstruction:
    """The posterior mean, as a path of one state at λ = 1."""
    problem = sampling_problem(likelihood, prior)
    drawn = chain(problem, likelihood, options=options, watch=watch)
    weight = torch.ones(len(likelihood)).to(likelihood.y)
    data, energy = _energies(drawn.mean, likelihood, prior)
    evaluations = torch.full_like(weight, drawn.evaluations + 1).long()
    state = State(
        index=0,
        weight=weight,
        x=drawn.mean,
        data_energy=data,
        prior_energy=energy,
        objective=data + energy,
        decrement=torch.full_like(weight, torch.nan),
        evaluations=evaluations,
        status=torch.full_like(evaluations, int(Status.BUDGET)),
        accepted=torch.ones_like(weight, dtype=torch.bool),
    )
    chosen, values = torch.zeros_like(evaluations), torch.full((1, len(weight)), torch.nan)
    found = reconstruction(problem, [state], chosen, evaluations, "mean", values, likelihood, prior)
    return replace(found, drawn=drawn)


def _fixed(
    weight: float, likelihood: Likelihood, prior: Prior, options: PathOptions, watch: PathWatch
) -> Reconstruction:
    """The path up to λ = weight; its last accepted state is the answer."""
    options = ending(options, weight)
    tracer = trace(likelihood, prior, options)
    path = followed(tracer, watch)
    exact = exact_form(prior)
    if exact is not prior:
        path.append(final_steps(problem_of(likelihood, exact, options), options, path))
        if watch:
            watch(path[-1])
    values = torch.full((len(path), len(likelihood)), torch.nan)
    last = last_accepted(path)
    return reconstruction(
        tracer.problem, path, last, path[-1].evaluations, "fixed", values, likelihood, prior
    )


def _corner(likelihood: Likelihood, prior: Prior, options: PathOptions, watch: PathWatch) -> Reconstruction:
    """The whole path, and the corner of its L-curve."""
    tracer = trace(likelihood, prior, options)
    path = followed(tracer, watch)
    residuals = torch.stack([likelihood.misfit(state.x) for state in path])
    energies = torch.stack([state.prior_energy for state in path])
    usable = torch.stack([state.accepted & (state.weight > 0) for state in path])
    values = l_curve(residuals, energies, torch.stack([state.weight for state in path]), usable)
    return reconstruction(
        tracer.problem, path, values.argmin(0), path[-1].evaluations, "l-curve", values, likelihood, prior
    )


def _by_discrepancy(
    likelihood: Likelihood, prior: Prior, options: PathOptions, watch: PathWatch
) -> Reconstruction:
    criterion = Discrepancy(likelihood, options.falls)
    return select(criterion, likelihood, prior, _doubled(options), watch)


def _doubled(options: PathOptions) -> PathOptions:
    """For criteria that follow the path once where SURE follows it twice."""
    return replace(options, evaluations=2 * options.evaluations)


def _auto(likelihood: Likelihood, prior: Prior, options: PathOptions, watch: PathWatch) -> Reconstruction:
    """The states of the path mixed."""
    # What mixed measurements leave open, no estimate from them judges: the predictive risk is flat in λ. Blur
    # leaves open only what is finer than itself. Of photons the discrepancy principle's mixture is as good
    # (docs/results/photons.md).
    stein = likelihood.stein(torch.zeros_like(likelihood.y))
    if residual_tells(likelihood.operator) and stein is not None and stein.name == "sure":
        return _mixed_by_sure(likelihood, prior, options, watch)
    single = _by_discrepancy(likelihood, prior, options, watch)
    weights = torch.stack([state.weight for state in single.path])
    return _mixed(single, near_shares(single.chosen, weights, _usable(single)), prior)


def _mixed_by_sure(
    likelihood: Likelihood, prior: Prior, options: PathOptions, watch: PathWatch
) -> Reconstruction:
    sure = Sure(likelihood)
    pictures: list[Images] = []

    def collect(state: State) -> None:
        pictures.append(state.x)  # with the copies, which a reconstruction does not keep
        if watch:
            watch(state)

    single = select(sure, likelihood, prior, options, collect)
    where = places(single.image) if entrywise(likelihood.operator) else EVERYWHERE
    return _mixed(single, sure_shares(sure, pictures, _usable(single), where), prior, where)


def _usable(single: Reconstruction) -> Tensor:
    """States of λ > 0 that each image reached before it was finished, (states, B) bool.

    What it did later depends on the others of the batch.
    """
    steps = torch.arange(len(single.path), device=single.chosen.device)[:, None]
    positive = torch.stack([state.weight > 0 for state in single.path])
    reached = torch.isfinite(single.values) & (steps <= single.chosen + PATIENCE)
    return (reached & positive) | (steps == single.chosen)


def _mixed(single: Reconstruction, part: Tensor, prior: Prior, where: Tensor = EVERYWHERE) -> Reconstruction:
    """The mixture in place of the single state, with its own energies."""
    image = mixture([state.x for state in single.path], part, where)
    return replace(_ended_at(single, image, prior), shares=part)


def _ended_at(found: Reconstruction, image: Images, prior: Prior) -> Reconstruction:
    """This picture in place of the one that was found, with its own energies."""
    data, energy = _energies(image, found.likelihood, prior)
    return replace(
        found,
        image=image,
        data_energy=data,
        prior_energy=energy,
        objective=data + found.weight * energy,
        evaluations=found.evaluations + 1,
    )


@torch.no_grad()
def _energies(image: Images, likelihood: Likelihood, prior: Prior) -> tuple[PerImage, PerImage]:
    return likelihood(image), torch.cat([prior.energy(x) for x in image.split(1)])
