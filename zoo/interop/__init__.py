"""Checkpoints of other projects in: `zoo import FILE --from LAYOUT --out DIR`.

Every key of the file is accounted for: used, and under which name, or left, and why.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo.checkpoint.budget import build_within
from zoo.checkpoint.config import CheckpointConfig, DatasetRecord, Training
from zoo.checkpoint.writing import write_checkpoint
from zoo.encoder import Encoder
from zoo.errors import CheckpointError, ConfigError
from zoo.interop.layouts import LAYOUTS, Layout, layout
from zoo.interop.reading import Foreign, read_foreign
from zoo.interop.wrappers import unwrapped
from zoo.preprocessing.image import ImageInput
from zoo.strict import Architecture
from zoo.text import quoted

__all__ = ["LAYOUTS", "Account", "Layout", "import_checkpoint", "layout"]

#: Our name of the network inside `zoo.architectures.image.ImageEncoder`.
NETWORK = "backbone."
NOT_STATED = "not stated"
#: How BatchNorm names the number of batches it has seen.
COUNTER = "num_batches_tracked"


@dataclass(frozen=True)
class Account:
    """What became of each key of a file.

    Attributes:
        used: key in the file -> key in the checkpoint.
        left: key in the file -> why it is not in the checkpoint.
        filled: key in the checkpoint that the file lacks -> what stands there instead, and why that does no harm.
    """

    used: dict[str, str]
    left: dict[str, str]
    filled: dict[str, str] = field(default_factory=dict)

    def lines(self, every_key: bool = False) -> list[str]:
        """Text: one line per key, or per group of keys of the same prefix or reason."""
        if every_key:
            used = [f"used  {key} -> {ours}" for key, ours in self.used.items()]
            left = [f"left  {key}: {why}" for key, why in self.left.items()]
            return used + left + [f"added {key}: {why}" for key, why in self.filled.items()]
        lines = [
            f"used  {n:4d} keys {name}" for name, n in Counter(_group(*pair) for pair in self.used.items()).items()
        ]
        for why in dict.fromkeys(self.left.values()):
            keys = [key for key, reason in self.left.items() if reason == why]
            prefix = os.path.commonprefix(keys)  # noqa: RUF071 - keys are no paths
            lines.append(f"left  {len(keys):4d} keys {prefix}{'*' * (len(keys) > 1)}: {why}")
        for why, count in Counter(self.filled.values()).items():
            lines.append(f"added {count:4d} keys *.{COUNTER}: {why}")
        return lines


def import_checkpoint(
    file: str | Path,
    source: str,
    out: str | Path,
    *,
    name: str | None = None,
    architecture: str | None = None,
    model_args: Mapping[str, Any] | None = None,
    input: ImageInput | None = None,
    trained_on: str = NOT_STATED,
    licence: str = NOT_STATED,
    dtype: str = "float32",
) -> tuple[CheckpointConfig, Account]:
    """Convert a foreign file into a checkpoint folder that `zoo.load("local-dir:OUT")` takes.

    Args:
        file: `.pth`, `.pth.tar` or `.safetensors`.
        source: a name from `LAYOUTS`.
        out: the folder to write; one that exists is replaced whole.
        name: of the checkpoint; by default that of the folder.
        architecture: a timm model such as `"resnet50"`; by default the file's own `arch` entry.
        model_args: further arguments of the timm model.
        input: preprocessing; by default the layout's.
        trained_on, licence: dataset and licence of the weights, for the record.
        dtype: on disk; float32 keeps every bit.

    Raises:
        UnknownNameError: no such layout.
        CheckpointError: the file cannot be read safely, has keys that the layout does not explain, or does
            not fit the architecture; nothing is written then.
        ConfigError: no architecture is known, or a name that cannot be.
    """
    chosen, out = layout(source), Path(out)
    foreign = read_foreign(Path(file), chosen.container)
    try:
        plain = unwrapped(list(foreign.state))
        inside, reasons = chosen.sort(list(plain.values()))
    except CheckpointError as error:
        raise CheckpointError(f"{file}: {error}") from None
    used = {key: inside[name] for key, name in plain.items() if name in inside}
    left = {key: reasons[name] for key, name in plain.items() if name in reasons}
    network = _architecture(architecture, chosen, foreign, used, dict(model_args or {}))
    state = {NETWORK + ours: foreign.state[key] for key, ours in used.items()}
    stored = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
    encoder = build_within(network, input or chosen.input, stored)
    filled = _fill(encoder, state, str(file), network)
    account = Account({key: NETWORK + ours for key, ours in used.items()}, left, filled)
    config = write_checkpoint(
        encoder.eval(),
        out,
        name=name or out.name,
        architecture=network,
        method=chosen.method,
        training=_record(foreign, Path(file), source, trained_on, licence),
        dtype=dtype,
        licence=licence,
    )
    return config, account


def _architecture(
    model: str | None, chosen: Layout, foreign: Foreign, used: dict[str, str], model_args: dict[str, Any]
) -> Architecture:
    model = model or foreign.extras.get("arch")
    if not isinstance(model, str):
        raise ConfigError("the file does not say which network it holds; give one, such as --arch resnet50")
    model, arguments = chosen.architectures.get(model, (model, {}))
    model_args = {**arguments, **model_args}
    by_name = {ours: foreign.state[key] for key, ours in used.items()}
    small = model.startswith("resnet") and "conv1.weight" in by_name and by_name["conv1.weight"].shape[-1] == 3
    stem = "cifar" if small else "imagenet"
    return Architecture(family="timm", arguments={"model": model, "stem": stem, "model_args": model_args})


def _fill(encoder: Encoder, state: dict[str, Tensor], source: str, network: Architecture) -> dict[str, str]:
    """Load `state`; what it lacks and does without comes back as key -> what was filled in.

    Raises:
        CheckpointError: other tensors are missing, unknown or of another shape.
    """
    expected = encoder.state_dict()
    # torch before 0.4.1 did not save this counter of batches, and no network reads it in eval mode.
    counters = [key for key in expected if key.endswith(f".{COUNTER}") and key not in state]
    filled = dict.fromkeys(counters, "not in the file, set to 0; only training without a fixed momentum reads it")
    state = state | {key: torch.zeros_like(expected[key]) for key in counters}
    missing, extra = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
    wrong = [key for key in expected if key in state and state[key].shape != expected[key].shape]
    if missing or extra or wrong:
        first = (missing or extra or wrong)[0].removeprefix(NETWORK)
        model = network.arguments["model"]
        raise CheckpointError(
            f"{source} is no {model}: {len(missing)} of its tensors are missing, {len(extra)} are not known to it, "
            f"{len(wrong)} have another shape (first: {quoted(first)}); choose the network with --arch"
        )
    encoder.load_state_dict(state, strict=True)
    return filled


def _record(foreign: Foreign, file: Path, source: str, trained_on: str, licence: str) -> Training:
    epochs = foreign.extras.get("epoch")
    return Training(
        recipe={"imported": {"file": file.name, "sha256": foreign.sha256, "layout": source}},
        dataset=DatasetRecord(name=trained_on, split="train", samples=None, fingerprint=NOT_STATED, licence=NOT_STATED),
        epochs=epochs if isinstance(epochs, int) and epochs >= 0 else None,
        steps=None,
        samples_seen=None,
        seed=None,
        code_commit=NOT_STATED,
        versions={name: version(name) for name in ("torch", "timm", "safetensors")},
        hardware=NOT_STATED,
        wall_time_s=None,
    )


def _group(key: str, ours: str) -> str:
    """`module.encoder_q.* -> backbone.*`: what the two names do not share."""
    tail = ours.removeprefix(NETWORK)
    return f"{key.removesuffix(tail)}* -> {NETWORK}*" if key.endswith(tail) else f"{key} -> {ours}"
