"""Labels as people have them -> class indices: text, whole numbers of any size, missing in one split, absent values."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from zoo.errors import DataError


def class_name(text: str) -> str:
    """A class name in one Unicode form (NFC), so that two spellings of the same letters are one class."""
    return unicodedata.normalize("NFC", text)


def check_look_alikes(by_split: Mapping[str, Iterable[str]], where: str) -> None:
    """Refuse class names of different splits that differ only in case, spaces or form.

    Two such names in one split, such as the letters `A` and `a`, are two classes and stay.

    Raises:
        DataError: names the pairs.
    """
    splits = {split: set(names) for split, names in by_split.items()}
    every = set().union(*splits.values())
    alike: dict[str, list[str]] = {}
    for name in sorted(every):
        alike.setdefault(" ".join(unicodedata.normalize("NFKC", name).casefold().split()), []).append(name)
    pairs = []
    for names in alike.values():
        together = any(len(found & set(names)) > 1 for found in splits.values())
        if len(names) > 1 and not together:
            pairs += [" and ".join(f"{n!r} ({', '.join(s for s in splits if n in splits[s])})" for n in names)]
    if pairs:
        raise DataError(
            f"{where}: class names that differ only in case, spaces or Unicode form: {'; '.join(pairs[:5])}; rename "
            "them alike"
        )


def encode_labels(
    values: Mapping[str, Sequence[Any] | None], split: str, class_names: Sequence[str], where: str
) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """Labels of `split` as `(N,)` int64 and the class names, from the label column of every split.

    Class names are the values that occur in any split, whole numbers in their own order, text sorted. A split without
    the column, or labelled null or -1 throughout, has no labels.

    Args:
        values: split -> its label column, None where it has none.
        class_names: names of the numbers 0, 1, ... where the data states them.

    Raises:
        DataError: some labels are null, neither whole numbers nor text, of different kinds in two splits, or names
            in two splits that differ only in case or form.
    """
    columns = {name: _column(column, name, where) for name, column in values.items()}
    chosen = columns[split]
    if chosen is None:
        return None, ()
    labelled = {name: column for name, column in columns.items() if column is not None}
    kinds = {name: type(column[0]) for name, column in labelled.items()}
    if len(set(kinds.values())) > 1:
        shown = ", ".join(f"{'text' if kind is str else 'whole numbers'} in {name}" for name, kind in kinds.items())
        raise DataError(f"{where}: labels are of different kinds ({shown}); store them alike in every split")
    if kinds[split] is int and class_names:
        return np.array(chosen, dtype=np.int64), tuple(class_names)
    occurring = sorted({value for column in labelled.values() for value in column})
    if kinds[split] is str:
        check_look_alikes(labelled, where)
    index = {value: i for i, value in enumerate(occurring)}
    return np.array([index[value] for value in chosen], dtype=np.int64), tuple(str(value) for value in occurring)


def _column(values: Sequence[Any] | None, split: str, where: str) -> list[int] | list[str] | None:
    """One split's labels as whole numbers or text; None if it has none."""
    if values is None or all(value is None for value in values):
        return None
    plain = [_plain(value) for value in values]
    absent = [row for row, value in enumerate(plain) if value is None]
    if absent:
        rows = ", ".join(map(str, absent[:5])) + (", ..." if len(absent) > 5 else "")
        raise DataError(f"{where}, split {split!r}: {len(absent)} labels are null (rows {rows}); drop those rows")
    kinds = Counter(type(value) for value in plain)
    strange = next((kind for kind in kinds if kind not in (int, str)), None)
    if strange is not None or len(kinds) > 1:
        came = strange.__name__ if strange is not None else "both"
        raise DataError(f"{where}, split {split!r}: labels must be whole numbers or text, got {came}")
    if plain[0] == -1 and set(plain) == {-1}:
        return None
    return plain


def _plain(value: Any) -> Any:
    """A label as `int` or `str` where it is one."""
    if isinstance(value, (bool, np.bool_)):
        return str(bool(value))
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, float):  # a column of numbers with gaps is stored as floats
        return None if value != value else int(value) if value.is_integer() else value
    return class_name(value) if isinstance(value, str) else value


#: Class indices count from 0, so that a table per class has as many rows: no data set comes near this.
MOST_CLASSES = 1 << 20


def class_indices(labels: Any, source: str) -> np.ndarray:
    """Labels that are class indices already, as `(N,)` int64.

    Args:
        labels: whole numbers of any integer dtype, from 0 on.
        source: names them in errors.

    Raises:
        DataError: another shape, floats (NaN among them), text, negative numbers, or an index that no data set has.
    """
    found = np.asarray(labels)
    if found.ndim != 1:
        raise DataError(f"{source}: labels must be one number per sample, got shape {found.shape}")
    if not len(found):
        return found.astype(np.int64)
    if found.dtype.kind not in "iu":
        raise DataError(
            f"{source}: labels must be whole numbers, got {found.dtype} (first: {str(found[0])[:40]}); "
            "number the classes from 0, as np.unique(labels, return_inverse=True)[1] does"
        )
    low, high = int(found.min()), int(found.max())
    if low < 0 or high >= MOST_CLASSES:
        raise DataError(
            f"{source}: labels lie in {low}..{high}, expected 0..{MOST_CLASSES - 1}; number the classes from 0, as "
            "np.unique(labels, return_inverse=True)[1] does, and leave samples without a class out"
        )
    return found.astype(np.int64)
