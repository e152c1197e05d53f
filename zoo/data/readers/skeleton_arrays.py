"""Skeletons in NumPy files: the zoo's own `.npz`, and `(N, C, T, V, M)` arrays of the ST-GCN family.

The `.npz` holds, without any pickle:
    frames (F, V, 3) float32   all sequences one after the other; metres, y up; zeros = untracked
    lengths (N,) int64         frames of each sequence; they sum to F
    labels (N,) int64          class indices from 0 (optional)
    class_names (K,) str       one per class (with labels)
    keys (N,) str              a stable name of each sequence (optional)
    split (N,) str             the split of each sequence (optional)
    groups (N,) int64          the person who performs it (optional)
    layout () str              joint names: "kinect_v1", "kinect_v2" (optional, else by the number of joints)
    licence () str             terms of use (optional)
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from zoo.data.reader import PathReader
from zoo.data.readers.pyskl import BY_JOINTS
from zoo.data.readers.restricted_pickle import load_plain
from zoo.data.skeletons import ArraySkeletons, LazySkeletons
from zoo.errors import DataError
from zoo.preprocessing.joints import LAYOUTS, layout

#: What the authors of the ST-GCN family append to a set's name, longest first.
ENDINGS = ("_data_joint", "_position", "_joint", "_data")


def npz_splits(path: Path) -> list[str]:
    """Names of the splits of an `.npz`; `["all"]` if it has none."""
    content = _load_npz(path, ("split",))
    return sorted(set(content["split"].tolist())) if "split" in content else ["all"]


def open_npz(path: Path, split: str) -> ArraySkeletons:
    """One split of an `.npz` of skeletons.

    Raises:
        DataError: damaged, an array is missing, or arrays that do not fit together.
    """
    content = _load_npz(path)
    missing = {"frames", "lengths"} - content.keys()
    if missing:
        raise DataError(f"{path} has no {', '.join(sorted(missing))}; expected frames (F, V, 3) and lengths (N,)")
    frames, lengths = content["frames"], content["lengths"]
    _check_shapes(path, content)
    count = len(lengths)
    rows = np.flatnonzero(content["split"] == split) if "split" in content else np.arange(count)
    starts = np.cumsum(lengths) - lengths
    labels = content.get("labels")
    names = content.get("class_names")
    if labels is not None and names is None:
        names = np.array([str(i) for i in range(int(labels.max()) + 1)])
    groups = content.get("groups")
    return ArraySkeletons(
        path.stem,
        split,
        np.concatenate([frames[starts[i] : starts[i] + lengths[i]] for i in rows]).astype(np.float32, copy=False),
        lengths[rows],
        [str(content["keys"][i]) if "keys" in content else str(i) for i in rows],
        None if labels is None else labels[rows].astype(np.int64),
        () if names is None else names.tolist(),
        str(content.get("licence", "unknown")),
        None if groups is None else {"person": groups[rows]},
        layout=_layout_of(path, content),
    )


def _load_npz(path: Path, names: tuple[str, ...] | None = None) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files if names is None or name in names}
    except Exception as error:  # zipfile, zlib and NumPy raise a dozen types for a damaged file
        raise DataError(f"{path} cannot be read as .npz without pickle ({type(error).__name__}: {error})") from None


def _check_shapes(path: Path, content: dict[str, np.ndarray]) -> None:
    frames, lengths = content["frames"], content["lengths"]
    if frames.ndim != 3 or frames.shape[2] != 3 or frames.dtype.kind != "f" or not np.isfinite(frames).all():
        raise DataError(f"{path}: frames must be finite floats (F, V, 3), got {frames.dtype} {frames.shape}")
    if lengths.ndim != 1 or lengths.dtype.kind not in "iu" or len(lengths) == 0 or lengths.min() < 1:
        raise DataError(f"{path}: lengths must be whole numbers >= 1, one per sequence; leave empty sequences out")
    if lengths.sum() != len(frames):
        raise DataError(f"{path}: lengths sum to {lengths.sum()}, but there are {len(frames)} frames")
    for name in ("labels", "keys", "split", "groups"):
        if name in content and content[name].shape != lengths.shape:
            raise DataError(f"{path}: {name} has shape {content[name].shape}, expected ({len(lengths)},)")
    if "labels" in content and content["labels"].dtype.kind not in "iu":
        raise DataError(f"{path}: labels must be whole numbers from 0, got {content['labels'].dtype}")


def _layout_of(path: Path, content: dict[str, np.ndarray]) -> str:
    joints = content["frames"].shape[1]
    if "layout" in content:
        name = str(content["layout"])
        if joints % len(layout(name)):
            raise DataError(f"{path}: layout {name!r} has {len(LAYOUTS[name])} joints, frames have {joints}")
        return name
    fitting = [name for count, name in BY_JOINTS.items() if joints % count == 0]
    if len(fitting) != 1:
        raise DataError(
            f"{path}: {joints} joints fit no layout alone; add an array 'layout' with one of {list(LAYOUTS)}"
        )
    return fitting[0]


def open_npy(path: Path) -> LazySkeletons:
    """`(N, C, T, V, M)` float `.npy` with its label file beside it, and frame counts if there are any.

    For `train_data_joint.npy` (or `train_data.npy`, `train_position.npy`): labels from `train_label.pkl`, a pair
    (names, labels), or `train_label.npy`; frames from `train_num_frame.npy` or `train_frame.npy`, else up to the
    last frame that is not all zero. Sequences are `(T, M * V, C)`.

    Raises:
        DataError: other axes, unknown joints, no label file, counts that do not fit.
    """
    try:
        data = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} cannot be read as an array ({error})") from None
    if (
        data.ndim != 5
        or data.shape[1] != 3
        or data.shape[3] not in BY_JOINTS
        or data.dtype.kind != "f"
        or not data.size
    ):
        raise DataError(
            f"{path}: expected floats (N, 3, T, V, M) with V in {sorted(BY_JOINTS)}, got {data.dtype} {data.shape}"
        )
    stem = next((path.stem.removesuffix(e) for e in ENDINGS if path.stem.endswith(e)), path.stem)
    keys, labels = _labels_beside(path, stem, len(data))
    counts = _frames_beside(path, stem, data.shape)

    def read(index: int) -> np.ndarray:
        x = np.ascontiguousarray(np.transpose(data[index], (1, 3, 2, 0)), dtype=np.float32)
        x = np.where(np.isfinite(x).all(axis=-1, keepdims=True), x, np.float32(0))
        x = x.reshape(len(x), -1, 3)
        filled = np.flatnonzero(x.any(axis=(1, 2)))
        return x[: counts[index] if counts is not None else (filled[-1] + 1 if len(filled) else 1)]

    names = [str(i) for i in range(int(labels.max()) + 1)]
    return LazySkeletons(path.stem, "all", keys, labels, names, layout=BY_JOINTS[data.shape[3]], read=read)


def _labels_beside(path: Path, stem: str, count: int) -> tuple[list[str], np.ndarray]:
    candidates = [path.with_name(f"{stem}_{word}{end}") for word in ("label", "labels") for end in (".pkl", ".npy")]
    found = next((p for p in candidates if p.exists()), None)
    if found is None:
        raise DataError(f"{path} has no label file beside it; expected {candidates[0].name} or {candidates[1].name}")
    if found.suffix == ".pkl":
        content = load_plain(found)
        if not isinstance(content, list | tuple) or len(content) < 2 or len(content[0]) != len(content[1]):
            raise DataError(f"{found}: expected a pair (names, labels) of equal length")
        keys, raw = [str(key) for key in content[0]], np.asarray(content[1])
    else:
        raw = np.load(found, allow_pickle=False)
        keys = [str(i) for i in range(len(raw))]
    raw = raw.argmax(axis=1) if raw.ndim == 2 else raw
    if raw.shape != (count,) or raw.dtype.kind not in "iu":
        raise DataError(f"{found}: {count} sequences, but labels of shape {raw.shape} and dtype {raw.dtype}")
    return keys, raw.astype(np.int64)


def _frames_beside(path: Path, stem: str, shape: tuple[int, ...]) -> np.ndarray | None:
    for word in ("num_frame", "frame"):
        found = path.with_name(f"{stem}_{word}.npy")
        if found.exists():
            counts = np.load(found, allow_pickle=False).astype(np.int64).reshape(-1)
            if len(counts) != shape[0] or counts.min() < 1 or counts.max() > shape[2]:
                raise DataError(f"{found}: expected {shape[0]} frame counts in 1..{shape[2]}")
            return counts
    return None


class SkeletonArrays(PathReader):
    """The zoo's `.npz`, or an `(N, C, T, V, M)` `.npy`."""

    example = "a .npz or (N, C, T, V, M) .npy file of skeletons"
    prefixes = ("skeletons",)

    @classmethod
    def fits(cls, path: Path) -> bool:
        return path.is_file() and path.suffix.lower() in (".npz", ".npy")

    def splits(self) -> list[str]:
        return ["all"] if self.path.suffix.lower() == ".npy" else npz_splits(self.path)

    def open(self, split: str) -> ArraySkeletons | LazySkeletons:
        return open_npy(self.path) if self.path.suffix.lower() == ".npy" else open_npz(self.path, split)
