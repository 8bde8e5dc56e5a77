"""Progress of a restoration: after every evaluation of the prior, how many are done and how many expected."""

from collections.abc import Callable
from dataclasses import replace

from torch import Tensor

from aipo.path.options import PathOptions
from aipo.path.problem import Deformation, Problem, Terms

# (evaluations so far, evaluations expected in all), of all images and copies together.
Progress = Callable[[int, int], None]

# The part of a path that criteria usually see before they stop: they need the minimum and three more states.
USUAL = 0.5


class Forecast:
    """Counts evaluations and foretells how many a path takes, better and better along the path.

    Args:
        tell: called after every evaluation.
        states: number of states of the path.
        each: evaluations of one state at most, of all images and copies together.
        least: how many of them it takes at least, as far as is known before it begins.
    """

    def __init__(self, tell: Progress, states: int, each: int, least: int):
        self._tell, self._states, self._each, self._least = tell, states, each, least
        self._done = 0
        self._reached: list[int] = []  # evaluations so far, at the end of every state

    def watched(self, problem: Problem) -> Problem:
        """The same problem, but every evaluation is counted."""

        def terms(x: Tensor, indices: Tensor, deformation: Deformation) -> Terms:
            found = problem.terms(x, indices, deformation)
            self._done += len(indices)
            self._tell(self._done, max(self._done, self._expected()))
            return found

        return replace(problem, terms=terms)

    def reached(self, best: int, patience: int) -> None:
        """A state is done; `best` is the best one so far, and the path ends `patience` states after it."""
        self._reached.append(self._done)
        self._least = max(self._least, best + 1 + patience)

    def _expected(self) -> int:
        count = len(self._reached)
        last = min(self._states, max(self._least, round(USUAL * self._states), count + 1))
        if count == 0:
            return last * self._each
        # The first state may be the path's beginning, which is evaluated and not minimised. Later states cost
        # more than earlier ones, which lie near the measurement, so the latest one tells most.
        usual = self._reached[-1] - self._reached[-2] if count > 1 else self._each
        return self._reached[-1] + (last - count) * usual


def forecast(tell: Progress, options: PathOptions, images: int, least: int) -> Forecast:
    """The forecast for a path of `images` images, copies included."""
    # A state costs its corrector's evaluations, and one for the point that it starts from.
    return Forecast(tell, len(options.weights), images * (options.evaluations + 1), least)
