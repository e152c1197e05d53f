"""Northwestern-UCLA skeletons: a folder of JSON files, as Shift-GCN and CTR-GCN distribute them.

Each file holds `file_name`, `skeletons` `(T, 20, 3)` in metres and `label` 1..10; its name `aAA_sSS_eEE_vVV`
gives action, subject, episode and camera. Wang et al., CVPR 2014: cameras 1 and 2 train, camera 3 tests.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from pathlib import Path

import numpy as np

from zoo.data.reader import PathReader
from zoo.data.skeletons import ArraySkeletons, identical
from zoo.errors import DataError

NAME = re.compile(r"a(\d\d)_s(\d\d)_e(\d\d)_v(\d\d)\.json")
#: The official splits, and the same without sequences that occur on both sides.
SPLITS = ("train", "test", "train-leakfree", "test-leakfree", "all")
CLASSES = (
    "pick up with one hand",
    "pick up with two hands",
    "drop trash",
    "walk around",
    "sit down",
    "stand up",
    "donning",
    "doffing",
    "throw",
    "carry",
)
#: The actions aAA that the set holds, in the order of `CLASSES`.
ACTIONS = (1, 2, 3, 4, 5, 6, 8, 9, 11, 12)
JOINTS = 20
LICENCE = "research use (Northwestern-UCLA Multiview Action 3D)"


def open_nucla(folder: Path, split: str) -> ArraySkeletons:
    """One of `SPLITS`. Common copies hold 95 sequences of camera 3 a second time as camera 2.

    `test-leakfree` leaves out test sequences that are identical to a training one; `train-leakfree` leaves
    out their training copies, so that unlabelled pre-training sees no test sequence.

    Raises:
        DataError: no sequence, a damaged file, wrong joints, or labels that do not fit the actions.
    """
    paths = sorted(path for path in folder.iterdir() if NAME.fullmatch(path.name))
    if not paths:
        raise DataError(f"{folder} holds no N-UCLA sequence; expected files such as a01_s01_e00_v01.json")
    sequences, labels, groups = _read_all(tuple((path, path.stat().st_size, path.stat().st_mtime_ns) for path in paths))
    action, subject, _, camera = np.array([[int(x) for x in NAME.fullmatch(p.name).groups()] for p in paths]).T
    _check_labels(folder, action, labels)
    test = camera == 3
    leaked = np.zeros(len(paths), dtype=bool)
    for group in groups:
        if test[group].any() and not test[group].all():
            leaked[group] = True
    rows = np.flatnonzero({"train": ~test, "test": test, "all": np.ones_like(test)}[split.partition("-")[0]])
    if split.endswith("-leakfree"):
        rows = rows[~leaked[rows]]
    if len(rows) == 0:
        raise DataError(f"{folder} holds no sequence of split {split!r}; cameras 1 and 2 train, camera 3 tests")
    notes = _notes(int((leaked & test).sum()), int(test.sum())) if split in ("train", "test", "all") else ()
    data = ArraySkeletons(
        "nucla",
        split,
        np.concatenate([sequences[i] for i in rows]),
        np.array([len(sequences[i]) for i in rows]),
        [paths[i].stem for i in rows],
        labels[rows] - 1,
        CLASSES,
        LICENCE,
        {"person": subject[rows], "camera": camera[rows]},
    )
    data.home = str(folder)
    data.reported(notes=notes)
    return data


@lru_cache(maxsize=2)
def _read_all(files: tuple[tuple[Path, int, int], ...]) -> tuple[list[np.ndarray], np.ndarray, list[list[int]]]:
    """Sequences, labels and groups of identical ones; the splits of a folder share one reading."""
    sequences, labels = zip(*(_read(path) for path, _, _ in files), strict=True)
    return list(sequences), np.array(labels), identical(sequences)


def _notes(leaked: int, test: int) -> tuple[str, ...]:
    if not leaked:
        return ()
    share = f"{leaked} of {test} test sequences ({100 * leaked / test:.1f} %) are identical to training sequences"
    return (f"{share}; 'test-leakfree' and 'train-leakfree' are without them",)


def _read(path: Path) -> tuple[np.ndarray, int]:
    try:
        item = json.loads(path.read_bytes())
        x, label = np.asarray(item["skeletons"], dtype=np.float32), item["label"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(
            f"{path} is no N-UCLA sequence ({type(error).__name__}: {error}); replace or remove it"
        ) from None
    if x.ndim != 3 or x.shape[1:] != (JOINTS, 3) or len(x) == 0:
        raise DataError(f"{path}: expected skeletons (T, {JOINTS}, 3) with T >= 1, got shape {x.shape}")
    if not np.isfinite(x).all():
        bad = int(np.flatnonzero(~np.isfinite(x).all(axis=(1, 2)))[0])
        raise DataError(f"{path}: NaN or infinite coordinates, first in frame {bad}; mark untracked joints by zeros")
    if type(label) is not int or not 1 <= label <= len(CLASSES):
        raise DataError(f"{path}: label {label!r} must be a whole number in 1..{len(CLASSES)}; are labels off by one?")
    return x, label


def _check_labels(folder: Path, action: np.ndarray, labels: np.ndarray) -> None:
    for number in np.unique(action):
        found = np.unique(labels[action == number]).tolist()
        if len(found) > 1:
            raise DataError(f"{folder}: sequences of action a{number:02d} carry the labels {found}; expected one label")
        if number not in ACTIONS:
            known = ", ".join(f"a{action:02d}" for action in ACTIONS)
            raise DataError(f"{folder}: there is no action a{number:02d} in N-UCLA; its actions are {known}")
        wanted = ACTIONS.index(number) + 1
        if found != [wanted]:
            raise DataError(
                f"{folder}: sequences of action a{number:02d} ({CLASSES[wanted - 1]}) carry label {found[0]}, expected "
                f"{wanted}; are labels off by one?"
            )


class NUCLA(PathReader):
    """A folder of N-UCLA JSON files."""

    example = "a folder of N-UCLA .json files"
    prefixes = ("nucla",)

    @classmethod
    def fits(cls, path: Path) -> bool:
        return path.is_dir() and any(path.glob("a[0-9][0-9]_s[0-9][0-9]_e[0-9][0-9]_v[0-9][0-9].json"))

    def splits(self) -> list[str]:
        return list(SPLITS)

    def open(self, split: str) -> ArraySkeletons:
        return open_nucla(self.folder(), split)
