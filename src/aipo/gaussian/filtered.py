"""Posteriors of measurements that treat every place alike: blur, frequencies left out, colours mixed."""

import torch
from torch import Tensor

from aipo.basics.arrays import Images, PerImage
from aipo.basics.cache import Cache
from aipo.gaussian.stationary import colour_matrices
from aipo.gaussian.surrogate import Textured
from aipo.gaussian.woodbury import Woodbury
from aipo.operators import LinearOperator
from aipo.operators.frequencies import mix_colours


class Filtered(Woodbury):
    """AᵀA and S of Σ = W Wᵀ + S are the same at every place: at each frequency a matrix between the colours.

    G = (AᵀA + αS⁻¹)⁻¹ is found frequency by frequency.

    Args:
        gram: AᵀA at each frequency, (H, W//2 + 1, C, C) in `rfft2` order, symmetric.
    """

    surrogate: Textured

    def __init__(self, operator: LinearOperator, surrogate: Textured, gram: Tensor):
        super().__init__(operator, surrogate)
        self._gram = gram.to(self._blank)
        self._precision = colour_matrices(surrogate.colours, 1 / surrogate.texture(self._blank))
        self._inverses: Cache[float, Tensor] = Cache()

    def _alone(self, v: Images, alpha: PerImage) -> Images:
        found = torch.empty_like(v)
        levels = alpha.unique()
        for level, inverse in zip(levels, self._inverses.serve(levels.tolist(), self._inverse), strict=True):
            chosen = alpha == level
            found[chosen] = mix_colours(inverse, v[chosen])
        return found

    def _inverse(self, alpha: float) -> Tensor:
        return torch.linalg.inv(self._gram + alpha * self._precision)
