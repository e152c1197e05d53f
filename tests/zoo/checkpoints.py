"""Small checkpoints for tests: a real timm ResNet, a thousand times smaller than the published ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from zoo.architectures import build
from zoo.checkpoint.config import CheckpointConfig, DatasetRecord, Method, Training
from zoo.checkpoint.results import DataRecord, Metric, Result, Results
from zoo.checkpoint.weights import NETWORK_KEY, network_digest
from zoo.checkpoint.writing import write_checkpoint
from zoo.encoder import Encoder
from zoo.preprocessing.image import ImageInput
from zoo.strict import Architecture

SMALL = Architecture(
    family="timm",
    arguments={
        "model": "resnet18",
        "stem": "cifar",
        "model_args": {"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16]},
    },
)
INPUT = ImageInput(size=(16, 16), mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))


def small_encoder(seed: int = 0) -> Encoder:
    """An encoder whose weights, running statistics included, are not those of a fresh network."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        encoder = build(SMALL, INPUT)
        with torch.no_grad():
            encoder.train()(torch.rand(8, 3, 16, 16))
    return encoder.eval()


def record(**changes: Any) -> Training:
    """A training record."""
    data = DatasetRecord(name="toys", split="train", samples=100, fingerprint="ab12", licence="CC0")
    fields: dict[str, Any] = {
        "recipe": {"method": {"name": "simclr", "temperature": 0.5}, "epochs": 3},
        "dataset": data,
        "epochs": 3,
        "steps": 30,
        "samples_seen": 300,
        "seed": 7,
        "code_commit": "c0ffee",
        "versions": {"torch": "2"},
        "hardware": "2 CPU cores",
        "wall_time_s": 12.5,
    }
    return Training(**{**fields, **changes})


def write_small(folder: Path, name: str = "simclr_small_toys", seed: int = 0, **changes: Any) -> CheckpointConfig:
    """Write a small checkpoint at `folder`."""
    fields: dict[str, Any] = {
        "name": name,
        "architecture": SMALL,
        "method": Method(
            name="simclr", title="SimCLR", paper="Chen et al. 2020", url="https://arxiv.org/abs/2002.05709"
        ),
        "training": record(),
    }
    encoder = changes.pop("encoder", None) or small_encoder(seed)
    return write_checkpoint(encoder, folder, **{**fields, **changes})


def results_for(config: CheckpointConfig, value: float = 0.8123) -> Results:
    """Measurements of `config`'s weights and both floors."""
    train = DataRecord(name="toys", split="train", fingerprint="ab12", samples=100)
    test = DataRecord(name="toys", split="test", fingerprint="cd34", samples=50)

    def row(subject: str, value: float) -> Result:
        return Result(
            protocol="logistic_v1",
            subject=subject,
            train=train,
            test=test,
            classes=10,
            metrics={"top1": Metric(value=value, low=value - 0.01, high=value + 0.01)},
            chosen={"C": 0.1},
            warnings=("only 50 test samples",),
            command="python -m evaluation simclr_small_toys toys",
        )

    rows = (row("encoder", value), row("untrained", 0.4056), row("raw", 0.3001))
    return Results(weights_sha256=config.weights.sha256, rows=rows)


def same_weights(a: Encoder, b: Encoder) -> bool:
    """Equal names and bit-equal tensors."""
    left, right = a.state_dict(), b.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


def forge(folder: Path, content: bytes, **changes: Any) -> None:
    """Put `content` as the weights of `folder` and make config.json agree in size and hash, as an attacker would."""
    import hashlib

    config = json.loads((folder / "config.json").read_text())
    config["weights"] |= {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content), **changes}
    (folder / config["weights"]["file"]).write_bytes(content)
    (folder / "config.json").write_text(json.dumps(config))


def rebind(folder: Path, **changes: Any) -> None:
    """Change config.json and the network digest in the weights file together."""
    path = folder / "config.json"
    config = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps(config))
    header, data = split((folder / "model.safetensors").read_bytes())
    header["__metadata__"][NETWORK_KEY] = network_digest(config)
    forge(folder, join(header, data))


def split(content: bytes) -> tuple[dict[str, Any], bytes]:
    """A safetensors file -> header and data."""
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def join(header: dict[str, Any] | bytes, data: bytes) -> bytes:
    """Header and data -> a safetensors file."""
    text = header if isinstance(header, bytes) else json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data
