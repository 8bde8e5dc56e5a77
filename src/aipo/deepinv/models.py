"""aipo for deepinv: a `Reconstructor`, and a prior for deepinv's optimisation and sampling."""

from typing import Any

import torch
from torch import Tensor

from aipo.basics.arrays import Images, PerImage
from aipo.basics.derivatives import value_and_gradient
from aipo.basics.errors import InputError
from aipo.deepinv.loading import load
from aipo.deepinv.noise import likelihood_of
from aipo.deepinv.physics import alike, operator_and_values
from aipo.likelihoods import Gaussian, Heteroscedastic, Likelihood
from aipo.operators import LinearOperator, Stack
from aipo.path.options import PathOptions
from aipo.posterior.langevin import LangevinOptions
from aipo.priors import Prior
from aipo.reconstruction.reconstruct import reconstruct
from aipo.selection.plans import Weight

dinv = load()


def from_deepinv(physics: Any, y: Any, shape: tuple[int, int, int] | None = None) -> Likelihood:
    """The likelihood of a measurement y = physics(x).

    Args:
        physics: a `deepinv.physics.Physics` with a noise model; its parameters are taken as they are now.
        y: (B, ...) as the physics gives it, a tensor or a list of tensors.
        shape: (C, H, W) of the picture, where neither `A_adjoint` nor `img_size` tells it. MRI measures
            complex pictures of two channels; with one channel here the picture is real.

    Raises:
        InputError: the noise model has no density, there is a sensor model, parameters differ from image to
            image, or the physics is not for pictures (B, C, H, W).
    """
    if isinstance(physics, dinv.physics.StackedPhysics):
        return _stacked(
            [from_deepinv(part, own, shape) for part, own in zip(physics.physics_list, y, strict=True)]
        )
    operator, values = operator_and_values(physics, y, shape)
    return likelihood_of(physics.noise_model, operator, values)


def _stacked(parts: list[Likelihood]) -> Likelihood:
    """Several instruments with Gaussian noise as one likelihood."""
    operators = [part.operator for part in parts if isinstance(part.operator, LinearOperator)]
    noises = [part.sigma for part in parts if isinstance(part, Gaussian)]
    if len(noises) < len(parts) or len(operators) < len(parts):
        raise InputError("stacked physics are taken where each is linear and has Gaussian noise")
    y = torch.cat([part.y.flatten(1) for part in parts], 1)
    sigma = torch.cat(
        [own[:, None].expand(-1, a.measurements) for own, a in zip(noises, operators, strict=True)], 1
    )
    return Heteroscedastic(Stack(*operators), y, sigma)


class Reconstructor(dinv.models.Reconstructor):
    """Restores pictures from the measurements of a physics, whose noise model describes the noise.

    Args:
        prior: density of pictures.
        weight: λ, or how it is chosen; see `aipo.reconstruct`.
        options: how the path is followed, by default as `aipo.reconstruct` does.
        shape: (C, H, W) of the picture, where the physics does not tell it; see `from_deepinv`.
        chain: how the chains of the posterior mean (`weight="mean"`) are run, their number and seed included.
    """

    def __init__(
        self,
        prior: Prior,
        weight: Weight = "auto",
        options: PathOptions | None = None,
        shape: tuple[int, int, int] | None = None,
        chain: LangevinOptions | None = None,
    ):
        super().__init__()
        self.prior = prior
        self.weight: Weight = weight
        self.options = options
        self.shape = shape
        self.chain = chain

    def forward(self, y: Any, physics: Any, **kwargs: Any) -> Images:
        """Restore pictures (B, C, H, W) from y (B, ...).

        Raises:
            InputError: see `from_deepinv`.
        """
        found = [
            reconstruct(
                from_deepinv(own, part, self.shape), self.prior, self.weight, self.options, chain=self.chain
            )
            for own, part in alike(physics, y, self.shape)
        ]
        return torch.cat([each.image for each in found])


class ExplicitPrior(dinv.optim.Prior):
    """R(x) = −log p(x), nats per image, for deepinv's algorithms, which call a prior explicit if it knows R.

    Args:
        prior: a prior of aipo, such as `aipo.load_prior("photos")`.
    """

    def __init__(self, prior: Prior):
        super().__init__()
        self.prior = prior
        self.explicit_prior = True

    def fn(self, x: Images, *args: Any, **kwargs: Any) -> PerImage:
        """R(x), (B,)."""
        return self.prior.energy(x)

    def grad(self, x: Images, *args: Any, **kwargs: Any) -> Tensor:
        """∇R(x), like x; no graph is kept."""
        return value_and_gradient(self.prior.energy, x)[1]
