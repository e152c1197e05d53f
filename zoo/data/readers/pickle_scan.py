"""A pickle is a program: this reads its opcodes and runs none, to refuse one that would cost more than its bytes.

The unpickler hashes keys, sets the memo's size by the largest index and takes the memory that a length names, all
before anybody sees a value. So those are looked at first. Opcodes: the standard library's `pickletools`.
"""

from __future__ import annotations

import pickletools
from mmap import mmap
from typing import Any

#: Opcodes of plain values, containers, and of the calls that arrays are made by. What is missing here: persistent and
#: registered objects, classes, sets, out-of-band buffers, and DUP, which no pickler writes.
_ATOMS = [
    "INT",
    "BININT",
    "BININT1",
    "BININT2",
    "LONG",
    "LONG1",
    "LONG4",
    "STRING",
    "BINSTRING",
    "SHORT_BINSTRING",
    "BINBYTES",
    "SHORT_BINBYTES",
    "BINBYTES8",
    "UNICODE",
    "SHORT_BINUNICODE",
    "BINUNICODE",
    "BINUNICODE8",
    "FLOAT",
    "BINFLOAT",
    "NONE",
    "NEWTRUE",
    "NEWFALSE",
]
_OTHERS = ("EMPTY_LIST", "EMPTY_DICT", "EMPTY_TUPLE", "GLOBAL", "BYTEARRAY8")
#: opcode -> how many values it takes from the stack and how many containers or objects it puts there.
_MOVES = {"STACK_GLOBAL": (2, 1), "TUPLE1": (1, 1), "TUPLE2": (2, 1), "TUPLE3": (3, 1), "REDUCE": (2, 1)}
_MOVES |= {"BUILD": (2, 1), "APPEND": (2, 1)}
_STORES = ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE")
_FETCHES = ("GET", "BINGET", "LONG_BINGET")
_TO_MARK = ("POP_MARK", "TUPLE", "LIST", "DICT", "APPENDS", "SETITEMS")
_SPECIAL = ("PROTO", "FRAME", "MARK", "POP", *_TO_MARK, "SETITEM", "STOP")
_ALLOWED = {*_ATOMS, *_OTHERS, *_MOVES, *_STORES, *_FETCHES, *_SPECIAL}
#: code -> (name, bytes of its argument, negative as in pickletools)
_OPCODES = {ord(op.code): (op.name, 0 if op.arg is None else op.arg.n) for op in pickletools.opcodes}
_LINES = {ord(op.code): 2 if op.name == "GLOBAL" else 1 for op in pickletools.opcodes if op.arg and op.arg.n == -1}
#: Kind of length before the argument -> its bytes.
_LENGTHS = {
    pickletools.TAKEN_FROM_ARGUMENT1: 1,
    pickletools.TAKEN_FROM_ARGUMENT4: 4,
    pickletools.TAKEN_FROM_ARGUMENT4U: 4,
    pickletools.TAKEN_FROM_ARGUMENT8U: 8,
}


class Refused(ValueError):
    """What a pickle may not hold."""


def scan(data: bytes | mmap) -> int:
    """Walk over a pickle without running it; returns the number of opcodes.

    Raises:
        Refused: an opcode that plain data do not need, an argument beyond the end of the file, an index into the memo
            that is not the next one, or a key that is no text or number (hashing nested keys takes time without end).
    """
    atoms: list[bool] = []  # the stack: whether each value is text, a number, True, False or None
    marks: list[int] = []
    memo: list[bool] = []
    position, count, size = 0, 0, len(data)
    while True:
        if position >= size:
            raise Refused("it ends before its last opcode")
        code = data[position]
        name, _ = _OPCODES.get(code, ("", 0))
        if name not in _ALLOWED:
            raise Refused(f"it uses the opcode {name or hex(code)}, which plain data do not need")
        start, position = _argument(data, code, position + 1, size)
        count += 1
        if name in _ATOM_SET:
            atoms.append(True)
        elif name in _STORES:
            _store(memo, name, data[start:position], bool(atoms) and atoms[-1])
        elif name in _FETCHES:
            index = _index(name, data[start:position])
            if index >= len(memo):
                raise Refused("it fetches what it never stored")
            atoms.append(memo[index])
        elif name in _OTHERS:
            atoms.append(False)
        elif name in _MOVES:
            taken, put = _MOVES[name]
            _drop(atoms, marks, taken)
            atoms.extend([False] * put)
        elif name == "STOP":
            return count
        else:
            _special(name, atoms, marks)


_ATOM_SET = frozenset(_ATOMS)


def _argument(data: Any, code: int, position: int, size: int) -> tuple[int, int]:
    """Where the argument of an opcode begins and ends."""
    length, start = _OPCODES[code][1], position
    if length == pickletools.UP_TO_NEWLINE:
        for _ in range(_LINES[code]):
            position = data.find(b"\n", position) + 1
            if not position:
                raise Refused("it ends within a line")
    elif length < 0:
        width = _LENGTHS[length]
        start = position + width
        position = start + int.from_bytes(data[position:start], "little")
    else:
        position += length
    if position > size:
        raise Refused("an argument is longer than the file")
    return start, position


def _index(name: str, argument: bytes) -> int:
    if name in ("PUT", "GET"):
        if len(argument) > 20 or not argument.strip().isdigit():
            raise Refused("a place in its memo that is no number")
        return int(argument)
    return int.from_bytes(argument, "little")


def _store(memo: list[bool], name: str, argument: bytes, atom: bool) -> None:
    index = len(memo) if name == "MEMOIZE" else _index(name, argument)
    # Python counts places from 0, and cPickle of Python 2 from 1.
    if index > len(memo) + 1:
        raise Refused(f"it stores at place {index} of its memo, the next is {len(memo)}")
    while len(memo) <= index:
        memo.append(False)
    memo[index] = atom


def _drop(atoms: list[bool], marks: list[int], taken: int) -> None:
    if len(atoms) - taken < (marks[-1] if marks else 0):
        raise Refused("it takes more from its stack than is there")
    del atoms[len(atoms) - taken :]


def _special(name: str, atoms: list[bool], marks: list[int]) -> None:
    if name == "MARK":
        marks.append(len(atoms))
    elif name == "SETITEM":
        _keys(atoms[-2:-1])
        _drop(atoms, marks, 3)
        atoms.append(False)
    elif name == "POP":
        if marks and marks[-1] == len(atoms):
            marks.pop()
        else:
            _drop(atoms, marks, 1)
    elif name in _TO_MARK:
        if not marks:
            raise Refused("it takes more from its stack than is there")
        since = marks.pop()
        if name in ("DICT", "SETITEMS"):
            _keys(atoms[since::2])
        del atoms[since:]
        if name in ("TUPLE", "LIST", "DICT"):
            atoms.append(False)


def _keys(atoms: list[bool]) -> None:
    if not all(atoms):
        raise Refused("a key of a dict is no text or number")
