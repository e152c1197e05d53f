"""A trained encoder that only looks: its own preprocessing for a batch on the device, and its features."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.encoder import Encoder
from zoo.errors import ConfigError, TrainingError
from zoo.files import replacing
from zoo.preprocessing.image import ImageInput

if TYPE_CHECKING:
    from training.batches import Batches

#: Images that the teacher sees in one pass when it is asked for all of them.
CHUNK = 256


class Teacher:
    """An image encoder in eval mode, without gradients.

    Args:
        encoder: a published one, or one of timm.
        sha256: of the weights it must have; None for any.

    Raises:
        ConfigError: no image encoder, or other weights.
    """

    def __init__(self, encoder: Encoder, sha256: str | None = None) -> None:
        if not isinstance(encoder.input, ImageInput):
            raise ConfigError(f"{encoder.name} takes {encoder.modality}s; a teacher takes images")
        self.sha256 = encoder.config.weights.sha256
        if sha256 not in (None, self.sha256):
            raise ConfigError(
                f"its weights have sha256 {self.sha256[:12]}..., the recipe wants {sha256[:12]}...; give the address "
                "of those, or leave teacher_sha256 out to take what is there"
            )
        self.encoder = encoder.eval().requires_grad_(False)
        # Whether values are finite is seen in the loss; asking here would wait for the device.
        self.encoder.strict_input = False

    def check_student(self, student: Encoder) -> None:
        """Raise ConfigError unless `student` takes images."""
        if student.modality != "image":
            raise ConfigError(f"method.teacher: {self.encoder.name} takes images, the student {student.modality}s")

    @torch.no_grad()
    def of_images(self, images: Tensor) -> Tensor:
        """Features `(N, D)` float32 of whole uint8 images `(N, 3, H, W)`, resized and cropped in the middle as the
        teacher's own preprocessing does it."""
        size, fraction = self.encoder.input.size, self.encoder.input.crop_fraction
        x = images.float().div_(255)
        if fraction < 1:
            height, width = (max(1, round(side * fraction)) for side in x.shape[2:])
            top, left = (x.shape[2] - height) // 2, (x.shape[3] - width) // 2
            x = x[:, :, top : top + height, left : left + width]
        return self.encoder(self._normalised(resized(x, size)))

    @torch.no_grad()
    def of_student(self, views: Tensor, theirs: ImageInput) -> Tensor:
        """Features `(N, D)` float32 of views `(N, 3, S, S)` that are normalised as the student's input, `theirs`."""
        x = views * _channels(theirs.std, views) + _channels(theirs.mean, views)
        return self.encoder(self._normalised(resized(x, self.encoder.input.size)))

    def of_all(self, batches: Batches, size: int, rows: np.ndarray, path: Path) -> np.ndarray:
        """Features `(size, D)` float16 of the samples at `rows`, zeros elsewhere, from `path`, made if need be.

        Raises:
            TrainingError: the file is of other data or damaged, or cannot be written.
        """
        shape = (size, self.encoder.num_features)
        if not path.exists():
            made = np.zeros(shape, dtype=np.float16)
            for start in range(0, len(rows), CHUNK):
                part = rows[start : start + CHUNK]
                made[part] = self.of_images(batches.get(part)["images"]).half().cpu().numpy()
            with replacing(path, TrainingError) as temporary, temporary.open("wb") as file:
                np.save(file, made)
        try:
            found = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise TrainingError(f"{path} cannot be read ({error}); delete it, and it is made anew") from None
        if found.shape != shape or found.dtype != np.float16:
            raise TrainingError(f"{path} holds {found.shape} {found.dtype}, not {shape} float16; delete it")
        return found

    def _normalised(self, x: Tensor) -> Tensor:
        x = (x - _channels(self.encoder.input.mean, x)) / _channels(self.encoder.input.std, x)
        return x.contiguous(memory_format=torch.channels_last)


def resized(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Images `(N, 3, H, W)` in 0..1 at `size`, bicubic with antialiasing, as torchvision resizes."""
    if tuple(x.shape[2:]) == tuple(size):
        return x
    return F.interpolate(x, tuple(size), mode="bicubic", antialias=True).clamp_(0, 1)


def _channels(values: tuple[float, ...], like: Tensor) -> Tensor:
    # Filled on the device: a tensor made of Python numbers would have to be sent there, and waited for.
    return torch.cat([like.new_full((1, 1, 1, 1), value) for value in values], dim=1)
