"""Carry out the parameters of a batch: two renderers, one definition of every operation.

`render_batched` does everything for everyone: no branch depends on a value, so it never waits for the
device. `render_grouped`, for the CPU, sorts the images so that those that need the same operation are
neighbours, visits them in parts that stay in the cache, and does only the work that each needs. Both
give the same views up to float32 rounding.
"""

from __future__ import annotations

from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from training.augment import colour, geometry
from training.augment.geometry import Taps
from training.augment.parameters import ImageAugmentConfig, Parameters

#: Floats of the views that the CPU works on at a time, so that they stay in its cache.
PART_FLOATS = 1 << 18
#: From this side on, the matrices of crop and blur are worth splitting into blocks of their band.
BANDED_FROM = 96


def render_batched(
    images: Tensor, parameters: Parameters, config: ImageAugmentConfig, size: int, native: bool = False
) -> Tensor:
    """Views `(N, 3, size, size)` of `images` `(N, 3, H, W)`, uint8 or float, on any device.

    With `native`, the crops have `size` pixels a side already and are not resampled.
    """
    p = parameters
    height, width = images.shape[2:]
    if native:
        views = _patches(images, torch.arange(len(images), device=images.device), p, size)
    else:
        rows, columns = _crop_taps(images, p, config, size)
        views = geometry.separable(images.float(), rows.dense(height), columns.dense(width)).clamp_(0, 1)
    if config.jitter_p > 0:
        colour.jitter_(views, p.order, p.factors)
    if config.greyscale_p > 0:
        views = torch.where(_per_image(p.greyscale), colour.grey(views), views)
    if config.blur_p > 0:
        blur = geometry.blur_taps(p.sigma, config.kernel_size(size), size).dense(size)
        views = torch.where(_per_image(p.blur), geometry.separable(views, blur, blur), views)
    if config.solarize_p > 0:
        inverted = colour.solarize_(views.clone(), config.solarize_threshold)
        views = torch.where(_per_image(p.solarize), inverted, views)
    return normalise_(views, config)


def render_grouped(
    images: Tensor, parameters: Parameters, config: ImageAugmentConfig, size: int, native: bool = False
) -> Tensor:
    """The same on the CPU, group by group; channels_last memory."""
    ranked, orders = _rank(parameters)
    index = torch.tensor(ranked, dtype=torch.long)
    p = parameters[index]
    if not native:
        rows, columns = _crop_taps(images, p, config, size)
        boxes = torch.stack([p.top, p.left, p.height, p.width], dim=1).tolist()
    greyscale, blur, solarize = p.greyscale.tolist(), p.blur.tolist(), p.solarize.tolist()
    out = empty_views(images, size)
    for part in _parts(len(ranked), images_within(PART_FLOATS, images, size)):
        members, factors, sigma = ranked[part], p.factors[part], p.sigma[part]
        if native:
            views = _patches(images, index[part], p[part], size)
        else:
            views = _crop(images, members, boxes[part], rows[part], columns[part]).clamp_(0, 1)
        for order, run in _runs(orders[part]):
            for operation in order:
                colour.ADJUSTMENTS[operation](views[run], factors[run, operation])
        for run in _where(greyscale[part]):
            colour.rgb_to_grayscale_(views[run])
        for run in _where(blur[part]):
            _blur_(views[run], sigma[run], config.kernel_size(size))
        for run in _where(solarize[part]):
            colour.solarize_(views[run], config.solarize_threshold)
        for i, view in zip(members, normalise_(views, config), strict=True):
            out[i].copy_(view)
    return out


def empty_views(images: Tensor, size: int) -> Tensor:
    """Room for one view of each image, channels_last, on their device."""
    shape = (len(images), 3, size, size)
    return torch.empty(shape, device=images.device, memory_format=torch.channels_last)


def images_within(floats: int, images: Tensor, size: int) -> int:
    """How many images, at least 1, take at most `floats` numbers, before as well as after the crop."""
    return max(1, floats // (3 * max(size * size, images.shape[2] * images.shape[3])))


def _per_image(value: Tensor) -> Tensor:
    return value.view(-1, 1, 1, 1)


def _patches(images: Tensor, members: Tensor, p: Parameters, size: int) -> Tensor:
    """Native patches as planes of float32 in 0..1; `p` are the parameters of `members`."""
    pixels = geometry.patches(images, members, p.top, p.left, size, p.flip)
    scale = 1 / 255 if images.dtype == torch.uint8 else 1.0
    return _planes(pixels).mul_(scale)


def _crop_taps(images: Tensor, p: Parameters, config: ImageAugmentConfig, size: int) -> tuple[Taps, Taps]:
    """Rows and columns of crop, resize and flip; for uint8 pixels they scale to 0..1 as well."""
    height, width = images.shape[2:]
    rows = geometry.resize_taps(p.top, p.height, height, size, config.interpolation)
    columns = geometry.resize_taps(p.left, p.width, width, size, config.interpolation, p.flip)
    if images.dtype == torch.uint8:
        columns.weight.div_(255)
    return rows, columns


def normalise_(views: Tensor, config: ImageAugmentConfig) -> Tensor:
    """Subtract `config.mean` and divide by `config.std`, where given, in place."""
    # Channel by channel with Python numbers: a tensor of means would have to be sent to the device.
    if config.mean is not None:
        for channel, mean in zip(views.unbind(dim=1), config.mean, strict=True):
            channel.sub_(mean)
    if config.std is not None:
        for channel, std in zip(views.unbind(dim=1), config.std, strict=True):
            channel.div_(std)
    return views


def denormalised(views: Tensor, config: ImageAugmentConfig) -> Tensor:
    """The inverse of `normalise_`, a new tensor."""
    mean, std = config.mean or (0.0,) * 3, config.std or (1.0,) * 3
    mean, std = (torch.tensor(v, dtype=views.dtype, device=views.device).view(1, 3, 1, 1) for v in (mean, std))
    return views * std + mean


def _rank(p: Parameters) -> tuple[list[int], list[tuple[int, ...]]]:
    """Indices sorted so that like images are neighbours, and the order of colour operations of each.

    Among images of one order, those that are greyed are neighbours, and so are those that are blurred.
    """
    jitters = zip(p.order.tolist(), p.jitter.tolist(), strict=True)
    orders = [tuple(order) if jitter else () for order, jitter in jitters]
    rest = torch.stack([p.greyscale, p.greyscale ^ p.blur, p.solarize], dim=1).tolist()
    ranked = sorted(range(len(orders)), key=lambda i: (orders[i], rest[i]))
    return ranked, [orders[i] for i in ranked]


def _parts(n: int, at_most: int) -> list[slice]:
    return [slice(start, start + at_most) for start in range(0, n, at_most)]


def _runs(values: list[Any]) -> list[tuple[Any, slice]]:
    """The stretches of equal values."""
    runs, start = [], 0
    for value, equal in groupby(values):
        end = start + len(list(equal))
        runs.append((value, slice(start, end)))
        start = end
    return runs


def _where(flags: list[bool]) -> list[slice]:
    """The stretches of True."""
    return [run for flag, run in _runs(flags) if flag]


def _crop(images: Tensor, members: list[int], boxes: list[list[int]], rows: Taps, columns: Taps) -> Tensor:
    height, width = images.shape[2:]
    size = rows.weight.shape[1]
    if max(height, width, size) < BANDED_FROM:
        # Pixel rows as the slowest axis: gathering channels_last images is then a plain copy of each.
        chosen = images.permute(0, 2, 3, 1).index_select(0, torch.tensor(members)).permute(0, 3, 1, 2)
        return geometry.separable(_planes(chosen), rows.dense(height), columns.dense(width))
    views = torch.empty(len(members), 3, size, size)
    for k, (i, (top, left, h, w)) in enumerate(zip(members, boxes, strict=True)):
        box = _planes(images[i, :, top : top + h, left : left + w])
        y, x = rows[k : k + 1], columns[k : k + 1]
        geometry.separable_banded(box, Taps(y.first - top, y.weight), Taps(x.first - left, x.weight), out=views[k])
    return views


def _planes(pixels: Tensor) -> Tensor:
    return pixels.contiguous().float()


def _blur_(views: Tensor, sigma: Tensor, kernel_size: int) -> None:
    size = views.shape[-1]
    taps = geometry.blur_taps(sigma, kernel_size, size)
    if size < BANDED_FROM:
        matrix = taps.dense(size)
        views.copy_(geometry.separable(views, matrix, matrix))
        return
    for k, view in enumerate(views):
        geometry.separable_banded(view, taps[k : k + 1], taps[k : k + 1], out=view)
