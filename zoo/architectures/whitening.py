"""A frozen convolution that decorrelates small image patches, made from training images.

The idea of the first layer of KellerJordan/cifar10-airbench: an orthogonal look at the pixels in which every
direction has the same variance, so that the learned layers behind it need not find it.
"""

from __future__ import annotations

import math

import torch
import torch.fx
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.errors import InputError
from zoo.preprocessing.image import ImageInput

#: Side of a patch in pixels, and numbers in one: RGB.
SIDE = 2
DIMENSIONS = 3 * SIDE * SIDE
#: A direction with less than this share of the mean variance is noise, and is amplified no further.
FLOOR = 5e-4
#: Below this share of the largest variance a direction is empty: 8-bit rounding of real colour images leaves 1e-6.
EMPTY = 1e-9
#: Patches needed for each number in one, and pixels that vary less than two of 255 levels, are refused.
PATCHES = 10 * DIMENSIONS
LEAST_DEVIATION = 2 / 255
#: Images whose patches are unfolded together: 30 MB at 32 px.
CHUNK = 256


def _convolved(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    with torch.autocast(x.device.type, enabled=False):
        return F.conv2d(x.to(weight.dtype), weight, bias)


torch.fx.wrap("_convolved")  # torch.fx cannot look into a region of autocast; it calls the function


class Whitening(nn.Module):
    """`(N, 3, H, W)` -> `(N, 24, H - 1, W - 1)`: 12 whitened components of each 2x2 patch, and their negatives.

    `weight` `(24, 3, 2, 2)` and `offset` `(24,)` are statistics of the data, so they are buffers that no optimiser
    can reach; `bias` `(24,)` starts at zero and is learned. Until `fit` sees images, the components are the 2x2
    cosine transform of three opponent colours, scaled as if each deviated by a quarter of the pixel range from grey.
    """

    def __init__(self, input: ImageInput) -> None:
        super().__init__()
        self.std = input.std
        mean, std = (torch.tensor(v, dtype=torch.float64).repeat_interleave(SIDE**2) for v in (input.mean, input.std))
        components = _cosines_of_opponent_colours() / 0.25
        self.register_buffer("weight", torch.zeros(2 * DIMENSIONS, 3, SIDE, SIDE))
        self.register_buffer("offset", torch.zeros(2 * DIMENSIONS))
        self.bias = nn.Parameter(torch.zeros(2 * DIMENSIONS))
        self._set(components * std, (0.5 - mean) / std)

    def forward(self, x: Tensor) -> Tensor:
        """In float32 under autocast too: bfloat16 would round away the faint components."""
        return _convolved(x, self.weight, self.offset + self.bias)

    @torch.no_grad()
    def fit(self, images: Tensor) -> None:
        """Take the components from all 2x2 patches of normalised `images`, float `(N, 3, H, W)`.

        On these patches the first 12 outputs have mean 0 and the identity as covariance, except directions that
        `FLOOR` holds down. Weights are rounded to float16, so that a published encoder holds them unchanged.

        Raises:
            InputError: too few patches, constant ones, or ones that fill fewer than 12 dimensions, as grey images do.
                Nothing has changed then.
        """
        mean, covariance, count = _moments(images)
        if count < PATCHES:
            raise InputError(f"whitening needs at least {PATCHES} patches of 2x2 pixels, got {count}; give more images")
        variances, directions = torch.linalg.eigh(covariance)
        std = torch.tensor(self.std, dtype=torch.float64).repeat_interleave(SIDE**2)
        deviation = math.sqrt(float((covariance.diagonal() * std.square()).mean()))
        if not deviation >= LEAST_DEVIATION:
            raise InputError(
                f"whitening needs images with content: their pixels deviate by {255 * deviation:.2g} of 255 levels, "
                f"at least {255 * LEAST_DEVIATION:.0f} are needed; check the training data"
            )
        filled = int((variances > EMPTY * variances[-1]).sum())
        if filled < DIMENSIONS:
            raise InputError(
                f"whitening needs patches of {DIMENSIONS} dimensions, these fill {filled}: grey images do so; "
                "train on colour images, or with another encoder family"
            )
        # eigh leaves the sign open; fixed here, so that machines agree.
        largest = directions.gather(0, directions.abs().argmax(0, keepdim=True))
        scale = variances.clamp(min=FLOOR * float(variances.mean())).sqrt()
        self._set((directions * largest.sign() / scale).T.flip(0), mean)

    def _set(self, components: Tensor, mean: Tensor) -> None:
        """Components `(12, 12)`, one a row over (channel, row, column), and the patch that they map to zero."""
        half = components.half()
        offset = -(half.double() @ mean).half()
        self.weight.copy_(torch.cat([half, -half]).view_as(self.weight))
        self.offset.copy_(torch.cat([offset, -offset]))


def _moments(images: Tensor) -> tuple[Tensor, Tensor, int]:
    """Mean `(12,)` and covariance `(12, 12)` of all patches in float64, and how many there are."""
    # Relative to the mean colour, so that the products cancel less.
    centre = images.mean((0, 2, 3), dtype=torch.float64).to(images.dtype).view(1, 3, 1, 1)
    total = torch.zeros(DIMENSIONS, dtype=torch.float64)
    products = torch.zeros(DIMENSIONS, DIMENSIONS, dtype=torch.float64)
    count = 0
    for part in images.split(CHUNK):
        patches = F.unfold(part - centre, SIDE).transpose(0, 1).flatten(1).double().cpu()
        total += patches.sum(1)
        products += patches @ patches.T
        count += patches.shape[1]
    mean = total / max(1, count)
    covariance = products / max(1, count) - mean.outer(mean)
    return mean + centre.double().cpu().flatten().repeat_interleave(SIDE**2), covariance, count


def _cosines_of_opponent_colours() -> Tensor:
    """An orthonormal basis of 2x2 RGB patches `(12, 12)`: grey, red-blue and green-magenta at four frequencies each."""
    colours = torch.tensor([[1, 1, 1], [1, 0, -1], [1, -2, 1]], dtype=torch.float64)
    cosine = torch.tensor([[1, 1], [1, -1]], dtype=torch.float64) / math.sqrt(2)
    return torch.kron(F.normalize(colours, dim=1), torch.kron(cosine, cosine))
