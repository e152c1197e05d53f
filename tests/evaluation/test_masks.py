"""The figure of attention masks."""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image

from evaluation.report.attention_masks import attention_masks
from zoo.architectures import build
from zoo.data.addresses import open_dataset
from zoo.preprocessing.image import ImageInput
from zoo.strict import Architecture


def encoder(**arguments):
    torch.manual_seed(0)
    return build(
        Architecture(family="unet", arguments={"width": 8, "depth": 2, **arguments}), ImageInput(size=(16, 16))
    )


def test_masks_are_drawn_over_images_spread_over_the_dataset():
    data = open_dataset("synthetic:shapes?n=40&size=24", "test")
    network = encoder().train()
    figure = attention_masks(network, data, count=5)
    assert network.training, "left as it was found"
    picture = np.asarray(Image.open(io.BytesIO(figure.png)).convert("RGB"))
    assert picture.shape[1] > picture.shape[0] and picture.std() > 10
    assert "5 samples of test" in figure.caption and "8 x 8 positions" in figure.caption
    again = attention_masks(network, data, count=5)
    assert again.png == figure.png, "no dropout, no randomness"


def test_an_encoder_without_a_mask_has_no_figure():
    data = open_dataset("synthetic:shapes?n=40&size=24", "test")
    assert attention_masks(encoder(pool="average"), data) is None
    resnet = build(Architecture(family="timm", arguments={"model": "resnet10t"}), ImageInput(size=(32, 32)))
    assert attention_masks(resnet, data) is None
    arguments = {"model": "resnet10t", "model_args": {"channels": [8, 8, 8, 8], "stem_width": 8}}
    one = build(Architecture(family="timm_maps", arguments=arguments), ImageInput(size=(32, 32)))
    assert attention_masks(one, data) is None, "one position has nothing to show"
