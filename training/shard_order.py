"""The order of an epoch by groups of shards: for sets that are larger than the disk, or on disks that are slow to seek.

The shards of an epoch are shuffled by seed and epoch and dealt in that order into groups that fit `data.shuffle_gb`
together. All samples of a group come in one random order before those of the next group. So only the shards of one
group must be at hand, and each is fetched once in an epoch; the next group is fetched while one is read. Each sample
comes once in an epoch, the order is one permutation that every process draws alike, and a run resumes at any step.

How well it shuffles: a batch mixes the samples of one group alone. With N as large as the set there is one group, and
the order is that of a set which fits. With a tenth of that, a batch is drawn from a random tenth of the shards, another
tenth in every epoch. Two samples of one shard always come in the same group, so with small N whatever the samples of a
shard share (a class, a source) fills whole batches. Write shards of shuffled samples, and choose N so that a group
holds some dozens of shards and many times the batch size.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Sequence

import numpy as np

from zoo.data.base import Dataset, Remaining, Subset
from zoo.data.copies import GB, VARIABLE, bound
from zoo.data.joined import Joined
from zoo.data.readers.webdataset import ShardImages
from zoo.data.shard_files import Shard
from zoo.errors import DataError, ZooError

_log = logging.getLogger(__name__)


def random_order(seed: Sequence[int], count: int) -> np.ndarray:
    """A permutation of `range(count)` that depends on the seed alone, with every version of NumPy."""
    # Raw PCG64 output is guaranteed stable across numpy versions; Generator.permutation is not.
    return np.argsort(np.random.PCG64(list(seed)).random_raw(count), kind="stable")


def shards_of(data: Dataset) -> tuple[list[Shard], np.ndarray] | None:
    """The shards of a dataset, and `(N,)` the position among them of each sample's; None where it has no shards."""
    if isinstance(data, ShardImages):
        return data.shards, data.shard_of(np.arange(len(data)))
    if isinstance(data, Subset | Remaining):
        found = shards_of(data.parent)
        return None if found is None else (found[0], found[1][data.indices])
    if isinstance(data, Joined):
        shards: list[Shard] = []
        places = []
        for part in data.parts:
            found = shards_of(part)
            if found is None:
                return None
            places.append(found[1] + len(shards))
            shards += found[0]
        return shards, np.concatenate(places)
    return None


def check_copies(data: Dataset) -> None:
    """Refuse to draw samples in any order from remote shards of which only some fit the disk. Raises DataError."""
    found, limit = shards_of(data), bound()
    if found is None or limit is None:
        return
    total = sum(shard.bytes for shard in found[0] if shard.copy is not None)
    if total > limit:
        raise DataError(
            f"the shards of {data.name} have {total / GB:.3g} GB, and {VARIABLE} keeps {limit / GB:.3g} GB of copies: "
            f"every batch would fetch shards anew. Set data.shuffle_gb to at most {limit / GB:.3g}, or raise {VARIABLE}"
        )


class ShardOrder:
    """Groups of shards, and the order of the samples in them.

    Args:
        data: of shards, or parts of such data.
        train: `(n,)` positions of the training samples in `data`.
        gigabytes: that the shards of a group may have together.

    Raises:
        DataError: no shards, one that is larger than a group may be, or groups larger than the bound on copies.
    """

    def __init__(self, data: Dataset, train: np.ndarray, gigabytes: float) -> None:
        found = shards_of(data)
        if found is None:
            raise DataError(
                f"data.shuffle_gb={gigabytes:g} takes the order from shards, and {data.name} has none of WebDataset; "
                "leave it out, or write the pictures to .tar shards (docs/my-pictures.md)"
            )
        shards, of = found
        self.of_all, self.train = of, train
        used, self.of = np.unique(of[train], return_inverse=True)
        self.used = used
        self.shards = [shards[i] for i in used.tolist()]
        self.counts = np.bincount(self.of)
        self.limit = round(gigabytes * GB)
        largest = max(self.shards, key=lambda shard: shard.bytes)
        if largest.bytes > self.limit:
            raise DataError(
                f"data.shuffle_gb={gigabytes:g} is smaller than the largest shard, {largest.name} with "
                f"{largest.bytes / GB:.3g} GB; set it to several dozen times that"
            )
        self.remote = any(shard.copy is not None for shard in self.shards)
        kept = bound() if self.remote else None
        if kept is not None and self.limit > kept:
            raise DataError(
                f"data.shuffle_gb={gigabytes:g} is more than the {kept / GB:.3g} GB of copies that {VARIABLE} keeps; "
                f"lower it, or raise {VARIABLE} to twice as much, so that the next group is fetched while one is read"
            )
        self._groups: dict[tuple[int, int], list[list[int]]] = {}
        self._ahead: threading.Thread | None = None
        self._begun: tuple[int, ...] = ()

    @property
    def layout(self) -> str:
        """What the order depends on beside the samples: the samples and bytes of each shard, as text."""
        return " ".join(f"{count}:{shard.bytes}" for count, shard in zip(self.counts, self.shards, strict=True))

    def groups(self, seed: int, epoch: int) -> list[list[int]]:
        """Positions in `shards` of each group, in the order of the epoch."""
        if (known := self._groups.get((seed, epoch))) is not None:
            return known
        groups: list[list[int]] = []
        size = math.inf
        for number in random_order([seed, epoch, 1], len(self.shards)).tolist():
            size += self.shards[number].bytes
            if size > self.limit:
                groups.append([])
                size = self.shards[number].bytes
            groups[-1].append(number)
        self._groups = {(seed, epoch): groups, **dict(list(self._groups.items())[:1])}
        return groups

    def epoch(self, seed: int, epoch: int) -> np.ndarray:
        """A permutation of the training samples `(n,)`, the same on every rank and after every resume."""
        group_of = np.empty(len(self.shards), dtype=np.int64)
        for number, group in enumerate(self.groups(seed, epoch)):
            group_of[group] = number
        return np.lexsort((np.random.PCG64([seed, epoch]).random_raw(len(self.of)), group_of[self.of]))

    def first_group(self, positions: np.ndarray, seed: int) -> np.ndarray:
        """Those of the positions in `data` whose samples lie in one group of shards; all where none does."""
        chosen = self.used[self.groups(seed, (1 << 32) - 3)[0]]
        inside = positions[np.isin(self.of_all[positions], chosen)]
        return inside if len(inside) else positions

    def fetch_ahead(self, seed: int, epoch: int, sample: int, epochs: int) -> None:
        """Begin to fetch the group after the one that is read now, if shards are remote and there is room for both.

        Args:
            sample: position in the order of the epoch that is read next.
            epochs: of the whole run; nothing comes after the last one.
        """
        if not self.remote or (self._ahead is not None and self._ahead.is_alive()):
            return
        groups = self.groups(seed, epoch)
        ends = np.cumsum([self.counts[group].sum() for group in groups])
        now = int(np.searchsorted(ends, sample, side="right"))
        here = groups[min(now, len(groups) - 1)]
        if now + 1 >= len(groups) and epoch + 1 >= epochs:
            return
        then = groups[now + 1] if now + 1 < len(groups) else self.groups(seed, epoch + 1)[0]
        if tuple(then) == self._begun or not self._room(here, then):
            return
        self._begun = tuple(then)
        # A daemon, as nothing is lost if the process ends first.
        self._ahead = threading.Thread(target=self._fetch, args=(here, then), name="next shards", daemon=True)
        self._ahead.start()

    def wait(self) -> None:
        """Until what was begun ahead is there."""
        if self._ahead is not None:
            self._ahead.join()

    def _room(self, here: list[int], then: list[int]) -> bool:
        kept = bound()
        return kept is None or sum(self.shards[number].bytes for number in {*here, *then}) <= kept

    def _fetch(self, here: list[int], then: list[int]) -> None:
        try:
            for number in [*here, *then]:  # those of now first, so that they are not the least recently used
                with self.shards[number].used():
                    pass
        except ZooError as error:  # whoever reads the shard tries again, and says so
            _log.warning("the next shards could not be fetched ahead: %s", error)
