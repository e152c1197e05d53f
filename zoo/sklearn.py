"""`EncoderTransformer`: an encoder of the zoo as a scikit-learn transformer."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import validate_data

from zoo.data.base import NOUNS
from zoo.data.images import both_readings
from zoo.encoder import Encoder
from zoo.errors import InputError
from zoo.features.extract import embed
from zoo.preprocessing.picture import CHANNELS, eight_bits


class EncoderTransformer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Images or skeletons -> frozen features, for `Pipeline`, `GridSearchCV` and the rest of scikit-learn.

    `fit` learns nothing: it loads the encoder and checks the input. With an address (not an `Encoder`), a pickle
    or a worker process gets the address alone and loads the weights again.

    `X` is one of: a list, tuple or 1-d object array of what the encoder's `transform()` takes (PIL images, arrays or
    file paths; skeleton sequences `(T, V, 3)`); an array of images `(N, H, W)`, `(N, H, W, 3)` or `(N, H, W, 4)`, or of
    skeletons `(N, T, V, 3)`; with `image_shape`, flat rows `(n_samples, n_features)`. Samples are prepared as the
    encoder's modality asks: skeleton coordinates are never turned into pixels.

    `sklearn.utils.estimator_checks.check_estimator` feeds flat rows of any length and sign, so it runs with
    `image_shape=(1, -1)` and a wide `pixel_range`. Given an address every check passes; scikit-learn itself skips
    `check_array_api_input` unless `SCIPY_ARRAY_API=1` is set. Given an `Encoder`, `check_estimators_overwrite_params`
    fails: it compares `joblib.hash` of copies, which differs between equal copies of a torch module. Without
    `image_shape` there is no 2-d input to give, and scikit-learn runs none of its data checks.

    Args:
        encoder: what `zoo.load` takes, or an `Encoder`.
        batch_size: images per forward pass.
        device: where to run; None is the encoder's own device, else the GPU if there is one.
        precision: `"auto"`, `"fp32"`, `"bf16"` or `"fp16"`, see `zoo.extract`.
        image_shape: `(H, W)`, `(H, W, C)` or, for skeletons, `(T, V, 3)` that flat rows are reshaped to; one side may
            be -1, as in `numpy.reshape`. None refuses 2-d input.
        pixel_range: (black, white) of images in arrays. None is (0, 255) for integers, (0, 65535) for uint16, (0, 1)
            for floats.

    Attributes:
        encoder_: the loaded `Encoder`.
        n_features_in_: length of a flat row; only after a fit on flat rows.
    """

    def __init__(
        self,
        encoder: str | os.PathLike[str] | Encoder = "simclr_airbench95_cifar10",
        batch_size: int = 256,
        device: str | None = None,
        precision: str = "auto",
        image_shape: tuple[int, ...] | None = None,
        pixel_range: tuple[float, float] | None = None,
    ) -> None:
        self.encoder = encoder
        self.batch_size = batch_size
        self.device = device
        self.precision = precision
        self.image_shape = image_shape
        self.pixel_range = pixel_range

    def fit(self, X: Any, y: Any = None) -> EncoderTransformer:
        """Load the encoder and check the kind of input; `y` is ignored.

        Raises:
            ZooError: the encoder cannot be loaded.
            ValueError: `X` is not what the class takes (InputError is a ValueError).
        """
        encoder = self._load()
        self._samples(X, encoder, reset=True)
        self.encoder_ = encoder
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Features `(n_samples, num_features)` float32; a DataFrame after `set_output(transform="pandas")`.

        Raises:
            InputError, DataError: as `zoo.extract`.
        """
        if not hasattr(self, "encoder_"):
            self.encoder_ = self._load()
        samples = self._samples(X, self.encoder_, reset=False)
        return embed(self.encoder_, samples, batch_size=self.batch_size, device=self.device, precision=self.precision)

    @property
    def _n_features_out(self) -> int:
        return (self.encoder_ if hasattr(self, "encoder_") else self._load()).num_features

    def _load(self) -> Encoder:
        if isinstance(self.encoder, Encoder):
            return self.encoder
        from zoo.checkpoint.loading import load

        return load(os.fspath(self.encoder))

    def _samples(self, X: Any, encoder: Encoder, reset: bool) -> Any:
        skeletons = encoder.modality == "skeleton"
        if skeletons and self.pixel_range is not None:
            raise InputError(f"pixel_range is for images; {encoder.name} takes skeletons, leave it out")
        if self.image_shape is not None:
            rows = _reshape(validate_data(self, X, reset=reset), self.image_shape)
            return rows if skeletons else _pixels(rows, self.pixel_range)
        if hasattr(X, "to_numpy"):  # a column of paths
            X = X.to_numpy()
        if isinstance(X, np.ndarray) and X.ndim == 2 and X.shape[1] == 1 and X.dtype.kind in "OU":
            X = X[:, 0]
        if not isinstance(X, (np.ndarray, list, tuple)):
            raise InputError(f"expected a list or array of {NOUNS[encoder.modality][1]}, got {type(X).__name__}")
        if not isinstance(X, np.ndarray) or X.dtype.kind in "OU":
            return X
        if X.ndim == 2:
            raise InputError(
                f"2-d input of shape {X.shape}: say what {NOUNS[encoder.modality][0]} a row of {X.shape[1]} values is, "
                f"as in EncoderTransformer(image_shape={'(-1, 20, 3)' if skeletons else '(8, 8)'})"
            )
        if skeletons:
            return X
        if X.ndim == 3 and X.shape[-1] in CHANNELS:
            raise InputError(both_readings(X.shape))
        return _pixels(X, self.pixel_range)

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        if not isinstance(self.encoder, Encoder):
            state.pop("encoder_", None)
        return state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.input_tags.two_d_array = self.image_shape is not None
        tags.input_tags.three_d_array = self.image_shape is None
        tags.transformer_tags.preserves_dtype = []
        return tags


def _reshape(rows: np.ndarray, image_shape: tuple[int, ...]) -> np.ndarray:
    try:
        return rows.reshape(len(rows), *image_shape)
    except (ValueError, TypeError) as error:
        raise InputError(f"rows of {rows.shape[1]} features do not fit image_shape={image_shape}: {error}") from None


def _pixels(images: np.ndarray, pixel_range: tuple[float, float] | None) -> np.ndarray:
    """Images `(N, H, W[, C])` of any numeric dtype -> uint8 `(N, H, W, C)`, black at 0 and white at 255."""
    if images.ndim == 3:  # the first axis counts samples, always, in scikit-learn
        images = images[..., None]
    if pixel_range is None and images.dtype in (np.uint8, np.uint16, np.bool_):
        return eight_bits(images)
    low, high = pixel_range or ((0.0, 1.0) if images.dtype.kind in "fb" else (0.0, 255.0))
    if not high > low:
        raise InputError(f"pixel_range must be (black, white) with black < white, got {pixel_range}")
    least, most = images.min(initial=high), images.max(initial=low)
    if not (low <= least and most <= high):  # also refuses NaN
        raise InputError(
            f"pixels lie in {least:g}..{most:g}, expected {low:g}..{high:g}; set pixel_range=(black, white)"
        )
    if pixel_range is None and images.dtype.kind == "f":
        return eight_bits(images)
    return np.round((images.astype(np.float32) - low) * (255 / (high - low))).astype(np.uint8)
