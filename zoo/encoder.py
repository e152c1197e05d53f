"""`Encoder`: the one contract that every model of the zoo keeps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.fx
from torch import Tensor, nn

from zoo.errors import InputError, nearest

if TYPE_CHECKING:
    from zoo.checkpoint.config import CheckpointConfig
    from zoo.preprocessing.image import ImageInput
    from zoo.preprocessing.skeleton import SkeletonInput


#: The layer that `forward_features` gives; every image encoder has it.
LAST_LAYER = "features"


class Layer(NamedTuple):
    """What one layer of an image encoder gives.

    Attributes:
        map: `(N, C, H, W)`.
        prefix: the tokens of a transformer that belong to no place, class and register tokens: `(N, P, C)`, or None.
        cls: the class token `(N, C)`, or None.
    """

    map: Tensor
    prefix: Tensor | None = None
    cls: Tensor | None = None


class Encoder(nn.Module):
    """A network from an input to one feature vector, before any projection head.

    Subclasses set `num_features` (int) and `input` (`ImageInput` or `SkeletonInput`) and implement
    `forward_features`, `pool` and `check_input`.

    Attributes:
        num_features: length of the vector that `forward` gives.
        input: the preprocessing that belongs to the weights.
        config: the checkpoint's `CheckpointConfig`; None for an encoder that was never published.
        min_side: smallest side in pixels of the images that it takes; of the class, so that a recipe can be
            checked before anything is built.
        libraries: large ones that building the network imports, so that a limit on its time need not count them.
        strict_input: in eval mode, refuse inputs whose size differs from `input` or that hold NaN.
            Training and feature extraction switch the costly part off and check results instead.
        data_statistics: names in the state of what `fit_to_data` sets; empty for a family that takes nothing from
            the data before training. An untrained baseline of a checkpoint keeps them.
        fixed: names of the parameters that the architecture itself never trains; `build` sets it. Fine-tuning leaves
            them as they are, whatever else was frozen or not meanwhile.
        still: names of modules that stay in eval mode while the rest trains; a training that holds parts still sets it.
    """

    num_features: int
    input: ImageInput | SkeletonInput
    config: CheckpointConfig | None = None
    min_side: int = 1
    libraries: tuple[str, ...] = ()
    strict_input: bool = True
    data_statistics: tuple[str, ...] = ()
    fixed: tuple[str, ...] = ()
    still: tuple[str, ...] = ()

    def train(self, mode: bool = True) -> Encoder:
        """As `torch.nn.Module.train`, but for what is held `still`."""
        super().train(mode)
        for name in self.still:
            self.get_submodule(name).eval()
        return self

    @property
    def name(self) -> str:
        """The checkpoint's name, or the class name for an unpublished encoder."""
        return self.config.name if self.config is not None else type(self).__name__

    @property
    def modality(self) -> str:
        """`"image"` or `"skeleton"`."""
        return self.input.modality

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Pooled representation h.

        Args:
            x: images `(N, 3, H, W)` float as `transform()` gives, or skeletons `(N, T, V, C)`.
            lengths: `(N,)` valid frames per sequence; skeletons only.

        Returns:
            `(N, num_features)` float32.

        Raises:
            InputError: wrong rank, size, dtype, or values that are not finite.
        """
        self._check(x, lengths)
        features = self._features(x, lengths)
        return self.pool(features, lengths).float()

    def forward_features(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Unpooled features: images `(N, C, H', W')`, skeletons `(N, T, C)`. Raises as `forward`.

        The tokens of a transformer come as a map, without class and register tokens.
        """
        self._check(x, lengths)
        return self._features(x, lengths)

    @property
    def layers(self) -> tuple[str, ...]:
        """Names that `forward_intermediates` takes, from input to output; the last is that of `forward_features`."""
        return (LAST_LAYER,) if self.modality == "image" else ()

    def forward_intermediates(self, x: Tensor, layers: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Maps of several depths: images `(N, 3, H, W)` -> name: `(N, C, H', W')`; image encoders only.

        Args:
            layers: names from `self.layers`; None for all. They hold what the layer itself gives: in a transformer,
                only the last one has passed the final norm.

        Raises:
            InputError: as `forward`; an unknown layer.
        """
        return {name: found.map for name, found in self.intermediates(x, layers).items()}

    def intermediates(self, x: Tensor, layers: Sequence[str] | None = None) -> dict[str, Layer]:
        """`forward_intermediates` with the class and register tokens beside each map."""
        wanted = self.layers if layers is None else tuple(layers)
        self.check_layers(wanted)
        self._check(x, None)
        return self._intermediates(x, wanted)

    def check_layers(self, layers: Sequence[str]) -> None:
        """Raise InputError if a layer does not exist."""
        if not self.layers:
            raise InputError(f"{self.name} takes {self.modality}s; layers are given by image encoders only")
        for name in layers:
            if name not in self.layers:
                raise InputError(f"{self.name} has no layer {name!r}; {nearest(name, list(self.layers))}")

    def _intermediates(self, x: Tensor, layers: tuple[str, ...]) -> dict[str, Layer]:
        return {LAST_LAYER: Layer(self.forward_features(x))} if layers else {}

    def transform(self) -> Any:
        """Evaluation preprocessing: one PIL image, array or skeleton sequence -> what `forward` takes, unbatched."""
        return self.input.transform()

    def fit_to_data(self, images: Tensor) -> None:
        """Set `data_statistics` from training images, once before training starts; most families have none.

        Args:
            images: `(N, 3, H, W)` of any size, uint8, or float as `transform()` gives; never labels.

        Raises:
            InputError: the images do not suit the family; the encoder is unchanged then.
        """

    @torch.no_grad()
    def copy_data_statistics(self, other: Encoder) -> None:
        """Take over the `data_statistics` of an encoder of the same architecture."""
        own, theirs = self.state_dict(), other.state_dict()
        for name in self.data_statistics:
            own[name].copy_(theirs[name])

    def _features(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        raise NotImplementedError

    def pool(self, features: Tensor, lengths: Tensor | None = None) -> Tensor:
        """What `_features` gives -> `(N, num_features)`."""
        raise NotImplementedError

    def check_input(self, x: Tensor, lengths: Tensor | None) -> None:
        """Raise InputError if rank, channels or (in eval mode) size do not fit."""
        raise NotImplementedError

    def _check(self, x: Tensor, lengths: Tensor | None) -> None:
        # What is traced has no values to check.
        if torch.compiler.is_compiling() or torch.jit.is_tracing() or isinstance(x, torch.fx.Proxy):
            return
        if not isinstance(x, Tensor):
            raise InputError(
                f"{self.name} takes a torch.Tensor, got {type(x).__name__}; "
                "apply encoder.transform() to one sample and stack the results"
            )
        if not x.is_floating_point():
            raise InputError(
                f"{self.name} takes float tensors, got {x.dtype}; encoder.transform() "
                "turns 8-bit images into the floats that the weights expect"
            )
        self.check_input(x, lengths)
        # On an accelerator this read-back would stall the queue, so training never does it.
        if self.strict_input and not self.training and not bool(torch.isfinite(x).all()):
            raise InputError(f"{self.name}: the input holds NaN or infinite values")
