"""One extraction: encoder, data and settings, put together once."""

from __future__ import annotations

import hashlib
import json
import math
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from zoo.data.base import Dataset
from zoo.data.images import ImageSequence
from zoo.device import autocast_dtype, device_for, resolve_precision, workers_beside
from zoo.encoder import LAST_LAYER, Encoder
from zoo.errors import DataError, InputError
from zoo.features.pooling import Pool, check_pool, columns, pooled
from zoo.features.reading import Batch, read_batches
from zoo.features.table import FeatureTable


def as_dataset(data: Any, modality: str = "image") -> Dataset:
    """A dataset as is; an address opened; a sequence or array of images or skeletons wrapped.

    Raises:
        InputError: none of these.
    """
    if isinstance(data, Dataset):
        return data
    if isinstance(data, (str, os.PathLike)):
        from zoo.data.addresses import open_dataset

        return open_dataset(os.fspath(data))
    if modality == "skeleton":
        from zoo.data.skeletons import SkeletonSequence

        return SkeletonSequence(data)
    return ImageSequence(data)


def as_encoder(encoder: Any) -> Encoder:
    """An encoder as is, out of `DataParallel`, `DistributedDataParallel` and `torch.compile`; an address loaded.

    Raises:
        InputError: something else. ZooError: an address that cannot be loaded.
    """
    if isinstance(encoder, (str, os.PathLike)):
        from zoo.checkpoint.loading import load

        return load(os.fspath(encoder))
    inside = encoder
    while not isinstance(inside, Encoder):
        if isinstance(inside, (torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel)):
            inside = inside.module
        elif isinstance(inside, torch.nn.Module) and isinstance(getattr(inside, "_orig_mod", None), torch.nn.Module):
            inside = inside._orig_mod
        else:
            raise InputError(
                f"expected an encoder of the zoo or its address, got a {type(encoder).__name__}; `zoo import` makes an "
                "encoder of another project's weights"
            )
    return inside


def stored_dtype(encoder: torch.nn.Module) -> torch.dtype:
    """The dtype of the first floating-point weight; float32 for a network without any."""
    return next((p.dtype for p in encoder.parameters() if p.is_floating_point()), torch.float32)


def encoder_fingerprint(encoder: torch.nn.Module) -> str:
    """sha256 (hex) over names, shapes, dtypes and values of all parameters and buffers as they are in memory.

    Not the hash of the weights file (`config.weights.sha256`): this one also changes when the weights are
    touched after loading.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(encoder.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


@dataclass
class Run:
    """One extraction: what runs over what, and how."""

    encoder: Encoder
    data: Dataset
    batch_size: int
    device: torch.device
    precision: str
    workers: int
    progress: Callable[[int, int], None] | None
    layers: tuple[str, ...] = ()
    pool: Pool = "mean"

    @cached_property
    def columns(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """Name and shape of each column group; empty for the encoder's own features."""
        if not self.layers:
            return ()
        place = next((p.device for p in self.encoder.parameters()), torch.device("cpu"))
        with _prepared(self.encoder, place):
            return columns(self.encoder, self.layers, self.pool)

    @cached_property
    def width(self) -> int:
        """Columns of the table."""
        return sum(math.prod(shape) for _, shape in self.columns) if self.layers else self.encoder.num_features

    @property
    def batches(self) -> int:
        """Number of batches."""
        return -(-len(self.data) // self.batch_size)

    def span(self, batch: int) -> range:
        """The samples of a batch."""
        return range(batch * self.batch_size, min(len(self.data), (batch + 1) * self.batch_size))

    def compute(self, batches: Sequence[int], store: Callable[[int, np.ndarray], None], before: int = 0) -> None:
        """Hand the features of each batch to `store`, in order. `before`: samples that earlier runs did."""
        transform = self.encoder.transform()
        spans = [self.span(batch) for batch in batches]
        done, total = before, before + sum(map(len, spans))

        def finish(batch: int, features: torch.Tensor) -> None:
            nonlocal done
            store(batch, self._fetch(batch, features))
            done += len(features)
            if self.progress is not None:
                self.progress(done, total)

        waiting = None
        self.data.check_unchanged()
        with (
            _prepared(self.encoder, self.device),
            closing(read_batches(self.data, transform, spans, self.workers)) as stream,
            torch.inference_mode(),
        ):
            for batch, pixels in zip(batches, stream, strict=True):
                queued = batch, self._forward(transform, pixels)
                if waiting is not None:  # a GPU works on this batch while the one before is fetched and stored
                    finish(*waiting)
                waiting = queued
            if waiting is not None:
                finish(*waiting)
        self.data.check_unchanged()

    def in_memory(self) -> np.ndarray:
        """All features as one array."""
        features = np.empty((len(self.data), self.width), dtype=np.float32)

        def store(batch: int, block: np.ndarray) -> None:
            features[batch * self.batch_size :][: len(block)] = block

        self.compute(range(self.batches), store)
        return features

    def _forward(self, transform: Any, batch: Batch) -> torch.Tensor:
        if isinstance(batch, list):
            x, lengths = transform.collate(batch)
            x = x.to(self.device, non_blocking=True)
        else:
            pixels = torch.from_numpy(batch)
            if self.device.type == "cuda":
                pixels = pixels.pin_memory()
            x, lengths = transform.normalise(pixels.to(self.device, non_blocking=True)), None
        stored = stored_dtype(self.encoder)
        # Weights that the caller cast are used as they are; autocast is for float32 ones.
        dtype = autocast_dtype(self.precision, self.device) if stored == torch.float32 else None
        x = x.to(stored)
        with torch.autocast(self.device.type, dtype) if dtype is not None else nullcontext():
            if self.layers:
                found = self.encoder.intermediates(x, self.layers)
                parts = [pooled(found[name], self.pool, self.encoder.name).flatten(1) for name in self.layers]
                return torch.cat(parts, dim=1)
            return self.encoder(x) if lengths is None else self.encoder(x, lengths)

    def _fetch(self, batch: int, features: torch.Tensor) -> np.ndarray:
        block = features.float().cpu().numpy()
        wanted = (len(self.span(batch)), self.width)
        if block.shape != wanted:
            raise InputError(f"{self.encoder.name} gave features of shape {block.shape}, expected {wanted}")
        bad = np.flatnonzero(~np.isfinite(block).all(axis=1))
        if len(bad):
            names = ", ".join(repr(self.data.keys[self.span(batch)[i]]) for i in bad[:5])
            more = f" and {len(bad) - 5} more" if len(bad) > 5 else ""
            hint = "check the weights" if self.precision == "fp32" else "try precision='fp32', then check the weights"
            raise InputError(f"{self.encoder.name} gave NaN or infinite features for {names}{more}; {hint}")
        return block

    def table(self, features: np.ndarray, origin: str = "") -> FeatureTable:
        """`features` with everything that is known about them.

        Raises:
            DataError: files were replaced while they were read.
        """
        data = self.data
        return FeatureTable(
            features,
            None if data.labels is None else np.asarray(data.labels, dtype=np.int64),
            list(data.keys),
            class_names=tuple(data.class_names),
            dataset=data.name,
            split=data.split,
            fingerprint=data.fingerprint,
            encoder=self.encoder.name,
            encoder_sha256=self.encoder_sha256,
            precision=self.precision,
            origin=origin or self.origin,
            columns=self.columns,
        )

    @cached_property
    def encoder_sha256(self) -> str:
        """`encoder_fingerprint` of the encoder, taken once: hashing large weights takes seconds."""
        return encoder_fingerprint(self.encoder)

    @cached_property
    def origin(self) -> str:
        """sha256 (hex) over all that the bits of the features depend on: weights as they are in memory, network,
        preprocessing, content of the split, precision and batch size."""
        parts = {
            "encoder": self.encoder_sha256,
            "network": str(self.encoder),
            "input": self.encoder.input.model_dump(mode="json"),
            "dataset": self.data.fingerprint,
            "precision": self.precision,
            "batch_size": self.batch_size,
            "shape": [len(self.data), self.width],
        }
        if self.layers:  # the features of before keep their hash
            parts |= {"layers": list(self.layers), "pool": self.pool}
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _start(
    encoder: Encoder,
    dataset: Any,
    batch_size: int,
    device: str | torch.device | None,
    precision: str,
    workers: int | None,
    progress: Callable[[int, int], None] | None,
    layers: Sequence[str] | None = None,
    pool: Pool | None = None,
) -> Run:
    encoder = as_encoder(encoder)
    data = as_dataset(dataset, encoder.modality)
    if batch_size < 1:
        raise InputError(f"batch_size must be at least 1, got {batch_size}")
    if encoder.modality != data.modality:
        raise InputError(f"{encoder.name} takes {encoder.modality} data, {data.name} holds {data.modality} data")
    if len(data) == 0:
        raise DataError(f"{data.name} ({data.split}) holds no samples")
    if any(module.training for module in encoder.modules()):
        warnings.warn(f"{encoder.name} was in training mode; its features are extracted in eval mode", stacklevel=3)
    device = device_for(encoder, device)
    precision = resolve_precision(precision, device)
    stored = stored_dtype(encoder)
    if stored != torch.float32:  # cast by the caller: the weights decide
        precision = {torch.bfloat16: "bf16", torch.float16: "fp16"}.get(stored, "fp32")
    asked = (LAST_LAYER,) if layers is None and pool is not None else layers
    chosen = tuple(dict.fromkeys(asked or ()))
    if layers is not None and not chosen:
        raise InputError(f"layers is empty; name some of {', '.join(encoder.layers)}")
    if chosen:
        check_pool(pool or "mean")
        encoder.check_layers(chosen)
    threads = workers or workers_beside(device)
    return Run(encoder, data, batch_size, device, precision, threads, progress, chosen, pool or "mean")


@contextmanager
def _prepared(encoder: Encoder, device: torch.device) -> Iterator[None]:
    """Eval mode, no input checks, on `device`, channels last; all put back afterwards."""
    modules = list(encoder.modules())
    modes = [(module, module.training) for module in modules]
    weights = [(parameter, parameter.data) for parameter in encoder.parameters()]
    buffers = [(module, name, value) for module in modules for name, value in module._buffers.items()]
    strict = vars(encoder).get("strict_input")
    try:
        encoder.eval().to(device, memory_format=torch.channels_last)
        encoder.strict_input = False
        yield
    finally:
        # The very tensors come back: converting a second time would change strides and cost a copy.
        for parameter, data in weights:
            parameter.data = data
        for module, name, value in buffers:
            module._buffers[name] = value
        for module, training in modes:
            module.training = training
        if strict is None:
            vars(encoder).pop("strict_input", None)
        else:
            encoder.strict_input = strict
