"""PKU-MMD: long videos as text files of 150 numbers per frame, with label files of the same name (Liu et al., 2017).

A clip is the frames start..end of one label line, both ends included (1-based as in the files), cut off at the
end of the video. No official cutter exists, so numbers depend on this rule.
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

import numpy as np

from zoo.data.reader import PathReader
from zoo.data.readers.ntu import BODIES, JOINTS
from zoo.data.skeletons import LazySkeletons
from zoo.errors import DataError

NAME = re.compile(r"\d{4}-[LMR]|A\d+N\d+-[LMR]")
WIDTH = BODIES * JOINTS * 3
CLASSES = 51
LICENCE = "research use (PKU-MMD terms)"
SPLITS = ("xsub-train", "xsub-test", "xview-train", "xview-test", "all")


def _some(folder: Path, pattern: str):
    for _, path in zip(range(200), folder.glob(pattern), strict=False):
        yield path


def open_pku(root: Path, split: str) -> LazySkeletons:
    """One split of a folder that holds the skeleton files, the label files and the split lists, in any subfolders.

    Split lists are the `cross-subject*.txt` and `cross-view*.txt` that come with the set: training videos on
    line 2, test videos on line 4. Each sequence is `(T, 50, 3)`, two bodies side by side.

    Raises:
        DataError: no video, no label file, no list for this split, or a malformed file.
    """
    texts = sorted(root.rglob("*.txt"))
    skeletons, labels = _pairs(texts)
    videos = sorted(skeletons.keys() & labels.keys())
    if not videos:
        raise DataError(
            f"{root} holds {len(skeletons)} PKU-MMD skeleton files and {len(labels)} label files, but no pair of the "
            "same name; expected for example PKU_Skeleton/0002-L.txt and Label/0002-L.txt"
        )
    chosen = videos if split == "all" else [v for v in videos if v in _split_list(root, texts, split)]
    clips: list[tuple[str, int, int]] = []
    classes: list[int] = []
    backwards: list[str] = []
    for video in chosen:
        for label, start, end in _clips(labels[video]):
            if end < start:
                backwards.append(f"{video}:{start}-{end}")
                continue
            clips.append((video, start, end))
            classes.append(label - 1)
    if not clips:
        raise DataError(f"{root}, split {split!r}: {len(chosen)} videos without any clip")

    def read(index: int) -> np.ndarray:
        video, start, end = clips[index]
        frames = _video(skeletons[video])[start - 1 : end]
        if len(frames) == 0:
            raise DataError(f"{labels[video]}: the clip {start}..{end} begins after the end of the video")
        return frames

    keys = [f"{video}:{start}-{end}" for video, start, end in clips]
    names = [f"A{i + 1:02d}" for i in range(CLASSES)]
    groups = {"camera": np.array(["LMR".index(video[-1]) for video, _, _ in clips])}
    data = LazySkeletons(
        "pku_mmd", split, keys, np.array(classes), names, LICENCE, groups, layout="kinect_v2", read=read
    )
    data.home = str(root)
    data.reported({"label lines that end before they start": backwards})
    return data


def _pairs(texts: list[Path]) -> tuple[dict[str, Path], dict[str, Path]]:
    """Video name -> its skeleton file, and its label file: told apart by the length of their first line."""
    skeletons: dict[str, Path] = {}
    labels: dict[str, Path] = {}
    for path in texts:
        if NAME.fullmatch(path.stem):
            with open(path, encoding="ascii", errors="replace") as file:
                numbers = file.readline(20_000).replace(",", " ").split()
            if len(numbers) == WIDTH:
                skeletons[path.stem] = path
            elif len(numbers) == 4:
                labels[path.stem] = path
    return skeletons, labels


def _split_list(root: Path, texts: list[Path], split: str) -> set[str]:
    protocol, _, part = split.partition("-")
    word = {"xsub": "subject", "xview": "view"}[protocol]
    lists = [p for p in texts if re.fullmatch(rf"cross.?{word}.*", p.stem.lower())]
    if len(lists) != 1:
        raise DataError(
            f"{root}: split {split!r} needs one list cross-{word}*.txt of the data set, found {len(lists)}; "
            "put the list of this phase into the folder, or use split 'all'"
        )
    lines = lists[0].read_text(errors="replace").splitlines()
    if len(lines) < 4:
        raise DataError(
            f"{lists[0]}: expected training videos on line 2 and test videos on line 4, got {len(lines)} lines"
        )
    return set(NAME.findall(lines[1 if part == "train" else 3]))


def _clips(path: Path) -> list[tuple[int, int, int]]:
    clips = []
    for number, line in enumerate(path.read_text(errors="replace").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            label, start, end = (int(float(x)) for x in line.replace(",", " ").split()[:3])
        except ValueError:
            raise DataError(
                f"{path}, line {number}: expected class,start,end,confidence, got {line.strip()!r}"
            ) from None
        if not 1 <= label <= CLASSES or start < 0:
            raise DataError(f"{path}, line {number}: class {label} must lie in 1..{CLASSES} and start {start} be >= 0")
        clips.append((label, max(start, 1), end))
    return clips


@lru_cache(maxsize=4)
def _video(path: Path) -> np.ndarray:
    """`(T, 50, 3)` float32; a few videos stay in memory, as their clips are read one after the other."""
    try:
        numbers = np.array(path.read_text().split(), dtype=np.float32)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is no PKU-MMD skeleton file ({error}); replace it") from None
    if len(numbers) % WIDTH:
        raise DataError(f"{path}: {len(numbers)} numbers are no multiple of {WIDTH} per frame; download it again")
    x = numbers.reshape(-1, BODIES * JOINTS, 3)
    return np.where(np.isfinite(x).all(axis=-1, keepdims=True), x, np.float32(0))


class PKU(PathReader):
    """A folder that holds PKU-MMD text files, itself or one level down."""

    example = "a folder of PKU-MMD .txt files"
    prefixes = ("pku",)

    @classmethod
    def fits(cls, path: Path) -> bool:
        if not path.is_dir():
            return False
        return any(NAME.fullmatch(p.stem) for pattern in ("*.txt", "*/*.txt") for p in _some(path, pattern))

    def splits(self) -> list[str]:
        return list(SPLITS)

    def open(self, split: str) -> LazySkeletons:
        return open_pku(self.folder(), split)
