"""Noise that acts on every measured value by itself: counts and heavy tails.

With u = A x, D(x) = Σ e(u_i, y_i), where e is the negative log-density of one value with all constants. Some
densities need u > 0. Below a small u₀ their e goes on as a parabola that touches it at u₀, so a path may pass
through pictures with such values, and their energy rises the farther below u₀ they lie.
"""

import math
from abc import abstractmethod

import torch
from torch import Tensor

from aipo.basics.arrays import Images, Measurements, PerImage, as_per_image, expand, per_image_sum
from aipo.basics.errors import InputError
from aipo.likelihoods.likelihood import Likelihood, Stein, positive, standard_normal, uniform
from aipo.operators import Operator


class Pointwise(Likelihood):
    """A likelihood whose D is a sum over measured values. All maps below are like y, (B, ...)."""

    @abstractmethod
    def energies(self, u: Measurements) -> Measurements:
        """e(u, y) of each measured value, nats."""

    @abstractmethod
    def mean_and_variance(self, u: Measurements) -> tuple[Measurements, Measurements]:
        """Mean and variance of each y given its u."""

    @abstractmethod
    def draw(self, u: Measurements, generator: torch.Generator | None) -> Measurements:
        """Measurements y of u with fresh noise."""

    def __call__(self, x: Images) -> PerImage:
        return per_image_sum(self.energies(self.operator(x)))

    def simplest(self) -> Likelihood:
        return self.rearranged()

    def simulate(self, x: Images, generator: torch.Generator | None = None) -> Measurements:
        return self.draw(self.operator(x), generator)

    def moments(self, x: Images) -> tuple[Measurements, Measurements]:
        return self.mean_and_variance(self.operator(x))

    def precision(self, x: Images) -> Measurements:
        """(dE[y]/du)²/Var[y]: the part of a value's information about u that its mean carries.

        Source: McCullagh & Nelder 1989, Generalized Linear Models, on quasi-likelihood.
        """
        with torch.enable_grad():
            u = self.operator(x).detach().requires_grad_()
            mean, variance = self.mean_and_variance(u)
            slope = torch.autograd.grad(mean.sum(), u)[0]
        return slope**2 / variance.detach()

    def nearest(self) -> tuple[Measurements, float | PerImage]:
        """The same measurements, with the variance that noise has at u = y, averaged over each image."""
        variance = self.mean_and_variance(self.y)[1]
        return self.y, variance.flatten(1).mean(1).sqrt()


class Poisson(Pointwise):
    """Counts k of photons, y = k/gain, k ~ Poisson(gain·u + background).

    e = r − k log r + log k! with r = gain·u + background, continued below r = ½.

    Args:
        operator: A.
        y: counts divided by the gain, 0 or more.
        gain: photons per unit of u, positive; one number or one per image.
        background: expected counts without light, 0 or more; one number or one per image.

    Raises:
        InputError: see `Likelihood`; or counts are negative or fractional, the gain is not positive, or the
            background is negative.
    """

    per_image = ("gain", "background")
    least = 0.5

    def __init__(
        self,
        operator: Operator,
        y: Measurements,
        gain: float | Tensor,
        background: float | Tensor = 0.0,
    ):
        super().__init__(operator, y)
        self.gain = positive("gain", gain, y)
        self.background = as_per_image(background, y)
        dark = (self.background >= 0) & torch.isfinite(self.background)
        if self.background.shape != (len(y),) or not bool(dark.all()):
            raise InputError(f"background = {background}; counts without light are 0 or more")
        counts = (y * expand(self.gain, y)).round()
        off = (counts - y * expand(self.gain, y)).abs() / (1 + counts.abs())
        if bool((counts < 0).any()) or float(off.max()) > 1e-3:
            raise InputError(
                f"y · gain must be whole counts of 0 or more, but reaches {float(y.min()):g} · gain and lies "
                f"{float(off.max()):.2g} off; divide the counts by the gain, or use PoissonGaussian"
            )

    def energies(self, u: Measurements) -> Measurements:
        k = self.y * expand(self.gain, u)
        rate = self._rate(u)
        inside = rate.clamp_min(self.least)
        log_factorial = torch.lgamma(k + 1)
        e = inside - torch.xlogy(k, inside) + log_factorial
        below = (rate - self.least).clamp_max(0)
        return e + (1 - k / self.least) * below + 0.5 * (k + 1) / self.least**2 * below**2

    def mean_and_variance(self, u: Measurements) -> tuple[Measurements, Measurements]:
        gain, rate = expand(self.gain, u), self._rate(u).clamp_min(self.least)
        return rate / gain, rate / gain**2

    def precision(self, x: Images) -> Measurements:
        """The inverse variance; below half an expected count, that of half a count."""
        return self.mean_and_variance(self.operator(x))[1].reciprocal()

    def draw(self, u: Measurements, generator: torch.Generator | None) -> Measurements:
        counts = torch.poisson(self._rate(u).clamp_min(0).cpu(), generator=generator)
        return counts.to(u) / expand(self.gain, u)

    def _rate(self, u: Measurements) -> Measurements:
        return expand(self.gain, u) * u + expand(self.background, u)

    def nearest(self) -> tuple[Measurements, float | PerImage]:
        u = self._light()
        variance = self.mean_and_variance(u)[1]
        return u, variance.flatten(1).mean(1).sqrt()

    def stein(self, white: Measurements) -> Stein:
        """Unbiased to first order in 1/gain; k/gain² is an unbiased estimate of a value's variance.

        Source: Luisier, Vonesch, Blu & Unser 2010, Fast interscale wavelet denoising of Poisson-corrupted
        images (PURE).
        """
        variance = self.y / expand(self.gain, self.y)
        return Stein(False, self._light(), variance.sqrt() * white, per_image_sum(variance))

    def _light(self) -> Measurements:
        """The measurement without its background."""
        return self.y - expand(self.background / self.gain, self.y)


class PoissonGaussian(Pointwise):
    """Photon noise and read-out noise in the usual Gaussian approximation: y ~ N(u, u/gain + σ²).

    e = (y − u)²/(2v) + ½ log 2πv with v = max(u, 0)/gain + σ².

    Args:
        operator, y: see `Likelihood`.
        gain: photons per unit of u, positive; one number or one per image.
        sigma: σ > 0 of the read-out noise in units of y; one number or one per image.

    Raises:
        InputError: see `Likelihood`; or gain or σ is not positive.

    Source: Foi, Trimeche, Katkovnik & Egiazarian 2008, Practical Poissonian–Gaussian noise modeling and
    fitting for single-image raw-data.
    """

    per_image = ("gain", "sigma")

    def __init__(self, operator: Operator, y: Measurements, gain: float | Tensor, sigma: float | Tensor):
        super().__init__(operator, y)
        self.gain, self.sigma = positive("gain", gain, y), positive("sigma", sigma, y)

    def energies(self, u: Measurements) -> Measurements:
        variance = self.mean_and_variance(u)[1]
        return 0.5 * (self.y - u) ** 2 / variance + 0.5 * torch.log(2 * math.pi * variance)

    def mean_and_variance(self, u: Measurements) -> tuple[Measurements, Measurements]:
        return u, u.clamp_min(0) / expand(self.gain, u) + expand(self.sigma**2, u)

    def draw(self, u: Measurements, generator: torch.Generator | None) -> Measurements:
        normal = standard_normal(u, generator)
        return u + self.mean_and_variance(u)[1].sqrt() * normal

    def stein(self, white: Measurements) -> Stein:
        """As for Poisson noise. If a y is so negative that its variance would be too, its probe is 0.

        Source: Le Montagner, Angelini & Olivo-Marin 2014, An unbiased risk estimator for image denoising in
        the presence of mixed Poisson–Gaussian noise.
        """
        variance = self.y / expand(self.gain, self.y) + expand(self.sigma**2, self.y)
        probe = variance.clamp_min(0).sqrt() * white
        return Stein(False, self.y, probe, per_image_sum(variance))


class Scaled(Pointwise):
    """Noise that is added to u, with a distribution of fixed shape and one scale per image.

    Args:
        operator, y: see `Likelihood`.
        scale: positive, in units of y; one number or one per image.

    Raises:
        InputError: see `Likelihood`; or the scale is not positive.
    """

    per_image = ("scale",)

    def __init__(self, operator: Operator, y: Measurements, scale: float | Tensor):
        super().__init__(operator, y)
        self.scale = positive("scale", scale, y)


class Laplace(Scaled):
    """Heavy tails: y = u + e with e = |y − u|/b + log 2b.

    The energy has corners, so its gradient does not vanish near the minimum. If A has full row rank, A⁺y
    minimises D.

    Args:
        operator, y: see `Likelihood`.
        scale: b > 0; the standard deviation is √2·b.
    """

    def energies(self, u: Measurements) -> Measurements:
        scale = expand(self.scale, u)
        return (self.y - u).abs() / scale + torch.log(2 * scale)

    def mean_and_variance(self, u: Measurements) -> tuple[Measurements, Measurements]:
        return u, expand(2 * self.scale**2, u).expand_as(u)

    def draw(self, u: Measurements, generator: torch.Generator | None) -> Measurements:
        centred = uniform(u, generator) - 0.5
        noise = -centred.sign() * torch.log1p(-2 * centred.abs().clamp_max(0.5 - 1e-16))
        return u + expand(self.scale, u) * noise.to(u)


class Logistic(Scaled):
    """Tails between those of a Gaussian and of `Laplace`, and an energy without corners.

    e = r + 2 log(1 + exp(−r)) + log s with r = (y − u)/s.

    Args:
        operator, y: see `Likelihood`.
        scale: s > 0; the standard deviation is π s/√3.
    """

    def energies(self, u: Measurements) -> Measurements:
        scale = expand(self.scale, u)
        r = (self.y - u) / scale
        return r + 2 * torch.nn.functional.softplus(-r) + torch.log(scale)

    def mean_and_variance(self, u: Measurements) -> tuple[Measurements, Measurements]:
        return u, expand(self.scale**2 * math.pi**2 / 3, u).expand_as(u)

    def draw(self, u: Measurements, generator: torch.Generator | None) -> Measurements:
        drawn = uniform(u, generator)
        return u + expand(self.scale, u) * torch.logit(drawn).to(u)


class StudentT(Pointwise):
    """Outliers: y = u + s·t, where t follows Student's distribution with ν degrees of freedom.

    e is not convex in u: the farther away a value is, the less it pulls.

    Args:
        operator, y: see `Likelihood`.
        freedom: ν > 2, so that the noise has a variance; one number for all images.
        scale: s > 0 in units of y, one number or one per image.

    Raises:
        InputError: see `Likelihood`; or ν is 2 or less, or the scale is not positive.
    """

    shared = ("freedom",)
    per_image = ("scale",)

    def __init__(self, operator: Operator, y: Measurements, freedom: float, scale: float | Tensor):
        super().__init__(operator, y)
        if not 2 < freedom < math.inf:
            raise InputError(f"freedom = {freedom}; use more than 2, so that the noise has a variance")
        self.freedom = freedom
        self.scale = positive("scale", scale, y)

    def energies(self, u: Measurements) -> Measurements:
        nu, scale = self.freedom, expand(self.scale, u)
        constant = math.lgamma(nu / 2) - math.lgamma((nu + 1) / 2) + 0.5 * math.log(nu * math.pi)
        return constant + torch.log(scale) + (nu + 1) / 2 * torch.log1p(((self.y - u) / scale) ** 2 / nu)

    def mean_and_variance(self, u: Measurements) -> tuple[Measurements, Measurements]:
        return u, expand(self.scale**2 * self.freedom / (self.freedom - 2), u).expand_as(u)

    def draw(self, u: Measurements, generator: torch.Generator | None) -> Measurements:
        from scipy.special import stdtrit  # slow to load, and nothing but simulation needs it

        drawn = stdtrit(self.freedom, uniform(u, generator).cpu().numpy())
        return u + expand(self.scale, u) * torch.as_tensor(drawn).to(u)
