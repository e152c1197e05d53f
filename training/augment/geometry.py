"""Crop, resize, flip and blur for a batch in which every image has its own parameters.

All four are linear maps along rows and along columns, so each is a pair of small matrices per image:
`out = Y @ image @ X.T`. A random resized crop with a flip is one such pair, a Gaussian blur another.
The matrices are banded (an output pixel sees few input pixels); `Taps` holds the band.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Interpolation = Literal["bicubic", "bilinear"]


@dataclass(frozen=True)
class Taps:
    """A banded matrix per image: output pixel s is `sum_k weight[n, s, k] * input[first[n, s] + k]`.

    Attributes:
        first: `(N, S)` int64, the input pixel that the first tap reads; may lie outside the image.
        weight: `(N, S, K)` float32; taps that fall outside are reflected at the border pixel.
    """

    first: Tensor
    weight: Tensor

    def __getitem__(self, part: slice) -> Taps:
        """The matrices of some of the images."""
        return Taps(self.first[part], self.weight[part])

    def dense(self, source: int) -> Tensor:
        """The `(N, S, source)` matrix."""
        n, size, taps = self.weight.shape
        index = self.first[..., None] + torch.arange(taps, device=self.first.device)
        index = (source - 1) - ((source - 1) - index.abs()).abs()
        matrix = self.weight.new_zeros(n, size, source)
        return matrix.scatter_add_(2, index.clamp_(0, source - 1), self.weight)


def crop_boxes(
    uniform: Tensor, height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The boxes of torchvision's `RandomResizedCrop`, for a whole batch without a host synchronisation.

    Ten tries of (area, log aspect ratio); the first box that fits the image is taken, and where none
    fits, the largest centred box whose aspect ratio lies in `ratio`.

    Args:
        uniform: `(22, N)` draws from U[0, 1): ten areas, ten aspect ratios, vertical and horizontal position.
        height, width: of the images, in pixels.
        scale: range of the area, relative to the image.
        ratio: range of width / height.

    Returns:
        top, left, height, width, each `(N,)` int64, in pixels.
    """
    area = (uniform[:10] * (scale[1] - scale[0]) + scale[0]) * (height * width)
    low, high = math.log(ratio[0]), math.log(ratio[1])
    aspect = torch.exp(uniform[10:20] * (high - low) + low)
    w, h = torch.round(torch.sqrt(area * aspect)), torch.round(torch.sqrt(area / aspect))
    fits = (w > 0) & (w <= width) & (h > 0) & (h <= height)
    first = fits.to(torch.uint8).argmax(dim=0, keepdim=True)
    found = fits.any(dim=0)
    whole_w, whole_h = centre_box(height, width, ratio)
    w = torch.where(found, w.gather(0, first)[0], whole_w)
    h = torch.where(found, h.gather(0, first)[0], whole_h)
    top = torch.where(found, torch.floor(uniform[20] * (height - h + 1)), (height - whole_h) // 2)
    left = torch.where(found, torch.floor(uniform[21] * (width - w + 1)), (width - whole_w) // 2)
    # u * (n + 1) may round up to n + 1 in float32.
    top, left = torch.minimum(top, height - h), torch.minimum(left, width - w)
    return top.long(), left.long(), h.long(), w.long()


def patch_boxes(uniform: Tensor, height: int, width: int, side: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Squares of `side` pixels at uniformly random places, in the form of `crop_boxes`.

    Args:
        uniform: `(2, N)` draws from U[0, 1): vertical and horizontal position.
        height, width: of the images, in pixels, at least `side`.
    """
    # u * n may round up to n in float32.
    top = torch.floor(uniform[0] * (height - side + 1)).clamp_(max=height - side).long()
    left = torch.floor(uniform[1] * (width - side + 1)).clamp_(max=width - side).long()
    sides = torch.full_like(top, side)
    return top, left, sides, sides


def centre_box(height: int, width: int, ratio: tuple[float, float]) -> tuple[int, int]:
    """Width and height of the largest box in an image whose width / height lies in `ratio`, in pixels."""
    if width / height < min(ratio):
        return width, round(width / min(ratio))
    if width / height > max(ratio):
        return round(height * max(ratio)), height
    return width, height


def _bicubic(x: Tensor) -> Tensor:
    """Keys' cubic kernel with a = -1/2 on |x| < 2."""
    x = x.abs().clamp_(max=2)
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, near, far)


def _bilinear(x: Tensor) -> Tensor:
    """The triangle on |x| < 1."""
    return (1 - x.abs()).clamp_(min=0)


_KERNELS = {"bicubic": (_bicubic, 2), "bilinear": (_bilinear, 1)}


def resize_taps(
    start: Tensor, length: Tensor, source: int, size: int, interpolation: Interpolation, flip: Tensor | None = None
) -> Taps:
    """Resize the span `[start, start + length)` of a line of pixels to `size`, with antialiasing.

    Equals `torch.nn.functional.interpolate(..., antialias=True)` of the cropped span.

    Args:
        start, length: `(N,)` int64, in pixels.
        source: length of the whole line, at least `start + length`.
        size: S, output pixels.
        interpolation: `"bicubic"` or `"bilinear"`.
        flip: `(N,)` bool: mirror the output.
    """
    kernel, radius = _KERNELS[interpolation]
    step = (length / size)[:, None]
    stretch = step.clamp(min=1)
    support = radius * stretch
    centre = (torch.arange(size, device=start.device) + 0.5) * step
    first = torch.floor(centre - support + 0.5)
    taps = 2 * math.ceil(radius * max(1.0, source / size)) + 1
    position = first[..., None] + torch.arange(taps, device=start.device)
    weight = kernel((position + 0.5 - centre[..., None]) / stretch[..., None])
    weight *= (position >= 0) & (position < length[:, None, None])
    weight /= weight.sum(dim=2, keepdim=True)
    first = first.long() + start[:, None]
    if flip is not None:
        first = torch.where(flip[:, None], first.flip(1), first)
        weight = torch.where(flip[:, None, None], weight.flip(1), weight)
    return Taps(first, weight)


def blur_taps(sigma: Tensor, kernel_size: int, size: int) -> Taps:
    """A Gaussian of standard deviation `sigma` `(N,)` pixels, cut to `kernel_size` (odd), reflected at the border."""
    radius = kernel_size // 2
    x = torch.arange(-radius, radius + 1, device=sigma.device)
    kernel = torch.softmax(-0.5 * (x / sigma[:, None]) ** 2, dim=1)
    first = torch.arange(size, device=sigma.device) - radius
    return Taps(first.expand(len(sigma), -1), kernel[:, None].expand(-1, size, -1))


def separable(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """`rows @ image @ columns.T` for each image and channel.

    Args:
        images: `(N, C, H, W)` float32.
        rows: `(N, S, H)`.
        columns: `(N, T, W)`.

    Returns:
        `(N, C, S, T)`.
    """
    n, channels, height, width = images.shape
    wide = torch.bmm(images.reshape(n, channels * height, width), columns.mT)
    return torch.matmul(rows[:, None], wide.view(n, channels, height, -1))


def patches(images: Tensor, members: Tensor, top: Tensor, left: Tensor, side: int, flip: Tensor) -> Tensor:
    """Squares of `side` pixels of some images, pixel for pixel, mirrored where `flip`.

    Args:
        images: `(N, C, H, W)` of any dtype.
        members: `(n,)` int64, which images. top, left: `(n,)` int64 pixels. flip: `(n,)` bool.

    Returns:
        `(n, C, side, side)` of the same dtype.
    """
    windows = images.permute(0, 2, 3, 1).unfold(1, side, 1).unfold(2, side, 1)
    chosen = windows[members, top, left].contiguous()
    return torch.where(flip[:, None, None, None], chosen.flip(3), chosen)


#: Output pixels per product: wide enough for the matrix units, narrow enough to skip what is zero.
BLOCK = 32


def separable_banded(image: Tensor, rows: Taps, columns: Taps, out: Tensor) -> Tensor:
    """`separable` for one large image on the CPU: multiplies only blocks of the band.

    Args:
        image: `(C, H, W)` float32.
        rows, columns: taps of this one image, `N = 1`.
        out: `(C, S, T)` float32 for the result, which is returned; may be `image` itself.
    """
    channels, height, width = image.shape
    matrix = columns.dense(width)[0]
    wide = image.new_empty(channels * height, len(matrix))
    for written, read in _blocks(columns, width):
        torch.mm(image.reshape(-1, width)[:, read], matrix[written, read].T, out=wide[:, written])
    wide = wide.view(channels, height, -1)
    matrix = rows.dense(height).expand(channels, -1, -1)
    for written, read in _blocks(rows, height):
        torch.bmm(matrix[:, written, read], wide[:, read], out=out[:, written])
    return out


def _blocks(taps: Taps, source: int) -> list[tuple[slice, slice]]:
    """For each block of one image's band: the output pixels it writes, the input pixels it reads."""
    size, reach = taps.weight.shape[1:]
    first = taps.first[0].tolist()
    blocks = []
    for begin in range(0, size, BLOCK):
        end = min(begin + BLOCK, size)
        low, high = sorted((first[begin], first[end - 1]))
        blocks.append((slice(begin, end), slice(max(low, 0), min(high + reach, source))))
    return blocks
