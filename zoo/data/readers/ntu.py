"""NTU RGB+D: a folder of `.skeleton` text files (Shahroudy et al., CVPR 2016; Liu et al., TPAMI 2019)."""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path

import numpy as np

from zoo.data.reader import PathReader
from zoo.data.skeletons import FileSkeletons
from zoo.errors import DataError

NAME = re.compile(r"S(\d{3})C(\d{3})P(\d{3})R(\d{3})A(\d{3})\.skeleton")
JOINTS, BODIES = 25, 2
MAX_FRAMES, MAX_BODIES = 10_000, 16
LICENCE = "research use (NTU RGB+D terms, https://rose1.ntu.edu.sg/dataset/actionRecognition)"
#: Performers of the cross-subject training splits.
SUBJECTS_60 = (1, 2, 4, 5, 8, 9, 13, 14, 15, 16, 17, 18, 19, 25, 27, 28, 31, 34, 35, 38)
# fmt: off
SUBJECTS_120 = (
    *SUBJECTS_60, 45, 46, 47, 49, 50, 52, 53, 54, 55, 56, 57, 58, 59, 70, 74, 78, 80, 81, 82, 83, 84, 85, 86,
    89, 91, 92, 93, 94, 95, 97, 98, 100, 103,
)
# fmt: on
SPLITS_60 = ("xsub-train", "xsub-test", "xview-train", "xview-test", "all")
SPLITS_120 = ("xsub-train", "xsub-test", "xset-train", "xset-test", "all")


def classes_in(folder: Path) -> int:
    """60, or 120 if any file belongs to an action beyond 60."""
    return 120 if any(int(m[5]) > 60 for p in folder.iterdir() if (m := NAME.fullmatch(p.name))) else 60


def ntu_splits(classes: int) -> tuple[str, ...]:
    """Names of the splits of NTU-60 or NTU-120."""
    return SPLITS_60 if classes == 60 else SPLITS_120


def open_ntu(folder: Path, split: str, classes: int) -> FileSkeletons:
    """One split of NTU-60 or NTU-120; each sequence is `(T, 50, 3)`, two bodies side by side.

    Files on a list of missing skeletons (a `*missing_skeletons*.txt` in the folder or beside it) are left out.
    Of more than two bodies the two that move most are kept; bodies are told apart by their id, and a body that
    comes later is zero before. A file without any body gives zeros.

    Raises:
        DataError: no file of this split.
    """
    missing = _missing(folder)
    found = {
        path: [int(x) for x in m.groups()] for path in sorted(folder.iterdir()) if (m := NAME.fullmatch(path.name))
    }
    chosen = {
        path: numbers
        for path, numbers in found.items()
        if numbers[4] <= classes and path.stem not in missing and _belongs(numbers, split, classes)
    }
    if not chosen:
        raise DataError(
            f"{folder} holds {len(found)} .skeleton files (SsssCcccPpppRrrrAaaa), none of them in split {split!r}"
        )
    of_split = [path for path, numbers in found.items() if _belongs(numbers, split, classes)]
    listed = [path.name for path in of_split if path.stem in missing]
    setup, camera, performer, _, action = np.array(list(chosen.values())).T
    data = FileSkeletons(
        f"ntu{classes}",
        split,
        [str(path) for path in chosen],
        [path.stem for path in chosen],
        action - 1,
        [f"A{i + 1:03d}" for i in range(classes)],
        LICENCE,
        {"person": performer, "camera": camera, "setup": setup},
        layout="kinect_v2",
        parse=parse_skeleton,
    )
    data.reported({"files on the list of missing skeletons": listed})
    return data


def _belongs(numbers: list[int], split: str, classes: int) -> bool:
    setup, camera, performer, _, _ = numbers
    protocol, _, part = split.partition("-")
    if protocol == "all":
        return True
    train = {
        "xsub": performer in (SUBJECTS_60 if classes == 60 else SUBJECTS_120),
        "xview": camera in (2, 3),
        "xset": setup % 2 == 0,
    }[protocol]
    return train == (part == "train")


def _missing(folder: Path) -> set[str]:
    names: set[str] = set()
    for place in (folder, folder.parent):
        for path in place.glob("*missing_skeletons*.txt"):
            names |= set(re.findall(r"S\d{3}C\d{3}P\d{3}R\d{3}A\d{3}", path.read_text(errors="replace")))
    return names


def parse_skeleton(content: bytes, path: str) -> np.ndarray:
    """The text of a `.skeleton` file -> `(T, 50, 3)` float32 metres; joints with NaN become zeros (untracked).

    Format: number of frames; per frame the number of bodies; per body a line of 10 numbers (the first is its id),
    the number of joints, and a line of 12 numbers per joint, of which the first three are x, y, z.

    Raises:
        DataError: truncated or malformed; names the file.
    """
    lines = iter(content.decode("ascii", "replace").split("\n"))
    try:
        frames = _count(next(lines), MAX_FRAMES)
        bodies: dict[str, np.ndarray] = {}
        for frame in range(frames):
            for _ in range(_count(next(lines), MAX_BODIES)):
                body = bodies.setdefault(next(lines).split()[0], np.zeros((frames, JOINTS, 3)))
                if _count(next(lines), 1000) != JOINTS:
                    raise ValueError(f"a body without {JOINTS} joints in frame {frame}")
                body[frame] = [[float(x) for x in next(lines).split()[:3]] for _ in range(JOINTS)]
    except StopIteration:
        raise DataError(f"{path} ends too early; download it again") from None
    except (ValueError, IndexError) as error:
        raise DataError(f"{path} is no NTU skeleton file ({error}); replace or remove it") from None
    if frames == 0:
        raise DataError(f"{path} holds no frame; put it on the list of missing skeletons")
    return two_bodies(np.stack([*bodies.values()], axis=1) if bodies else np.zeros((frames, 1, JOINTS, 3)))


def two_bodies(x: np.ndarray) -> np.ndarray:
    """`(T, M, V, 3)` -> `(T, 2 * V, 3)` float32: the two bodies that move most, the greater mover first."""
    from zoo.preprocessing.skeleton import most_moving

    x = np.where(np.isfinite(x).all(axis=-1, keepdims=True), x, 0.0)
    x = x[:, most_moving(x)[:BODIES]]
    x = np.pad(x, ((0, 0), (0, BODIES - x.shape[1]), (0, 0), (0, 0)))
    return np.ascontiguousarray(x.reshape(len(x), -1, 3), dtype=np.float32)


def _count(line: str, most: int) -> int:
    value = int(line)
    if not 0 <= value <= most:
        raise ValueError(f"a count of {value}, expected 0..{most}")
    return value


class NTU(PathReader):
    """A folder of NTU `.skeleton` files."""

    example = "a folder of NTU RGB+D .skeleton files"
    prefixes = ("ntu60", "ntu120")

    @classmethod
    def fits(cls, path: Path) -> bool:
        return path.is_dir() and next(path.glob("S[0-9]*A[0-9]*.skeleton"), None) is not None

    @cached_property
    def classes(self) -> int:
        """60 or 120: what the prefix says, otherwise what the files need."""
        return int(self.prefix.removeprefix("ntu")) if self.prefix else classes_in(self.folder())

    def splits(self) -> list[str]:
        return list(ntu_splits(self.classes))

    def open(self, split: str) -> FileSkeletons:
        return open_ntu(self.folder(), split, self.classes)
