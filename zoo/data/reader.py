"""The reader contract: how a format says what it recognises, which splits it has, and how it opens one."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from zoo.data.base import Dataset
from zoo.errors import DataError


@dataclass(frozen=True)
class Address:
    """What a person gave: a name such as `CIFAR10`, a prefix and the rest such as `hf:org/name`, or a path.

    Attributes:
        text: as it was given.
        is_path: it came as a `Path` and so is never a name.
    """

    text: str
    is_path: bool = False

    @classmethod
    def of(cls, value: str | os.PathLike[str]) -> Address:
        """An address from text or a path."""
        return cls(os.fspath(value), is_path=not isinstance(value, str))

    @property
    def path(self) -> Path:
        """The address as a path, `~` expanded."""
        return Path(self.text).expanduser()

    def split_prefix(self, prefixes: tuple[str, ...]) -> tuple[str | None, Path]:
        """`nucla:PATH` -> `("nucla", PATH)` where `prefixes` has `"nucla"`; otherwise `(None, path)`."""
        prefix, separator, rest = self.text.partition(":")
        if separator and prefix in prefixes and not self.is_path:
            return prefix, Path(rest).expanduser()
        return None, self.path

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Options:
    """What a caller of `open_dataset` asked for beyond the address; each field is documented there."""

    root: str | os.PathLike[str] | None = None
    download: bool = False
    classes: str | None = None
    labels: str | os.PathLike[str] | None = None
    test_share: float | None = None
    seed: int | None = None
    skip_bad: bool = False


class Reader(ABC):
    """One format. A subclass in a file of its own and one entry in `zoo.data.registry.READERS` make a new one.

    Attributes:
        example: how an address of this format looks, as a phrase for help texts and errors.
        names: the addresses that are plain names, so that a misspelt one can be answered with the nearest.
        takes: the fields of `Options` that this format uses, of `classes`, `labels`, `test_share` and `seed`; any
            other is refused when a caller sets it.
    """

    example: ClassVar[str]
    names: ClassVar[tuple[str, ...]] = ()
    takes: ClassVar[tuple[str, ...]] = ()

    def __init__(self, address: Address, options: Options) -> None:
        self.address, self.options = address, options

    @classmethod
    @abstractmethod
    def recognises(cls, address: Address) -> bool:
        """Whether the data at `address` has this format. Readers are asked in the order of the registry.

        Raises:
            DataError: the address names this format, but nothing lies there.
        """

    @abstractmethod
    def splits(self) -> list[str]:
        """Names of the splits, `["all"]` where the data has none. Raises DataError if it cannot be read."""

    @abstractmethod
    def open(self, split: str) -> Dataset:
        """Open one of `splits()`. Raises DataError if it is empty or cannot be read."""

    def divisible(self) -> bool:
        """Whether `all`, as the only split, has labels and may be divided into `train` and `test` by chance."""
        return False


class NameReader(Reader):
    """A format whose addresses are the plain names in `names`."""

    @classmethod
    def recognises(cls, address: Address) -> bool:
        return not address.is_path and address.text in cls.names


class PathReader(Reader):
    """A format that lies in a file or folder, known by `fits`, or by a prefix before the path.

    Attributes:
        prefixes: words that may stand before the path and a colon, such as `"nucla"`.
        path: the path without its prefix. prefix: the one that was given, or None.
    """

    prefixes: ClassVar[tuple[str, ...]] = ()

    def __init__(self, address: Address, options: Options) -> None:
        super().__init__(address, options)
        self.prefix, self.path = address.split_prefix(self.prefixes)

    @classmethod
    def recognises(cls, address: Address) -> bool:
        prefix, path = address.split_prefix(cls.prefixes)
        if prefix is not None and not path.exists():
            raise DataError(f"{path} does not exist; {prefix}: takes the path of the data")
        return path.exists() and (prefix is not None or cls.fits(path))

    @classmethod
    @abstractmethod
    def fits(cls, path: Path) -> bool:
        """Whether an existing path has this format, told by a glance at names."""

    def folder(self) -> Path:
        """The path of a format that lies in a folder; DataError if it is a file."""
        if not self.path.is_dir():
            raise DataError(f"{self.path} is no folder")
        return self.path
