"""Joint layouts: what each point of a skeleton is called, what it hangs on, and its mirror image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from zoo.errors import ConfigError, nearest


@dataclass(frozen=True)
class Layout:
    """A skeleton's joints. Left and right are the person's own.

    Attributes:
        joints: one name per joint, in the order of the data.
        parents: index of the joint that each one hangs on; a root hangs on itself.
        parts: body part -> its joints, for masking and for pictures.
        axes: the joints that span the body's frame: (lower spine, upper spine, left hip, right hip,
            left shoulder, right shoulder).
    """

    name: str
    joints: tuple[str, ...]
    parents: tuple[int, ...]
    parts: dict[str, tuple[int, ...]]
    axes: tuple[int, int, int, int, int, int]

    def __len__(self) -> int:
        return len(self.joints)

    @property
    def edges(self) -> list[tuple[int, int]]:
        """(joint, parent) for every joint that is no root."""
        return [(joint, parent) for joint, parent in enumerate(self.parents) if joint != parent]

    @cached_property
    def mirror(self) -> tuple[int, ...]:
        """For each joint the index of its left/right counterpart; joints of the trunk stay."""
        index = {name: i for i, name in enumerate(self.joints)}
        swap = {"left": "right", "right": "left"}
        words = [name.split(" ") for name in self.joints]
        return tuple(index[" ".join(swap.get(word, word) for word in name)] for name in words)


def _layout(
    name: str, table: Sequence[tuple[str, str]], parts: dict[str, tuple[int, ...]], axes: Sequence[str]
) -> Layout:
    index = {joint: i for i, (joint, _) in enumerate(table)}
    parents = tuple(index[parent] for _, parent in table)
    return Layout(name, tuple(index), parents, parts, tuple(index[joint] for joint in axes))


def _limb(side: str, *joints: str, root: str) -> list[tuple[str, str]]:
    names = [f"{side} {joint}" for joint in joints]
    return list(zip(names, [root, *names[:-1]], strict=True))


#: Microsoft Kinect v1, 20 joints (N-UCLA): joint and its parent, in file order.
_KINECT_V1 = [
    ("hip centre", "hip centre"),
    ("spine", "hip centre"),
    ("shoulder centre", "spine"),
    ("head", "shoulder centre"),
    *_limb("left", "shoulder", "elbow", "wrist", "hand", root="shoulder centre"),
    *_limb("right", "shoulder", "elbow", "wrist", "hand", root="shoulder centre"),
    *_limb("left", "hip", "knee", "ankle", "foot", root="hip centre"),
    *_limb("right", "hip", "knee", "ankle", "foot", root="hip centre"),
]
#: Microsoft Kinect v2, 25 joints (NTU RGB+D, PKU-MMD). Tips and thumbs hang on the hand, as in pyskl;
#: 2s-AGCN and CTR-GCN hang the thumb on the tip instead.
_KINECT_V2 = [
    ("spine base", "spine mid"),
    ("spine mid", "spine shoulder"),
    ("neck", "spine shoulder"),
    ("head", "neck"),
    *_limb("left", "shoulder", "elbow", "wrist", "hand", root="spine shoulder"),
    *_limb("right", "shoulder", "elbow", "wrist", "hand", root="spine shoulder"),
    *_limb("left", "hip", "knee", "ankle", "foot", root="spine base"),
    *_limb("right", "hip", "knee", "ankle", "foot", root="spine base"),
    ("spine shoulder", "spine shoulder"),
    ("left hand tip", "left hand"),
    ("left thumb", "left hand"),
    ("right hand tip", "right hand"),
    ("right thumb", "right hand"),
]
_SIDES = ("left hip", "right hip", "left shoulder", "right shoulder")
_LEGS = {"left leg": (12, 13, 14, 15), "right leg": (16, 17, 18, 19)}
LAYOUTS: dict[str, Layout] = {
    "kinect_v1": _layout(
        "kinect_v1",
        _KINECT_V1,
        {"trunk": (0, 1, 2, 3), "left arm": (4, 5, 6, 7), "right arm": (8, 9, 10, 11), **_LEGS},
        ("hip centre", "shoulder centre", *_SIDES),
    ),
    "kinect_v2": _layout(
        "kinect_v2",
        _KINECT_V2,
        {"trunk": (0, 1, 2, 3, 20), "left arm": (4, 5, 6, 7, 21, 22), "right arm": (8, 9, 10, 11, 23, 24), **_LEGS},
        ("spine base", "spine shoulder", *_SIDES),
    ),
}


def layout(name: str) -> Layout:
    """The layout of that name.

    Raises:
        ConfigError: no such layout; names the nearest.
    """
    if name not in LAYOUTS:
        raise ConfigError(f"unknown joint layout {name!r}; {nearest(name, list(LAYOUTS))}")
    return LAYOUTS[name]
