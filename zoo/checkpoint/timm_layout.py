"""timm's own checkpoints: its config.json, its preprocessing, and its weights as safetensors, loaded strictly."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor, nn

from zoo.checkpoint import weights
from zoo.checkpoint.budget import build_within, within
from zoo.checkpoint.config import CheckpointConfig, DatasetRecord, Method, Training, Weights
from zoo.checkpoint.hub import HubSource
from zoo.checkpoint.sources import Source
from zoo.encoder import Encoder
from zoo.errors import CheckpointError, ConfigError, HubError
from zoo.preprocessing.image import ImageInput
from zoo.strict import Architecture, first_problem, unique_keys

#: The one weights file that is read: a pickle would have to be run.
WEIGHTS = "model.safetensors"
_HASH = re.compile(r"[0-9a-f]{64}")
_NAME = r"^[A-Za-z0-9_]{1,128}$"
Names = str | tuple[str, ...] | None
Three = tuple[float, float, float]


class _Known(BaseModel):
    """Other keys are ignored: timm adds some in every version, and none of them changes what is loaded here."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class PretrainedRecord(_Known):
    """What is used of `pretrained_cfg`, which says how the weights were trained and preprocessed."""

    tag: str | None = Field(default=None, max_length=128)
    input_size: tuple[Literal[3], int, int] = (3, 224, 224)
    fixed_input_size: bool = False
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    crop_pct: float = Field(default=0.875, gt=0, le=1)
    crop_mode: Literal["center", "squash", "border"] = "center"
    mean: Three = (0.485, 0.456, 0.406)
    std: Three = (0.229, 0.224, 0.225)
    num_classes: int = Field(default=1000, ge=0)
    label_offset: int | None = None
    first_conv: Names = None
    classifier: Names = None
    license: str | None = None
    origin_url: str | None = None
    paper_name: str | None = None
    paper_ids: Names = None


class TimmRecord(_Known):
    """What is used of timm's config.json."""

    architecture: str = Field(pattern=_NAME)
    num_classes: int | None = Field(default=None, ge=0)
    model_args: dict[str, Any] = {}
    pretrained_cfg: PretrainedRecord


@dataclass(frozen=True)
class TimmCheckpoint:
    """A timm checkpoint before its weights are read: what to build, how to preprocess, where it comes from."""

    record: TimmRecord
    architecture: Architecture
    input: ImageInput
    address: str

    @property
    def title(self) -> str:
        """`ARCHITECTURE[.TAG]`, as timm writes it."""
        tag = self.record.pretrained_cfg.tag
        return self.record.architecture + (f".{tag}" if tag else "")

    @property
    def licence(self) -> str:
        """As config.json states it, else as timm's own registry does."""
        return self._stated("license") or "unknown"

    @property
    def origin(self) -> tuple[str, str]:
        """The paper and a URL; either may be empty."""
        ids = self._stated("paper_ids")
        papers = [self._stated("paper_name"), *([ids] if isinstance(ids, str) else ids or ())]
        return ", ".join(p for p in papers if p), self._stated("origin_url") or ""

    def _stated(self, field: str) -> Any:
        from timm.models import get_pretrained_cfg

        stated = getattr(self.record.pretrained_cfg, field)
        try:
            return stated or getattr(get_pretrained_cfg(self.title), field, None)
        except RuntimeError:  # a tag that timm does not know
            return None


def is_timm(config: bytes) -> bool:
    """Whether a config.json is timm's and not the zoo's."""
    try:
        raw = json.loads(config)
    except (ValueError, RecursionError):
        return False
    timms = isinstance(raw, dict) and isinstance(raw.get("architecture"), str) and "format_version" not in raw
    return timms and ("pretrained_cfg" in raw or "num_classes" in raw)


def parse_timm(source: Source) -> TimmCheckpoint:
    """What timm's config.json says. Raises ConfigError."""
    record = _record(source)
    cfg, args = record.pretrained_cfg, record.model_args
    # As timm reads it: these arguments free the network from the size that the weights were made at.
    free = args.get("dynamic_img_size") or args.get("strict_img_size") is False or args.get("use_naflex")
    defaults = {"input_size": list(cfg.input_size), "fixed_input_size": cfg.fixed_input_size and not free}
    arguments = {"model": record.architecture, "model_args": args, "timm_defaults": defaults}
    try:
        input = ImageInput(
            size=cfg.input_size[1:], crop_fraction=cfg.crop_pct, interpolation=cfg.interpolation,
            mean=cfg.mean, std=cfg.std, crop_mode=cfg.crop_mode,
        )  # fmt: skip
    except ValidationError as error:
        raise ConfigError(f"{source.label}: config.json of timm is not valid: {first_problem(error)}") from None
    address = f"hf-hub:{source.repo}@{source.commit}" if isinstance(source, HubSource) else source.label
    return TimmCheckpoint(record, Architecture(family="timm", arguments=arguments), input, address)


def _record(source: Source) -> TimmRecord:
    try:
        raw = json.loads(source.config, object_pairs_hook=unique_keys)
        if "pretrained_cfg" not in raw:  # files of early timm are flat
            raw = {**raw, "pretrained_cfg": raw}
        record = TimmRecord.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(f"{source.label}: config.json of timm is not valid: {first_problem(error)}") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{source.label}: config.json is not valid JSON ({error})") from None
    if record.num_classes is None:
        return record
    return record.model_copy(
        update={"pretrained_cfg": record.pretrained_cfg.model_copy(update={"num_classes": record.num_classes})}
    )


def load_timm(source: Source) -> Encoder:
    """The encoder of an opened timm checkpoint, without its classifier.

    Every tensor of the file must have its place in the whole network, and every tensor of the encoder must be in it.

    Raises:
        ConfigError: this timm has no such network. CheckpointError: the weights are missing, damaged or do not fit.
        HubError: they cannot be fetched.
    """
    found = parse_timm(source)
    path = _weights_file(source)
    buffer, sha256 = weights.read_hashed(path)
    blob = path.resolve().name
    if _HASH.fullmatch(blob) and blob != sha256:  # the hub's cache names large files by their hash
        raise CheckpointError(f"{path} is damaged: sha256 {sha256[:12]}...; {source.advice(path)}")
    entries, _ = weights.parse_header(buffer, str(path))
    stored = sum(entry.stop - entry.start for entry in entries.values())
    encoder = build_within(found.architecture, found.input, stored)
    with within(stored):
        whole = _whole(found, weights.tensors(buffer, entries), str(path))
    _hand_over(whole, encoder, found.record.pretrained_cfg.classifier, str(path))
    weights.check_finite(encoder.state_dict(), str(path))
    encoder.config = _config(found, encoder, path, sha256, entries)
    return encoder


def _weights_file(source: Source) -> Path:
    try:
        path = source.weights(_wanted())
    except HubError as error:
        if "(404)" in str(error):
            raise HubError(
                f"{source.label} has no {WEIGHTS}; the zoo never unpickles weights: use another tag or revision"
            ) from error
        raise
    return path


def _wanted() -> Weights:
    """A weights entry of which only the file's name means something."""
    return Weights.model_construct(file=WEIGHTS)


def _whole(found: TimmCheckpoint, state: dict[str, Tensor], source: str) -> nn.Module:
    """The network with its classifier, filled by timm, which renames tensors of other projects on the way."""
    import timm

    for tensor in state.values():
        # timm copies its configuration, which here holds the tensors; they all share one buffer.
        tensor.__deepcopy__ = lambda memo, tensor=tensor: tensor
    cfg, arguments = found.record.pretrained_cfg, found.architecture.arguments
    keep = ("tag", "input_size", "num_classes", "label_offset", "first_conv", "classifier")
    pretrained = {key: getattr(cfg, key) for key in keep}
    pretrained |= {"fixed_input_size": arguments["timm_defaults"]["fixed_input_size"], "state_dict": state}
    pretrained |= {"architecture": found.record.architecture}
    try:
        return timm.create_model(
            found.record.architecture, pretrained=True, pretrained_cfg=pretrained, **found.record.model_args
        )
    except CheckpointError:
        raise
    except Exception as error:  # load_state_dict and timm's renaming raise what they like on tensors that do not fit
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(f"{source}: the weights do not fit timm's {found.title}: {reason}") from None


def _hand_over(whole: nn.Module, encoder: Encoder, classifier: Names, source: str) -> None:
    """Move the tensors of `whole` to the encoder; only a classifier may be left over."""
    heads = {classifier} if isinstance(classifier, str) else set(classifier or ())
    last = whole.get_classifier() if hasattr(whole, "get_classifier") else None
    heads |= {name for name, module in whole.named_modules() if name and module is last}
    given, own = whole.state_dict(), encoder.backbone.state_dict()
    left = sorted(given.keys() - own.keys())
    strange = [name for name in left if not name.startswith(tuple(f"{head}." for head in heads))]
    missing = sorted(own.keys() - given.keys())
    if strange or missing:
        raise CheckpointError(
            f"{source}: without its classifier the network has other tensors: {len(missing)} are missing "
            f"({', '.join(missing[:3]) or 'none'}), {len(strange)} are left over ({', '.join(strange[:3]) or 'none'})"
        )
    encoder.backbone.load_state_dict({name: given[name] for name in own}, strict=True)


def _config(
    found: TimmCheckpoint, encoder: Encoder, path: Path, sha256: str, entries: dict[str, weights.Entry]
) -> CheckpointConfig:
    """What is known of the checkpoint, in the zoo's form."""
    sizes: dict[torch.dtype, int] = {}
    for entry in entries.values():
        if entry.dtype.is_floating_point:
            sizes[entry.dtype] = sizes.get(entry.dtype, 0) + entry.stop - entry.start
    dtype = str(max(sizes, key=lambda d: sizes[d], default=torch.float32)).removeprefix("torch.")
    paper, url = found.origin
    unknown = DatasetRecord(name="not stated by timm", split="all", samples=None, fingerprint="", licence="unknown")
    try:
        return CheckpointConfig(
            name="timm_" + re.sub(r"[^a-z0-9]+", "_", found.title.lower()).strip("_"),
            architecture=found.architecture,
            input=found.input,
            num_features=encoder.num_features,
            method=Method(name="timm", title=f"timm {found.title}", paper=paper, url=url),
            weights=Weights(
                file=WEIGHTS,
                sha256=sha256,
                bytes=path.stat().st_size,
                dtype=dtype,
                parameters=sum(parameter.numel() for parameter in encoder.parameters()),
            ),
            training=Training(
                recipe={"address": found.address}, dataset=unknown, epochs=None, steps=None, samples_seen=None,
                seed=None, code_commit="", versions={}, hardware="not stated", wall_time_s=None,
            ),
            licence=found.licence,
        )  # fmt: skip
    except ValidationError as error:
        raise ConfigError(f"{path}: {first_problem(error)}") from None
