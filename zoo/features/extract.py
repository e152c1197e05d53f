"""`extract`: a dataset -> a feature table. Streaming, resumable, over one process or many."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from zoo.data.base import Dataset
from zoo.device import Precision, resolve_precision
from zoo.encoder import Encoder
from zoo.features.pooling import Pool
from zoo.features.run import _start, encoder_fingerprint
from zoo.features.stream import extract_to
from zoo.features.table import FeatureTable, feature_path
from zoo.files import cache_root, make_folder

__all__ = ["FeatureTable", "embed", "encoder_fingerprint", "extract", "extract_cached", "resolve_precision"]


def extract(
    encoder: Encoder | torch.nn.Module | str | os.PathLike[str],
    dataset: Dataset | Sequence[Any] | np.ndarray | str | os.PathLike[str],
    *,
    batch_size: int = 256,
    device: str | torch.device | None = None,
    precision: Precision = "auto",
    workers: int | None = None,
    layers: Sequence[str] | None = None,
    pool: Pool | None = None,
    out: str | os.PathLike[str] | None = None,
    resume: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> FeatureTable:
    """Features of every sample of a dataset, in order.

    The encoder runs in inference and eval mode and comes back as it was. The same call gives the same bits, also after
    a resume or over several processes; another `batch_size` may round differently.

    Args:
        encoder: any encoder of the zoo, also cast to another dtype or wrapped (`DataParallel`,
            `DistributedDataParallel`, `torch.compile`), or an address that `zoo.load` takes.
        dataset: a `zoo.data` dataset; a sequence of PIL images, arrays or file paths; an array `(N, H, W[, 3])`;
            a sequence of skeletons `(T, V, 3)`; or an address that `zoo.data.addresses.open_dataset` takes.
        batch_size: samples per forward pass.
        device: where to run; None is the encoder's own device, else the GPU if there is one.
        precision: `"auto"` is bf16 on GPUs and on CPUs with bf16 instructions, else fp32.
        workers: threads that read and preprocess ahead; None picks by the number of free cores.
        layers: names from `encoder.layers`; the table then holds one group of columns per layer, which
            `table.column(name)` gives. None for the encoder's own pooled features.
        pool: how a layer's map becomes a vector: `"mean"` (the default) or `"max"` over places, `"cls"` the class token
            of a transformer, `"mean+cls"` both, `"none"` keeps every place. Without `layers` it means the last one.
        out: stream into this `.npy`, `.npz`, `.parquet` or folder instead of memory. A killed run resumes from the
            part file beside it. Under torchrun (or an initialised `torch.distributed`) each rank does its share of
            the batches and all get the whole table; ranks must see the same file system. Without `out` ranks are
            independent.
        resume: take up an unfinished `out`, and return a finished one, if made from the same weights,
            preprocessing, data, precision and batch size; False starts over.
        progress: called with samples done and samples in all (of this rank's share), after each batch.

    Raises:
        InputError: the encoder does not fit the data, or gave NaN or infinite features (the samples are named); no
            such device, layer, pool or class token.
        DataError: the dataset is empty or a sample cannot be read (it is named); `out` cannot be written, or
            another process is extracting into it.
    """
    run = _start(encoder, dataset, batch_size, device, precision, workers, progress, layers, pool)
    if out is None:
        run.origin  # noqa: B018  (what the table vouches for is fixed before anything is read)
        return run.table(run.in_memory())
    return extract_to(run, feature_path(out), resume)


def embed(
    encoder: Encoder | torch.nn.Module | str | os.PathLike[str],
    dataset: Dataset | Sequence[Any] | np.ndarray,
    *,
    batch_size: int = 256,
    device: str | torch.device | None = None,
    precision: Precision = "auto",
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """`extract` without the table, and so without hashing weights and data: just `(N, num_features)` float32.

    Raises:
        InputError, DataError: as `extract`.
    """
    return _start(encoder, dataset, batch_size, device, precision, workers, progress).in_memory()


def extract_cached(
    encoder: Encoder,
    dataset: Dataset | Sequence[Any] | np.ndarray | str | os.PathLike[str],
    *,
    batch_size: int = 256,
    device: str | torch.device | None = None,
    precision: Precision = "auto",
    workers: int | None = None,
    folder: str | os.PathLike[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> FeatureTable:
    """`extract` into a cache: features that were extracted before are mapped from their file.

    The file's name is a hash of the weights in memory, the network, the preprocessing, the content of the split, the
    precision and the batch size: whatever changes one of them makes another file. Nothing of the table's size is held
    in memory, and an interrupted extraction resumes.

    Args:
        folder: where the files lie; None for `features` in the cache folder ($ZOO_CACHE).
        Others: as for `extract`.

    Raises:
        InputError, DataError: as `extract`.
    """
    run = _start(encoder, dataset, batch_size, device, precision, workers, progress)
    home = make_folder(cache_root() / "features" if folder is None else Path(folder))
    return extract_to(run, home / f"{run.origin}.npy", resume=True, wait=True)
