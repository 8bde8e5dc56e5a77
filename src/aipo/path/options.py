"""How a path is followed."""

from dataclasses import dataclass, replace
from typing import Literal

from aipo.basics.errors import InputError
from aipo.path.predictors import Predictor, shifted
from aipo.path.problem import Deformation
from aipo.path.solvers.lbfgs import LBFGS
from aipo.path.solvers.solver import Solver
from aipo.path.step_control import StepControl


@dataclass(frozen=True)
class PathOptions:
    """How the path is followed.

    Args:
        weights: λ at each point, rising or falling; a first 0 is the path's beginning and is evaluated, not
            minimised. With `control`, which λ must rise for, only the points before the last are visited as
            they stand; from there each image goes to the last λ by its own steps.
        predictor: `warm`, `cold`, `shifted` or `secant`.
        solver: the corrector.
        evaluations: budget of the corrector at each weight.
        tolerance: expected further decrease, in nats, below which a point has converged.
        start: where the path begins: the closed-form solution of the prior's Gaussian surrogate, or A⁺y (as
            in the paper).
        metric: which the solver uses: the surrogate's curvature and the data term's, or the data term's scale
            alone, the same for every entry (as in the paper).
        stiffness: how much more curved than its surrogate the prior is taken to be; the surrogate's metric is
            that of λ · stiffness. A Gaussian with the covariance of all pictures is wide where the
            neighbourhood of one picture under a flow is narrow.
        coordinates: what the solver moves: the picture itself, or its latent under the prior's flow, with
            R's own scale 1/λ as metric there. Latents condition R well and D badly, so they pay where
            noise is strong and every entry is measured (docs/method.md).
        deformations: which prior energy each point uses; empty for the prior itself everywhere.
        control: adapts each image's step in λ; by default the weights are followed as they stand.
    """

    weights: tuple[float, ...]
    predictor: Predictor = shifted
    solver: Solver = LBFGS()
    evaluations: int = 20
    tolerance: float = 0.1
    start: Literal["surrogate", "measurement"] = "surrogate"
    metric: Literal["surrogate", "data"] = "surrogate"
    stiffness: float = 1.0
    coordinates: Literal["pictures", "latents"] = "pictures"
    deformations: tuple[Deformation, ...] = ()
    control: StepControl | None = None

    def __post_init__(self):
        positive = all(0 < weight < float("inf") for weight in self.weights[1:])
        if not self.weights or not 0 <= self.weights[0] < float("inf") or not positive:
            raise InputError(
                f"weights must be positive and finite, only the first may be 0, got {self.weights}"
            )
        if self.deformations and len(self.deformations) != len(self.weights):
            raise InputError(
                f"{len(self.deformations)} deformations for {len(self.weights)} weights; one each, or none"
            )
        if self.deformations and self.control is not None:
            raise InputError("a path that deforms the prior has its own points; leave control = None")
        if self.falls and self.control is not None:
            raise InputError("a path whose λ falls has its own points; leave control = None")
        if self.evaluations < 1:
            raise InputError(f"evaluations = {self.evaluations}; the corrector needs at least 1 per weight")
        if self.start not in ("surrogate", "measurement"):
            raise InputError(f"start = {self.start!r}; use surrogate or measurement")
        if self.metric not in ("surrogate", "data"):
            raise InputError(f"metric = {self.metric!r}; use surrogate or data")
        if self.coordinates not in ("pictures", "latents"):
            raise InputError(f"coordinates = {self.coordinates!r}; use pictures or latents")
        if not 0 < self.stiffness < float("inf"):
            raise InputError(f"stiffness = {self.stiffness}; it must be positive, 1 for a Gaussian prior")

    @property
    def falls(self) -> bool:
        """Whether the path comes down from a large λ."""
        return self.weights[-1] < self.weights[0]

    def described(self) -> str:
        """What the path does, the beginning of a sentence."""
        first, last = (f"{weight:.3g}" for weight in (self.weights[0], self.weights[-1]))
        steps, solver = len(self.weights), type(self.solver).__name__
        if first == last:
            return f"λ is {last} at {steps} point{'s' if steps > 1 else ''}, by {solver}"
        return f"λ {'falls' if self.falls else 'rises'} from {first} to {last} in {steps} steps, by {solver}"


def ending(options: PathOptions, weight: float) -> PathOptions:
    """The same path, ending at λ = weight: cut off there, or scaled where it deforms the prior instead.

    Where λ falls its first weights are the hard ones, so they get the evaluations of those cut off; to a λ
    above them it goes at once.
    """
    if options.deformations:
        scale = weight / options.weights[-1]
        return replace(options, weights=tuple(scale * w for w in options.weights))
    if options.falls:
        weights = (*(w for w in options.weights if w > weight), weight)
        evaluations = round(options.evaluations * len(options.weights) / len(weights))
        return replace(options, weights=weights, evaluations=evaluations)
    return replace(options, weights=(*(w for w in options.weights if w < weight), weight))
