"""An index of pictures to search in: their features on disk, mapped into memory, and the encoder they belong to.

A folder: `index.json` names the encoder and the parts; each part is a feature table (`part-0000.npy` and its `.json`),
the lengths of its vectors, and where its samples lie. `index.json` is written last, so a killed run leaves the index as
it was, and the same command goes on with the unfinished part.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from zoo.data.base import Dataset
from zoo.data.duplicates import content_digests
from zoo.device import device_for, resolve_precision
from zoo.encoder import Encoder
from zoo.errors import DataError, InputError
from zoo.features.extract import extract
from zoo.features.nearest import nearest
from zoo.features.run import as_dataset, encoder_fingerprint
from zoo.features.samples import sample_paths
from zoo.files import disk_errors, locked, replacing, write_whole

FORMAT = "encoder-zoo-index-1"


def encoder_identity(encoder: Encoder) -> str:
    """sha256 (hex) over all of an encoder that features depend on: weights in memory, network, preprocessing."""
    parts = [encoder_fingerprint(encoder), str(encoder), encoder.input.model_dump(mode="json")]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Part:
    """Features that were added to an index in one go.

    Attributes:
        file: the feature table. dropped: rows that are no longer in the index.
    """

    file: Path
    rows: int
    dropped: tuple[int, ...] = ()

    @cached_property
    def features(self) -> np.ndarray:
        """`(rows, D)` float32, mapped."""
        found = np.load(self.file, mmap_mode="r", allow_pickle=False)
        if found.ndim != 2 or len(found) != self.rows:
            raise DataError(f"{self.file} holds {found.shape}, its index says {self.rows} rows; make the index again")
        return found

    @cached_property
    def lengths(self) -> np.ndarray:
        """`(rows,)` float32, Euclidean lengths of the features."""
        return np.load(self.file.with_suffix(".lengths.npy"), allow_pickle=False)

    @cached_property
    def entries(self) -> dict[str, list[Any]]:
        """`names`, `paths`, `states` and `digests` of the rows."""
        path = self.file.with_suffix(".entries.json")
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            if {len(found[name]) for name in ("names", "paths", "states", "digests")} != {self.rows}:
                raise ValueError(f"expected {self.rows} rows")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path} is damaged ({error}); make the index again in a new folder") from None
        return found

    @cached_property
    def skip(self) -> np.ndarray:
        """`(rows,)` bool, the dropped ones."""
        mask = np.zeros(self.rows, dtype=bool)
        mask[list(self.dropped)] = True
        return mask

    def live(self) -> Iterator[int]:
        """The rows that are still in the index."""
        return iter(np.flatnonzero(~self.skip).tolist())


@dataclass(frozen=True)
class Index:
    """An index on disk.

    Attributes:
        folder: where it lies.
        encoder: what `zoo.load` takes to load its encoder; empty if it was made from an encoder without an address.
        encoder_name: for people.
        identity: `encoder_identity` of the encoder; vectors of another are refused.
        weights_sha256: `encoder_fingerprint` of the encoder, by which a `FeatureTable` is recognised.
        num_features: D. precision: what the forward passes ran in. modality: `"image"` or `"skeleton"`.
        parts: the features, in the order they were added.
    """

    folder: Path
    encoder: str
    encoder_name: str
    identity: str
    weights_sha256: str
    num_features: int
    precision: str
    modality: str
    parts: tuple[Part, ...]

    def __len__(self) -> int:
        return sum(part.rows - len(part.dropped) for part in self.parts)

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> Index:
        """The index in a folder.

        Raises:
            DataError: there is none, or it is damaged.
        """
        folder = Path(folder)
        file = folder / "index.json"
        if not file.is_file():
            raise DataError(f"{folder} holds no index; make one with `zoo index ENCODER PICTURES --out {folder}`")
        try:
            raw = json.loads(file.read_text(encoding="utf-8"))
            if raw.pop("format") != FORMAT:
                raise ValueError(f"its format is not {FORMAT}")
            parts = [Part(folder / Path(p["file"]).name, p["rows"], tuple(p["dropped"])) for p in raw.pop("parts")]
            found = cls(folder=folder, parts=tuple(parts), **raw)
            files = [part.file.with_suffix(end) for part in parts for end in (".npy", ".lengths.npy", ".entries.json")]
            missing = [file.name for file in files if not file.is_file()]
            if missing:
                raise ValueError(f"{missing[0]} is missing")
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{file} is damaged ({error}); make the index again in a new folder") from None
        return found

    def check_encoder(self, encoder: Encoder) -> None:
        """Refuse an encoder other than the index's own: its vectors would be compared with strangers.

        Raises:
            InputError: another network, other weights or other preprocessing.
        """
        identity = encoder_identity(encoder)
        if identity != self.identity:
            raise InputError(
                f"{self.folder} was made with {self.encoder_name} (hash {self.identity[:12]}), and {encoder.name} "
                f"(hash {identity[:12]}) is another encoder; use that one, or make an index of its own"
            )

    def nearest(
        self, vectors: np.ndarray, k: int, *, approximate: bool = False
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The `k` entries nearest to each vector by cosine similarity; exact unless `approximate`, which needs faiss.

        Args:
            vectors: `(M, num_features)` of this index's encoder.

        Returns:
            Similarities `(M, k)`, numbers of parts `(M, k)` and rows within them `(M, k)`.

        Raises:
            InputError: vectors of another width, NaN, or k below 1. DataError: an empty index.
        """
        if not len(self):
            raise DataError(f"{self.folder} is empty; add pictures with `zoo index`")
        if vectors.ndim != 2 or vectors.shape[1] != self.num_features:
            raise InputError(f"{self.folder} takes vectors (M, {self.num_features}), got shape {vectors.shape}")
        if approximate:
            from zoo.features.faiss_index import nearest as approximately

            return approximately(self, vectors, k)
        found = []
        for number, part in enumerate(self.parts):
            if part.rows > len(part.dropped):
                values, rows = nearest(vectors, part.features, k, lengths=part.lengths, skip=part.skip)
                found.append((values, np.full_like(rows, number), rows))
        values, numbers, rows = (np.concatenate(each, axis=1) for each in zip(*found, strict=True))
        order = np.argsort(-values, axis=1, kind="stable")[:, :k]
        return tuple(np.take_along_axis(each, order, axis=1) for each in (values, numbers, rows))

    def _write(self) -> None:
        raw = {
            "format": FORMAT,
            "encoder": self.encoder,
            "encoder_name": self.encoder_name,
            "identity": self.identity,
            "weights_sha256": self.weights_sha256,
            "num_features": self.num_features,
            "precision": self.precision,
            "modality": self.modality,
            "parts": [{"file": p.file.name, "rows": p.rows, "dropped": list(p.dropped)} for p in self.parts],
        }
        write_whole(self.folder / "index.json", json.dumps(raw, indent=1).encode())


@dataclass(frozen=True)
class Update:
    """What `index` did.

    Attributes:
        index: as it is now. added, kept: pictures of this call that were encoded, and that were there unchanged.
        dropped: entries whose file is gone or has changed.
    """

    index: Index
    added: int
    kept: int
    dropped: int


def index(
    encoder: Encoder | str,
    pictures: Any,
    out: str | os.PathLike[str],
    *,
    batch_size: int = 256,
    device: str | None = None,
    precision: str = "auto",
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Update:
    """Make an index of pictures, or bring one up to date: what is there unchanged is not encoded again.

    Pictures of other addresses that are in the index stay; entries whose file is gone are dropped. If the
    call is interrupted, make it again to resume.

    Args:
        encoder: an encoder, or what `zoo.load` takes; with the latter a search can load it by itself.
        pictures: as `zoo.extract` takes: a dataset, an address, a sequence of pictures or paths.
        out: the folder of the index, made if missing.
        batch_size, device, precision, workers: as in `zoo.extract`; an index keeps the precision it was started with.
        progress: called with samples done and samples in all.

    Raises:
        InputError: the index belongs to another encoder or precision. DataError: pictures that cannot be read, an
            index that is damaged, a folder that cannot be written.
    """
    from zoo.checkpoint.loading import load

    network = encoder if isinstance(encoder, Encoder) else load(encoder)
    data = as_dataset(pictures, network.modality)
    folder = Path(out)
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / "index.json"):
        address = "" if isinstance(encoder, Encoder) else str(encoder)
        found = _existing(folder, network, address, precision, device)
        names, paths = _names(data)
        states = [_state(path) for path in paths]
        fresh, kept, stale = _changes(found, data, names, paths, states)
        parts = [
            Part(part.file, part.rows, tuple(sorted({*part.dropped, *stale.get(number, ())})))
            for number, part in enumerate(found.parts)
        ]
        if fresh:
            file = folder / f"part-{len(parts):04d}.npy"
            subset = data.subset(sorted(fresh))
            table = extract(
                network, subset, out=file, batch_size=batch_size, device=device, precision=found.precision,
                workers=workers, progress=progress,
            )  # fmt: skip
            rows = sorted(fresh)
            entries = {
                "names": [names[i] for i in rows],
                "paths": [paths[i] for i in rows],
                "states": [states[i] for i in rows],
                "digests": [fresh[i] for i in rows],
            }
            _write_beside(file, table.features, entries)
            parts.append(Part(file, len(rows)))
        made = replace(found, parts=tuple(parts))
        made._write()
    return Update(made, len(fresh), kept, sum(map(len, stale.values())))


def _existing(folder: Path, network: Encoder, address: str, precision: str, device: str | None) -> Index:
    """The index in the folder, checked against the encoder; or an empty one."""
    if (folder / "index.json").is_file():
        found = Index.open(folder)
        found.check_encoder(network)
        if precision not in ("auto", found.precision):
            raise InputError(f"{folder} was made in {found.precision}, not {precision}; leave the precision out")
        return found
    return Index(
        folder=folder,
        encoder=address or (network.name if network.config is not None else ""),
        encoder_name=network.name,
        identity=encoder_identity(network),
        weights_sha256=encoder_fingerprint(network),
        num_features=network.num_features,
        precision=resolve_precision(precision, device_for(network, device)),
        modality=network.modality,
        parts=(),
    )


def _names(data: Dataset) -> tuple[list[str], list[str | None]]:
    """What identifies each sample (the path of its file, else dataset, split and key), and the path alone."""
    paths = sample_paths(data)
    named = [path or f"{data.name}/{data.split}/{key}" for path, key in zip(paths, data.keys, strict=True)]
    return named, paths


def _state(path: str | None) -> str:
    """What changes whenever a file does; empty where there is no file."""
    if path is None:
        return ""
    try:
        stat = os.stat(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); open the dataset again") from None
    return f"{stat.st_size}-{stat.st_mtime_ns}"


def _changes(
    found: Index, data: Dataset, names: list[str], paths: list[str | None], states: list[str]
) -> tuple[dict[int, str], int, dict[int, list[int]]]:
    """Samples to encode with their digests, how many are there unchanged, and rows to drop from each part."""
    known: dict[str, tuple[int, int]] = {}
    stale: dict[int, list[int]] = {}
    for number, part in enumerate(found.parts):
        files = part.entries["paths"]
        for row in part.live():
            if files[row] is not None and not os.path.exists(files[row]):
                stale.setdefault(number, []).append(row)
            else:
                known[part.entries["names"][row]] = number, row
    digests = None
    fresh: dict[int, str] = {}
    seen: set[str] = set()
    kept = 0
    for i, name in enumerate(names):
        if name in seen:
            continue
        seen.add(name)
        place = known.get(name)
        entries = None if place is None else found.parts[place[0]].entries
        if place is not None and states[i] and entries["states"][place[1]] == states[i]:
            kept += 1
            continue
        if paths[i] is not None:
            digest = hashlib.sha256(Path(paths[i]).read_bytes()).hexdigest()
        else:
            digests = content_digests(data) if digests is None else digests
            digest = digests[i].tobytes().hex()
        if place is not None and entries["digests"][place[1]] == digest:
            kept += 1
            continue
        if place is not None:
            stale.setdefault(place[0], []).append(place[1])
        fresh[i] = digest
    return fresh, kept, stale


def _write_beside(file: Path, features: np.ndarray, entries: dict[str, list[Any]]) -> None:
    """Lengths and entries of a part, whole or not at all."""
    blocks = [features[low : low + 16_384] for low in range(0, len(features), 16_384)]
    lengths = np.concatenate([np.linalg.norm(block, axis=1) for block in blocks]).astype(np.float32)
    with replacing(file.with_suffix(".lengths.npy")) as temporary, open(temporary, "wb") as opened:
        np.lib.format.write_array(opened, lengths, allow_pickle=False)
    # Names that are not UTF-8 occur in file systems; JSON keeps them escaped.
    write_whole(file.with_suffix(".entries.json"), json.dumps(entries).encode())
