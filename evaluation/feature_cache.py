"""Features that were extracted before, found again by all that their bits depend on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from zoo.data.base import Dataset
from zoo.data.store import cache_root, make_folder
from zoo.encoder import Encoder
from zoo.features import extract, feature_key


def cached_features(
    encoder: Encoder,
    dataset: Dataset,
    *,
    precision: str = "auto",
    folder: str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """`(N, num_features)` float32, mapped from `folder` (default $ZOO_CACHE/features), extracted where missing.

    The file's name is a hash of the weights in memory, the network, the preprocessing, the content of the split,
    the precision and the batch size: whatever changes one of them makes another file. Nothing of the table's size
    is held in memory, and a killed extraction goes on where it stopped.

    Raises:
        InputError, DataError: as `zoo.extract`.
    """
    key = feature_key(encoder, dataset, precision=precision)
    home = make_folder(cache_root(folder) if folder is not None else cache_root() / "features")
    return extract(encoder, dataset, precision=precision, out=home / f"{key}.npy", progress=progress).features
