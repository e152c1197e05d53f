"""What the image methods share: which augmentation a recipe asks for, and views through the networks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def embeddings(encoder: nn.Module, head: nn.Module, views: Sequence[Tensor]) -> list[Tensor]:
    """z = head(encoder(x)) `(n, d)` for each view x `(n, 3, S, S)`, one forward for all views of a size.

    Views of one size so share batch-norm statistics, in the encoder and in the head.
    """
    z: dict[int, Tensor] = {}
    sizes = [x.shape[-1] for x in views]
    for size in dict.fromkeys(sizes):
        same = [i for i, other in enumerate(sizes) if other == size]
        joint = head(encoder(torch.cat([views[i] for i in same])))
        z.update(zip(same, joint.chunk(len(same)), strict=True))
    return [z[i] for i in range(len(views))]
