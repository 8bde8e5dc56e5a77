"""The result of a reconstruction: the picture, how it was found, and how sure it is."""

from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from aipo.basics.arrays import Images, PerImage, content_seed
from aipo.basics.errors import Status
from aipo.gaussian import unsolved
from aipo.likelihoods import Likelihood
from aipo.path.options import PathOptions
from aipo.path.prepare import prepared
from aipo.path.problem import Problem
from aipo.path.state import State
from aipo.posterior.chain import Samples, chain, sampling_problem
from aipo.posterior.laplace import laplace_std
from aipo.priors.prior import Prior
from aipo.reconstruction.certificate import Certificate, certify
from aipo.reconstruction.follow import Followed, energies, exact_form
from aipo.selection.guard import Guarded, smoothed
from aipo.selection.plans import Plan
from aipo.selection.typical import untypical, untypical_sentence


@dataclass(frozen=True)
class Reconstruction:
    """The restored pictures and how they were found.

    Attributes:
        image: (B, C, H, W), not clipped to [0, 1].
        weight: the chosen λ, (B,); for a mixture that of the best single state.
        data_energy, prior_energy, objective: D, R and D + λR at the image, nats, (B,).
        evaluations: flow evaluations spent on each image, the criterion's copies included, (B,).
        status: how the search at the chosen weight ended, or the chains, one per image.
        plan: what was done and why.
        values: the criterion at every state of the path, (states, B); NaN where a weight was given.
        start: the picture with which the path would begin at the chosen weight, usually a closed form.
        path: every state visited, of the B measurements alone.
        chosen: the index of the answer in `path`, for a mixture that of the best single state, (B,).
        shares: the part of each state in the image, (states, B, colours, places). The colours are luminance
            and chrominance; the places are smooth, middling and rough. There is one colour, or one place, if
            they are treated alike.
        smooth: the part of a smooth filling in the holes, (B,); 0 where there are none.
        likelihood, prior: D and R.
        residuals: how far the surrogate's closed forms were solved for the whole batch, if by iterations: the
            worst relative residual of its "picture", with which a path or a chain begins, and of its
            "metric", where a chain needs it.
        drawn: the chains, if the picture is the posterior mean.
    """

    image: Images
    weight: PerImage
    data_energy: PerImage
    prior_energy: PerImage
    objective: PerImage
    evaluations: Tensor
    status: list[Status]
    plan: Plan
    values: Tensor
    start: Images
    path: list[State]
    chosen: Tensor
    shares: Tensor
    smooth: PerImage
    likelihood: Likelihood
    prior: Prior
    residuals: dict[str, float]
    drawn: Samples | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Without cached values, which cannot be written to a file and are prepared again when needed."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @property
    def criterion(self) -> str:
        """What chose the weight: fixed, sure, pure, discrepancy or l-curve; mean for the posterior mean."""
        return self.plan.criterion.name

    @property
    def reason(self) -> str:
        """What was done and why, in one sentence."""
        return self.plan.reason

    @property
    def remarks(self) -> list[str]:
        """What else the user should know, one sentence each.

        Do chains agree, what was not solved for, who filled a hole, and is the picture one for this prior?
        """
        verdict = [] if self.drawn is None else [self.drawn.verdict]
        far = untypical_sentence(self._simplest, self.prior, self.image, self.untypical)
        return verdict + unsolved(self.residuals) + smoothed(self.smooth) + far

    @cached_property
    def untypical(self) -> PerImage | None:
        """How many standard deviations the pictures are from those that the prior was trained on, (B,).

        0 for usual pictures; above 3 the prior does not know them. None if the prior cannot tell. It costs
        ten evaluations of the flow without derivatives.
        """
        return untypical(self._simplest, self.prior, self.image)

    @cached_property
    def problem(self) -> Problem:
        """The problem that the path solves, or that the chain draws from."""
        if isinstance(self.plan.options, PathOptions):
            return prepared(self.likelihood.simplest(), self.prior, self.plan.options)
        return self._sampling

    @cached_property
    def certificate(self) -> Certificate:
        """Whether a negative curvature was found on the path, which would refute the paper's assumption.

        Raises:
            InputError: a path over latents, whose curvature is not that of F over pictures.
        """
        return certify(self.problem, self.path, self.chosen)

    def samples(self, count: int) -> Tensor:
        """Pictures from the posterior p(x | y), (count, B, C, H, W), by a chain that begins at the image."""
        return chain(self._sampling, self._simplest, count, start=self.image).images

    @cached_property
    def posterior(self) -> Samples:
        """Mean, spread and intervals of the posterior p(x | y), by a chain that begins at the image."""
        return self.drawn or chain(self._sampling, self._simplest, start=self.image)

    @property
    def std(self) -> Images:
        """The posterior's standard deviation of every value, like `image`."""
        return self.posterior.std

    @cached_property
    def laplace_std(self) -> Images:
        """The standard deviation of every value if F were quadratic around the image, at its own λ.

        About 200 Hessian-vector products of the prior; a chain (`std`) is usually cheaper and better.
        """
        seeds = [content_seed(y) for y in self._simplest.y]
        return laplace_std(self._sampling, self.image, self.weight, seeds)

    @cached_property
    def _simplest(self) -> Likelihood:
        return self.likelihood.simplest()

    @cached_property
    def _sampling(self) -> Problem:
        """D + λR as chains need it; preparing it can take longer than a chain."""
        return sampling_problem(self._simplest, self.prior)


def reconstruction(
    planned: Plan, found: Followed, guarded: Guarded, shares: Tensor, likelihood: Likelihood, prior: Prior
) -> Reconstruction:
    """The result of a plan: the picture that was made of its states, with the picture's own energies.

    Args:
        planned: the plan.
        found: the states.
        guarded: the picture, its holes looked after.
        shares: the part of each state in the picture before that, (K, B, colours, places).
        likelihood, prior: the user's own.
    """
    image = guarded.image
    images = torch.arange(len(image), device=image.device)

    def pick(name: str) -> Tensor:
        return torch.stack([getattr(state, name) for state in found.path])[found.chosen, images]

    weight, exact, start = pick("weight"), exact_form(prior), found.start()
    data, energy = pick("data_energy"), pick("prior_energy")
    evaluations = found.evaluations + guarded.evaluations
    unseen = (image != pick("x")).flatten(1).any(1) | torch.tensor(exact is not prior).to(image.device)
    if bool(unseen.any()):
        (data, energy), evaluations = energies(image, likelihood, exact), evaluations + unseen
    made = Reconstruction(
        image=image,
        weight=weight,
        data_energy=data,
        prior_energy=energy,
        objective=data + weight * energy,
        evaluations=evaluations,
        status=[Status(int(value)) for value in pick("status")],
        plan=planned,
        values=found.values,
        start=start,
        path=found.path,
        chosen=found.chosen,
        shares=shares,
        smooth=guarded.share,
        likelihood=likelihood,
        prior=prior,
        residuals=dict(found.problem.residuals),
        drawn=found.drawn,
    )
    if len(found.pictures[0]) == len(image):  # without a criterion's copies
        vars(made)["problem"] = found.problem  # to prepare it again can take long
    return made
