"""Image encoders: any timm backbone, with the 3x3 stem that small images need."""

from __future__ import annotations

import inspect
from typing import Any, Literal

import torch
from pydantic import Field, field_validator, model_serializer
from torch import Tensor, nn

from zoo.encoder import LAST_LAYER, Encoder, Layer
from zoo.errors import ConfigError, InputError, ZooError, nearest
from zoo.preprocessing.image import ImageInput
from zoo.strict import Strict
from zoo.text import clipped

#: Up to this side a ResNet gets the 3x3 stem: SimCLR (arXiv 2002.05709) B.9.
SMALL_IMAGE = 64


class TimmDefaults(Strict):
    """What timm derives arguments of the network from, beside its name: the size that weights were trained at."""

    input_size: tuple[Literal[3], int, int]
    fixed_input_size: bool


class TimmArguments(Strict):
    """Arguments of the `timm` family.

    `stem`: `"imagenet"` is timm's own; `"cifar"` is a 3x3 stride-1 convolution and no max-pool
    (SimCLR appendix B.9), ResNets only. A recipe may say `"auto"`; a checkpoint never does.
    `timm_defaults`: those of a checkpoint of timm; None for the defaults of the model's name.
    """

    model: str = Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9_.]+$")
    stem: Literal["imagenet", "cifar"] = "imagenet"
    model_args: dict[str, Any] = {}
    timm_defaults: TimmDefaults | None = None

    @model_serializer(mode="wrap")
    def _without_none(self, handler: Any) -> dict[str, Any]:
        # Older zoos refuse a key that they do not know.
        return {key: value for key, value in handler(self).items() if key != "timm_defaults" or value is not None}

    @field_validator("model_args")
    @classmethod
    def _model_args(cls, value: dict[str, Any]) -> dict[str, Any]:
        for key, argument in value.items():
            # timm.create_model would read a file or the network for these, or give something else than features.
            if key.startswith(("pretrained", "feature")) or key in _NOT_OF_THE_NETWORK:
                raise ValueError(f"{key!r} is no argument of the network itself")
            _check_argument(argument)
        return value


_NOT_OF_THE_NETWORK = {"checkpoint_path", "cache_dir", "num_classes", "in_chans", "out_indices", "kwargs_filter"}
_LARGEST_ARGUMENT = 1 << 14


def _check_argument(value: Any, depth: int = 0) -> None:
    """Refuse values that would only exhaust memory or time."""
    if isinstance(value, list | tuple | dict):
        if depth == 3 or len(value) > 64:
            raise ValueError("lists are at most 64 long and 3 deep")
        for item in value.values() if isinstance(value, dict) else value:
            _check_argument(item, depth + 1)
    elif isinstance(value, int | float) and not abs(value) <= _LARGEST_ARGUMENT:
        raise ValueError(f"numbers lie within +-{_LARGEST_ARGUMENT}")


def resolve_stem(stem: str, model: str, size: tuple[int, int]) -> str:
    """`"auto"` -> the stem that fits: 3x3 for `resnet*` at up to 64 px, else timm's own."""
    if stem != "auto":
        return stem
    return "cifar" if model.startswith("resnet") and max(size) <= SMALL_IMAGE else "imagenet"


class ImageEncoder(Encoder):
    """A timm backbone without its classifier: `(N, 3, H, W)` -> `(N, num_features)`."""

    Arguments = TimmArguments
    libraries = ("timm",)

    def __init__(self, arguments: TimmArguments, input: ImageInput) -> None:
        super().__init__()
        self.input = input
        self.backbone = timm_backbone(arguments, input)
        self.num_features = int(getattr(self.backbone, "head_hidden_size", 0) or self.backbone.num_features)

    def _features(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        return self.backbone.forward_features(x)

    def forward_features(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """The last map `(N, C, H', W')`, of transformers too. Raises InputError: as `forward`; tokens without a map."""
        self._check(x, lengths)
        return self._layer(self._features(x, lengths), x).map

    @property
    def layers(self) -> tuple[str, ...]:
        info = getattr(self.backbone, "feature_info", None)
        names = [part["module"] for part in info] if isinstance(info, list) else []
        return (*names, LAST_LAYER) if hasattr(self.backbone, "forward_intermediates") else (LAST_LAYER,)

    def _intermediates(self, x: Tensor, layers: tuple[str, ...]) -> dict[str, Layer]:
        names = self.layers
        indices = sorted({names.index(name) for name in layers if name != LAST_LAYER})
        if not indices:
            return {name: self._layer(self._features(x, None), x) for name in layers}
        run = self.backbone.forward_intermediates
        tokens = {"return_prefix_tokens": True} if "return_prefix_tokens" in inspect.signature(run).parameters else {}
        last, maps = run(x, indices=indices, output_fmt="NCHW", **tokens)
        parts = [part if isinstance(part, tuple) else (part, None) for part in maps]
        found = {names[i]: Layer(*part, self._class_token(part[1])) for i, part in zip(indices, parts, strict=True)}
        if LAST_LAYER in layers:
            found[LAST_LAYER] = self._layer(last, x)
        return {name: found[name] for name in layers}

    def _layer(self, raw: Tensor, x: Tensor) -> Layer:
        """What timm's `forward_features` gives, as a map with the other tokens beside it."""
        if raw.ndim == 4:
            channels_last = getattr(self.backbone, "output_fmt", "NCHW") == "NHWC"
            return Layer(raw.permute(0, 3, 1, 2) if channels_last else raw)
        count = getattr(self.backbone, "num_prefix_tokens", 0)
        patches = getattr(self.backbone, "patch_embed", None)
        if raw.ndim != 3 or not hasattr(patches, "dynamic_feat_size"):
            raise InputError(f"{self.name} gives features {tuple(raw.shape)}, which form no map")
        height, width = patches.dynamic_feat_size(tuple(x.shape[-2:]))
        if raw.shape[1] - count != height * width:
            raise InputError(f"{self.name} gives {raw.shape[1]} tokens, which are no map of {height}x{width}")
        prefix = raw[:, :count] if count else None
        tokens = raw[:, count:].transpose(1, 2)
        return Layer(tokens.reshape(len(raw), -1, height, width), prefix, self._class_token(prefix))

    def _class_token(self, prefix: Tensor | None) -> Tensor | None:
        has_one = prefix is not None and getattr(self.backbone, "cls_token", None) is not None
        return prefix[:, 0] if has_one else None

    def pool(self, features: Tensor, lengths: Tensor | None = None) -> Tensor:
        """timm's own pooling of this backbone (global average for ResNets)."""
        return self.backbone.forward_head(features, pre_logits=True)

    def check_input(self, x: Tensor, lengths: Tensor | None) -> None:
        check_images(self, x, lengths)


def check_images(encoder: Encoder, x: Tensor, lengths: Tensor | None) -> None:
    """`Encoder.check_input` of every image encoder. Raises InputError."""
    height, width = encoder.input.size
    wanted = f"(N, 3, {height}, {width})"
    came = tuple(x.shape)
    if lengths is not None:
        raise InputError(f"{encoder.name} is an image encoder and takes no `lengths`")
    if x.ndim == 3:
        raise InputError(f"{encoder.name} takes a batch {wanted}, got {came}; add a batch axis with x[None]")
    if x.ndim != 4 or x.shape[1] != 3:
        hint = "; move the channels: x.permute(0, 3, 1, 2)" if x.ndim == 4 and x.shape[-1] == 3 else ""
        raise InputError(f"{encoder.name} takes images {wanted}, got {came}{hint}")
    if x.shape[0] == 0:
        raise InputError(f"{encoder.name} got an empty batch {came}")
    if encoder.strict_input and not encoder.training and came[2:] != (height, width):
        raise InputError(
            f"{encoder.name} was trained on {height}x{width} px, got {came[2]}x{came[3]}; use "
            "encoder.transform(), or set encoder.strict_input = False to accept other sizes"
        )


def timm_backbone(arguments: TimmArguments, input: ImageInput) -> nn.Module:
    """The network that the arguments name, without its classifier. Raises ConfigError."""
    import timm

    if not timm.is_model(arguments.model):
        raise ConfigError(
            f"timm {timm.__version__} has no model {arguments.model!r}; {nearest(arguments.model, timm.list_models())}"
        )
    if arguments.stem == "cifar" and not arguments.model.startswith("resnet"):
        raise ConfigError(f"the 3x3 stem exists for resnet* only, not {arguments.model!r}; use stem 'imagenet'")
    try:
        defaults = None if arguments.timm_defaults is None else arguments.timm_defaults.model_dump()
        model = timm.create_model(
            arguments.model, pretrained=False, pretrained_cfg=defaults, num_classes=0, **arguments.model_args
        )
    except ZooError:
        raise
    except Exception as error:  # whatever a constructor does with arguments that do not suit it
        reason = (str(error).splitlines() or [""])[0]
        raise ConfigError(
            f"timm cannot build {arguments.model!r} with {clipped(arguments.model_args, 300)}: "
            f"{type(error).__name__}: {clipped(reason, 300)}"
        ) from None
    if arguments.stem == "cifar":
        width = model.conv1.out_channels if isinstance(model.conv1, nn.Conv2d) else model.conv1[-1].out_channels
        model.conv1 = nn.Conv2d(3, width, kernel_size=3, stride=1, padding=1, bias=False)
        nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
        model.maxpool = nn.Identity()
    return model.to(memory_format=torch.channels_last)
