"""What must not be trained on a CPU in bfloat16, because torch computes it wrongly."""

from __future__ import annotations

import torch
from torch import nn

from training.errors import TrainingError
from training.recipe import Recipe
from zoo.config import ImageInput
from zoo.encoder import Encoder


@torch.no_grad()
def refuse_unwritten_gradients(encoder: Encoder, recipe: Recipe) -> None:
    """Refuse a network that shrinks the recipe's smallest views to one pixel before a convolution of stride 2.

    There oneDNN (torch 2.14) leaves part of the weight gradient unwritten: what it holds is whatever lay in memory,
    sometimes NaN, sometimes numbers that look right.

    Raises:
        TrainingError: it does; names the layer and the ways out.
    """
    if recipe.encoder["family"] != "timm" or not isinstance(recipe.input, ImageInput):
        return
    side = min([*recipe.input.size, *(stage.size for stage in recipe.view_sizes)])
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
        encoder(torch.zeros(1, 3, side, side))
    finally:
        encoder.train(training)
        encoder.strict_input = strict
        for hook in hooks:
            hook.remove()
    if found:
        raise TrainingError(
            f"views of {side} px reach {found[0]} as a single pixel, where bfloat16 on the CPU gives wrong gradients; "
            "set precision=fp32, encoder.stem=cifar, or larger views"
        )
