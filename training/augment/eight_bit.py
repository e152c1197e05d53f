"""Image operations on 8-bit pixels, as Pillow computes them, for a batch with a parameter per image.

Three kinds cover all of them: a look-up table per channel, a blend with a filtered image, and an affine
map with nearest resampling. Images are uint8 `(N, 3, H, W)`; parameters are `(N,)` on the same device.
Nothing here waits for the device. Arithmetic, roundings included, is that of Pillow's `ImageOps`,
`ImageEnhance` and `Image.transform`, so results are equal, not just close.
"""

from __future__ import annotations

import torch
from torch import Tensor

LEVELS = 256
#: Fractional bits of Pillow's fixed-point coordinates.
FRACTION = 16


# -- look-up tables: (N, 3, 256) or, where channels share one, (N, 1, 256) ---------------------------


def look_up(images: Tensor, tables: Tensor) -> Tensor:
    """Replace every value by its entry in the table of its image and channel."""
    n, channels, height, width = images.shape
    tables = tables.expand(n, channels, LEVELS).reshape(n * channels, LEVELS)
    values = images.reshape(n * channels, height * width).long()
    return tables.gather(1, values).view(n, channels, height, width)


def identity_tables(images: Tensor) -> Tensor:
    """Tables that change nothing, uint8 `(N, 3, 256)`."""
    return _levels(images).to(torch.uint8).expand(len(images), 3, LEVELS).clone()


def brightness_tables(factor: Tensor) -> Tensor:
    """Blend with black; `factor` in [0, 1]."""
    return _blend(torch.zeros_like(factor).view(-1, 1, 1), _levels(factor), factor.view(-1, 1, 1))


def contrast_tables(images: Tensor, factor: Tensor) -> Tensor:
    """Blend with the mean grey value of the image, rounded; `factor` in [0, 1]."""
    pixels = images.shape[2] * images.shape[3]
    total = grey(images).sum(dim=(1, 2, 3))
    mean = (2 * total + pixels) // (2 * pixels)
    return _blend(mean.view(-1, 1, 1), _levels(images), factor.view(-1, 1, 1))


def posterize_tables(bits: Tensor) -> Tensor:
    """Keep the upper `bits` (int64) of every value."""
    dropped = (8 - bits).view(-1, 1, 1)
    return ((_levels(bits) >> dropped) << dropped).to(torch.uint8)


def solarize_tables(threshold: Tensor) -> Tensor:
    """Values of `threshold` (int64) and above become 255 - value."""
    levels = _levels(threshold)
    return torch.where(levels < threshold.view(-1, 1, 1), levels, 255 - levels).to(torch.uint8)


def auto_contrast_tables(images: Tensor) -> Tensor:
    """Stretch each channel to 0..255; a channel of one value stays."""
    low, high = torch.aminmax(images.flatten(2), dim=2, keepdim=True)
    low, high = low.double(), high.double()
    # `255 / x` is 255 * (1 / x) in torch, which may land just below a whole number.
    scale = torch.full_like(low, 255) / (high - low)
    stretched = (_levels(images) * scale - low * scale).clamp_(0, 255)
    return torch.where(high > low, stretched, _levels(images).double()).to(torch.uint8)


def equalize_tables(images: Tensor) -> Tensor:
    """Make the histogram of each channel flat."""
    histogram = _histograms(images)
    levels = _levels(images)
    last = (levels * (histogram > 0)).amax(dim=2, keepdim=True)
    step = (histogram.sum(dim=2, keepdim=True) - histogram.gather(2, last)) // 255
    below = histogram.cumsum(dim=2) - histogram
    flat = (step // 2 + below) // step.clamp(min=1)
    return torch.where(step > 0, flat, levels).clamp_(max=255).to(torch.uint8)


def _histograms(images: Tensor) -> Tensor:
    values = images.flatten(2).long()
    histogram = torch.zeros(*images.shape[:2], LEVELS, dtype=torch.int64, device=images.device)
    return histogram.scatter_add_(2, values, torch.ones_like(values))


def _levels(like: Tensor) -> Tensor:
    return torch.arange(LEVELS, device=like.device).view(1, 1, LEVELS)


# -- blends ------------------------------------------------------------------------------------------


def grey(images: Tensor) -> Tensor:
    """Luma (ITU-R BT.601) `(N, 1, H, W)`, rounded, int32."""
    red, green, blue = images.int().split(1, dim=1)
    return (19595 * red + 38470 * green + 7471 * blue + (1 << 15)) >> 16


def saturation(images: Tensor, factor: Tensor) -> Tensor:
    """Blend with the grey image; `factor` in [0, 1]."""
    return _blend(grey(images), images, factor.view(-1, 1, 1, 1))


def sharpness(images: Tensor, factor: Tensor) -> Tensor:
    """Blend with the smoothed image (weights 1, in the centre 5, of 13; the border stays); `factor` in [0, 1]."""
    return _blend(_smooth(images), images, factor.view(-1, 1, 1, 1))


def _smooth(images: Tensor) -> Tensor:
    out = images.int()
    if min(images.shape[2:]) < 3:
        return out
    rows = out[:, :, :-2] + out[:, :, 1:-1] + out[:, :, 2:]
    centre = out[:, :, 1:-1, 1:-1]
    total = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:] + 4 * centre
    # 13 is odd, so (2 t + 13) // 26 rounds t / 13 to the nearest and never meets a tie.
    smooth = torch.div(2 * total + 13, 26, rounding_mode="floor")
    out = out.clone()
    out[:, :, 1:-1, 1:-1] = smooth
    return out


def _blend(other: Tensor, images: Tensor, factor: Tensor) -> Tensor:
    """`other + factor * (images - other)`, cut to uint8; between the two for a factor in [0, 1]."""
    other = other.float()
    return (other + factor.float() * (images.float() - other)).to(torch.uint8)


# -- affine maps -------------------------------------------------------------------------------------


def affine(images: Tensor, matrix: Tensor) -> Tensor:
    """Nearest resampling, black outside.

    Args:
        matrix: `(N, 6)` float64 a, b, c, d, e, f: output pixel (x, y) shows input pixel
            (a x + b y + c, d x + e y + f), in pixel coordinates whose centres lie at one half.
    """
    n, channels, height, width = images.shape
    a, b, c, d, e, f = matrix[:, :, None, None].unbind(dim=1)
    y = torch.arange(height, device=images.device).view(1, -1, 1)
    x = torch.arange(width, device=images.device).view(1, 1, -1)
    column = (_fixed(c + 0.5 * (a + b)) + _fixed(a) * x + _fixed(b) * y) >> FRACTION
    row = (_fixed(f + 0.5 * (d + e)) + _fixed(d) * x + _fixed(e) * y) >> FRACTION
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    source = torch.where(inside, row * width + column, 0).view(n, 1, -1).expand(-1, channels, -1)
    moved = images.reshape(n, channels, -1).gather(2, source).view_as(images)
    return moved * inside[:, None]


def _fixed(value: Tensor) -> Tensor:
    return torch.floor(value * (1 << FRACTION) + 0.5).long()


def rotation(radians: Tensor, height: int, width: int) -> Tensor:
    """The matrix of a counter-clockwise turn about the centre of the image."""
    cos, sin = torch.cos(radians), torch.sin(radians)
    x, y = width / 2, height / 2
    return torch.stack([cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y], dim=1)


def shear_x(amount: Tensor) -> Tensor:
    """The matrix that reads `amount * y` pixels further right in row y."""
    return _matrix(amount, b=amount)


def shear_y(amount: Tensor) -> Tensor:
    """The matrix that reads `amount * x` pixels further down in column x."""
    return _matrix(amount, d=amount)


def translate_x(pixels: Tensor) -> Tensor:
    """The matrix that reads `pixels` further right."""
    return _matrix(pixels, c=pixels)


def translate_y(pixels: Tensor) -> Tensor:
    """The matrix that reads `pixels` further down."""
    return _matrix(pixels, f=pixels)


def _matrix(like: Tensor, **entries: Tensor) -> Tensor:
    one, zero = torch.ones_like(like), torch.zeros_like(like)
    entries = {"a": one, "b": zero, "c": zero, "d": zero, "e": one, "f": zero, **entries}
    return torch.stack(list(entries.values()), dim=1)
