"""The shards that an address names: where each lies, or where it is copied from, and how it is read."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from zoo.data.copies import Copy
from zoo.data.images import SUFFIXES
from zoo.data.remote import is_command, name_of
from zoo.data.shards import ShardIndex, known_index, shard_index, shard_state
from zoo.data.tree import visible_files
from zoo.errors import DataError
from zoo.files import cache_root, write_cache

COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")


@dataclass(frozen=True)
class Shard:
    """One shard.

    Attributes:
        path: where it lies on this disk, or its copy does while there is one.
        name: tells the split.
        copy: of a shard that lies elsewhere; None for one that lies here.
        bytes: its size, once it was `settled`.
        sha256: of a remote shard as it was when it was settled; empty before, and for one that lies here.
    """

    path: str
    name: str
    copy: Copy | None = None
    bytes: int = 0
    sha256: str = ""

    @contextlib.contextmanager
    def used(self) -> Iterator[str]:
        """Its path, where the shard stays while the block runs. Raises as `Copy.used`."""
        if self.copy is None:
            yield self.path
        else:
            with self.copy.used(self.sha256) as path:
                yield str(path)

    def settled(self) -> Shard:
        """This shard with its size and, if it lies elsewhere, its hash. Raises as `Copy.used`."""
        if self.copy is None:
            return replace(self, bytes=os.path.getsize(self.path))
        facts = self.copy.facts()
        return replace(self, bytes=facts.bytes, sha256=facts.sha256)

    def state(self, image: str | None, label: str | None) -> str:
        """As `zoo.data.shards.shard_state`, for a shard elsewhere by its content."""
        return shard_state(self.path, image, label, "" if self.copy is None else self.copy.facts().sha256)

    def index(self, image: str | None, label: str | None) -> ShardIndex:
        """As `zoo.data.shards.shard_index`. Of a shard elsewhere the copy is not needed a second time."""
        if self.copy is None:
            return shard_index(self.path, image, label)
        sha256 = self.copy.facts().sha256
        state = shard_state(self.path, image, label, sha256)
        if (known := known_index(state)) is not None:
            return known
        with self.copy.used(sha256) as path:
            index = shard_index(str(path), image, label, sha256)
            write_cache(_digest_file(state), b"".join(_digests(path, index)))
        return index

    def digests(self, state: str, samples: int) -> list[bytes] | None:
        """sha256 of each sample as they were kept with the index in that state; None if they were not."""
        with contextlib.suppress(OSError):
            kept = _digest_file(state).read_bytes()
            if len(kept) == 32 * samples:
                return [kept[i : i + 32] for i in range(0, len(kept), 32)]
        return None


def _digest_file(state: str) -> Path:
    return cache_root() / "shards" / f"{state}.sha256"


def _digests(path: Path, index: ShardIndex) -> Iterator[bytes]:
    with path.open("rb") as file:
        for offset, size in zip(index.offsets.tolist(), index.sizes.tolist(), strict=True):
            file.seek(offset)
            yield hashlib.sha256(file.read(size)).digest()


def find_shards(text: str, remote: bool) -> list[Shard]:
    """The shards that an address names, in order.

    Args:
        remote: whether the text is a URL or a command, not a path.

    Raises:
        DataError: nothing is there, or a command that was not allowed. UnknownNameError: a URL that may not be asked.
    """
    if remote:
        if is_command(text) and os.path.lexists(text):
            raise DataError(f"{text} is a command and the name of a file here; write ./{text} for the file")
        found = [(Copy.of(address), name_of(address)) for address in _braces(text)]
        return [Shard(str(copy.path), name, copy) for copy, name in found]
    text = os.path.expanduser(text)
    if os.path.isdir(text):
        paths = shards_below(Path(text))
        if not paths:
            raise DataError(f"{text} holds no shards: no .tar, or pictures beside them; open it as a folder of images")
    elif os.path.exists(text):
        paths = [text]
    else:
        paths = []
        for pattern in _braces(text):
            found = [pattern] if os.path.exists(pattern) else sorted(glob.glob(pattern))
            if not found:
                several = f", which is part of {text}," if pattern != text else ""
                raise DataError(f"{pattern}{several} names no file; check the path, the numbers and their zeros")
            paths += found
    return [Shard(path, path) for path in map(os.path.abspath, paths)]


def shards_below(folder: Path) -> list[str]:
    """The tar files below a folder, sorted; none where pictures or tables of them lie there as well."""
    tars, tables = [], []
    for parent, name in visible_files(folder):
        stem, suffix = os.path.splitext(name.lower())
        if suffix in SUFFIXES:
            return []
        if suffix == ".tar" or name.lower().endswith(COMPRESSED):
            tars.append(os.path.join(parent, name))
        elif suffix == ".parquet":
            tables.append(stem)
    # img2dataset writes 00000.parquet beside 00000.tar
    stems = {os.path.basename(path).lower().partition(".tar")[0] for path in tars}
    return sorted(tars) if stems.issuperset(tables) else []


def _braces(text: str) -> list[str]:
    """`a-{00..02}.tar` -> `a-00.tar`, `a-01.tar`, `a-02.tar`."""
    if "{" not in text:
        return [text]
    try:
        from braceexpand import UnbalancedBracesError, braceexpand
    except ImportError:
        raise DataError(f'the braces of {text} need a package: pip install "encoder-zoo[webdataset]"') from None
    try:
        return list(braceexpand(text))
    except UnbalancedBracesError as error:
        raise DataError(
            f"{text} cannot be read as a pattern ({error}); write it as in train-{{0000..0099}}.tar"
        ) from None
