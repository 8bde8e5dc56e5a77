"""What every Gaussian stand-in N(μ, Σ) for a prior offers, on images (B, C, H, W)."""

import math
from typing import Protocol, runtime_checkable

from torch import Tensor

from aipo.basics.arrays import Images, PerImage, dot

# No pixel of an 8-bit picture is known better than this: a standard deviation of about one level.
VARIANCE_FLOOR = 2e-5


class Surrogate(Protocol):
    """A Gaussian density of images.

    Optional, and used where present: `shape`, (C, H, W) of its images or (C, None, None) for any size, and
    `textured`, whether Σ knows how neighbouring pixels vary together at the finest scale.
    """

    def mean_like(self, x: Images) -> Images:
        """μ, broadcastable to x."""
        ...

    def coordinates(self, x: Images) -> Tensor:
        """An empty u for each picture of a batch."""
        ...

    def factor(self, u: Tensor) -> Images:
        """F u, with Σ = F Fᵀ."""
        ...

    def factor_adjoint(self, v: Images) -> Tensor:
        """Fᵀ v."""
        ...

    def precision(self, v: Images) -> Images:
        """Σ⁻¹ v."""
        ...


@runtime_checkable
class Filtering(Surrogate, Protocol):
    """One that knows what a noisy picture says of the picture.

    `noise` is the variance of white noise here and below, (B,).
    """

    def covariance(self, v: Images) -> Images:
        """Σ v."""
        ...

    def wiener(self, v: Images, noise: PerImage) -> Images:
        """Σ (Σ + noise)⁻¹ v: what a picture of this density keeps under white noise of that variance."""
        ...


@runtime_checkable
class Decomposed(Filtering, Protocol):
    """Σ = W Wᵀ + S, with few columns W, the components, and a rest S that is simple to invert."""

    def components(self, like: Images) -> Images:
        """The columns of W as pictures of that size, (r, C, H, W), in float64."""
        ...

    def inverse_rest(self, v: Images, noise: PerImage) -> Images:
        """(S + noise)⁻¹ v."""
        ...


@runtime_checkable
class Textured(Decomposed, Protocol):
    """One whose rest S is the same everywhere in the picture: diagonal in the frequencies of some colours."""

    colours: Tensor

    def texture(self, like: Images) -> Tensor:
        """Eigenvalues of S for the size of `like`, (C, H, W//2 + 1) in `rfft2` order, in float64."""
        ...

    def averaged_inverse(self, like: Images, noise: float) -> Tensor:
        """The mean of (Σ + noise)⁻¹ over all places, as matrices between the colours at each frequency.

        Moved to every place (H·W of them) and averaged, a matrix becomes a filter. (H, W//2 + 1, C, C) in
        `rfft2` order, in float64.
        """
        ...


@runtime_checkable
class Independent(Decomposed, Protocol):
    """One whose rest S is independent noise of each pixel: diag(d), with d the variances, (n,)."""

    variances: Tensor


class Normalised(Surrogate, Protocol):
    """One whose density has a known constant."""

    def log_det(self) -> Tensor:
        """log det Σ, in float64."""
        ...


def energy(surrogate: Surrogate, x: Images) -> PerImage:
    """½ (x − μ)ᵀ Σ⁻¹ (x − μ), without the constant: a yardstick of how far x is from the data, (B,)."""
    centred = x - surrogate.mean_like(x)
    return 0.5 * dot(centred, surrogate.precision(centred))


def log_prob(surrogate: Normalised, x: Images) -> PerImage:
    """log N(x; μ, Σ), nats per image."""
    constant = 0.5 * surrogate.log_det() + 0.5 * math.log(2 * math.pi) * x[0].numel()
    return -energy(surrogate, x.double()) - constant
