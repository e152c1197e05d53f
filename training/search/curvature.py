"""How sharply the validation loss bends with the architecture parameters: Zela et al., 2020, arXiv 1909.09656.

Where the largest eigenvalue of the Hessian by alpha grows fast, the discrete cell falls behind its relaxation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

#: Length of the two steps of the finite difference, and of the power iteration.
STEP, ITERATIONS, TOLERANCE = 0.01, 8, 0.02


def dominant_eigenvalue(gradient: Callable[[Tensor], Tensor], alpha: Tensor, generator: torch.Generator) -> float:
    """The Hessian's eigenvalue of largest size at `alpha`, by power iteration.

    The Hessian is never formed: H v is (g(alpha + e v) - g(alpha - e v)) / 2e.

    Args:
        gradient: alpha -> gradient of the loss, always on the same batch with the same views. alpha: one vector.
        generator: of the first direction.
    """
    v = torch.randn(alpha.shape, generator=generator, dtype=torch.float64).to(alpha.device)
    v, before, found = v / v.norm(), 0.0, 0.0
    for _ in range(ITERATIONS):
        direction = (STEP * v).to(alpha.dtype)
        product = (gradient(alpha + direction).double() - gradient(alpha - direction).double()) / (2 * STEP)
        found = float(v @ product)
        norm = float(product.norm())
        if norm == 0 or abs(found - before) <= TOLERANCE * abs(found):
            break
        v, before = product / norm, found
    return found


def rises(curvatures: Sequence[float], window: int, limit: float) -> bool:
    """Whether the mean of the last `window` values exceeds `limit` times the mean `window - 1` values earlier.

    False until there are `2 window - 1` values, and where the earlier mean is not positive.
    """
    if len(curvatures) < 2 * window - 1:
        return False
    now, before = sum(curvatures[-window:]), sum(curvatures[-2 * window + 1 : len(curvatures) - window + 1])
    return before > 0 and now > limit * before
