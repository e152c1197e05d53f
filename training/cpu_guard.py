"""What must not be trained on a CPU in bfloat16, because torch computes it wrongly."""

from __future__ import annotations

from training.errors import TrainingError
from training.recipe import Recipe
from zoo.architectures.single_pixel import strided_on_one_pixel
from zoo.config import ImageInput
from zoo.encoder import Encoder


def refuse_unwritten_gradients(encoder: Encoder, recipe: Recipe) -> None:
    """Refuse a network that shrinks the recipe's smallest views to one pixel before a convolution of stride 2.

    Raises:
        TrainingError: it does; names the layer and the ways out. See `strided_on_one_pixel`.
    """
    if not isinstance(recipe.input, ImageInput):
        return
    side = min(*recipe.input.size, recipe.smallest_view())
    if found := strided_on_one_pixel(encoder, side):
        raise TrainingError(
            f"views of {side} px reach {found[0]} as a single pixel, where bfloat16 on the CPU gives wrong gradients; "
            "set precision=fp32, encoder.stem=cifar, or larger views"
        )
