"""Progress of a restoration: after every evaluation of the prior, how many are done and how many expected."""

from collections.abc import Callable
from dataclasses import replace

from torch import Tensor

from aipo.path.options import PathOptions
from aipo.path.problem import Deformation, Problem, Terms

# (evaluations so far, evaluations expected in all), of all images and copies together.
Progress = Callable[[int, int], None]

# The part of a path that criteria usually see before they stop: they need the minimum and three more states.
USUAL = 0.6


class Forecast:
    """Counts evaluations and foretells how many a path takes, better and better along the path.

    Args:
        tell: called after every evaluation.
        states: number of states of the path.
        each: evaluations of one state at most, of all images and copies together.
        early: whether the path may end before its last state.
    """

    def __init__(self, tell: Progress, states: int, each: int, early: bool):
        self._tell, self._states, self._each, self._early = tell, states, each, early
        self._done, self._reached, self._least = 0, 0, 0

    def watched(self, problem: Problem) -> Problem:
        """The same problem, but every evaluation is counted."""

        def terms(x: Tensor, indices: Tensor, deformation: Deformation) -> Terms:
            found = problem.terms(x, indices, deformation)
            self._done += len(indices)
            self._tell(self._done, max(self._done, self._expected()))
            return found

        return replace(problem, terms=terms)

    def reached(self, state: int, best: int, patience: int) -> None:
        """A state is done; `best` is the best one so far, and the path ends `patience` states after it."""
        self._reached, self._least = state + 1, best + 1 + patience

    def _expected(self) -> int:
        last = self._states
        if self._early:
            last = min(last, max(self._least, round(USUAL * self._states), self._reached + 1))
        spent = self._done / max(1, self._reached) if self._reached > 1 else self._each
        return round(last * min(self._each, spent))


def forecast(tell: Progress, options: PathOptions, images: int, early: bool) -> Forecast:
    """The forecast for a path of `images` images, copies included."""
    # A state costs its corrector's evaluations, and one for the point that it starts from.
    return Forecast(tell, len(options.weights), images * (options.evaluations + 1), early)
