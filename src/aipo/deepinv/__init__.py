"""deepinv and aipo, both ways: deepinv's physics as likelihoods, and aipo as its reconstructor and prior.

This needs deepinv: `pip install 'aipo[deepinv]'`. Every other module of aipo works without it.
"""

import warnings
from typing import Any

from aipo.deepinv.models import ExplicitPrior, Reconstructor, from_deepinv

__all__ = ["ExplicitPrior", "Reconstructor", "from_deepinv"]


def __getattr__(name: str) -> Any:
    """`FlowPrior`, the old name of `ExplicitPrior`."""
    if name != "FlowPrior":
        raise AttributeError(f"module 'aipo.deepinv' has no attribute {name!r}")
    warnings.warn(
        "aipo.deepinv.FlowPrior is now aipo.deepinv.ExplicitPrior", DeprecationWarning, stacklevel=2
    )
    return ExplicitPrior
