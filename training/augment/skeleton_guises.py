"""The guises of MS2L's tasks: which frames stay seen, and segments in another order."""

from __future__ import annotations

import torch
from torch import Tensor


def seen_frames(lengths: Tensor, mask_ratio: float) -> Tensor:
    """Frames that stay visible, ceil((1 - mask_ratio) * n): those whose index is below (1 - mask_ratio) * n."""
    # Rounded first, so that 0.7 * 10 is 7 and not the 8 of 7.000000000000001.
    return ((lengths.double() * (1 - mask_ratio) * 1e6).round() / 1e6).ceil().to(lengths.dtype)


def shuffle_segments(x: Tensor, lengths: Tensor, orders: Tensor) -> Tensor:
    """Segments in a new order: the k-th place takes segment `orders[i, k]`.

    Args:
        x: `(N, T, V, C)`; a segment has floor(n / S) frames, the remainder and the padding stay in place.
        orders: `(N, S)`, a permutation for each sequence.
    """
    segments = orders.shape[1]
    frame = torch.arange(x.shape[1], device=x.device).expand(len(x), -1)
    size = (lengths // segments)[:, None]
    place = torch.div(frame, size.clamp_min(1), rounding_mode="floor").clamp(max=segments - 1)
    moved = orders.gather(1, place) * size + frame - place * size
    source = torch.where(frame < segments * size, moved, frame)
    return x[torch.arange(len(x), device=x.device)[:, None], source]
