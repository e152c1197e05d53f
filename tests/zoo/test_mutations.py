"""Seeded damage to a checkpoint folder: each case is refused in one line, or loads the very same encoder."""

from __future__ import annotations

import json
import random
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

import zoo
from tests.zoo.checkpoints import forge, join, same_weights, split, write_small
from zoo.encoder import Encoder
from zoo.errors import ZooError

FAST, SLOW = 20, 600


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


def architecture(case):
    """Another network or preprocessing under the same weights."""
    config = json.loads(case.config)
    arguments = config["architecture"]["arguments"]
    model_args = arguments["model_args"]
    edits: list[Callable[[], object]] = [
        lambda: config["architecture"].update(family=case.random.choice(["timn", "", "os:system", "../timm"])),
        lambda: arguments.update(
            model=case.random.choice(["resnet19", "resnet34", "vit_tiny_patch16_224", "../x", ""])
        ),
        lambda: arguments.update(stem=case.random.choice(["imagenet", "auto", None, 3])),
        lambda: model_args.update(act_layer=case.random.choice(["silu", "nonsense", 3])),
        lambda: model_args.update(
            layers=case.random.choice([[], [1], [2**40] * 4, [1, 1, 1, 2], "1111", [-1] * 4, None])
        ),
        lambda: model_args.update(channels=case.random.choice([[0] * 4, [2**14] * 4, [8, 8, 16], [8.5] * 4, [-8] * 4])),
        lambda: model_args.update(checkpoint_path="/etc/passwd"),
        lambda: model_args.update(pretrained_cfg_overlay={"file": "/etc/passwd"}),
        lambda: model_args.update(nonsense=1),
        lambda: config["input"].update(mean=[0.1, 0.2, 0.3]),
        lambda: config["input"].update(std=case.random.choice([[0, 0, 0], [1, 1], ["a"] * 3, [1e999] * 3])),
        lambda: config["input"].update(size=case.random.choice([[32, 32], [0, 0], [10**9, 10**9], 16, [16]])),
        lambda: config["input"].update(modality=case.random.choice(["skeleton", "video", None])),
        lambda: config["input"].update(interpolation="bilinear"),
        lambda: config.update(num_features=case.random.choice([17, 0, -1, 2**40, "16", None, 16.5])),
    ]
    case.random.choice(edits)()
    case.write(json.dumps(config).encode())


def config_byte(case):
    case.write(flip(case.config, 0, len(case.config), case.random))


def config_cut(case):
    at = case.random.randrange(len(case.config))
    case.write(case.config[:at] + case.config[at + case.random.randrange(1, 40) :])


def config_text(case):
    at = case.random.randrange(len(case.config))
    text = case.random.choice(
        [b" ", b"\n", b"\t", b"\0", b"\xff", b"{}", b",", b"NaN", b'"', b"\\u0000", b"1e400", b"\\ud800"]
    )
    case.write(case.config[:at] + text + case.config[at:])


def config_value(case):
    """A value somewhere in config.json becomes something else."""
    config = json.loads(case.config)
    paths: list[tuple[dict, str]] = []

    def walk(node):
        for key, value in node.items():
            paths.append((node, key))
            if isinstance(value, dict):
                walk(value)

    walk(config)
    node, key = case.random.choice(paths)
    values = [None, True, -1, 0, 10**400, 1.5, "", "x" * 100_000, [], {}, [[[[]]]], "\ud800", "a\nb", "9" * 30, ["\0"]]
    values.append(json.loads("[" * 900 + "]" * 900))
    node[key] = case.random.choice(values)
    case.write(json.dumps(config).encode())


def config_key(case):
    config = json.loads(case.config)
    node = case.random.choice([config, *(value for value in config.values() if isinstance(value, dict))])
    key = case.random.choice(list(node))
    new = case.random.choice([key + "\n", "\ud800", key.upper(), "", "x" * 1000, "__class__"])
    if case.random.random() < 0.5:
        node[new] = node[key]
    else:
        del node[key]
    case.write(json.dumps(config).encode())


def config_twice(case):
    """A second "weights" or "input" that json alone would let win."""
    config = json.loads(case.config)
    key = case.random.choice(["weights", "input", "architecture", "name"])
    case.write(case.config.rstrip()[:-1] + f", {json.dumps(key)}: {json.dumps(config[key])}}}".encode())


def config_version(case):
    config = json.loads(case.config)
    config["format_version"] = case.random.choice([2, 10**9, 0, -1, None, "1", 1.0, True, [1], 10**400])
    case.write(json.dumps(config).encode())


def config_deep(case):
    deep = case.random.randrange(100, 200_000)
    opening, closing = case.random.choice([(b"[", b"]"), (b'{"a":', b"}")])
    bomb = opening * deep + (b"1" if opening != b"[" else b"") + closing * deep
    place = case.random.choice([b'"recipe": {', b'"arguments": {', b'"versions": {'])
    case.write(case.random.choice([bomb, case.config.replace(place, place + b'"bomb": ' + bomb + b", ")]))


def config_whole(case):
    wholes = [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'"x"',
        b"\x80\x04.",
        b"\xef\xbb\xbf" + case.config,
        b" " * (1 << 21),
        b"\0" * 99,
    ]
    case.write(case.random.choice([*wholes, case.config.decode().encode("utf-16")]))


#: Whatever these do, nothing may load: the file no longer is what config.json and the network need.
REFUSED = [
    header_byte, data_byte, truncated, forged_truncation, extended, forged_extension, header_length, header_json,
    removed_tensor, removed_entry, renamed_tensor, added_tensor, duplicated_key, swapped_names, shared_bytes,
    wrong_shape, wrong_dtype, wrong_offsets, wrong_entry, not_finite, metadata, wrong_count, architecture,
    config_twice, config_version,
]  # fmt: skip
#: These may hit white space or words that change nothing.
MAYBE = [forged_header_byte, config_byte, config_cut, config_text, config_value, config_key, config_deep, config_whole]


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> tuple[Encoder, bytes, bytes]:
    folder = tmp_path_factory.mktemp("original") / "c"
    write_small(folder)
    encoder = zoo.load(f"local-dir:{folder}")
    return encoder, (folder / "config.json").read_bytes(), (folder / "model.safetensors").read_bytes()


def check(mutate, must_refuse: bool, seeds: range, original, folder: Path) -> None:
    encoder, config, weights = original
    for seed in seeds:
        case = Case(folder, config, weights, random.Random(f"{mutate.__name__} {seed}"))
        mutate(case)
        where = f"{mutate.__name__} with seed {seed}"
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                loaded = zoo.load(f"local-dir:{folder}")
        except ZooError as error:
            message = str(error)
            assert message and "\n" not in message and len(message) < 1000 and message.encode(), where
            continue
        except BaseException as error:
            raise AssertionError(f"{where}: {type(error).__name__} instead of a ZooError") from error
        assert not must_refuse, f"{where} was accepted"
        assert same_weights(loaded, encoder), f"{where} gave other weights"
        for part in ("architecture", "input", "num_features"):
            assert getattr(loaded.config, part) == getattr(encoder.config, part), f"{where} gave another {part}"


@pytest.mark.parametrize("mutate", [*REFUSED, *MAYBE], ids=lambda mutate: mutate.__name__)
def test_mutations(mutate, original, tmp_path):
    check(mutate, mutate in REFUSED, range(FAST // 2 if mutate in REFUSED else FAST), original, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("mutate", [*REFUSED, *MAYBE], ids=lambda mutate: mutate.__name__)
def test_many_mutations(mutate, original, tmp_path):
    check(mutate, mutate in REFUSED, range(SLOW // 2 if mutate in REFUSED else SLOW), original, tmp_path)


def test_the_undamaged_folder_loads(original, tmp_path):
    encoder, config, weights = original
    Case(tmp_path, config, weights, random.Random(0)).write()
    assert same_weights(zoo.load(f"local-dir:{tmp_path}"), encoder)
