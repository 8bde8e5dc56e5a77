"""Likelihood and prior in, picture out: plan, follow, combine, guard, tell."""

from aipo.likelihoods import Likelihood
from aipo.path.options import PathOptions
from aipo.posterior.langevin import LangevinOptions
from aipo.priors.checks import check_inputs
from aipo.priors.prior import Prior
from aipo.reconstruction.follow import Watch, follow
from aipo.reconstruction.progress import Progress
from aipo.reconstruction.result import Reconstruction, reconstruction
from aipo.reconstruction.tiles import in_tiles, restore_tiles
from aipo.selection.defaults import any_size
from aipo.selection.plans import Plan, Weight, plan


def reconstruct(
    likelihood: Likelihood,
    prior: Prior,
    weight: Weight = "auto",
    options: PathOptions | None = None,
    watch: Watch | None = None,
    chain: LangevinOptions | None = None,
    progress: Progress | None = None,
) -> Reconstruction:
    """Restore pictures from their measurements.

    Args:
        likelihood: what was measured, (B, ...).
        prior: density of pictures. If its networks are in bfloat16, the last steps to a given λ and the
            reported energies are in float32.
        weight: λ, or how it is found:

            - "auto" looks for the posterior mean. Gaussian noise over a whole picture goes in a few steps
              (in two, if it is white) if the prior knows noise of that strength. Elsewhere the picture is
              the mean of a cold chain, or a mixture of the states of a path if the prior's surrogate has no
              texture, or if measurements see some colours or places far better than others. Holes are mixed
              with a smooth filling as far as that predicts measured entries around them better than the
              prior does. With your own options it is a mixture of the states of your path, whose shares
              SURE chooses where it can.
            - "mean" is the posterior mean, a chain at λ = 1 instead of a path (`aipo.sample`).
            - "bayes" is λ = 1, the maximum a posteriori; a positive number is λ itself.
            - "sure", "discrepancy" and "l-curve" choose one state of the path. "sure" is PURE for photons.
        options: how the path is followed; by default `aipo.plan` decides. Your own options are followed as
            they stand, and with a given λ the path ends there.
        watch: called with every state of a path and every draw of a chain, if the picture is restored whole.
        chain: how many chains "mean" runs, how long and under which seed; by default `LangevinOptions()`.
        progress: called as progress(done, expected) after every evaluation of the prior, for progress bars;
            `expected` counts the evaluations of the whole restoration and is corrected on the way.

    A large picture whose measurements are of single pixels is restored in tiles that fade into one another
    (`aipo.reconstruction.tiles`), so memory does not grow with it.

    Returns:
        The pictures, and how they were found; `plan.reason` says in one sentence what was done and why.

    Raises:
        InputError: the weight is none of these, it does not use the options, or likelihood and prior do not
            fit each other.
    """
    check_inputs(likelihood, prior)
    if in_tiles(likelihood) and any_size(prior):

        def restore(part: Likelihood, tell: Progress) -> Reconstruction:
            return _whole(part, prior, plan(part, prior, weight, options, chain), None, tell)

        return restore_tiles(likelihood, restore, progress)
    return _whole(likelihood, prior, plan(likelihood, prior, weight, options, chain), watch, progress)


def _whole(
    likelihood: Likelihood, prior: Prior, planned: Plan, watch: Watch | None, progress: Progress | None
) -> Reconstruction:
    """The pictures of a plan, each restored as one."""
    found = follow(planned, likelihood.simplest(), prior, watch, progress)
    image, shares = planned.combine(found.pictures, found.weights, found.chosen, found.usable)
    guarded = planned.guard(image, found.chosen, found.counted)
    return reconstruction(planned, found, guarded, shares, likelihood, prior)
