"""Annotation files of pyskl, mmaction2 and ST-GCN exist only as pickles. This reads them without running code.

The one place of the zoo that touches pickle. A pickle is a program: `scan` looks at its opcodes before any is run, and
every callable it names passes `find_class`, which here gives nothing but the builders below. They stand in for NumPy's
own, whose `__setstate__` trusts what it is given: shape, dtype and bytes are checked against each other before an
array is made. The opcode BUILD would set attributes of a plain function; a builder has none that can be set.
"""

from __future__ import annotations

import math
import mmap
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from zoo.data.readers.pickle_scan import scan
from zoo.errors import DataError
from zoo.text import clipped

#: Larger files are refused: NTU-120's annotations have about 2 GB.
MAX_BYTES = 8 << 30
MAX_DEPTH = 32
#: Kinds of numbers and text; no objects, no records.
KINDS = "biufSU"


class _Dtype:
    """`numpy.dtype(code)` with the byte order that its state names."""

    def __init__(self, code: str, *_: Any) -> None:
        if not isinstance(code, str) or len(code) > 8:
            raise pickle.UnpicklingError("a dtype of an unexpected kind")
        self.is_object = code in ("O", "O8")
        self.dtype = np.dtype(np.uint8) if self.is_object else np.dtype(code)
        if self.dtype.kind not in KINDS or not self.dtype.itemsize:
            raise pickle.UnpicklingError(f"arrays of dtype {code!r}")

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) < 5 or any(part is not None for part in state[2:5]):
            raise pickle.UnpicklingError("a dtype with fields")
        if state[1] in ("<", ">", "="):
            self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """What NumPy's `_reconstruct` gives, filled by its state (version, shape, dtype, Fortran order, bytes)."""

    value: Any = None

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise pickle.UnpicklingError("an array in an unexpected form")
        _, shape, kind, fortran, data = state
        self.value = _array(data, kind, shape, "F" if fortran else "C")


def _array(data: Any, kind: Any, shape: Any, order: Any = "C") -> Any:
    if (
        not isinstance(kind, _Dtype)
        or not isinstance(shape, tuple)
        or len(shape) > MAX_DEPTH
        or not all(type(n) is int and 0 <= n <= MAX_BYTES for n in shape)
    ):
        raise pickle.UnpicklingError("an array in an unexpected form")
    if kind.is_object:
        if not isinstance(data, list) or shape != (len(data),):
            raise pickle.UnpicklingError("an array of objects in an unexpected form")
        return data
    data = data.encode("latin1") if isinstance(data, str) else data
    if not isinstance(data, bytes | bytearray) or math.prod(shape) * kind.dtype.itemsize != len(data):
        raise pickle.UnpicklingError("an array whose shape does not fit its bytes")
    if len(data) == 0:
        return np.zeros(shape, kind.dtype)
    return np.frombuffer(data, kind.dtype).reshape(shape, order="F" if order == "F" else "C")


def _reconstruct(*_: Any) -> _Array:
    return _Array()


def _from_buffer(data: Any, kind: Any, shape: Any, order: Any = "C") -> _Array:
    made = _Array()
    made.value = _array(data, kind, shape, order)
    return made


def _scalar(kind: Any, data: Any) -> Any:
    return _array(data, kind, (1,))[0]


def _encode(text: str, encoding: str) -> bytes:
    """How protocol 2 stores bytes."""
    if not isinstance(text, str) or encoding != "latin1":
        raise pickle.UnpicklingError("bytes in an unexpected form")
    return text.encode("latin1")


def _no_bytes(*arguments: Any) -> bytes:
    """`bytes()`, how protocols 0 to 2 store empty ones; with an argument it would allocate."""
    if arguments:
        raise pickle.UnpicklingError("bytes in an unexpected form")
    return b""


def _mapping(pairs: Any = ()) -> dict[Any, Any]:
    """An OrderedDict: empty, and filled later, or in Python 2 with a list of pairs."""
    for pair in pairs:
        if not isinstance(pair, list | tuple) or len(pair) != 2 or not isinstance(pair[0], str | bytes | int):
            raise pickle.UnpicklingError("a dict in an unexpected form")
    return dict(pairs)


class _Builder:
    """A function that a pickle may call and nothing in it can change."""

    __slots__ = ("make",)

    def __init__(self, make: Any) -> None:
        object.__setattr__(self, "make", make)

    def __call__(self, *arguments: Any) -> Any:
        return self.make(*arguments)

    def __setattr__(self, name: str, value: Any) -> None:
        raise pickle.UnpicklingError(f"it tries to change what {name} is")

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("it tries to change how arrays are made")


#: What a file may name -> what it gets. `numpy.ndarray` only ever occurs as an argument, so it need not be callable.
_BUILDERS: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): "ndarray",
    ("numpy", "dtype"): _Builder(_Dtype),
    ("collections", "OrderedDict"): _Builder(_mapping),
    ("_codecs", "encode"): _Builder(_encode),
    ("__builtin__", "bytes"): _Builder(_no_bytes),
}
for _core in ("numpy.core", "numpy._core"):
    _BUILDERS[f"{_core}.multiarray", "_reconstruct"] = _Builder(_reconstruct)
    _BUILDERS[f"{_core}.multiarray", "scalar"] = _Builder(_scalar)
    _BUILDERS[f"{_core}.numeric", "_frombuffer"] = _Builder(_from_buffer)


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _BUILDERS:
            raise pickle.UnpicklingError(f"it asks for {clipped(module)}.{clipped(name)}")
        return _BUILDERS[module, name]


def load_plain(path: Path) -> Any:
    """The lists, dicts, tuples, strings, numbers and arrays in a pickle.

    Raises:
        DataError: the file asks for any other class or function, or is damaged.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DataError(f"{path} has more than {MAX_BYTES:,} bytes; expected an annotation file")
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            scan(data)
            return _plain(_Unpickler(data, encoding="latin1").load(), {}, 0)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from None
    except DataError:
        raise
    except Exception as error:  # a damaged pickle raises a dozen types
        raise DataError(
            f"{path} is refused: {clipped(error, 200) or type(error).__name__}. Only arrays and plain containers are "
            "read, as in pyskl's *_3danno.pkl; bring other data as .npz (see zoo.data.readers.skeleton_arrays)"
        ) from None


def _plain(value: Any, known: dict[int, Any], depth: int) -> Any:
    """`value` with the stand-ins replaced by their arrays. Each object is visited once, however often it occurs."""
    if depth > MAX_DEPTH:
        raise pickle.UnpicklingError("containers nested too deep, or in a circle")
    if isinstance(value, _Array):
        return _plain(value.value, known, depth + 1) if isinstance(value.value, list) else value.value
    if isinstance(value, _Dtype):
        return value.dtype
    if not isinstance(value, list | tuple | dict):
        return value
    if id(value) not in known:
        if isinstance(value, dict):
            made: Any = {key: _plain(item, known, depth + 1) for key, item in value.items()}
        else:
            made = type(value)([_plain(item, known, depth + 1) for item in value])
        known[id(value)] = made
    return known[id(value)]
