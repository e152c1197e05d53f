"""How sharply the validation loss bends with the architecture parameters: Zela et al., 2020, arXiv 1909.09656.

Where the largest eigenvalue of the Hessian by alpha grows fast, the discrete cell falls behind its relaxation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

#: Products with the Hessian per measurement.
PRODUCTS = 10


def largest_eigenvalue(loss: Callable[[Tensor], Tensor], alpha: Tensor, generator: torch.Generator) -> float:
    """The Hessian's largest eigenvalue at `alpha`, by the Lanczos iteration.

    The Hessian is never formed; its products are exact, by differentiating twice. Finite differences of the gradient
    are no substitute: where alpha moves a ReLU's input through zero the gradient jumps. Nor is the power iteration: it
    mixes the two ends of the spectrum where they are about as far from zero.

    Args:
        loss: alpha -> scalar, twice differentiable. alpha: one vector. generator: of the first direction.
    """
    alpha = alpha.detach().clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(alpha), alpha, create_graph=True)
    v = torch.randn(alpha.shape, generator=generator, dtype=torch.float64)
    basis, products = [v / v.norm()], []
    for _ in range(min(PRODUCTS, len(alpha))):
        (product,) = torch.autograd.grad(gradient, alpha, basis[-1].to(alpha), retain_graph=True)
        products.append(product.double().cpu())
        v = products[-1].clone()
        for _ in range(2):  # twice is enough to stay orthogonal
            v -= torch.stack(basis).T @ (torch.stack(basis) @ v)
        if float(v.norm()) < 1e-6 * max(float(products[-1].norm()), 1e-30):
            break
        basis.append(v / v.norm())
    q = torch.stack(basis[: len(products)])
    projected = q @ torch.stack(products).T
    return float(torch.linalg.eigvalsh((projected + projected.T) / 2)[-1])


def rises(curvatures: Sequence[float], window: int, limit: float) -> bool:
    """Whether the mean of the last `window` values exceeds `limit` times the mean `window - 1` values earlier.

    False until there are `2 window - 1` values, and where the earlier mean is not positive.
    """
    if len(curvatures) < 2 * window - 1:
        return False
    now, before = sum(curvatures[-window:]), sum(curvatures[-2 * window + 1 : len(curvatures) - window + 1])
    return before > 0 and now > limit * before


class CurvatureStop(nn.Module):
    """Remembers curvature and alpha of the last epochs, as buffers, and says when to go back.

    Args:
        alpha: at the start. window: epochs averaged over. limit: see `rises`.
    """

    def __init__(self, alpha: Tensor, window: int, limit: float) -> None:
        super().__init__()
        self.window, self.limit = window, limit
        self.register_buffer("values", torch.full((2 * window - 1,), torch.nan, dtype=torch.float64))
        self.register_buffer("alphas", alpha.repeat(window, 1))

    @torch.no_grad()
    def earlier(self, value: float, alpha: Tensor) -> Tensor | None:
        """Take one epoch's curvature and alpha; once the curvature has risen, the alpha `window - 1` epochs before."""
        self.values.copy_(torch.cat([self.values[1:], self.values.new_tensor([value])]))
        self.alphas.copy_(torch.cat([self.alphas[1:], alpha[None]]))
        known = self.values[~self.values.isnan()].tolist()
        return self.alphas[0] if rises(known, self.window, self.limit) else None
