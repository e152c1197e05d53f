"""The list of readers. A new format is one file under `zoo/data/readers/` and one entry here.

Nothing here imports torch, so that help texts can be made from the list at once.
"""

from __future__ import annotations

from zoo.data.reader import Address, Reader
from zoo.data.readers.ctr_gcn import CTRGCN
from zoo.data.readers.digits import Digits
from zoo.data.readers.fine_grained_sets import CUB200, StanfordDogs
from zoo.data.readers.folder import Folder
from zoo.data.readers.huggingface import HuggingFace
from zoo.data.readers.label_table import LabelTable
from zoo.data.readers.ntu import NTU
from zoo.data.readers.nucla import NUCLA
from zoo.data.readers.parquet import Parquet
from zoo.data.readers.pku import PKU
from zoo.data.readers.pyskl import Pyskl
from zoo.data.readers.skeleton_arrays import SkeletonArrays
from zoo.data.readers.synthetic_grey import GreySets
from zoo.data.readers.synthetic_motion import Motion
from zoo.data.readers.synthetic_shapes import Shapes
from zoo.data.readers.torchvision_sets import TorchvisionSets
from zoo.data.readers.webdataset import WebDataset

#: Asked in this order; the first that recognises an address opens it. `Folder` takes any folder, so it comes last.
READERS: list[type[Reader]] = [
    HuggingFace,
    Shapes,
    GreySets,
    Motion,
    Digits,
    TorchvisionSets,
    CUB200,
    StanfordDogs,
    CTRGCN,
    SkeletonArrays,
    Pyskl,
    NUCLA,
    NTU,
    PKU,
    WebDataset,
    LabelTable,
    Parquet,
    Folder,
]

#: Asked for by the option `labels`, whatever the address.
LABEL_READER = LabelTable


def reader_for(address: Address) -> type[Reader] | None:
    """The first reader that recognises an address; None if there is none.

    Raises:
        DataError: the address names a format, but nothing lies there.
    """
    return next((reader for reader in READERS if reader.recognises(address)), None)


def examples() -> str:
    """All that an address can be, as a phrase for help texts and errors."""
    *most, last = [reader.example for reader in reversed(READERS)]
    return ", ".join(most) + f" or {last}"


def names() -> list[str]:
    """All addresses that are plain names."""
    return [name for reader in READERS for name in reader.names]
