"""Instruments that tell only in which interval a noisy value lies: quantised, saturated, one bit.

If the noise is Gaussian, an interval [a, b] has the probability Φ((b − u)/σ) − Φ((a − u)/σ) given u. Its
negative logarithm is convex in u.
"""

import math

import torch
from torch import Tensor

from aipo.basics.arrays import Images, Measurements, PerImage, expand
from aipo.basics.errors import InputError
from aipo.likelihoods.likelihood import positive, standard_normal
from aipo.likelihoods.pointwise import Pointwise
from aipo.operators import Operator


class Quantised(Pointwise):
    """y = round((u + n)/step)·step with n ~ N(0, σ²): e = −log P(y − step/2 < u + n < y + step/2).

    Args:
        operator: A.
        y: multiples of the step.
        step: width of a level in units of y, positive; one number or one per image.
        sigma: σ > 0 of the noise before quantisation, in units of y; one number or one per image.

    Raises:
        InputError: see `Likelihood`; or y is not a multiple of the step, or step or σ is not positive.

    Source: Zymnis, Boyd & Candès 2010, Compressed sensing with quantized measurements.
    """

    per_image = ("step", "sigma")

    def __init__(self, operator: Operator, y: Measurements, step: float | Tensor, sigma: float | Tensor):
        super().__init__(operator, y)
        self.step, self.sigma = positive("step", step, y), positive("sigma", sigma, y)
        levels = y / expand(self.step, y)
        off = float((levels - levels.round()).abs().max())
        if off > 1e-2:
            raise InputError(
                f"y lies up to {off:.2g} steps off a multiple of step = {step}; give its true step"
            )

    def energies(self, u: Measurements) -> Measurements:
        half, sigma = expand(self.step, u) / 2, expand(self.sigma, u)
        return -log_interval((self.y - half - u) / sigma, (self.y + half - u) / sigma)

    def mean_and_variance(self, u: Measurements) -> tuple[Measurements, Measurements]:
        """u and σ² + step²/12, if the step is not much wider than the noise (Sheppard's correction)."""
        return u, expand(self.sigma**2 + self.step**2 / 12, u).expand_as(u)

    def draw(self, u: Measurements, generator: torch.Generator | None) -> Measurements:
        step = expand(self.step, u)
        normal = standard_normal(u, generator)
        return torch.round((u + expand(self.sigma, u) * normal) / step) * step


class Clipped(Pointwise):
    """y = clip(u + n, low, high) with n ~ N(0, σ²), as of a sensor that saturates.

    Inside the range e is that of a Gaussian. At its ends e = −log P(u + n < low) or −log P(u + n > high).

    Args:
        operator: A.
        y: in [low, high]; a value that equals an end counts as clipped.
        low, high: range of the sensor, in units of y.
        sigma: σ > 0 of the noise before clipping, in units of y; one number or one per image.

    Raises:
        InputError: see `Likelihood`; or the range is empty, y lies outside it, or σ is not positive.

    Source: Tobin 1958.
    """

    shared = ("low", "high")
    per_image = ("sigma",)

    def __init__(self, operator: Operator, y: Measurements, low: float, high: float, sigma: float | Tensor):
        super().__init__(operator, y)
        if not low < high or bool((y < low).any()) or bool((y > high).any()):
            raise InputError(
                f"y lies in [{float(y.min()):g}, {float(y.max()):g}], low = {low}, high = {high}; give the "
                "range that the sensor has"
            )
        self.low, self.high = low, high
        self.sigma = positive("sigma", sigma, y)

    def energies(self, u: Measurements) -> Measurements:
        sigma = expand(self.sigma, u)
        inside = 0.5 * ((self.y - u) / sigma) ** 2 + torch.log(math.sqrt(2 * math.pi) * sigma)
        below = -torch.special.log_ndtr((self.low - u) / sigma)
        above = -torch.special.log_ndtr((u - self.high) / sigma)
        return torch.where(self.y <= self.low, below, torch.where(self.y >= self.high, above, inside))

    def mean_and_variance(self, u: Measurements) -> tuple[Measurements, Measurements]:
        """Exact: of a normal variable whose values outside the range are moved to its ends."""
        sigma = expand(self.sigma, u)
        a, b = (self.low - u) / sigma, (self.high - u) / sigma
        below, above = torch.special.ndtr(a), torch.special.ndtr(-b)
        inside = 1 - below - above
        at_a, at_b = _density(a), _density(b)
        # Moments about u, in units of σ; each end counts with its probability.
        first = a * below + b * above + at_a - at_b
        second = a**2 * below + b**2 * above + inside + a * at_a - b * at_b
        return u + sigma * first, sigma**2 * (second - first**2).clamp_min(1e-6)

    def draw(self, u: Measurements, generator: torch.Generator | None) -> Measurements:
        normal = standard_normal(u, generator)
        return (u + expand(self.sigma, u) * normal).clamp(self.low, self.high)

    def nearest(self) -> tuple[Measurements, float | PerImage]:
        return self.y, self.sigma


class OneBit(Pointwise):
    """y = sign(u + n − threshold) with n ~ N(0, σ²): e = −log Φ(y (u − threshold)/σ).

    e has no minimum in u: it falls the farther u lies on the measured side.

    Args:
        operator: A.
        y: −1 or 1.
        threshold: one number for all, in units of u.
        sigma: σ > 0 in units of u, one number or one per image. Signs alone do not tell how large u is; how
            often noise turns them does.

    Raises:
        InputError: see `Likelihood`; or y has other values, the threshold is not finite, or σ is not
            positive.

    Source: Boufounos & Baraniuk 2008, 1-bit compressive sensing; with noise this is the probit model.
    """

    shared = ("threshold",)
    per_image = ("sigma",)
    rough = True

    def __init__(self, operator: Operator, y: Measurements, threshold: float, sigma: float | Tensor):
        super().__init__(operator, y)
        if not bool((y.abs() == 1).all()):
            raise InputError("one-bit measurements are −1 or 1; give torch.sign(A x − threshold)")
        if not math.isfinite(threshold):
            raise InputError(f"threshold = {threshold}; it is a finite number")
        self.threshold = threshold
        self.sigma = positive("sigma", sigma, y)

    def energies(self, u: Measurements) -> Measurements:
        return -torch.special.log_ndtr(self.y * (u - self.threshold) / expand(self.sigma, u))

    def mean_and_variance(self, u: Measurements) -> tuple[Measurements, Measurements]:
        mean = 2 * torch.special.ndtr((u - self.threshold) / expand(self.sigma, u)) - 1
        return mean, (1 - mean**2).clamp_min(1e-6)

    def draw(self, u: Measurements, generator: torch.Generator | None) -> Measurements:
        normal = standard_normal(u, generator)
        above = u + expand(self.sigma, u) * normal > self.threshold
        return torch.where(above, 1.0, -1.0).to(u)

    def nearest(self) -> tuple[Measurements, float | PerImage]:
        """Mean and standard deviation of u + n given its sign, if u is normal around the threshold.

        The variance of u is `_variance`.
        """
        spread = (self._variance() + self.sigma**2).sqrt()
        mean = math.sqrt(2 / math.pi)
        nearest = self.threshold + mean * expand(spread, self.y) * self.y
        return nearest, math.sqrt(1 - mean**2) * spread

    def misfit(self, x: Images) -> PerImage:
        """D(x), divided by its average over all values u of variance `_variance` and their noisy signs.

        Pearson's statistic would depend on a single sure sign that is wrong. D divided by its average given x
        itself would not do either, because that average grows as x shrinks.
        """
        z = torch.linspace(-8, 8, 1601, dtype=torch.float64)
        entropy = torch.special.entr(torch.special.ndtr(z)) + torch.special.entr(torch.special.ndtr(-z))
        ratio = self.sigma.double().cpu() / self._variance().double().cpu().sqrt()
        density = ratio[:, None] * _density(ratio[:, None] * z)
        expected = torch.trapezoid(entropy * density, z).to(self.y)
        return self(x) / (self.operator.measurements * expected)

    def _variance(self) -> Tensor:
        """Mean square of u − threshold, which no measurement tells.

        It is taken from pictures whose random entries vary as those of photographs do, with a standard
        deviation of ¼ around ½.
        """
        # Of small pictures as many as are needed for a mean.
        count = max(1, 10_000 // math.prod(self.operator.shape))
        entries = torch.randn(count, *self.operator.shape, generator=torch.Generator().manual_seed(0))
        return ((self.operator((0.5 + 0.25 * entries).to(self.y)) - self.threshold) ** 2).mean()


def log_interval(a: Tensor, b: Tensor) -> Tensor:
    """log(Φ(b) − Φ(a)) for a < b, accurate in both tails."""
    # Φ(b) − Φ(a) = Φ(−a) − Φ(−b): keep to the side where Φ is small.
    flip = a > 0
    low, high = torch.where(flip, -b, a), torch.where(flip, -a, b)
    upper, lower = torch.special.log_ndtr(high), torch.special.log_ndtr(low)
    return upper + torch.log(-torch.expm1((lower - upper).clamp_max(-1e-12)))


def _density(z: Tensor) -> Tensor:
    return torch.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)
