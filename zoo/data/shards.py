"""One tar shard -> where each sample's picture lies in it, found by one pass over the headers and kept in the cache.

A sample is a run of members with the same key, as in the `webdataset` package: the name up to the first dot behind the
last slash; what follows is the ending. A plain tar can be sought, so that with this index shards are read in any order.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import tarfile
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from zoo.data.base import file_state
from zoo.data.images import SUFFIXES
from zoo.data.labels import class_name
from zoo.data.tables import LABEL_NAMES
from zoo.errors import ChangedError, DataError
from zoo.files import cache_root, write_cache

#: Part of the name of a cached index: raise it whenever the same shard would give another one.
VERSION = 1
#: What `ShardIndex.sources` says: no label, of a member `cls`, of a field of `json`, of what was asked for.
NONE, CLS, JSON, CHOSEN = range(4)
#: A label is a word or a few fields: bytes of the largest member that is read for one.
LARGEST_LABEL = 1 << 20
COMPRESSED = {b"\x1f\x8b": "gunzip", b"BZh": "bunzip2", b"\xfd7zXZ": "unxz", b"\x28\xb5\x2f\xfd": "unzstd"}
_NAME = re.compile(r"((?:.*/|)[^./][^./]*)[.]([^/]*)", re.DOTALL)
_META = re.compile(r"__[^/]*__($|/)")


class PackedNames(Sequence[str]):
    """Text as one string of bytes: a million names cost their letters and 8 bytes each, no object of their own.

    Args:
        blob: all names one after the other, UTF-8.
        ends: `(N,)` int64, where each ends.
    """

    def __init__(self, blob: bytes, ends: np.ndarray) -> None:
        self.blob, self.ends = blob, ends

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        index = range(len(self))[index]
        start = int(self.ends[index - 1]) if index else 0
        return self.blob[start : int(self.ends[index])].decode("utf-8", "surrogateescape")


@dataclass
class ShardIndex:
    """The samples of one shard that have a picture, in the order of the file.

    Attributes:
        state: of the file when it was read, see `file_state`.
        names: the member that is the picture.
        offsets, sizes: `(n,)` int64, of its bytes in the shard.
        codes: `(n,)` int32, position of the label in `values`; -1 for none.
        sources: `(n,)` int8, where the label was found: `NONE`, `CLS`, `JSON` or `CHOSEN`.
        hashes: uint64, one of each key, samples without picture among them.
        values: the labels that occur, whole numbers or text.
        left: reason -> members and keys that give no sample.
        beside: ending -> how many members with it belong to samples and were not used.
        problem: why the shard has no proper end; empty if it has.
    """

    state: str
    names: PackedNames
    offsets: np.ndarray
    sizes: np.ndarray
    codes: np.ndarray
    sources: np.ndarray
    hashes: np.ndarray
    values: list[int | str] = field(default_factory=list)
    left: dict[str, list[str]] = field(default_factory=dict)
    beside: dict[str, int] = field(default_factory=dict)
    problem: str = ""

    def __len__(self) -> int:
        return len(self.offsets)


def shard_index(path: str, image: str | None = None, label: str | None = None, sha256: str = "") -> ShardIndex:
    """The index of a plain tar, from the cache if the file has not changed since.

    Args:
        path: absolute path.
        image: ending of the members that are pictures; None takes the only one that is an ending of pictures.
        label: ending of the members that hold labels, `"json:FIELD"`, `"folder"` or `"none"`; None takes `cls`, or else
            the field of a `json` member that is called as labels are.
        sha256: of the file where it is a copy, which may leave and come back; empty asks the file system.

    Raises:
        DataError: no tar, compressed, two pictures in a sample, a name or key twice, or a label that cannot be read.
        ChangedError: it was written to meanwhile.
    """
    state = shard_state(path, image, label, sha256)
    index = known_index(state)
    if index is not None:
        return index
    index = _Scan(path, image, label).run(state)
    if shard_state(path, image, label, sha256) != state:
        raise ChangedError(f"{path} changed while it was read; wait until nothing writes to it, and open it again")
    write_cache(_kept(state), _dump(index))
    return index


def known_index(state: str) -> ShardIndex | None:
    """The index of the shard in that state, if the cache has it."""
    return _load(_kept(state), state)


def shard_state(path: str, image: str | None = None, label: str | None = None, sha256: str = "") -> str:
    """Hash of what the file system says about a shard, or of its content, and of how it is read."""
    reading = f"shard {VERSION} {image} {label}"
    return hashlib.sha256(f"{reading}\0{sha256}".encode()).hexdigest() if sha256 else file_state([path], [reading])


def _kept(state: str) -> Path:
    return cache_root() / "shards" / f"{state}.npz"


def key_and_ending(name: str) -> tuple[str, str] | None:
    """`"cat/1.seg.png"` -> `("cat/1", "seg.png")`, the ending in lower case; None for a name that has none."""
    match = _NAME.fullmatch(name)
    return None if match is None else (match[1], match[2].lower())


class _Scan:
    """One pass over a shard."""

    def __init__(self, path: str, image: str | None, label: str | None) -> None:
        self.path, self.image, self.label = path, image, label
        self.blob, self.ends = bytearray(), array("q")
        self.offsets, self.sizes, self.codes, self.sources = array("q"), array("q"), array("i"), array("b")
        self.hashes = array("Q")
        self.values: dict[int | str, int] = {}
        self.left: dict[str, list[str]] = {}
        self.beside: dict[str, int] = {}
        self.key: str | None = None
        self.members: dict[str, tarfile.TarInfo] = {}

    def run(self, state: str) -> ShardIndex:
        try:
            with open(self.path, "rb") as file:
                problem = self._read(file)
        except OSError as error:
            raise DataError(f"{self.path} cannot be read ({error.strerror or error})") from None
        self._check_keys()
        arrays = [
            np.frombuffer(part.tobytes(), dtype=kind)
            for part, kind in (
                (self.offsets, np.int64),
                (self.sizes, np.int64),
                (self.codes, np.int32),
                (self.sources, np.int8),
                (self.hashes, np.uint64),
            )
        ]
        names = PackedNames(bytes(self.blob), np.frombuffer(self.ends.tobytes(), dtype=np.int64))
        return ShardIndex(state, names, *arrays, list(self.values), self.left, self.beside, problem)

    def _read(self, file: BinaryIO) -> str:
        """Take every member; what is wrong with the end of the file."""
        head = file.read(6)
        for magic, tool in COMPRESSED.items():
            if head.startswith(magic):
                raise DataError(
                    f"{self.path} is compressed, so that samples in it cannot be sought; unpack it to a plain .tar "
                    f"({tool}), pictures hardly shrink anyway"
                )
        self.file, end = file, file.seek(0, os.SEEK_END)
        file.seek(0)
        try:
            archive = tarfile.open(fileobj=file, mode="r:")  # noqa: SIM115  (the file is closed by the caller)
        except tarfile.TarError as error:
            raise DataError(f"{self.path} is no tar archive ({error}); copy it again") from None
        try:
            while (member := archive.next()) is not None:
                archive.members = []  # or it keeps an object for every member
                if member.offset_data + member.size > end:
                    raise tarfile.ReadError
                self._take(member)
        except tarfile.TarError:
            self._finish()
            return f"is cut off at {end:,} bytes, within a member"
        self._finish()
        file.seek(archive.offset)
        block = file.read(tarfile.BLOCKSIZE)
        if len(block) < tarfile.BLOCKSIZE:
            return f"is cut off at {end:,} bytes: it has no end mark"
        if block.strip(b"\0"):
            return f"is damaged at byte {archive.offset:,}: no header of a member"
        while chunk := file.read(1 << 20):
            if chunk.strip(b"\0"):
                return f"goes on after its end mark at byte {archive.offset:,}, as shards joined by `cat` do"
        return ""

    def _take(self, member: tarfile.TarInfo) -> None:
        name = member.name.removeprefix("./")
        if member.isdir() or _META.match(name):
            return
        base = name.rpartition("/")[2]
        parts = key_and_ending(name)
        if not member.isreg() or member.issparse():
            self.left.setdefault("links and other members that are no plain files", []).append(name)
        elif base.startswith("."):
            self.left.setdefault("hidden", []).append(name)
        elif parts is None:
            self.left.setdefault("without an ending", []).append(name)
        else:
            key, ending = parts
            if key != self.key:
                self._finish()
                self.key = key
            if ending in self.members:
                raise DataError(f"{self.path} holds {name} twice; keep one")
            member.name = name
            self.members[ending] = member

    def _finish(self) -> None:
        """End the sample that was collected."""
        key, members = self.key, self.members
        if key is None:
            return
        self.key, self.members = None, {}
        self.hashes.append(_hash(key))
        chosen = self._picture(key, members)
        if chosen is None:
            self.left.setdefault("samples without a picture", []).append(f"{key} ({', '.join(members)})")
            return
        source, value, used = self._label_of(key, members)
        for ending in members:
            if ending not in (chosen, used):
                self.beside[ending] = self.beside.get(ending, 0) + 1
        picture = members[chosen]
        self.blob += picture.name.encode("utf-8", "surrogateescape")
        self.ends.append(len(self.blob))
        self.offsets.append(picture.offset_data)
        self.sizes.append(picture.size)
        self.sources.append(source)
        self.codes.append(-1 if value is None else self.values.setdefault(value, len(self.values)))

    def _picture(self, key: str, members: dict[str, tarfile.TarInfo]) -> str | None:
        if self.image is not None:
            return self.image if self.image in members else None
        found = [ending for ending in members if f".{ending}" in SUFFIXES]
        found = found or [ending for ending in members if f".{ending.rpartition('.')[2]}" in SUFFIXES]
        if len(found) > 1:
            raise DataError(
                f"{self.path}: the sample {key!r} holds {len(found)} pictures ({', '.join(found)}), and one sample is "
                f"one picture; say which by an address that ends in #image={found[0]}"
            )
        return found[0] if found else None

    def _label_of(self, key: str, members: dict[str, tarfile.TarInfo]) -> tuple[int, int | str | None, str | None]:
        """Where the label is from, the label, and the ending of the member that holds it."""
        ending, _, wanted = (self.label or "").partition(":")
        if self.label == "none":
            return NONE, None, None
        if self.label == "folder":
            folder = key.rpartition("/")[0].rpartition("/")[2]
            return (CHOSEN, class_name(folder), None) if folder else (NONE, None, None)
        if self.label is None:
            if "cls" in members:
                return CLS, _plain(self._text(members["cls"])), "cls"
            value = self._field(members["json"], "") if "json" in members else None
            return (NONE, None, None) if value is None else (JSON, value, "json")
        if ending not in members:
            return NONE, None, None
        json_like = ending.rpartition(".")[2] == "json"
        value = self._field(members[ending], wanted) if json_like else _plain(self._text(members[ending]))
        return (NONE if value is None else CHOSEN), value, ending

    def _field(self, member: tarfile.TarInfo, wanted: str) -> int | str | None:
        """A field of a JSON member: the one that is asked for, or the first that is called as labels are."""
        try:
            record = json.loads(self._text(member))
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"{self.path}: {member.name} is no JSON ({error}); mend it, or end with #label=none"
            ) from None
        if not isinstance(record, dict):
            return None
        lower = {str(name).lower(): value for name, value in record.items()}
        names = [wanted.lower()] if wanted else LABEL_NAMES
        value = next((lower[name] for name in names if name in lower), None)
        if isinstance(value, bool):
            return str(value)
        return class_name(value) if isinstance(value, str) else value if isinstance(value, int) else None

    def _text(self, member: tarfile.TarInfo) -> str:
        if member.size > LARGEST_LABEL:
            raise DataError(f"{self.path}: {member.name} has {member.size:,} bytes, too many for a label")
        self.file.seek(member.offset_data)
        try:
            return self.file.read(member.size).decode("utf-8-sig").strip()
        except UnicodeDecodeError:
            raise DataError(
                f"{self.path}: {member.name} holds no UTF-8 text, so no label; end the address in #label=none"
            ) from None

    def _check_keys(self) -> None:
        """Refuse a key whose members do not lie side by side."""
        hashes = np.frombuffer(self.hashes.tobytes(), dtype=np.uint64)
        if len(np.unique(hashes)) == len(hashes):
            return
        order = np.argsort(hashes, kind="stable")
        again = {int(value) for value in hashes[order][1:][np.diff(hashes[order]) == 0]}
        keys = [name.rpartition(" (")[0] for name in self.left.get("samples without a picture", ())]
        keys += [key_and_ending(name)[0] for name in PackedNames(bytes(self.blob), np.array(self.ends))]
        key = next((key for key in keys if _hash(key) in again), "?")
        raise DataError(
            f"{self.path}: the members of {key!r} do not lie side by side; write them sorted by name "
            "(tar --sort=name -cf ...)"
        )


def _hash(key: str) -> int:
    digest = hashlib.blake2b(key.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def _plain(text: str) -> int | str | None:
    """Text that is a whole number becomes one; empty text is no label."""
    if re.fullmatch(r"[+-]?[0-9]{1,18}", text):
        return int(text)
    return class_name(text) or None


def _dump(index: ShardIndex) -> bytes:
    rest = {"values": index.values, "left": index.left, "beside": index.beside, "problem": index.problem}
    buffer = io.BytesIO()
    np.savez(
        buffer,
        blob=np.frombuffer(index.names.blob, dtype=np.uint8),
        ends=index.names.ends,
        offsets=index.offsets,
        sizes=index.sizes,
        codes=index.codes,
        sources=index.sources,
        hashes=index.hashes,
        rest=np.frombuffer(json.dumps(rest).encode(), dtype=np.uint8),
    )
    return buffer.getvalue()


def _load(path: os.PathLike[str], state: str) -> ShardIndex | None:
    """A cached index; None if there is none or it is damaged."""
    try:
        with np.load(path, allow_pickle=False) as found:
            rest = json.loads(found["rest"].tobytes())
            names = PackedNames(found["blob"].tobytes(), found["ends"])
            arrays = [found[name] for name in ("offsets", "sizes", "codes", "sources", "hashes")]
    except Exception:  # zipfile, zlib and numpy each have errors of their own
        return None
    if any(len(part) != len(names) for part in arrays[:4]):
        return None
    return ShardIndex(state, names, *arrays, **rest)
