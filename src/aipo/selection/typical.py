"""What a result says of a picture that is unlike those its prior was trained on."""

from collections.abc import Iterator

import torch

from aipo.basics.arrays import Images, PerImage
from aipo.likelihoods import Likelihood
from aipo.priors.library import bundled_priors, load_prior
from aipo.priors.prior import Prior
from aipo.selection.structure import residual_tells

# From so many standard deviations on a picture is called unusual, and unlike anything. Of pictures like those
# of the training up to one in twelve is unusual (docs/results/typical.md).
UNTYPICAL, UNLIKE = 3.0, 5.0

# The part of the noise of single entries that a restoration leaves at most, as an error of the picture.
LEFT = 0.5

# The error of pictures that were measured as mixtures, whose noise says little about it.
UNKNOWN = 0.05


def untypical(likelihood: Likelihood, prior: Prior, image: Images) -> PerImage | None:
    """How many standard deviations restored pictures are from those that the prior was trained on, (B,).

    None if the prior cannot tell (`FlowPrior.untypical`).
    """
    told = getattr(prior, "untypical", None)
    return None if told is None else told(image, _error(likelihood))


def untypical_sentence(
    likelihood: Likelihood, prior: Prior, image: Images, found: PerImage | None
) -> list[str]:
    """A sentence if pictures are untypical, with the bundled priors that know them; else none.

    Args:
        found: what `untypical` says of them.
    """
    if found is None or not bool((found > UNTYPICAL).any()):
        return []
    far, most = found > UNTYPICAL, float(found.max())
    which = "The picture is" if len(found) == 1 else f"{int(far.sum())} of {len(found)} pictures are"
    known = " or ".join(_known_to(image[far], _error(likelihood)[far]))
    remedy = f"try --prior {known}" if known else "train a prior on such pictures (aipo train)"
    if most > UNLIKE:
        said = f"unlike anything that the prior was trained on: {most:.1f} standard deviations; {remedy}"
        return [f"{which} {said}, and trust nothing that was filled in"]
    return [f"{which} unusual for the prior: {most:.1f} standard deviations; perhaps {remedy}"]


def _error(likelihood: Likelihood) -> PerImage:
    """How far restored pictures may be from the truth, as a standard deviation, (B,)."""
    noise = likelihood.noise_level
    return LEFT * noise if residual_tells(likelihood.operator) else torch.full_like(noise, UNKNOWN)


def _known_to(image: Images, error: PerImage) -> Iterator[str]:
    """Names of the bundled priors that such pictures are typical of."""
    for name in bundled_priors():
        prior = load_prior(name).to(image)
        same = zip(image.shape[1:], prior.shape, strict=True)
        if all(side in (have, None) for have, side in same):
            found = prior.untypical(image, error)
            if found is not None and bool((found <= UNTYPICAL).all()):
                yield name
