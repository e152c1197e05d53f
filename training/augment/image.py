"""The augmentation of SimCLR and MoCo v2, for a whole batch on its device.

Crop, flip, colour jitter, greyscale, blur, solarize: operations, order and parameter distributions are
those of `torchvision.transforms.v2` (SimCLR: Chen et al. 2020, arXiv:2002.05709, appendix A). Every
image has its own parameters, all drawn from one generator in one call (`sample`), then carried out by
one of two renderers: `render_grouped` visits images in small groups that stay in the cache and do only
the work they need; `render_batched` does everything for everyone and never waits for the device.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

import torch
from pydantic import Field, field_validator
from torch import Tensor

from training.augment import colour, geometry
from training.augment.geometry import Interpolation, Taps
from zoo.config import Strict
from zoo.errors import InputError

Triple = tuple[float, float, float]


class ImageAugmentConfig(Strict):
    """What is drawn, and from which ranges. `p` means the probability per image.

    Attributes:
        crop_scale, crop_ratio: area relative to the image, width / height (log-uniform).
        interpolation: `"bicubic"` or `"bilinear"`, antialiased.
        flip_p, jitter_p, greyscale_p, blur_p, solarize_p: probabilities.
        strength: s of SimCLR; factors come from U(1 - x, 1 + x) with x = 0.8 s for brightness, contrast,
            saturation, and the hue turns by U(-0.2 s, 0.2 s).
        brightness, contrast, saturation, hue: replace the value that `strength` gives.
        blur_sigma: range of the standard deviation, in output pixels.
        blur_kernel: width of the blur kernel relative to the output size; made odd.
        solarize_threshold: values from here on are inverted.
        mean, std: per channel, subtracted and divided at the end; None leaves pixels in [0, 1], as SimCLR does.
    """

    crop_scale: tuple[float, float] = (0.08, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    interpolation: Interpolation = "bicubic"
    flip_p: float = Field(default=0.5, ge=0, le=1)
    jitter_p: float = Field(default=0.8, ge=0, le=1)
    strength: float = Field(default=1.0, ge=0, le=2.5)
    brightness: float | None = Field(default=None, ge=0)
    contrast: float | None = Field(default=None, ge=0)
    saturation: float | None = Field(default=None, ge=0)
    hue: float | None = Field(default=None, ge=0, le=0.5)
    greyscale_p: float = Field(default=0.2, ge=0, le=1)
    blur_p: float = Field(default=0.5, ge=0, le=1)
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    blur_kernel: float = Field(default=0.1, ge=0, le=1)
    solarize_p: float = Field(default=0.0, ge=0, le=1)
    solarize_threshold: float = Field(default=0.5, ge=0, le=1)
    mean: Triple | None = None
    std: Triple | None = None

    @field_validator("crop_scale", "crop_ratio", "blur_sigma")
    @classmethod
    def _range(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0 < value[0] <= value[1]:
            raise ValueError(f"must be (low, high) with 0 < low <= high, got {value}")
        return value

    @field_validator("crop_scale")
    @classmethod
    def _part(cls, value: tuple[float, float]) -> tuple[float, float]:
        if value[1] > 1:
            raise ValueError(f"a crop covers at most 1.0 of the area, got {value}")
        return value

    @field_validator("std")
    @classmethod
    def _positive(cls, value: Triple | None) -> Triple | None:
        if value is not None and min(value) <= 0:
            raise ValueError(f"every std must be > 0, got {value}")
        return value

    @property
    def jitter_ranges(self) -> tuple[tuple[float, float], ...]:
        """(low, high) of the brightness, contrast, saturation factors and of the hue shift."""
        scale = 0.8 * self.strength
        blends = (scale if x is None else x for x in (self.brightness, self.contrast, self.saturation))
        hue = 0.2 * self.strength if self.hue is None else self.hue
        return (*((max(0.0, 1 - x), 1 + x) for x in blends), (-hue, hue))

    def kernel_size(self, size: int) -> int:
        """Taps of the blur kernel for a view of `size` pixels: 23 at 224."""
        return int(self.blur_kernel * size) | 1


_MOCO = {"crop_scale": (0.2, 1.0), "brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1}

#: SimCLR on CIFAR and on ImageNet (appendices A, B.9); MoCo v2 (arXiv:2003.04297) at both sizes.
PRESETS: dict[str, ImageAugmentConfig] = {
    "cifar": ImageAugmentConfig(strength=0.5, blur_p=0.0),
    "imagenet": ImageAugmentConfig(),
    "moco": ImageAugmentConfig(**_MOCO),
    "moco_cifar": ImageAugmentConfig(**_MOCO, blur_p=0.0),
}


@dataclass(frozen=True)
class Parameters:
    """What happens to each image of a batch of N.

    Attributes:
        top, left, height, width: the crop, `(N,)` int64 pixels.
        flip, jitter, greyscale, blur, solarize: `(N,)` bool.
        order: `(N, 4)` int64, permutation of `colour.ADJUSTMENTS`.
        factors: `(N, 4)` float32, one per adjustment; neutral where `jitter` is False.
        sigma: `(N,)` float32 pixels.
    """

    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor
    flip: Tensor
    jitter: Tensor
    greyscale: Tensor
    blur: Tensor
    solarize: Tensor
    order: Tensor
    factors: Tensor
    sigma: Tensor

    def __getitem__(self, index: slice | Tensor) -> Parameters:
        """The parameters of some of the images."""
        return Parameters(**{name: value[index] for name, value in vars(self).items()})


def sample(
    config: ImageAugmentConfig,
    n: int,
    height: int,
    width: int,
    generator: torch.Generator | None = None,
    device: torch.device | str = "cpu",
) -> Parameters:
    """Draw the parameters for `n` images of `height` x `width` pixels, without a host synchronisation."""
    uniform = torch.rand(36, n, generator=generator, device=device)
    crop, order, amounts = uniform[:22], uniform[22:26], uniform[26:30]
    flip, jitter, greyscale, blur, solarize, sigma = uniform[30:]
    top, left, box_height, box_width = geometry.crop_boxes(crop, height, width, config.crop_scale, config.crop_ratio)
    jitter = jitter < config.jitter_p
    factors = [
        torch.where(jitter, u * (high - low) + low, neutral)
        for u, (low, high), neutral in zip(amounts, config.jitter_ranges, colour.NEUTRAL, strict=True)
    ]
    low, high = config.blur_sigma
    return Parameters(
        top=top,
        left=left,
        height=box_height,
        width=box_width,
        flip=flip < config.flip_p,
        jitter=jitter,
        greyscale=greyscale < config.greyscale_p,
        blur=blur < config.blur_p,
        solarize=solarize < config.solarize_p,
        order=order.argsort(dim=0).T,
        factors=torch.stack(factors, dim=1),
        sigma=sigma * (high - low) + low,
    )


class ImageAugment:
    """One random view of each image of a batch.

    Args:
        config: what to draw; `PRESETS` holds the published ones.
        size: side of the views, in pixels.
        compile: run the batched renderer through `torch.compile`, on any device (on the CPU this needs a
            C++ compiler).

    Example:
        >>> augment = ImageAugment(PRESETS["cifar"], size=32)
        >>> generator = torch.Generator().manual_seed(0)
        >>> augment(torch.zeros(4, 3, 32, 32, dtype=torch.uint8), generator).shape
        torch.Size([4, 3, 32, 32])
    """

    def __init__(self, config: ImageAugmentConfig, size: int, compile: bool = False) -> None:
        self.config = config
        self.size = size
        self._batched = torch.compile(render_batched) if compile else render_batched
        self._compile = compile

    @torch.no_grad()
    def __call__(
        self, images: Tensor, generator: torch.Generator | None = None, size: int | None = None
    ) -> Tensor:
        """Augment a batch.

        Args:
            images: `(N, 3, H, W)`, uint8, or float in [0, 1]; best in channels_last memory.
            generator: on the device of `images`; the views depend on its state and on nothing else.
            size: side of these views, instead of the one given at construction (multi-crop).

        Returns:
            `(N, 3, size, size)` float32 in channels_last memory, in [0, 1] unless `mean`, `std` are set.

        Raises:
            InputError: another rank, channel count or dtype; a generator of another device.
        """
        _check(images, generator)
        n, _, height, width = images.shape
        parameters = sample(self.config, n, height, width, generator, images.device)
        if images.device.type == "cpu" and not self._compile:
            return render_grouped(images, parameters, self.config, size or self.size)
        return self._in_chunks(images, parameters, size or self.size)

    def _in_chunks(self, images: Tensor, parameters: Parameters, size: int) -> Tensor:
        out = _empty_views(images, size)
        step = _chunk(images, size, floats=1 << 27)
        for part in (slice(i, i + step) for i in range(0, len(images), step)):
            out[part] = self._batched(images[part], parameters[part], self.config, size)
        return out

    def __repr__(self) -> str:
        return f"ImageAugment(size={self.size}, {self.config!r})"


def _check(images: Tensor, generator: torch.Generator | None) -> None:
    if images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape[2:]:
        raise InputError(f"expected images (N, 3, H, W), got shape {tuple(images.shape)}")
    if images.dtype != torch.uint8 and not images.is_floating_point():
        raise InputError(f"expected uint8 images, or float ones in [0, 1], got {images.dtype}")
    if generator is not None and generator.device.type != images.device.type:
        raise InputError(
            f"the generator is on {generator.device}, the images on {images.device}; "
            f"make it with torch.Generator(device={str(images.device)!r})"
        )


def _empty_views(images: Tensor, size: int) -> Tensor:
    shape = (len(images), 3, size, size)
    return torch.empty(shape, device=images.device, memory_format=torch.channels_last)


def _chunk(images: Tensor, size: int, floats: int) -> int:
    """How many images at once, so that one copy of them takes at most `floats` numbers."""
    return max(1, floats // (3 * max(size * size, images.shape[2] * images.shape[3])))


def _crop_taps(images: Tensor, parameters: Parameters, config: ImageAugmentConfig, size: int) -> tuple[Taps, Taps]:
    """Taps along the rows and the columns of crop, resize and flip; uint8 pixels are scaled to 0..1 too."""
    height, width = images.shape[2:]
    p, how = parameters, config.interpolation
    rows = geometry.resize_taps(p.top, p.height, height, size, how)
    columns = geometry.resize_taps(p.left, p.width, width, size, how, p.flip)
    if images.dtype == torch.uint8:
        columns.weight.div_(255)
    return rows, columns


def _normalise_(images: Tensor, config: ImageAugmentConfig) -> Tensor:
    # Channel by channel with Python numbers: a tensor of means would have to be sent to the device.
    for channel, mean in zip(images.unbind(dim=1), config.mean or (), strict=False):
        channel.sub_(mean)
    for channel, std in zip(images.unbind(dim=1), config.std or (), strict=False):
        channel.div_(std)
    return images


def render_batched(images: Tensor, parameters: Parameters, config: ImageAugmentConfig, size: int) -> Tensor:
    """Apply `parameters` with the same operations for every image, on any device: `(N, 3, size, size)`."""
    p = parameters
    rows, columns = _crop_taps(images, p, config, size)
    height, width = images.shape[2:]
    views = geometry.separable(images.float(), rows.dense(height), columns.dense(width)).clamp_(0, 1)
    if config.jitter_p > 0:
        colour.jitter_(views, p.order, p.factors)
    if config.greyscale_p > 0:
        views = torch.where(_per_image(p.greyscale), colour.grey(views), views)
    if config.blur_p > 0:
        blur = geometry.blur_taps(p.sigma, config.kernel_size(size), size).dense(size)
        views = torch.where(_per_image(p.blur), geometry.separable(views, blur, blur), views)
    if config.solarize_p > 0:
        views = torch.where(_per_image(p.solarize), colour.solarize_(views.clone(), config.solarize_threshold), views)
    return _normalise_(views, config)


def _per_image(value: Tensor) -> Tensor:
    return value.view(-1, 1, 1, 1)


#: Floats of one group on the CPU: views and a few temporaries fit a second-level cache.
GROUP_FLOATS = 1 << 16
#: From this side on, the matrices of crop and blur are worth splitting into blocks of their band.
BANDED_FROM = 96


def render_grouped(images: Tensor, parameters: Parameters, config: ImageAugmentConfig, size: int) -> Tensor:
    """Apply `parameters`, visiting the images in groups that share their order of colour operations."""
    rows, columns = _crop_taps(images, parameters, config, size)
    out = _empty_views(images, size)
    for order, members in _groups(parameters, _chunk(images, size, GROUP_FLOATS)):
        p = parameters[members]
        views = _crop(images, members, p, _take(rows, members), _take(columns, members)).clamp_(0, 1)
        for operation in order:
            colour.ADJUSTMENTS[operation](views, p.factors[:, operation])
        for run in _runs(p.greyscale):
            colour.rgb_to_grayscale_(views[run])
        for run in _runs(p.blur):
            views[run] = _blur(views[run], p.sigma[run], config.kernel_size(size))
        for run in _runs(p.solarize):
            colour.solarize_(views[run], config.solarize_threshold)
        out[members] = _normalise_(views, config)
    return out


def _groups(parameters: Parameters, at_most: int) -> Iterator[tuple[tuple[int, ...], Tensor]]:
    """(order of colour operations, indices of at most `at_most` images that share it).

    Within a group the images that are greyed lie side by side, and so do those that are blurred.
    """
    p = parameters
    orders = [tuple(order) if jitter else () for order, jitter in zip(p.order.tolist(), p.jitter.tolist(), strict=True)]
    rest = torch.stack([p.greyscale, p.greyscale ^ p.blur, p.solarize], dim=1).tolist()
    ranked = sorted(range(len(orders)), key=lambda i: (orders[i], rest[i]))
    for order, group in groupby(ranked, key=orders.__getitem__):
        members = list(group)
        for start in range(0, len(members), at_most):
            yield order, torch.tensor(members[start : start + at_most])


def _runs(flags: Tensor) -> list[slice]:
    """The stretches of True in a short vector."""
    runs, start = [], 0
    for value, group in groupby(flags.tolist()):
        end = start + len(list(group))
        if value:
            runs.append(slice(start, end))
        start = end
    return runs


def _take(taps: Taps, members: Tensor) -> Taps:
    return Taps(taps.first[members], taps.weight[members])


def _crop(images: Tensor, members: Tensor, p: Parameters, rows: Taps, columns: Taps) -> Tensor:
    height, width = images.shape[2:]
    if max(height, width, rows.weight.shape[1]) < BANDED_FROM:
        return geometry.separable(_planes(images[members]), rows.dense(height), columns.dense(width))
    views = []
    for k, i in enumerate(members.tolist()):
        top, left, h, w = (int(x[k]) for x in (p.top, p.left, p.height, p.width))
        box = _planes(images[i, :, top : top + h, left : left + w])
        y = Taps(rows.first[k : k + 1] - top, rows.weight[k : k + 1])
        x = Taps(columns.first[k : k + 1] - left, columns.weight[k : k + 1])
        views.append(geometry.separable_banded(box, y, x))
    return torch.stack(views)


def _planes(pixels: Tensor) -> Tensor:
    return pixels.contiguous().float()


def _blur(views: Tensor, sigma: Tensor, kernel_size: int) -> Tensor:
    size = views.shape[-1]
    taps = geometry.blur_taps(sigma, kernel_size, size)
    if size < BANDED_FROM:
        return geometry.separable(views, taps.dense(size), taps.dense(size))
    singles = (Taps(taps.first[k : k + 1], taps.weight[k : k + 1]) for k in range(len(views)))
    return torch.stack([geometry.separable_banded(view, t, t) for view, t in zip(views, singles, strict=True)])
