"""pyskl / mmaction2 annotation files with 3-D skeletons, such as `ntu60_3danno.pkl`."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from zoo.data.reader import PathReader
from zoo.data.readers.restricted_pickle import load_plain
from zoo.data.skeletons import LazySkeletons
from zoo.errors import DataError
from zoo.preprocessing.joints import LAYOUTS

BODIES = 2
#: joints -> layout of that many joints.
BY_JOINTS = {len(layout): name for name, layout in LAYOUTS.items()}


def read_pyskl(path: Path) -> dict[str, Any]:
    """The file's `split` {name: [frame_dir]} and `annotations`; a bare list of annotations has no split.

    Raises:
        DataError: another form, or a pickle of more than arrays and plain containers.
    """
    content = load_plain(path)
    if isinstance(content, list):
        content = {"split": {}, "annotations": content}
    if not isinstance(content, dict) or not isinstance(content.get("annotations"), list) or not content["annotations"]:
        raise DataError(f"{path}: expected pyskl's dict with 'split' and a list of 'annotations'")
    if not isinstance(content.setdefault("split", {}), dict):
        raise DataError(f"{path}: 'split' must map names to lists of frame_dir, got {type(content['split']).__name__}")
    return content


def pyskl_splits(content: dict[str, Any]) -> list[str]:
    """The file's own split names, such as `xsub_train`, and `all`."""
    return [*content["split"], "all"]


def open_pyskl(path: Path, content: dict[str, Any], split: str) -> LazySkeletons:
    """One split: `keypoint` `(M, T, V, 3)` -> sequences `(T, 2 * V, 3)`, a missing second body zero.

    Only `keypoint`, `label` and `frame_dir` are needed; labels count from 0.

    Raises:
        DataError: 2-D key points, other joints than a known layout's, labels that are missing or negative.
    """
    chosen = content["annotations"]
    if split != "all":
        wanted = set(content["split"][split])
        chosen = [item for item in chosen if isinstance(item, dict) and item.get("frame_dir") in wanted]
    if not chosen:
        raise DataError(f"{path}: no annotation belongs to split {split!r}")
    joints = {_check(path, index, item) for index, item in enumerate(chosen)}
    if len(joints) != 1 or not joints <= BY_JOINTS.keys():
        raise DataError(f"{path}: sequences with {sorted(joints)} joints; expected {sorted(BY_JOINTS)} of one kind")
    labels = np.array([int(item["label"]) for item in chosen])
    every = [int(item["label"]) for item in content["annotations"] if isinstance(item, dict) and "label" in item]
    count = max(every) + 1
    layout = BY_JOINTS[joints.pop()]

    def read(index: int) -> np.ndarray:
        x = np.moveaxis(np.asarray(chosen[index]["keypoint"], dtype=np.float32), 0, 1)[:, :BODIES]
        x = np.pad(x, ((0, 0), (0, BODIES - x.shape[1]), (0, 0), (0, 0)))
        x = np.where(np.isfinite(x).all(axis=-1, keepdims=True), x, np.float32(0))
        return np.ascontiguousarray(x.reshape(len(x), -1, 3))

    keys = [str(item.get("frame_dir", index)) for index, item in enumerate(chosen)]
    classes = [f"A{i + 1:03d}" for i in range(count)]
    return LazySkeletons(path.stem, split, keys, labels, classes, layout=layout, read=read)


def _check(path: Path, index: int, item: Any) -> int:
    """Joints of one annotation."""
    where = f"{path}, annotation {index}"
    if not isinstance(item, dict) or "keypoint" not in item or "label" not in item:
        raise DataError(f"{where}: expected a dict with 'keypoint' and 'label'")
    shape = np.shape(item["keypoint"])
    if len(shape) != 4 or shape[-1] != 3 or 0 in shape:
        raise DataError(f"{where}: expected 3-D key points (M, T, V, 3), got shape {shape}; 2-D files are not read")
    if int(item["label"]) < 0:
        raise DataError(f"{where}: label {item['label']} is negative; labels count from 0")
    return shape[2]


class Pyskl(PathReader):
    """An annotation file of pyskl or mmaction2."""

    example = "a pyskl .pkl file"
    prefixes = ("pyskl",)

    @classmethod
    def fits(cls, path: Path) -> bool:
        return path.is_file() and path.suffix.lower() in (".pkl", ".pickle")

    @cached_property
    def content(self) -> dict[str, Any]:
        """The file, read once."""
        return read_pyskl(self.path)

    def splits(self) -> list[str]:
        return pyskl_splits(self.content)

    def open(self, split: str) -> LazySkeletons:
        return open_pyskl(self.path, self.content, split)
