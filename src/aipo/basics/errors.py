"""What can go wrong: typed errors for the user's input, and a status for the solution of each image.

Every error message is one sentence. It says what is wrong, names the value, and says what to do. The command
line prints the message and exits with a non-zero status.
"""

from enum import IntEnum


class AipoError(Exception):
    """Base class of all errors of this package that a user can act on."""


class InputError(AipoError, ValueError):
    """An argument, picture or measurement that cannot be used."""


class CheckpointError(AipoError, ValueError):
    """A prior or checkpoint folder that is damaged, incomplete or of another format."""


class Status(IntEnum):
    """How the search for one image's minimiser ended, or the chains for its posterior mean."""

    RUNNING = 0
    CONVERGED = 1
    BUDGET = 2
    STALLED = 3
    DIVERGED = 4
    AGREEING = 5
    DRAWN = 6
    DENOISED = 7
    AVERAGED = 8

    @property
    def remedy(self) -> str:
        """One sentence that says what this status means and what to do about it."""
        return _REMEDIES[self]


_REMEDIES = {
    Status.RUNNING: "The search is not finished; take more states from the path.",
    Status.CONVERGED: "The expected further decrease is below the tolerance; nothing to do.",
    Status.BUDGET: "The evaluations ran out before the minimum, as is intended where states of a path are "
    "mixed; raise the evaluations only where the minimum itself is wanted.",
    Status.STALLED: "No step along the search direction lowers the objective at this precision; "
    "use float64 to go lower.",
    Status.DIVERGED: "The objective became NaN or infinite; start nearer to the data the prior "
    "was trained on, or use smaller steps.",
    Status.AGREEING: "The picture is the mean of several chains that agree (R̂ ≤ 1.05); nothing to do.",
    Status.DRAWN: "The picture is the mean of draws from chains that are not known to agree; run several, "
    "such as LangevinOptions(chains=4), and more evaluations where R̂ is above 1.05.",
    Status.DENOISED: "The noise was removed in a few steps, near the posterior mean; nothing to do.",
    Status.AVERAGED: "The picture is the mean of a cold chain, near the posterior mean; nothing to do.",
}
