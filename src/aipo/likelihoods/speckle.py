"""Noise of coherent waves, in radar, ultrasound and magnetic resonance: speckle and magnitudes."""

import math

import torch
from torch import Tensor

from aipo.basics.arrays import Images, Measurements, PerImage, expand
from aipo.basics.errors import InputError
from aipo.likelihoods.likelihood import positive, standard_normal, uniform
from aipo.likelihoods.pointwise import Pointwise
from aipo.operators import Operator


class Gamma(Pointwise):
    """Speckle: y = u·g, where g follows a Gamma distribution of shape L and mean 1 (an average of L looks).

    e = L y/u + L log u − (L − 1) log y − L log L + log Γ(L), continued below u = 0.01.

    Args:
        operator: A.
        y: positive.
        looks: L > 0, one number or one per image; the relative standard deviation is 1/√L.

    Raises:
        InputError: see `Likelihood`; or y or L is not positive.
    """

    per_image = ("looks",)
    least = 0.01

    def __init__(self, operator: Operator, y: Measurements, looks: float | Tensor):
        super().__init__(operator, y)
        if not bool((y > 0).all()):
            raise InputError(f"y must be positive under speckle, but reaches {float(y.min()):g}")
        self.looks = positive("looks", looks, y)

    def energies(self, u: Measurements) -> Measurements:
        looks, inside = expand(self.looks, u), u.clamp_min(self.least)
        constant = torch.lgamma(looks) - torch.xlogy(looks, looks) - (looks - 1) * torch.log(self.y)
        e = looks * self.y / inside + looks * torch.log(inside) + constant
        below, least = (u - self.least).clamp_max(0), self.least
        slope = looks / least - looks * self.y / least**2
        # Of the second derivative 2Ly/u³ − L/u² only the part that is sure to be positive.
        return e + slope * below + 0.5 * (2 * looks * self.y / least**3 + looks / least**2) * below**2

    def mean_and_variance(self, u: Measurements) -> tuple[Measurements, Measurements]:
        positive_u = u.clamp_min(self.least)
        return positive_u, positive_u**2 / expand(self.looks, u)

    def precision(self, x: Images) -> Measurements:
        """The inverse variance L/u²; below u = 0.01, that at 0.01."""
        return self.mean_and_variance(self.operator(x))[1].reciprocal()

    def draw(self, u: Measurements, generator: torch.Generator | None) -> Measurements:
        return u.clamp_min(self.least) * _speckle(expand(self.looks, u), u, generator).to(u)


class LogGamma(Pointwise):
    """The logarithm of speckle: y = u + log g, where g follows a Gamma distribution of shape L and mean 1.

    e = L exp(y − u) − L (y − u) − L log L + log Γ(L). It is convex in u, and smallest at u = y.

    Args:
        operator, y: see `Likelihood`.
        looks: L > 0, one number or one per image.

    Raises:
        InputError: see `Likelihood`; or L is not positive.
    """

    per_image = ("looks",)

    def __init__(self, operator: Operator, y: Measurements, looks: float | Tensor):
        super().__init__(operator, y)
        self.looks = positive("looks", looks, y)

    def energies(self, u: Measurements) -> Measurements:
        looks, r = expand(self.looks, u), self.y - u
        return looks * (torch.exp(r) - r) - torch.xlogy(looks, looks) + torch.lgamma(looks)

    def mean_and_variance(self, u: Measurements) -> tuple[Measurements, Measurements]:
        looks = expand(self.looks, u).expand_as(u)
        return u + torch.digamma(looks) - torch.log(looks), torch.polygamma(1, looks)

    def draw(self, u: Measurements, generator: torch.Generator | None) -> Measurements:
        return u + _speckle(expand(self.looks, u), u, generator).clamp_min(1e-300).log().to(u)


class Rician(Pointwise):
    """The magnitude y = |u + σ(n₁ + i n₂)| of a complex value, as in magnetic resonance imaging.

    e = (y² + u²)/(2σ²) − log I₀(y u/σ²) − log(y/σ²). Its minimum lies a little below u = y; if y < √2 σ, it
    lies at 0.

    Args:
        operator: A.
        y: positive.
        sigma: σ > 0 of the real part and of the imaginary part, in units of y; one number or one per image.

    Raises:
        InputError: see `Likelihood`; or y or σ is not positive.

    Source: Rice 1944; Gudbjartsson & Patz 1995, The Rician distribution of noisy MRI data.
    """

    per_image = ("sigma",)

    def __init__(self, operator: Operator, y: Measurements, sigma: float | Tensor):
        super().__init__(operator, y)
        if not bool((y > 0).all()):
            raise InputError(f"y must be positive, as magnitudes are, but reaches {float(y.min()):g}")
        self.sigma = positive("sigma", sigma, y)

    def energies(self, u: Measurements) -> Measurements:
        variance = expand(self.sigma**2, u)
        z = self.y * u / variance
        squares = (self.y**2 + u**2) / (2 * variance)
        return squares - z.abs() - torch.log(torch.special.i0e(z)) - torch.log(self.y / variance)

    def mean_and_variance(self, u: Measurements) -> tuple[Measurements, Measurements]:
        """σ √(π/2) L½(−u²/2σ²), where L½ is a Laguerre function, and u² + 2σ² minus its square."""
        exact, sigma = u.double(), expand(self.sigma, u).double()
        t = exact**2 / (2 * sigma**2)
        laguerre = (1 + t) * torch.special.i0e(t / 2) + t * torch.special.i1e(t / 2)
        mean = sigma * math.sqrt(math.pi / 2) * laguerre
        return mean.to(u), (exact**2 + 2 * sigma**2 - mean**2).to(u)

    def draw(self, u: Measurements, generator: torch.Generator | None) -> Measurements:
        sigma = expand(self.sigma, u)
        real = u + sigma * standard_normal(u, generator)
        return torch.hypot(real, sigma * standard_normal(u, generator))

    def nearest(self) -> tuple[Measurements, float | PerImage]:
        """√(y² − σ²), without most of the noise's bias; 0 if y < σ."""
        return (self.y**2 - expand(self.sigma**2, self.y)).clamp_min(0).sqrt(), self.sigma


def _speckle(looks: Tensor, like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Gamma variables of shape L and mean 1, shaped like a tensor, by quantiles; float64, on the CPU."""
    from scipy.special import gammaincinv  # slow to load, and nothing but simulation needs it

    own = looks.expand_as(like).double().cpu().numpy()
    return torch.as_tensor(gammaincinv(own, uniform(like, generator).cpu().numpy()) / own)
