"""scikit-learn's handwritten digits: real images that need no download."""

from __future__ import annotations

import numpy as np

from zoo.data.images import ArrayImages
from zoo.data.splits import held_out

SPLITS = ("train", "test", "all")
#: Share and seed of the test part: fixed, so that every number on `digits` means the same images.
TEST_FRACTION, TEST_SEED = 0.3, 0


def open_digits(split: str) -> ArrayImages:
    """1,797 grey 8x8 digits; `train` and `test` are a fixed stratified 70/30 split of `all`.

    Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998 (its test part).
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    # Counts of 0..16 dark pixels per 4x4 block.
    images = np.round(bunch.images * (255 / 16)).astype(np.uint8)
    labels = bunch.target.astype(np.int64)
    rows = np.arange(len(labels))
    if split != "all":
        train, test = held_out(labels, TEST_FRACTION, TEST_SEED)
        rows = train if split == "train" else test
    names = [str(name) for name in bunch.target_names]
    keys = [str(row) for row in rows]
    return ArrayImages("digits", split, images[rows], labels[rows], names, "CC BY 4.0", keys)
