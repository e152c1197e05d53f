"""Seeded ways to damage the config.json of a checkpoint folder; each is a function of a `Case`."""

from __future__ import annotations

import json
from collections.abc import Callable

from tests.zoo.damage_weights import flip


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
