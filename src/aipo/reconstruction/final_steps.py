"""Where networks of less precision have led along a path, the last steps are those of float32."""

from dataclasses import replace

import torch
from torch import Tensor

from aipo.path.options import PathOptions
from aipo.path.problem import Problem
from aipo.path.state import State
from aipo.path.trace import Trace
from aipo.priors import FlowPrior, Prior


def exact_form(prior: Prior) -> Prior:
    """The prior with all networks in float32; itself where it has no networks, or none of another kind."""
    return prior.exact if isinstance(prior, FlowPrior) else prior


def final_steps(exact: Problem, options: PathOptions, path: list[State]) -> State:
    """One more correction of the path's last accepted point, at its last weight.

    Args:
        exact: the path's problem, in coordinates of its options, of the prior in float32.
        options: those of the path.
        path: its states so far.
    """
    last = last_accepted(path)
    images = torch.stack([state.x for state in path])[last, torch.arange(len(last), device=last.device)]
    start = exact.coordinates(images)
    only = replace(
        options, weights=options.weights[-1:], deformations=options.deformations[-1:], control=None
    )
    state = next(Trace(replace(exact, start=lambda weight: start), only))
    return replace(state, index=len(path), evaluations=path[-1].evaluations + state.evaluations)


def last_accepted(path: list[State]) -> Tensor:
    """Which state is each image's last that was accepted, (B,)."""
    accepted = torch.stack([state.accepted for state in path]).long()
    return len(path) - 1 - accepted.flip(0).argmax(0)
