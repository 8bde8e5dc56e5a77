"""deepinv both ways: its physics as likelihoods, and aipo as its reconstructor and prior.

Needs deepinv: `pip install 'aipo[deepinv]'`. Every other module of aipo does without.
"""

from aipo.deepinv.models import FlowPrior, Reconstructor, from_deepinv

__all__ = ["FlowPrior", "Reconstructor", "from_deepinv"]
