"""WebDataset shards: plain tar files of pictures, labels beside them; read in any order through an index.

The address is a `.tar`, a folder of them, a pattern (`train-{0000..0099}.tar`, `train-*.tar`), an `https://` URL or
`pipe:COMMAND`, both with braces. `webdataset:` before it says so where it is not told by the name. Behind a `#` stand
options, joined by `&`:

- `image=ENDING`: which member is the picture, where samples hold several;
- `label=ENDING`, `label=json:FIELD`, `label=folder` or `label=none`: what is the class. Without it `cls` is, or else a
  field of `json` that is called `label`, `class` or alike;
- `keys=shard`: names of samples begin with that of their shard, where shards repeat keys.

Shards behind https and pipes are read from copies, of which `ZOO_COPIES_GB` may keep only some (`zoo/data/copies.py`).
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from zoo.data.base import Dataset, file_state
from zoo.data.copies import announce, bound
from zoo.data.images import SUFFIXES
from zoo.data.labels import encode_labels
from zoo.data.reader import Address, Options, Reader
from zoo.data.remote import is_remote
from zoo.data.shard_files import Shard, find_shards, shards_below
from zoo.data.shards import NONE, PackedNames, ShardIndex
from zoo.data.tree import split_of, splits_of_files
from zoo.errors import ChangedError, DataError, nearest
from zoo.preprocessing.picture import decode

PREFIX = "webdataset:"
OPTIONS = ("image", "label", "keys")
_OPTIONS = re.compile(r"#(\w+=[^#]*)$")
_PATTERN = re.compile(r"[{*?\[]")


class ShardImages(Dataset):
    """Pictures in tar shards. Keys are the names of their members, as if the shards were unpacked into one folder.

    Args:
        shards: settled, see `Shard`. states: of each when it was indexed.
        counts: samples of each shard.
        offsets, sizes: `(N,)` int64, of a picture's bytes in its shard.
        others: as in `Dataset`.
    """

    def __init__(
        self,
        name: str,
        split: str,
        shards: Sequence[Shard],
        states: Sequence[str],
        counts: Sequence[int],
        offsets: np.ndarray,
        sizes: np.ndarray,
        keys: Sequence[str],
        labels: np.ndarray | None,
        class_names: Sequence[str],
    ) -> None:
        super().__init__(name, split, keys, labels, class_names)
        self.shards, self.starts = list(shards), np.cumsum([0, *counts])
        self.states = list(states)
        self.offsets, self.sizes = offsets, sizes

    def content(self, index: int) -> bytes:
        size = int(self.sizes[index])
        with self._shard(index).used() as path:
            try:
                with open(path, "rb", buffering=0) as file:
                    file.seek(int(self.offsets[index]))
                    content = file.read(size)
                    while len(content) < size and (more := file.read(size - len(content))):
                        content += more
            except OSError as error:
                raise DataError(
                    f"{path} cannot be read ({error.strerror}); restore it or open the shards again"
                ) from None
        if len(content) < size:
            raise DataError(f"{path} ends within {self.keys[index]}; it was cut off since it was opened, restore it")
        return content

    def encoded(self, index: int) -> tuple[bytes, str]:
        return self.content(index), f"{self._shard(index).path}: {self.keys[index]}"

    def sample(self, index: int) -> Image.Image:
        return decode(*self.encoded(index))

    def shard_of(self, indices: np.ndarray | int) -> np.ndarray:
        """`(n,)` positions of samples -> `(n,)` positions in `shards`; one for one."""
        return np.searchsorted(self.starts, indices, side="right") - 1

    def _shard(self, index: int) -> Shard:
        return self.shards[int(self.shard_of(range(len(self))[index]))]

    def _digests(self) -> Iterator[bytes]:
        if all(shard.copy is None for shard in self.shards):
            yield from super()._digests()
            return
        # Shard by shard, so that each is fetched once at most however few copies there may be.
        for shard, state, start, end in zip(self.shards, self.states, self.starts, self.starts[1:], strict=False):
            known = shard.digests(state, int(end - start))
            if known is not None:
                yield from known
                continue
            with shard.used():
                yield from [hashlib.sha256(self.content(i)).digest() for i in range(start, end)]

    def _state(self) -> str:
        own = hashlib.sha256(np.ascontiguousarray(self.offsets).tobytes() + self.starts.tobytes())
        own.update(b"-" if self.labels is None else self.labels.tobytes())
        own.update(b"\0".join(name.encode() for name in self.class_names))
        facts = [f"{own.hexdigest()} {self.keys[int(start)]}" for start in self.starts[:-1]]
        if all(shard.copy is None for shard in self.shards):
            return file_state([shard.path for shard in self.shards], facts)
        # Each read of a copy compares its hash.
        lines = "".join(f"{shard.sha256} {fact}\n" for shard, fact in zip(self.shards, facts, strict=True))
        return hashlib.sha256(b"encoder-zoo copies 1\n" + lines.encode("utf-8", "surrogateescape")).hexdigest()


class WebDataset(Reader):
    """Tar shards, see the head of this file."""

    example = "a .tar of WebDataset, a folder or pattern of them ('train-{0000..0099}.tar', 'https://...', 'pipe:...')"
    takes = ("test_share", "seed")

    def __init__(self, address: Address, options: Options) -> None:
        super().__init__(address, options)
        self.text, self.chosen = parse_address(address.text)
        #: A path is a file here, whatever it is called.
        self.remote = is_remote(self.text) and not address.is_path

    @classmethod
    def recognises(cls, address: Address) -> bool:
        text = _OPTIONS.sub("", address.text)
        if not address.is_path:
            if text.startswith((PREFIX, "pipe:")):
                return True
            if is_remote(text):
                return ".tar" in text
        if os.path.exists(os.path.expanduser(text)):
            path = Path(text).expanduser()
            return path.suffix.lower() == ".tar" if path.is_file() else bool(shards_below(path))
        return bool(_PATTERN.search(text)) and text.lower().endswith(".tar")

    @cached_property
    def shards(self) -> list[Shard]:
        """All shards in order."""
        found = find_shards(self.text, self.remote)
        places: dict[str, str] = {}
        for shard in found:
            real = os.path.realpath(shard.path)
            if real in places:
                raise DataError(f"{self.address} names {shard.name} twice (as {places[real]}); each shard counts once")
            places[real] = shard.name
        return found

    @cached_property
    def by_split(self) -> dict[str, list[Shard]]:
        """split -> its shards."""
        home = os.path.commonpath([os.path.dirname(shard.name) for shard in self.shards]) or "."
        inside = [os.path.relpath(shard.name, home) for shard in self.shards]
        found = splits_of_files(inside, str(self.address), "train-0000.tar")
        return {split: [self.shards[i] for i in places] for split, places in found.items()}

    @cached_property
    def indices(self) -> dict[Shard, ShardIndex]:
        """The index of every shard; remote ones are copied first, and stay unless there is a bound on copies.

        Raises DataError for a shard without a proper end, unless `skip_bad`.
        """
        copies = [shard.copy for shard in self.shards if shard.copy is not None]
        stay = bound() is None
        announce([copy for copy in copies if not (copy.is_here() if stay else copy.is_known())])
        for copy in copies if stay else ():
            with copy.used():
                pass
        found = {shard: shard.index(self.chosen.get("image"), self.chosen.get("label")) for shard in self.shards}
        for shard, index in found.items():
            if index.problem and not self.options.skip_bad:
                raise DataError(
                    f"{shard.path} {index.problem}; copy or write it again, or take the {len(index):,} samples before "
                    "with skip_bad=True"
                )
        return found

    def splits(self) -> list[str]:
        return list(self.by_split)

    def divisible(self) -> bool:
        return all((self.indices[shard].sources != NONE).any() for shard in self.by_split.get("all", ()))

    def open(self, split: str) -> ShardImages:
        shards = self.by_split[split]
        indices = [self.indices[shard] for shard in shards]
        if not sum(map(len, indices)):
            raise DataError(self._no_picture(indices))
        self._check_repeats(shards, indices)
        columns = {name: self._labels([self.indices[each] for each in part]) for name, part in self.by_split.items()}
        labels, names = encode_labels(columns, split, (), str(self.address))
        filled = [(shard, index) for shard, index in zip(shards, indices, strict=True) if len(index)]
        data = ShardImages(
            self._name(),
            split,
            [shard.settled() for shard, _ in filled],
            [index.state for _, index in filled],
            [len(index) for _, index in filled],
            np.concatenate([index.offsets for _, index in filled]),
            np.concatenate([index.sizes for _, index in filled]),
            _keys(filled, self.chosen.get("keys") == "shard"),
            labels,
            names,
        )
        data.check_unchanged()  # from here on the dataset watches its files
        for shard, index in zip(shards, indices, strict=True):
            if shard.state(self.chosen.get("image"), self.chosen.get("label")) != index.state:
                raise ChangedError(f"{shard.path} changed while the shards were opened; open them again")
        return self._told(data, shards, indices)

    def _told(self, data: ShardImages, shards: list[Shard], indices: list[ShardIndex]) -> ShardImages:
        """With what was left out and not used."""
        for index in indices:
            data.reported(index.left)
        data.reported({"shards cut off": [s.name for s, i in zip(shards, indices, strict=True) if i.problem]})
        beside: dict[str, int] = {}
        for index in indices:
            for ending, count in index.beside.items():
                beside[ending] = beside.get(ending, 0) + count
        if beside:
            counted = ", ".join(f"{count:,} .{ending}" for ending, count in sorted(beside.items()))
            data.reported(notes=[f"members of samples that were not used: {counted}"])
        if self.remote:
            size = sum(shard.settled().bytes for shard in shards)
            data.reported(notes=[f"read from copies in {Path(shards[0].path).parent} ({size / 1e9:.1f} GB)"])
        return data

    def _labels(self, indices: Sequence[ShardIndex]) -> list[int | str] | None:
        sources = [index.sources for index in indices]
        kinds = set(np.unique(np.concatenate(sources)).tolist())
        if kinds <= {NONE}:
            wanted = self.chosen.get("label")
            if wanted not in (None, "none") and sum(map(len, indices)):
                seen = sorted({ending for index in indices for ending in index.beside})
                raise DataError(
                    f"{self.address}: no sample has a label {wanted!r}; beside pictures there is "
                    f"{', '.join(seen) or 'nothing'}"
                )
            return None
        if NONE in kinds:
            absent = [index.names[int(i)] for index in indices for i in np.flatnonzero(index.sources == NONE)[:3]]
            count = sum(int((part == NONE).sum()) for part in sources)
            raise DataError(
                f"{self.address}: {count:,} of {sum(map(len, sources)):,} samples have no label, such as "
                f"{', '.join(absent[:3])}; add them, or end the address in #label=none"
            )
        if len(kinds) > 1:
            raise DataError(
                f"{self.address}: some labels are in .cls members, others in .json; end the address in #label=cls or "
                "#label=json, and write all of them alike"
            )
        return [index.values[code] for index in indices for code in index.codes.tolist()]

    def _check_repeats(self, shards: list[Shard], indices: list[ShardIndex]) -> None:
        """Refuse keys that two shards of a split have, unless their names begin with the shard's."""
        if self.chosen.get("keys") == "shard":
            return
        hashes = np.concatenate([index.hashes for index in indices])
        order = np.argsort(hashes, kind="stable")
        again = order[:-1][np.diff(hashes[order]) == 0]
        if len(again) == 0:
            return
        value = hashes[again[0]]
        holders = [shard.name for shard, i in zip(shards, indices, strict=True) if (i.hashes == value).any()][:2]
        raise DataError(
            f"{' and '.join(holders)} repeat {len(again):,} keys; name samples by their shard as well with an address "
            "that ends in #keys=shard, or remove the copy"
        )

    def _no_picture(self, indices: Sequence[ShardIndex]) -> str:
        wanted = self.chosen.get("image")
        seen = [name for index in indices for names in index.left.values() for name in names][:3]
        what = f"no member .{wanted}" if wanted else f"no picture ({', '.join(sorted(SUFFIXES))})"
        return f"{self.address} holds {what}{', but ' + '; '.join(seen) if seen else ', and nothing else'}"

    def _name(self) -> str:
        path = Path(os.path.abspath(os.path.expanduser(self.text)))
        if not self.remote and path.is_dir():
            return path.name
        stems = {re.sub(r"[-_. 0-9]+$", "", os.path.basename(shard.name).partition(".tar")[0]) for shard in self.shards}
        common = stems.pop() if len(stems) == 1 else ""
        parent = os.path.basename(os.path.dirname(self.shards[0].name))
        return common if common and not split_of(common) else parent or common or "shards"


def parse_address(text: str) -> tuple[str, dict[str, str]]:
    """`[webdataset:]WHERE[#option=value&...]` -> where, options. Raises DataError for an option that does not exist."""
    match = _OPTIONS.search(text)
    chosen: dict[str, str] = {}
    for pair in match[1].split("&") if match else ():
        name, _, value = pair.partition("=")
        if name not in OPTIONS or not value or (name == "keys" and value != "shard"):
            known = nearest(name, [*OPTIONS]) if name not in OPTIONS else "expected keys=shard, image=jpg or label=cls"
            raise DataError(f"{text}: {pair!r} is no option of shards; {known}")
        chosen[name] = value.removeprefix(".") if name != "keys" else value
    return _OPTIONS.sub("", text).removeprefix(PREFIX), chosen


def _keys(filled: Sequence[tuple[Shard, ShardIndex]], by_shard: bool) -> PackedNames:
    """The names of all samples one after the other, with that of their shard in front if `by_shard`."""
    blobs, ends, total = [], [], 0
    for shard, index in filled:
        names = index.names
        if by_shard:
            head = os.path.basename(shard.name)
            parts = [f"{head}/{name}".encode("utf-8", "surrogateescape") for name in names]
            names = PackedNames(b"".join(parts), np.cumsum([len(part) for part in parts], dtype=np.int64))
        blobs.append(names.blob)
        ends.append(names.ends + total)
        total += len(names.blob)
    return PackedNames(b"".join(blobs), np.concatenate(ends))
