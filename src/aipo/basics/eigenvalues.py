"""The largest eigenvalue of a matrix, found by its products with vectors."""

from collections.abc import Callable

import torch
from torch import Tensor

# The value has settled when it has risen by less than this share, so many times in a row.
TOLERANCE, SETTLED = 1e-4, 3


def largest_eigenvalue(
    matrix: Callable[[Tensor], Tensor], start: Tensor, tolerance: float = TOLERANCE, iterations: int = 100
) -> float:
    """The largest eigenvalue of a symmetric positive semi-definite matrix, approached from below.

    Args:
        matrix: v -> A v, for v like `start`.
        start: any vector that is not orthogonal to the eigenvector, such as white noise.
        tolerance: the value has settled when it rises by less than this share in a step.
        iterations: products at most.

    Source: Lanczos 1950. Without reorthogonalisation some eigenvalues are found several times, which does
        not change the largest one.
    """
    before, here = torch.zeros_like(start), start / start.norm()
    diagonal: list[float] = []
    beside: list[float] = []
    value, settled = 0.0, 0
    while len(diagonal) < iterations and settled < SETTLED:
        image = matrix(here)
        diagonal.append(float((image * here).sum()))
        image = image - diagonal[-1] * here - (beside[-1] if beside else 0.0) * before
        found = _largest(diagonal, beside)
        settled = settled + 1 if found - value <= tolerance * found else 0
        value = found
        beside.append(float(image.norm()))
        if beside[-1] <= 10 * torch.finfo(start.dtype).eps * value:
            break  # the matrix leads nowhere new
        before, here = here, image / beside[-1]
    return value


def _largest(diagonal: list[float], beside: list[float]) -> float:
    """The largest eigenvalue of the symmetric tridiagonal matrix with these entries."""
    matrix = torch.tensor(diagonal, dtype=torch.float64).diag()
    if beside:
        off = torch.tensor(beside, dtype=torch.float64)
        matrix = matrix + off.diag(1) + off.diag(-1)
    return float(torch.linalg.eigvalsh(matrix)[-1])
