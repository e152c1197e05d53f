"""Colour operations on a batch in which every image has its own factor.

Each equals the function of the same name in `torchvision.transforms.v2.functional` on float images
and works in place (hence the underscore): images `(N, 3, H, W)` float32 in [0, 1], `factor` `(N,)`.
Results stay in [0, 1]. Each returns its `images`.
"""

from __future__ import annotations

import torch
from torch import Tensor

#: Weights of red, green and blue in a grey value (ITU-R BT.601).
LUMA = (0.2989, 0.587, 0.114)


def grey(images: Tensor) -> Tensor:
    """`(N, 3, H, W)` -> grey values `(N, 1, H, W)`."""
    red, green, blue = images.split(1, dim=1)
    return (red * LUMA[0]).add_(green, alpha=LUMA[1]).add_(blue, alpha=LUMA[2])


def mean_grey(images: Tensor) -> Tensor:
    """`(N, 3, H, W)` -> mean grey value per image `(N, 1, 1, 1)`."""
    red, green, blue = images.mean(dim=(2, 3)).split(1, dim=1)
    return (red * LUMA[0] + green * LUMA[1] + blue * LUMA[2])[..., None, None]


def _per_image(value: Tensor) -> Tensor:
    return value.view(-1, 1, 1, 1)


def _blend_(images: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    """`factor * images + (1 - factor) * other`, clamped; overwrites `other` too."""
    factor = _per_image(factor)
    return images.mul_(factor).add_(other.mul_(1 - factor)).clamp_(0, 1)


def adjust_brightness_(images: Tensor, factor: Tensor) -> Tensor:
    """Blend with black."""
    return images.mul_(_per_image(factor)).clamp_(0, 1)


def adjust_contrast_(images: Tensor, factor: Tensor) -> Tensor:
    """Blend with the mean grey value of the image."""
    return _blend_(images, mean_grey(images), factor)


def adjust_saturation_(images: Tensor, factor: Tensor) -> Tensor:
    """Blend with the grey image."""
    return _blend_(images, grey(images), factor)


def adjust_hue_(images: Tensor, shift: Tensor) -> Tensor:
    """Turn the hue by `shift` `(N,)` turns, in [-0.5, 0.5]; value and saturation stay.

    The detour over HSV in closed form. With largest M, smallest m, chroma C = M - m, the hue in sixths of
    a turn is h = +-(g + b - r + M - 2m) / C with the sign of g - b; and back, for h in [0, 6),
    red = m - C + C clamp(|h - 3|, 1, 2), green = M + C - C clamp(|h - 2|, 1, 2), blue the same with |h - 4|.
    """
    red, green, blue = images.unbind(dim=1)
    largest = torch.maximum(red, green)
    smallest = torch.minimum(red, green)
    torch.maximum(largest, blue, out=largest)
    torch.minimum(smallest, blue, out=smallest)
    chroma = largest - smallest
    hue = (green + blue).sub_(red).add_(chroma).sub_(smallest)
    torch.copysign(hue, green - blue, out=hue)
    hue.div_(chroma.clamp(min=1e-12)).add_(6 * shift.view(-1, 1, 1))
    # Floor by hand: `remainder_` is not vectorised on the CPU and would take as long as all the rest.
    hue.sub_((hue / 6).floor_(), alpha=6)
    above, below = largest.add_(chroma), smallest.sub_(chroma)
    torch.addcmul(below, (hue - 3).abs_().clamp_(1, 2), chroma, out=red)
    torch.addcmul(above, (hue - 2).abs_().clamp_(1, 2), chroma, value=-1, out=green)
    torch.addcmul(above, hue.sub_(4).abs_().clamp_(1, 2), chroma, value=-1, out=blue)
    return images.clamp_(0, 1)


def rgb_to_grayscale_(images: Tensor) -> Tensor:
    """All three channels become the grey value."""
    return images.copy_(grey(images).expand_as(images))


def solarize_(images: Tensor, threshold: float) -> Tensor:
    """Values of `threshold` and above become 1 - value."""
    return torch.where(images >= threshold, 1 - images, images, out=images)


#: The four operations of a colour jitter; an `order` of a jitter is a permutation of their indices.
ADJUSTMENTS = (adjust_brightness_, adjust_contrast_, adjust_saturation_, adjust_hue_)
#: The factors with which they change nothing.
NEUTRAL = (1.0, 1.0, 1.0, 0.0)
_CONTRAST, _SATURATION, _HUE = 1, 2, 3


def jitter_(images: Tensor, order: Tensor, factors: Tensor) -> Tensor:
    """All four adjustments in each image's own order, without asking which order that is.

    Brightness, contrast and saturation are one blend with different targets, so each of the four steps
    is one blend and one turn of the hue, with neutral factors where the step is the other of the two.
    This wastes work but never waits for the device; on the CPU `image.py` groups by order instead.

    Args:
        order: `(N, 4)` int64, permutations of 0..3.
        factors: `(N, 4)` float32, in the order of `ADJUSTMENTS`.
    """
    for step in order.unbind(dim=1):
        factor = factors.gather(1, step[:, None])[:, 0]
        black_or_mean = mean_grey(images) * _per_image(step == _CONTRAST)
        target = torch.where(_per_image(step == _SATURATION), grey(images), black_or_mean)
        _blend_(images, target, torch.where(step == _HUE, 1.0, factor))
        adjust_hue_(images, torch.where(step == _HUE, factor, 0.0))
    return images
