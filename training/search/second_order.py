"""The gradient of alpha through one step of the weights: DARTS (arXiv 1806.09055), section 2.3."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

#: Norm of the two steps of the finite difference: DARTS, footnote to eq. 8.
PERTURBATION = 0.01


def second_order_gradient(
    w: list[Tensor],
    optimizer: torch.optim.Optimizer,
    weight_gradient: Callable[[], list[Tensor | None]],
    on_a: Callable[[], Tensor],
    on_b: Callable[[list[Tensor]], list[Tensor | None]],
) -> Tensor:
    """DARTS eq. 7 and 8: the gradient on half B after a virtual step on half A, by a finite difference.

    Args:
        w: the weights; moved while this runs, and put back whatever happens.
        optimizer: SGD over `w`, for its learning rates, momenta and decays.
        weight_gradient: gradients of half A by each of `w` (None where it has no part).
        on_a: gradient of half A by alpha at the present `w`; every call must see the very same views, or the
            difference would measure them.
        on_b: given `w`, the gradients of half B by alpha and by each of `w`, None likewise.

    Returns:
        As `on_a`; all NaN where the difference is not finite.
    """
    kept = [p.detach().clone() for p in w]
    try:
        step = _virtual_step(w, _filled(w, weight_gradient()), optimizer)
        with torch.no_grad():
            torch._foreach_sub_(w, step)
        gradient, *by_weights = on_b(w)
        by_weights = _filled(w, by_weights)
        norm = torch.stack(torch._foreach_norm(by_weights)).norm()
        if not bool(torch.isfinite(norm)):
            return torch.full_like(gradient, torch.nan)
        if float(norm) == 0:
            return gradient
        epsilon = PERTURBATION / float(norm)
        sides = []
        for sign in (1, -1):
            with torch.no_grad():
                for p, old, direction in zip(w, kept, by_weights, strict=True):
                    p.copy_(old + sign * epsilon * direction)
            sides.append(on_a())
        rate = float(optimizer.param_groups[0]["lr"])
        return gradient - rate * (sides[0] - sides[1]) / (2 * epsilon)
    finally:
        with torch.no_grad():
            for p, old in zip(w, kept, strict=True):
                p.copy_(old)


def _filled(w: list[Tensor], gradients: list[Tensor | None]) -> list[Tensor]:
    return [torch.zeros_like(p) if g is None else g for p, g in zip(w, gradients, strict=True)]


@torch.no_grad()
def _virtual_step(w: list[Tensor], gradients: list[Tensor], optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """What SGD would subtract: lr (momentum v + g + decay w)."""
    groups = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    out = []
    for p, g in zip(w, gradients, strict=True):
        group = groups[id(p)]
        velocity = optimizer.state.get(p, {}).get("momentum_buffer")
        total = g + group["weight_decay"] * p
        out.append(group["lr"] * (total if velocity is None else group["momentum"] * velocity + total))
    return out
