"""Where torch trains wrongly on a CPU in bfloat16: convolutions of stride 2 on a map of one pixel."""

from __future__ import annotations

import torch
from torch import nn

from zoo.encoder import Encoder
from zoo.preprocessing.image import ImageInput


@torch.no_grad()
def strided_on_one_pixel(encoder: Encoder, side: int | None = None) -> list[str]:
    """Names of the convolutions of stride 2 that meet images of `side` pixels (default: its input) as a map of 1x1.

    There oneDNN (torch 2.14, CPU, bfloat16) leaves part of the weight gradient unwritten: what it holds is whatever lay
    in memory, sometimes NaN, sometimes numbers that look right. The forward pass and float32 are right.
    """
    if not isinstance(encoder.input, ImageInput):
        return []
    side = min(encoder.input.size) if side is None else side
    found: list[str] = []

    def watch(name: str):
        def look(module: nn.Conv2d, given: tuple[torch.Tensor, ...]) -> None:
            if given[0].shape[2:] == (1, 1) and max(module.kernel_size) > 1 and max(module.stride) > 1:
                found.append(name)

        return look

    convolutions = [(name, module) for name, module in encoder.named_modules() if isinstance(module, nn.Conv2d)]
    hooks = [module.register_forward_pre_hook(watch(name)) for name, module in convolutions]
    training, strict = encoder.training, encoder.strict_input
    encoder.eval()
    encoder.strict_input = False
    try:
        p = next(encoder.parameters())
        encoder(torch.zeros(1, 3, side, side, dtype=p.dtype, device=p.device))
    finally:
        encoder.train(training)
        encoder.strict_input = strict
        for hook in hooks:
            hook.remove()
    return found
