"""deepinv and aipo, both ways: deepinv's physics as likelihoods, and aipo as its reconstructor and prior.

This needs deepinv: `pip install 'aipo[deepinv]'`. Every other module of aipo works without it.
"""

from aipo.deepinv.models import FlowPrior, Reconstructor, from_deepinv

__all__ = ["FlowPrior", "Reconstructor", "from_deepinv"]
