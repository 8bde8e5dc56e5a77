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


# The part of a path after which criteria usually find the best state.
CHOSEN = 0.35


class Forecast:
    """Counts evaluations and foretells how many a path takes, better and better along the path.

    Args:
        tell: called after every evaluation.
        states: number of states of the path.
        each: evaluations of one state at most, of all images and copies together.
        least: how many of them it takes at least, as far as is known before it begins.
        again: evaluations of one state that is followed again after the path, up to the best one.
    """

    def __init__(self, tell: Progress, states: int, each: int, least: int, again: int = 0):
        self._tell, self._states, self._each, self._least, self._again = tell, states, each, least, again
        self._done = 0
        self._reached: list[int] = []  # evaluations so far, at the end of every state
        self._last, self._repeated = max(least, round(USUAL * states)), round(CHOSEN * states)

    def watched(self, problem: Problem) -> Problem:
        """The same problem, but every evaluation is counted."""

        def terms(x: Tensor, indices: Tensor, deformation: Deformation) -> Terms:
            found = problem.terms(x, indices, deformation)
            self.spent(len(indices))
            return found

        return replace(problem, terms=terms)

    def spent(self, images: int) -> None:
        """So many evaluations more are done."""
        self._done += images
        self._tell(self._done, max(self._done, self._expected()))

    def reached(self, best: int, patience: int) -> None:
        """A state is done; `best` is the best one so far, and the path ends `patience` states after it."""
        self._reached.append(self._done)
        passed = best < len(self._reached) - 1  # the criterion rises again
        self._last = max(self._least, best + 1 + patience, 0 if passed else round(USUAL * self._states))
        self._repeated = max(best + 1, 0 if passed else round(CHOSEN * self._states))

    def ended(self, chosen: int) -> None:
        """The path is done, and this state of it was chosen."""
        self._last = self._states = len(self._reached)
        self._repeated = chosen + 1

    def _expected(self) -> int:
        count, again = len(self._reached), self._repeated * self._again
        last = min(self._states, max(self._last, count + 1))
        if count == 0:
            return last * self._each + again
        # The first state may be the path's beginning, which is evaluated and not minimised. Later states cost
        # more than earlier ones, which lie near the measurement, so the latest one tells most.
        usual = self._reached[-1] - self._reached[-2] if count > 1 else self._each
        return self._reached[-1] + (last - count) * usual + again


def forecast(tell: Progress, options: PathOptions, images: int, least: int, again: int) -> Forecast:
    """The forecast for a path of `images` images, copies included; see `Forecast`."""
    # A state costs its corrector's evaluations, and one for the point that it starts from.
    return Forecast(tell, len(options.weights), images * (options.evaluations + 1), least, again)
