"""Seeded ways to damage the weights of a checkpoint folder; each is a function of a `Case`."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path

from tests.zoo.checkpoints import forge, join, split


@dataclass
class Case:
    """One folder to damage: its files as written, and a seeded source of choices."""

    folder: Path
    config: bytes
    weights: bytes
    random: random.Random

    def write(self, config: bytes | None = None, weights: bytes | None = None) -> None:
        """Put these bytes in place of the files; None leaves the original."""
        (self.folder / "config.json").write_bytes(self.config if config is None else config)
        (self.folder / "model.safetensors").write_bytes(self.weights if weights is None else weights)

    def forge(self, header: dict | bytes, data: bytes | None = None, **changes: object) -> None:
        """Weights with another header whose size and hash config.json confirms: only the deeper checks are left."""
        self.write()
        forge(self.folder, join(header, split(self.weights)[1] if data is None else data), **changes)

    def header(self) -> tuple[dict, list[str]]:
        """The header and the names of its tensors, shuffled."""
        header, _ = split(self.weights)
        names = [name for name in header if name != "__metadata__"]
        self.random.shuffle(names)
        return header, names


def flip(content: bytes, start: int, stop: int, rng: random.Random) -> bytes:
    at = rng.randrange(start, stop)
    return content[:at] + bytes([content[at] ^ (1 << rng.randrange(8))]) + content[at + 1 :]


def header_byte(case):
    length = int.from_bytes(case.weights[:8], "little")
    case.write(weights=flip(case.weights, 0, 8 + length, case.random))


def data_byte(case):
    length = int.from_bytes(case.weights[:8], "little")
    case.write(weights=flip(case.weights, 8 + length, len(case.weights), case.random))


def forged_header_byte(case):
    length = int.from_bytes(case.weights[:8], "little")
    case.write()
    forge(case.folder, flip(case.weights, 0, 8 + length, case.random))


def truncated(case):
    case.write(weights=case.weights[: case.random.randrange(len(case.weights))])


def forged_truncation(case):
    case.write()
    forge(case.folder, case.weights[: case.random.randrange(1, len(case.weights))])


def extended(case):
    case.write(weights=case.weights + case.random.randbytes(case.random.randrange(1, 100)))


def forged_extension(case):
    case.write()
    forge(case.folder, case.weights + case.random.randbytes(case.random.randrange(1, 100)))


def header_length(case):
    lie = case.random.choice(
        [0, 1, 7, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1, len(case.weights), len(case.weights) - 7]
    )
    case.write()
    forge(case.folder, lie.to_bytes(8, "little") + case.weights[8:])


def header_json(case):
    deep = case.random.randrange(10, 50_000)
    texts = [
        b"[" * deep,
        b'{"a":' * deep,
        b"[]",
        b"null",
        b'"',
        b"{",
        b"{}",
        b"1e999",
        b"NaN",
        b"\xff\xfe{}",
        b"9" * 5000,
    ]
    texts += [b"[" * deep + b"]" * deep, b'{"a":' * deep + b"1" + b"}" * deep]
    case.forge(case.random.choice(texts))


def removed_tensor(case):
    """With its bytes, so that the file stays consistent."""
    header, names = case.header()
    name = names[0]
    start, stop = header.pop(name)["data_offsets"]
    for entry in header.values():
        if entry.get("data_offsets", [0])[0] >= stop:
            entry["data_offsets"] = [offset - (stop - start) for offset in entry["data_offsets"]]
    data = split(case.weights)[1]
    case.forge(header, data[:start] + data[stop:])


def removed_entry(case):
    header, names = case.header()
    for name in names[: case.random.randrange(1, 4)]:
        del header[name]
    case.forge(header)


def renamed_tensor(case):
    header, names = case.header()
    new = case.random.choice(
        ["module." + names[0], names[0] + "\n", names[0][:-1], "", "\ud800", "état", names[0].upper()]
    )
    case.forge({new if name == names[0] else name: entry for name, entry in header.items()})


def added_tensor(case):
    header, _ = case.header()
    data = split(case.weights)[1]
    header["backbone.fc.weight"] = {"dtype": "F32", "shape": [2, 2], "data_offsets": [len(data), len(data) + 16]}
    case.forge(header, data + bytes(16))


def duplicated_key(case):
    header, names = case.header()
    text = json.dumps(header, separators=(",", ":"))
    case.forge((text[:-1] + f",{json.dumps(names[0])}:{json.dumps(header[names[1]])}" + "}").encode())


def swapped_names(case):
    """Two tensors of different shapes exchange their names."""
    header, names = case.header()
    first = names[0]
    second = next(name for name in names if header[name]["shape"] != header[first]["shape"])
    header[first], header[second] = header[second], header[first]
    case.forge(header)


def shared_bytes(case):
    """Two tensors of one shape point at the same bytes."""
    header, names = case.header()
    shapes: dict[str, str] = {}
    for name in names:
        twin = shapes.setdefault(json.dumps(header[name]["shape"]), name)
        if twin != name:
            header[name]["data_offsets"] = header[twin]["data_offsets"]
            break
    case.forge(header)


def wrong_shape(case):
    header, names = case.header()
    entry = next(header[name] for name in names if header[name]["shape"])
    shapes = [
        entry["shape"] + [1],
        [1, *entry["shape"]],
        [2**62, 4],
        [-1],
        [0],
        [],
        entry["shape"][0],
        None,
        ["8"],
        [8.0],
    ]
    shapes += [[*entry["shape"][:-1], entry["shape"][-1] + 1], [True], [10**30], [[8]], {"0": 8}, [1] * 5000]
    entry["shape"] = case.random.choice(shapes)
    case.forge(header)


def wrong_dtype(case):
    header, names = case.header()
    entry = header[names[0]]
    dtypes = [
        "F64",
        "F32",
        "BF16",
        "F16",
        "I16",
        "U8",
        "BOOL",
        "F8_E4M3",
        "",
        "f16",
        None,
        16,
        ["F16"],
        {"F": 16},
        "x" * 500,
    ]
    entry["dtype"] = case.random.choice([dtype for dtype in dtypes if dtype != entry["dtype"]])
    case.forge(header)


def wrong_offsets(case):
    header, names = case.header()
    entry = header[names[0]]
    start, stop = entry["data_offsets"]
    wrong = [
        [start + 2, stop + 2],
        [stop, start],
        [start, stop + 2],
        [start],
        [],
        None,
        [-2, stop - start - 2],
        [0.0, 4.0],
    ]
    wrong += [[start, 2**63], [str(start), str(stop)], [start + 1, stop + 1], [start, stop, stop]]
    entry["data_offsets"] = case.random.choice(wrong)
    case.forge(header)


def wrong_entry(case):
    header, names = case.header()
    header[names[0]] = case.random.choice([None, [], "F16", 3, {}, {**header[names[0]], "extra": 1}, {"dtype": "F16"}])
    case.forge(header)


def not_finite(case):
    header, names = case.header()
    data = bytearray(split(case.weights)[1])
    entry = next(header[name] for name in names if header[name]["dtype"] == "F16")
    at = case.random.randrange(*entry["data_offsets"], 2)
    data[at : at + 2] = case.random.choice([b"\x00\x7e", b"\x00\x7c", b"\x00\xfc", b"\xff\xff"])
    case.forge(header, bytes(data))


def metadata(case):
    header, _ = case.header()
    real = header["__metadata__"]
    wrong = [{}, None, [], "pt", {"format": 1}, {**real, "network_sha256": "0" * 64}, {"network_sha256": None}]
    header["__metadata__"] = case.random.choice(wrong)
    case.forge(header)


def wrong_count(case):
    header, _ = case.header()
    changes = [
        {"parameters": 17505},
        {"parameters": 1},
        {"dtype": "float32"},
        {"dtype": "bfloat16"},
        {"parameters": 10**30},
    ]
    case.forge(header, **case.random.choice(changes))
