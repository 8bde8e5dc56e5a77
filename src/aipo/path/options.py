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
        weights: λ at each point, rising or falling. If the first weight is 0, the path's beginning is
            evaluated there, but F is not minimised. `control` needs weights that rise. With it, the path
            visits all weights but the last as they stand, and from there each image goes to the last weight
            by its own steps.
        predictor: `warm`, `cold`, `shifted` or `secant`.
        solver: the corrector.
        evaluations: budget of the corrector at each weight.
        tolerance: a point has converged when the expected further decrease is below this, in nats.
        start: where the path begins: the closed-form solution of the prior's Gaussian surrogate, or A⁺y (as
            in the paper).
        metric: the solver's metric: the curvature of the surrogate and the data term, or the scale of the
            data term alone, which is the same for every entry (as in the paper).
        stiffness: the metric takes the prior to be so many times as curved as its surrogate: it is the
            surrogate's metric at λ · stiffness. The Gaussian of all pictures is wider than the neighbourhood
            of one picture under a flow.
        coordinates: what the solver moves: the picture itself, or its latent under the prior's flow. Over
            latents the metric is R's own scale 1/λ. Latents condition R well and D badly, so they pay if
            noise is strong and every entry is measured (docs/method.md).
        deformations: the prior energy that each point uses; if empty, every point uses the prior itself.
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
        """Whether λ falls along the path."""
        return self.weights[-1] < self.weights[0]

    def described(self) -> str:
        """What the path does, as the beginning of a sentence."""
        first, last = (f"{weight:.3g}" for weight in (self.weights[0], self.weights[-1]))
        steps, solver = len(self.weights), type(self.solver).__name__
        if first == last:
            return f"λ is {last} at {steps} point{'s' if steps > 1 else ''}, by {solver}"
        return f"λ {'falls' if self.falls else 'rises'} from {first} to {last} in {steps} steps, by {solver}"


def ending(options: PathOptions, weight: float) -> PathOptions:
    """The same path, but it ends at λ = weight: it is cut off there. If it deforms the prior, it is scaled.

    On a path whose λ falls, the first weights are the hard ones, so they get the evaluations of the weights
    that are cut off. If `weight` lies above all of them, it is the only weight of the path.
    """
    if options.deformations:
        scale = weight / options.weights[-1]
        return replace(options, weights=tuple(scale * w for w in options.weights))
    if options.falls:
        weights = (*(w for w in options.weights if w > weight), weight)
        evaluations = round(options.evaluations * len(options.weights) / len(weights))
        return replace(options, weights=weights, evaluations=evaluations)
    return replace(options, weights=(*(w for w in options.weights if w < weight), weight))
