"""pyskl / mmaction2 annotation files with 3-D skeletons, such as `ntu60_3danno.pkl`."""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from zoo.data.labels import encode_labels
from zoo.data.reader import PathReader
from zoo.data.readers.restricted_pickle import load_plain
from zoo.data.skeletons import LazySkeletons
from zoo.data.splits import are_counterparts
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


#: NTU's names of sequences: setup, camera, performer, replication, action.
NTU_NAME = re.compile(r"S(\d{3})C(\d{3})P(\d{3})R\d{3}A\d{3}")
NO_BODY = "annotations without a body or frame"
ABSENT = "sequences that the split lists but the file does not hold"


def open_pyskl(path: Path, content: dict[str, Any], split: str) -> LazySkeletons:
    """One split: `keypoint` `(M, T, V, 3)` -> sequences `(T, 2 * V, 3)`, a missing second body zero.

    Only `keypoint`, `label` and `frame_dir` are needed. Labels count from 0, or are text. Names as NTU gives them say
    who performs a sequence and which camera and setup saw it. Annotations without a body, sequences that the split
    lists but that are absent, and sequences that other splits hold as well are in the report.

    Raises:
        DataError: 2-D key points, other joints than a known layout's, labels that are missing, negative or of
            several kinds.
    """
    annotations = content["annotations"]
    left: dict[str, list[str]] = {}
    if split == "all":
        listed = annotations
    else:
        wanted = dict.fromkeys(content["split"][split])
        listed = [item for item in annotations if isinstance(item, dict) and item.get("frame_dir") in wanted]
        left[ABSENT] = sorted(map(str, wanted.keys() - {item["frame_dir"] for item in listed}))
    positions = {id(item): index for index, item in enumerate(annotations)}
    chosen, joints = [], set()
    for item in listed:
        shape = _shape(path, positions[id(item)], item)
        if 0 in shape:
            left.setdefault(NO_BODY, []).append(str(item.get("frame_dir", positions[id(item)])))
        else:
            chosen.append(item)
            joints.add(shape[2])
    if not chosen:
        raise DataError(f"{path}: no annotation belongs to split {split!r}{_counts(left)}")
    if len(joints) != 1 or not joints <= BY_JOINTS.keys():
        raise DataError(f"{path}: sequences with {sorted(joints)} joints; expected {sorted(BY_JOINTS)} of one kind")
    labels, names = _labels(path, annotations, chosen)
    layout = BY_JOINTS[joints.pop()]

    def read(index: int) -> np.ndarray:
        x = np.moveaxis(np.asarray(chosen[index]["keypoint"], dtype=np.float32), 0, 1)[:, :BODIES]
        x = np.pad(x, ((0, 0), (0, BODIES - x.shape[1]), (0, 0), (0, 0)))
        x = np.where(np.isfinite(x).all(axis=-1, keepdims=True), x, np.float32(0))
        return np.ascontiguousarray(x.reshape(len(x), -1, 3))

    keys = [str(item.get("frame_dir", index)) for index, item in enumerate(chosen)]
    data = LazySkeletons(path.stem, split, keys, labels, names, groups=_groups(keys), layout=layout, read=read)
    data.home = str(path)
    data.reported(left, _shared(content["split"], split))
    return data


def _counts(left: dict[str, list[str]]) -> str:
    return "".join(f"; {len(names)} {reason}" for reason, names in left.items() if names)


def _shape(path: Path, index: int, item: Any) -> tuple[int, ...]:
    """The shape of one annotation's key points; may hold a zero."""
    where = f"{path}, annotation {index}"
    if not isinstance(item, dict) or "keypoint" not in item or "label" not in item:
        raise DataError(f"{where}: expected a dict with 'keypoint' and 'label'")
    shape = np.shape(item["keypoint"])
    if len(shape) == 4 and shape[-1] == 3:
        return shape
    if 0 in shape:  # `[]`, or an array of no body whose other axes are lost
        return (0, 0, 0, 3)
    raise DataError(f"{where}: expected 3-D key points (M, T, V, 3), got shape {shape}; 2-D files are not read")


def _labels(path: Path, annotations: list[Any], chosen: list[dict]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels of the chosen annotations; class names go by all annotations of the file."""
    every = [item["label"] for item in annotations if isinstance(item, dict) and "label" in item]
    own = [item["label"] for item in chosen]
    strange = next((value for value in every if not isinstance(value, (int, np.integer, str))), None)
    texts = sum(isinstance(value, str) for value in every)
    if strange is not None or 0 < texts < len(every):
        came = repr(strange) if strange is not None else f"{texts:,} as text and {len(every) - texts:,} as numbers"
        raise DataError(f"{path}: labels must be whole numbers from 0, or all text, got {came}")
    if texts:
        labels, names = encode_labels({"every": every, "own": own}, "own", (), str(path))
        assert labels is not None
        return labels, names
    if min(every) < 0:
        raise DataError(f"{path}: label {min(every)} is negative; labels count from 0")
    # Actions are numbered; a subset of them keeps its numbers, as in the papers.
    return np.array(own, dtype=np.int64), tuple(f"A{i + 1:03d}" for i in range(max(every) + 1))


def _groups(keys: list[str]) -> dict[str, np.ndarray]:
    """Performer, camera and setup of every sequence, where all have NTU's names."""
    matches = [NTU_NAME.match(key) for key in keys]
    if not all(matches):
        return {}
    setup, camera, person = np.array([[int(number) for number in match.groups()] for match in matches]).T
    return {"person": person, "camera": camera, "setup": setup}


def _shared(splits: dict[str, Any], split: str) -> list[str]:
    """A sentence for each split that should share no sequence with this one but does."""
    notes = []
    for other, names in splits.items():
        common = set(names) & set(splits.get(split, ()))
        if other != split and common and are_counterparts(split, other):
            notes.append(f"{len(common):,} of its sequences are in {other} as well, such as {min(map(str, common))}")
    return notes


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
