"""Reference outputs: the features a checkpoint gave on fixed inputs when it was written, in `reference.json`.

Equal bytes prove equal weights, not equal features: another torch, timm or Pillow, another processor or a
changed preprocessing step may bend them. The inputs are made from SHAKE-256, whose bytes no library version
changes, and pass through `encoder.transform()`, so the stored features cover preprocessing and network.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, ValidationError
from torch import Tensor

from zoo.encoder import Encoder
from zoo.errors import CheckpointError, ConfigError
from zoo.preprocessing.image import ImageInput
from zoo.preprocessing.skeleton import SkeletonInput
from zoo.strict import Sha256, Strict, first_problem

FILE = "reference.json"
#: Largest allowed difference relative to the largest stored value of a row. Other processors round float32 sums
#: differently (simclr_resnet18_cifar10 written with AVX-512, run with SSE4.1: 2e-6).
TOLERANCE = 1e-3


class Reference(Strict):
    """All of `reference.json`: which weights, which inputs, and the features `(N, num_features)`."""

    format_version: Literal[1] = 1
    weights_sha256: Sha256
    inputs: Literal["shake256-v1"] = "shake256-v1"
    features: tuple[tuple[float, ...], ...] = Field(min_length=1, max_length=16)

    def to_json(self) -> str:
        """The text of `reference.json`: one line a row."""
        fields = self.model_dump(mode="json", exclude={"features"})
        rows = ",\n".join("  " + json.dumps(row, separators=(",", ":")) for row in self.features)
        return json.dumps(fields, indent=1)[:-2] + ',\n "features": [\n' + rows + "\n ]\n}\n"


def parse_reference(text: bytes, source: str) -> Reference:
    """Parse the text of a `reference.json`; `source` names it in errors. Raises ConfigError."""
    try:
        found = Reference.model_validate(json.loads(text))
    except ValidationError as error:
        raise ConfigError(f"{source}: {FILE} is not valid: {first_problem(error)}") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{source}: {FILE} is not valid JSON ({error})") from None
    if len({len(row) for row in found.features}) != 1:
        raise ConfigError(f"{source}: {FILE} is not valid: its rows differ in length")
    return found


def make_reference(encoder: Encoder, weights_sha256: str) -> Reference:
    """Run a loaded encoder (eval mode, CPU) on the fixed inputs.

    Raises:
        CheckpointError: the encoder does not take its own input, or gives NaN.
    """
    rows = reference_features(encoder).tolist()
    # Six digits: a thousand times finer than the tolerance.
    return Reference(weights_sha256=weights_sha256, features=tuple(tuple(float(f"{v:.6g}") for v in r) for r in rows))


def reference_features(encoder: Encoder) -> Tensor:
    """Features `(N, num_features)` of the fixed inputs. Raises CheckpointError."""
    transform = encoder.transform()
    try:
        with torch.inference_mode():
            if isinstance(encoder.input, SkeletonInput):
                batch, lengths = transform.collate([transform(s) for s in _sequences(encoder.input)])
                features = encoder(batch, lengths)
            else:
                # One at a time: batched kernels of some backends round differently.
                features = torch.cat([encoder(transform(image)[None]) for image in _images(encoder.input)])
    except (RuntimeError, ValueError, TypeError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"the encoder cannot run on its own input: {first}") from error
    if not features.isfinite().all():
        raise CheckpointError("the encoder gives NaN or infinite features on ordinary input; its weights are unusable")
    return features


def check_reference(reference: Reference, encoder: Encoder) -> float:
    """Compare a loaded encoder (eval mode, CPU) with stored outputs.

    Returns:
        The largest difference of any row, relative to the row's largest stored value.

    Raises:
        CheckpointError: more than `TOLERANCE`.
    """
    features = reference_features(encoder)
    stored = torch.tensor(reference.features, dtype=torch.float64)
    if stored.shape != features.shape:
        raise CheckpointError(f"{FILE} holds features {tuple(stored.shape)}, the encoder gives {tuple(features.shape)}")
    scale = stored.abs().amax(dim=1).clamp_min(1e-12)
    worst = float(((features.double() - stored).abs().amax(dim=1) / scale).max())
    if not worst <= TOLERANCE:
        raise CheckpointError(
            f"features on stored inputs differ by {worst:.1e} of the largest value, at most {TOLERANCE:g} is rounding; "
            "torch, timm or Pillow here act otherwise than those that config.json names under training.versions"
        )
    return worst


def _bytes(label: str, count: int) -> np.ndarray:
    return np.frombuffer(hashlib.shake_256(f"encoder-zoo {label}".encode()).digest(count), dtype=np.uint8)


def _images(input: ImageInput) -> list[Any]:
    """One image of the size the network takes, and a larger one that must be resized and cropped: uint8 (H, W, 3)."""
    height, width = input.size
    shapes = [(height, width), (height + height // 2, 2 * width + 1)]
    return [_bytes(f"image {i}", h * w * 3).reshape(h, w, 3) for i, (h, w) in enumerate(shapes)]


def _sequences(input: SkeletonInput) -> list[np.ndarray]:
    """Two sequences `(T, bodies * joints, C)` of different length, coordinates within a metre of the origin."""
    shapes = [(24, input.bodies * input.joints, input.channels), (17, input.bodies * input.joints, input.channels)]
    return [
        (_bytes(f"skeleton {i}", int(np.prod(shape))).reshape(shape).astype(np.float64) - 127.5) / 127.5
        for i, shape in enumerate(shapes)
    ]
