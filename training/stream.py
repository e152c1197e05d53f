"""Pictures that are read while training goes on: crops of the whole picture at full resolution, nothing stored first.

Where `training.batches` decodes a dataset once into squares of one size, this reads each picture anew in every epoch
and cuts the crops of all views from it, as torchvision's `RandomResizedCrop` does. What follows the crop (flip, colour,
blur) is drawn in batches on the device as ever. Threads do the reading: Pillow lets go of Python's lock while it
decodes and resizes. A crop depends on seed, step, process and place in the batch alone, so that a run resumes bit for
bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from training.augment.crops import scaled
from training.augment.geometry import centre_box
from training.augment.strong import StrongAugment
from training.batches import Batches
from training.methods.base import Method
from zoo.data.base import Dataset
from zoo.data.stores.whole import WholePictures, pieces, wait_for
from zoo.preprocessing.picture import decode, to_rgb

#: Draws of one crop: ten tries of area and aspect ratio, then two places.
DRAWS = 22
FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


@dataclass(frozen=True)
class CropDraw:
    """How the crop of one view is drawn: ranges of area and of width / height, the side in pixels, the filter."""

    scale: tuple[float, float]
    ratio: tuple[float, float]
    side: int
    interpolation: str


class ViewCrops:
    """The crops of one batch, uint8 `(N, 3, S, S)` for each view, handed out in the order in which views are drawn."""

    def __init__(self, crops: Sequence[Tensor]) -> None:
        self._crops = list(crops)
        self.device = self._crops[0].device
        self._samples = len(self._crops[0])

    def __len__(self) -> int:
        return self._samples

    def take(self, count: int) -> list[Tensor]:
        """The crops of the next `count` views."""
        taken, self._crops = self._crops[:count], self._crops[count:]
        return taken


def crop_draws(method: Method, view_size: int) -> list[CropDraw]:
    """The crops of all views of a method while its usual views have `view_size` pixels."""
    made = []
    for augment in method.drawn:
        config = (augment.weak if isinstance(augment, StrongAugment) else augment).config
        side = scaled(augment.size, view_size, method.image_size)
        made.append(CropDraw(config.crop_scale, config.crop_ratio, side, config.interpolation))
    return made


class StreamBatches(Batches):
    """Batches whose `"images"` are `ViewCrops`, made by threads ahead of the step that needs them.

    Args:
        pictures: of the dataset; `get` gives these, whole, for all that is no training step.
        device: where batches go.
        draws: the crops of all views at a view size, in the order in which the method draws them.
        scaled: decode a JPEG at 1/2, 1/4 or 1/8 of its resolution where every crop is still larger than its view then.
        labels: as for `Batches`.
    """

    may_reside = False
    array: WholePictures

    def __init__(
        self,
        pictures: WholePictures,
        device: torch.device,
        draws: Callable[[int], Sequence[CropDraw]],
        scaled: bool = True,
        labels: np.ndarray | None = None,
    ) -> None:
        super().__init__(pictures, device, labels)
        self.draws, self.scaled = draws, scaled
        self._ahead: tuple[tuple, Callable[[], list[Tensor]]] | None = None

    def draw(self, rows: np.ndarray, seed: Sequence[int], view_size: int) -> dict[str, Tensor | ViewCrops]:
        key = (rows.tobytes(), tuple(seed), view_size)
        ahead, self._ahead = self._ahead, None
        ready = ahead[1] if ahead is not None and ahead[0] == key else self._start(rows, seed, view_size)
        crops = [crop.to(self.device, non_blocking=True).permute(0, 3, 1, 2) for crop in ready()]
        return {"images": ViewCrops(crops)} | self._beside(rows)

    def draw_ahead(self, rows: np.ndarray, seed: Sequence[int], view_size: int) -> None:
        self._ahead = (rows.tobytes(), tuple(seed), view_size), self._start(rows, seed, view_size)

    def _start(self, rows: np.ndarray, seed: Sequence[int], view_size: int) -> Callable[[], list[Tensor]]:
        """Begin to read; the result waits for the end."""
        draws = self.draws(view_size)
        pin = self.device.type == "cuda"
        out = [torch.empty(len(rows), d.side, d.side, 3, dtype=torch.uint8, pin_memory=pin) for d in draws]
        arrays = [each.numpy() for each in out]

        def read(part: range) -> None:
            for place in part:
                uniform = uniforms([*seed, place], len(draws))
                crops = picture_crops(self.array.dataset, int(rows[place]), draws, uniform, self.scaled)
                for array, crop in zip(arrays, crops, strict=True):
                    array[place] = crop

        futures = [self.array.pool.submit(read, part) for part in pieces(len(rows))]

        def ready() -> list[Tensor]:
            wait_for(futures)
            return out

        return ready


def picture_crops(
    dataset: Dataset, index: int, draws: Sequence[CropDraw], uniform: np.ndarray, scaled: bool = True
) -> list[np.ndarray]:
    """One uint8 crop `(S, S, 3)` for each draw, from the whole picture.

    Args:
        dataset: of images. index: of the sample.
        draws: one for each view.
        uniform: `(views, 22)` draws from U[0, 1), as `crop_box` takes them.
        scaled: as in `StreamBatches`.

    Raises:
        DataError: the picture cannot be decoded; names it.
    """
    boxes: list[tuple[int, int, int, int]] = []
    full = (0, 0)

    def reduce(width: int, height: int) -> int:
        nonlocal boxes, full
        full = width, height
        boxes = [
            crop_box(u, height, width, draw.scale, draw.ratio) for u, draw in zip(uniform.tolist(), draws, strict=True)
        ]
        room = min(min(h, w) / draw.side for (_, _, h, w), draw in zip(boxes, draws, strict=True))
        return next((by for by in (8, 4, 2) if scaled and room >= by), 1)

    file = dataset.encoded(index)
    picture = to_rgb(dataset.sample(index) if file is None else decode(*file, reduce))
    if not boxes:  # no JPEG
        reduce(*picture.size)
    across, down = picture.width / full[0], picture.height / full[1]
    made = []
    for (top, left, height, width), draw in zip(boxes, draws, strict=True):
        box, shape, kernel = (
            (left, top, left + width, top + height),
            (draw.side, draw.side),
            FILTERS[draw.interpolation],
        )
        if picture.size == full:  # cut first, as torchvision does, so that no pixel beside the box has a part
            view = picture.crop(box).resize(shape, kernel)
        else:
            scaled_box = (box[0] * across, box[1] * down, box[2] * across, box[3] * down)
            view = picture.resize(shape, kernel, box=scaled_box)
        made.append(np.asarray(view))
    return made


def crop_box(
    uniform: Sequence[float], height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float]
) -> tuple[int, int, int, int]:
    """The box of torchvision's `RandomResizedCrop`: `(top, left, height, width)` in pixels.

    The same as `training.augment.geometry.crop_boxes`, for one picture of any size.

    Args:
        uniform: 22 draws from U[0, 1): ten areas, ten aspect ratios, vertical and horizontal position.
        height, width: of the picture, in pixels.
        scale: range of the area, relative to the picture.
        ratio: range of width / height.
    """
    low, high = math.log(ratio[0]), math.log(ratio[1])
    for area, aspect in zip(uniform[:10], uniform[10:20], strict=True):
        pixels = (area * (scale[1] - scale[0]) + scale[0]) * height * width
        shape = math.exp(aspect * (high - low) + low)
        w, h = round(math.sqrt(pixels * shape)), round(math.sqrt(pixels / shape))
        if 0 < w <= width and 0 < h <= height:
            return int(uniform[20] * (height - h + 1)), int(uniform[21] * (width - w + 1)), h, w
    # None fits: the largest centred box whose aspect ratio is allowed.
    w, h = centre_box(height, width, ratio)
    return (height - h) // 2, (width - w) // 2, h, w


def uniforms(seed: Sequence[int], views: int) -> np.ndarray:
    """`(views, 22)` draws from U[0, 1) that depend on the seed alone, with every version of NumPy."""
    raw = np.random.PCG64(list(seed)).random_raw(views * DRAWS)
    return ((raw >> np.uint64(11)) * 2.0**-53).reshape(views, DRAWS)
