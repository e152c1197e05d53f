"""From decoded data to batches on the device, in an order that depends on seed and epoch alone."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor

from training.methods import method_class
from training.shard_order import ShardOrder, check_copies, random_order
from zoo.data.addresses import open_dataset
from zoo.data.base import Dataset
from zoo.data.pairs import opened
from zoo.data.splits import held_out
from zoo.data.stores.pixels import pixel_view
from zoo.data.stores.sequences import SequenceStore, sequence_store
from zoo.data.stores.whole import WholePictures
from zoo.device import workers
from zoo.errors import DataError
from zoo.preprocessing.skeleton import pad_sequences

#: Data up to this share of the accelerator's free memory lives there for the whole run.
RESIDENT_SHARE = 0.4
#: How many training images an encoder takes its statistics from: at most this many, of about as many pixels in all
#: as they have at 32 px, so that large images cost no more.
STATISTICS_IMAGES = 5000
STATISTICS_PIXELS = STATISTICS_IMAGES * 32 * 32


class TrainingData:
    """A dataset's training part and its held-out part, decoded once.

    Attributes:
        dataset: the opened split.
        train, held: positions in `dataset` of the two parts.
    """

    def __init__(self, recipe, progress=None, say: Callable[[str], None] | None = None) -> None:
        """Raise DataError if the data cannot be used. `say` takes what was understood, before anything is decoded."""
        data = recipe.data
        self.dataset: Dataset
        (self.dataset,) = opened(
            lambda: [
                open_dataset(
                    data.dataset,
                    data.split,
                    root=data.root,
                    download=data.download,
                    classes=data.classes,
                    labels=data.labels,
                    test_share=data.test_share,
                    skip_bad=data.skip_bad,
                )
            ],
            say,
        )
        labels = self.dataset.labels
        self.train, self.held = _parts(self.dataset, data)
        if data.limit is not None and data.limit < len(self.train):
            # A search must not see labels in any guise.
            stratified = labels is not None and not method_class(recipe.method["name"]).halves
            part = labels[self.train] if stratified else len(self.train)
            _, chosen = held_out(part, data.limit / len(self.train), seed=0)
            self.train = self.train[chosen]
        if len(self.train) < recipe.batch_size:
            or_held_out = f" or data.held_out={data.held_out}" if len(self.held) else ""
            raise DataError(
                f"{self.dataset.name}/{self.dataset.split} gives {len(self.train)} training samples, fewer than "
                f"batch_size={recipe.batch_size}; lower batch_size{or_held_out}"
            )
        self.shards: ShardOrder | None = None
        if data.shuffle_gb is not None:
            self.shards = ShardOrder(self.dataset, self.train, data.shuffle_gb)
        elif data.stream:
            check_copies(self.dataset)
        self.array: np.ndarray | SequenceStore | WholePictures
        if recipe.input.modality == "skeleton":
            self.array, rows = sequence_store(self.dataset, recipe.input.transform(), progress=progress), None
        elif data.stream:
            threads = data.stream_workers or workers()
            self.array, rows = WholePictures(self.dataset, recipe.store_size(), threads), None
        else:
            self.array, rows = pixel_view(self.dataset, recipe.store_size(), progress=progress)
        self._rows = np.arange(len(self.dataset)) if rows is None else np.asarray(rows)

    @property
    def fingerprint(self) -> str:
        """What a resumed run must find again: samples, and with `data.shuffle_gb` how they lie in shards."""
        if self.shards is None:
            return self.dataset.fingerprint
        return hashlib.sha256(f"{self.dataset.fingerprint} {self.shards.layout}".encode()).hexdigest()

    def order(self, seed: int, epoch: int, samples: int) -> np.ndarray:
        """The order of an epoch: a permutation of `range(samples)`, which are all of `train` where shards give it."""
        return epoch_order(seed, epoch, samples) if self.shards is None else self.shards.epoch(seed, epoch)

    def watched(self, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Training and held-out positions that a monitor may read: with `data.shuffle_gb` those of one group."""
        if self.shards is None:
            return self.train, self.held
        return tuple(self.shards.first_group(part, seed) if len(part) else part for part in (self.train, self.held))

    def rows(self, positions: np.ndarray) -> np.ndarray:
        """Positions in the dataset -> rows of `array`."""
        return self._rows[positions]

    def labels_by_row(self, labels: np.ndarray) -> np.ndarray:
        """Labels of the dataset's samples -> one for each row of `array`; -1 where a row is no sample of this split."""
        out = np.full(len(self.array), -1, dtype=np.int64)
        out[self._rows] = labels
        return out


def statistics_images(data: TrainingData, seed: int) -> Tensor:
    """Training images as they are stored, uint8 `(N, 3, H, W)`, chosen by the seed alone: equal on every rank."""
    height, width = data.array.shape[1:3]
    count = min(STATISTICS_IMAGES, max(1, STATISTICS_PIXELS // (height * width)))
    # Epoch -2: the order of no epoch, nor that of the halves of a search.
    chosen = data.train[data.order(seed, (1 << 32) - 2, len(data.train))[:count]]
    return torch.from_numpy(data.array[np.sort(data.rows(chosen))]).permute(0, 3, 1, 2)


def _parts(dataset: Dataset, data) -> tuple[np.ndarray, np.ndarray]:
    """Positions to train on, and positions that are held out."""
    everything = np.arange(len(dataset))
    if data.held_out_groups:
        groups = dataset.groups.get("person")
        if groups is None:
            raise DataError(f"{dataset.name} does not say who performs its samples; use data.held_out instead")
        absent = sorted(set(data.held_out_groups) - set(groups.tolist()))
        if absent:
            raise DataError(f"{dataset.name}/{dataset.split} has no sample of group {absent[0]}")
        held = np.isin(groups, data.held_out_groups)
        return everything[~held], everything[held]
    if data.held_out > 0:
        return held_out(dataset.labels if dataset.labels is not None else len(dataset), data.held_out, seed=0)
    return everything, everything[:0]


def batches_for(array: np.ndarray | SequenceStore, device: torch.device, labels: np.ndarray | None = None) -> Batches:
    """Batches of what `TrainingData.array` holds; `labels` `(N,)`, one for each row of the array, join them."""
    return (SkeletonBatches if isinstance(array, SequenceStore) else Batches)(array, device, labels)


def _as_tensor(labels: np.ndarray | None) -> Tensor | None:
    return None if labels is None else torch.from_numpy(np.asarray(labels, dtype=np.int64))


class Batches:
    """Batches `{"images": uint8 (N, 3, H, W)}` on the device, channels last in memory; with `labels`, also
    `"labels": int64 (N,)`; and the rows of every array in `known`, `(rows of the array, ...)`, by its name.

    The array lives on the accelerator when it fits; otherwise the next batch is read and pinned
    in a thread while the current one trains.
    """

    #: Whether the array may live on the accelerator.
    may_reside = True

    def __init__(self, array: Any, device: torch.device, labels: np.ndarray | None = None) -> None:
        self.array, self.device = array, device
        self.labels = _as_tensor(labels)
        self.known: dict[str, np.ndarray] = {}
        self.resident: Tensor | None = None
        if device.type == "cuda" and self.may_reside:
            free, _ = torch.cuda.mem_get_info(device)
            if array.nbytes < RESIDENT_SHARE * free:
                self.resident = torch.from_numpy(np.ascontiguousarray(array)).to(device)
        self._reader = ThreadPoolExecutor(1) if self.resident is None else None
        self._next: tuple[bytes, Future[Any]] | None = None

    def get(self, rows: np.ndarray) -> dict[str, Tensor]:
        """The samples at `rows` of the array."""
        if self.resident is not None:
            # From pageable memory the copy might wait for everything that the device still has to do.
            index = torch.from_numpy(rows).pin_memory().to(self.device, non_blocking=True)
            return {"images": self.resident.index_select(0, index).permute(0, 3, 1, 2)} | self._beside(rows)
        if self._next is not None and self._next[0] == rows.tobytes():
            pixels = self._next[1].result()
        else:
            pixels = self._read(rows)
        self._next = None
        return {"images": pixels.to(self.device, non_blocking=True).permute(0, 3, 1, 2)} | self._beside(rows)

    def draw(self, rows: np.ndarray, seed: Sequence[int], view_size: int) -> dict[str, Any]:
        """What a training step of views of `view_size` px draws them from; here the samples as they are stored.

        Args:
            seed: of what is drawn while reading; equal for equal step, process and part.
        """
        return self.get(rows)

    def draw_ahead(self, rows: np.ndarray, seed: Sequence[int], view_size: int) -> None:
        """Start reading what the next `draw` will ask for."""
        self.prefetch(rows)

    def _beside(self, rows: np.ndarray) -> dict[str, Tensor]:
        """What is known of the samples at `rows`, on the device."""
        found = {name: torch.from_numpy(array[rows]) for name, array in self.known.items()}
        if self.labels is not None:
            found["labels"] = self.labels[torch.from_numpy(rows)]
        if self.device.type == "cuda":
            found = {name: value.pin_memory() for name, value in found.items()}
        return {name: value.to(self.device, non_blocking=True) for name, value in found.items()}

    def prefetch(self, rows: np.ndarray) -> None:
        """Start reading the samples that the next `get` will ask for."""
        if self._reader is not None:
            self._next = (rows.tobytes(), self._reader.submit(self._read, rows))

    def _read(self, rows: np.ndarray) -> Tensor:
        pixels = torch.from_numpy(self.array[rows])
        return pixels.pin_memory() if self.device.type == "cuda" else pixels


class SkeletonBatches(Batches):
    """Batches `{"skeletons": float32 (N, T, V, C)` padded with zeros to the longest, `"lengths": int64 (N,)}`.

    With `labels`, also `"labels": int64 (N,)`.
    """

    may_reside = False
    array: SequenceStore

    def get(self, rows: np.ndarray) -> dict[str, Tensor]:
        """The sequences at `rows` of the store."""
        waiting, self._next = self._next, None
        known = waiting is not None and waiting[0] == rows.tobytes()
        x, lengths = waiting[1].result() if known else self._read(rows)
        parts = {"skeletons": x, "lengths": lengths}
        return {name: part.to(self.device, non_blocking=True) for name, part in parts.items()} | self._beside(rows)

    def _read(self, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        x, lengths = pad_sequences([self.array.sequence(row) for row in rows.tolist()])
        return (x.pin_memory(), lengths.pin_memory()) if self.device.type == "cuda" else (x, lengths)


def epoch_order(seed: int, epoch: int, samples: int) -> np.ndarray:
    """A permutation of `range(samples)`, the same on every rank and after every resume."""
    return random_order([seed, epoch], samples)


def step_seed(seed: int, step: int, rank: int) -> int:
    """A 63-bit seed for one step of one rank: randomness is a function of the counter, so that a
    resumed run needs no generator state and continues bit for bit."""
    return int(np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0] >> np.uint64(1))
