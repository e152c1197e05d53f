"""Where an encoder with attention pooling looks, as a figure for the report."""

from __future__ import annotations

import numpy as np
import torch

from evaluation.report.drawing import Figure, canvas, class_name, png, style
from zoo.architectures.attention_picture import mask_over
from zoo.data.base import Dataset
from zoo.encoder import Encoder
from zoo.preprocessing.image import ImageTransform


def attention_masks(
    encoder: Encoder, dataset: Dataset, *, count: int = 8, name: str = "attention_masks"
) -> Figure | None:
    """Images and the encoder's mask over them, `count` samples spread evenly over the dataset.

    Returns:
        None for an encoder without an attention mask, or whose mask has one position only.
    """
    from zoo.architectures.attention import AttentionPool

    if not isinstance(getattr(encoder, "pooling", None), AttentionPool):
        return None
    chosen = np.unique(np.linspace(0, len(dataset) - 1, count).astype(int))
    transform = ImageTransform(encoder.input)
    pixels = np.stack([transform.pixels(dataset.sample(int(i))) for i in chosen])
    device = next(encoder.parameters()).device
    was_training = encoder.training
    encoder.eval()
    try:
        with torch.inference_mode():
            masks = encoder.attention_mask(transform.normalise(torch.from_numpy(pixels).to(device)))
    finally:
        encoder.train(was_training)
    masks = masks.cpu().numpy()[:, 0]
    if masks[0].size == 1:
        return None
    with style():
        drawing = canvas(1.15 * len(chosen), 2.65)
        axes = drawing.subplots(2, len(chosen), squeeze=False)
        drawing.subplots_adjust(0.005, 0.01, 0.995, 0.93, wspace=0.04, hspace=0.03)
        for column, index in enumerate(chosen):
            axes[0, column].imshow(pixels[column], interpolation="nearest")
            axes[1, column].imshow(mask_over(pixels[column], masks[column]), interpolation="nearest")
            if dataset.labels is not None:
                title = class_name(dataset.class_names, int(dataset.labels[index]), 16)
                axes[0, column].set_title(title, fontsize=7)
        for axis in axes.flat:
            axis.axis("off")
        picture = png(drawing)
    caption = (
        f"Where the pooling looks: {len(chosen)} samples of {dataset.split}, and the mask by which the "
        f"map ({masks.shape[1]} x {masks.shape[2]} positions) is averaged. Each mask is stretched to its own range, as "
        f"only ratios within one mean something; values here lie in {masks.min():.2f} to {masks.max():.2f}."
    )
    return Figure(name, picture, caption, f"{len(chosen)} images and their attention masks.")
