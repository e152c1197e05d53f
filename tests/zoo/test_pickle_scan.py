"""Pickles that cost more than their bytes, or change what the next file meets: each is refused before it is run."""

from __future__ import annotations

import inspect
import io
import pickle
import pickletools
import struct
from collections import OrderedDict

import numpy as np
import pytest

from tests.zoo.test_skeleton_pickles import Evil, annotation
from zoo.data.readers import restricted_pickle
from zoo.data.readers.pickle_scan import scan
from zoo.data.readers.restricted_pickle import _BUILDERS, _Unpickler, load_plain
from zoo.errors import DataError

RECONSTRUCT = b"cnumpy.core.multiarray\n_reconstruct\n"
NESTED_KEY = b"\x80\x04}(" + b")" + b"".join(b"\x94h" + bytes([i]) + b"\x86" for i in range(60)) + b"K\x01u."
HOSTILE = {
    "a place in the memo": (b"\x80\x02K\x01r\xff\xff\xff\x7f.", "stores at place 2147483647"),
    "a place in the memo, as text": (b"I1\np99999999999\n.", "stores at place 99999999999"),
    "a nested key": (NESTED_KEY, "a key of a dict"),
    "a nested key, one at a time": (NESTED_KEY.replace(b"}(", b"}").replace(b"K\x01u.", b"K\x01s."), "a key of a dict"),
    "a nested key, from the start": (b"(" + NESTED_KEY[4:].replace(b"K\x01u.", b"K\x01d."), "a key of a dict"),
    "a fetched nested key": (b"\x80\x04])\x94}h\x00K\x01s.", "a key of a dict"),
    "a length beyond the file": (b"\x80\x04\x8e" + struct.pack("<Q", 8 << 30) + b"x.", "longer than the file"),
    "a length beyond 64 bits": (b"\x80\x04\x8e" + b"\xff" * 8 + b"x.", "longer than the file"),
    "a line without an end": (b"c" + b"x" * 1000, "ends within a line"),
    "a set": (pickle.dumps({1, 2}), "opcode EMPTY_SET"),
    "a frozen set": (pickle.dumps(frozenset({1})), "opcode FROZENSET"),
    "a persistent object": (b"Pname\n.", "opcode PERSID"),
    "a registered object": (b"\x80\x02\x82\x01.", "opcode EXT1"),
    "an instance": (b"(cos\nsystem\no.", "opcode OBJ"),
    "an instance, as text": (b"(ios\nsystem\n.", "opcode INST"),
    "a class": (b"\x80\x02cnumpy\ndtype\n)\x81.", "opcode NEWOBJ"),
    "a copy": (b"K\x012.", "opcode DUP"),
    "an outside buffer": (b"\x80\x05\x97.", "opcode NEXT_BUFFER"),
    "no opcode": (b"\xff.", "opcode 0xff"),
    "nothing": (b"", "refused"),
    "no end": (b"K\x01", "ends before its last opcode"),
    "an empty stack": (b"0.", "more from its stack"),
    "beneath a mark": (b"K\x01(K\x02b.", "more from its stack"),
    "what was never stored": (b"h\x05.", "never stored"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_refused_before_it_is_run(tmp_path, monkeypatch, name):
    data, message = HOSTILE[name]
    monkeypatch.setattr(_Unpickler, "load", lambda self: pytest.fail("was run"), raising=False)
    (tmp_path / "x.pkl").write_bytes(data)
    with pytest.raises(DataError, match=message) as caught:
        load_plain(tmp_path / "x.pkl")
    assert len(str(caught.value)) < 1000


def state() -> list[object]:
    """Everything that a later file depends on: defaults, code and attributes of whatever a pickle can name."""
    found: list[object] = []
    for builder in _BUILDERS.values():
        make = getattr(builder, "make", builder)
        functions = [make] if inspect.isfunction(make) else list(vars(make).values()) if inspect.isclass(make) else []
        for each in filter(inspect.isfunction, functions):
            found += [each.__defaults__, each.__kwdefaults__, each.__code__, sorted(vars(each))]
        found += [make, sorted(vars(make)) if inspect.isclass(make) else None]
    return found


@pytest.mark.parametrize("named", sorted({f"c{m}\n{n}\n".encode() for m, n in _BUILDERS}))
@pytest.mark.parametrize(
    "change",
    [
        b"}S'__defaults__'\n(I1\nI2\ntsb",
        b"(N}S'__defaults__'\n(I1\nI2\ntsS'__code__'\nNstb",
        b"}S'extra'\nI1\nsb",
        b"(I1\nI2\nI3\ntb",
        b"(N}S'make'\nNstb",
    ],
    ids=["dict", "slots", "attribute", "tuple", "make"],
)
def test_nothing_in_a_file_changes_the_builders(tmp_path, named, change):
    before, path = state(), tmp_path / "x.pkl"
    path.write_bytes(named + change + b".")
    with pytest.raises(DataError, match="refused"):
        load_plain(path)
    assert state() == before
    value = {"annotations": [annotation()], "scalar": np.float32(2), "bytes": b"x"}
    for protocol in range(6):
        path.write_bytes(pickle.dumps(value, protocol=protocol))
        assert load_plain(path)["annotations"][0]["keypoint"].shape == (1, 4, 25, 3)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (b"cnumpy\ndtype\n(S'S0'\ntR.", "dtype"),
        (pickle.dumps(Evil(OrderedDict, [[((1,),), 2]]), 2), "dict in an unexpected form"),
    ],
    ids=["items of no bytes", "a nested key in an OrderedDict"],
)
def test_builders_refuse_what_would_cost_more_than_its_bytes(tmp_path, value, message):
    (tmp_path / "x.pkl").write_bytes(value)
    with pytest.raises(DataError, match=message):
        load_plain(tmp_path / "x.pkl")


def test_a_shape_of_many_or_huge_numbers_is_refused():
    kind = restricted_pickle._Dtype("f4")
    for shape in ((1,) * 33, (1 << 100_000, 0), (1 << 62,) * 4):
        with pytest.raises(pickle.UnpicklingError, match="unexpected form"):
            restricted_pickle._array(b"", kind, shape)


VALUES = [
    {"a": [1, 2.5, None, True, "ä", b"x", (1, 2), (1,), (1, 2, 3), (1, 2, 3, 4), [], {}, ()]},
    {
        "long": 1 << 100,
        "shared": [[1]] * 3,
        "numbers": {1: 2, "b": {3: 4}},
        "text": "x" * 70_000,
        "bytes": b"y" * 70_000,
    },
    {"annotations": [annotation(str(i), i % 3) for i in range(300)]},
    {"scalar": np.float32(2.5), "big": np.arange(3, dtype=">i4"), "text": np.array(["a", "bc"])},
]


@pytest.mark.parametrize("protocol", range(6))
def test_every_plain_pickle_passes_and_every_opcode_is_counted(protocol):
    for value in VALUES:
        for data in (pickle.dumps(value, protocol), pickletools.optimize(pickle.dumps(value, protocol))):
            assert scan(data) == sum(1 for _ in pickletools.genops(data))
        written = io.BytesIO()
        pickle._Pickler(written, protocol).dump(value)
        assert scan(written.getvalue()) > 0


def test_hundreds_of_damaged_pickles_end_in_one_error_and_change_nothing(tmp_path):
    good, generator, refused, before = pickle.dumps(VALUES[1:], 2), np.random.default_rng(0), 0, state()
    path = tmp_path / "bad.pkl"
    for _ in range(500):
        data = bytearray(good[: generator.integers(1, len(good))] if generator.random() < 0.3 else good)
        for _ in range(3):
            data[generator.integers(2000)] = generator.integers(256)
        path.write_bytes(data)
        try:
            load_plain(path)
        except DataError:
            refused += 1
    assert refused > 300 and state() == before
