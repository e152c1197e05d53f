"""Views per second of one core: `ImageAugment` against lightly's SimCLR transform, side by side.

    python benchmarks/speed/augment.py [--size 32|224] [--seconds N]

Both start from the same decoded images (lightly from PIL images, as its users have them; we from the
uint8 batch), apply the same settings, and use one thread. They take turns in short slices, so that other
work on the machine hits both; time is the CPU time of this process. The ratio is the median over turns,
its range the quartiles. Targets: 5x at 32 px, 1.5x at 224 px.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image

from training.augment.image import ImageAugment
from training.augment.parameters import PRESETS

#: View size -> (side of the stored images, images per batch, preset, lightly's arguments for the same settings).
SETTINGS = {
    32: (32, 256, "cifar", {"cj_strength": 0.5, "gaussian_blur": 0.0}),
    224: (256, 64, "imagenet", {"cj_strength": 1.0, "gaussian_blur": 0.5, "sigmas": (0.1, 2.0)}),
}
TURN_S = 0.5


def photographs(n: int, side: int) -> np.ndarray:
    """`(n, side, side, 3)` uint8 with the smoothness of photographs: coarse noise, enlarged, plus fine noise."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (n, max(2, side // 16), max(2, side // 16), 3), dtype=np.uint8)
    large = np.stack([np.asarray(Image.fromarray(c).resize((side, side), Image.Resampling.BICUBIC)) for c in coarse])
    return np.clip(large + rng.normal(0, 8, large.shape), 0, 255).astype(np.uint8)


def views_per_second(make_views: Callable[[], int], seconds: float) -> float:
    """Run `make_views`, which returns how many it made, for `seconds` of CPU time."""
    views, start = 0, time.process_time()
    while (spent := time.process_time() - start) < seconds or not views:
        views += make_views()
    return views / spent


def compare(size: int, seconds: float) -> None:
    """Print both rates and their ratio for views of `size` pixels, after `seconds` for each side."""
    from lightly.transforms import SimCLRTransform

    side, batch, preset, arguments = SETTINGS[size]
    pixels = photographs(batch, side)
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    pil = [Image.fromarray(p) for p in pixels]
    augment, generator = ImageAugment(PRESETS[preset], size), torch.Generator().manual_seed(0)
    one_view = SimCLRTransform(input_size=size, normalize=None, **arguments).transforms[0]

    def ours() -> int:
        return len(augment(images, generator))

    def lightlys() -> int:
        return len(torch.stack([one_view(image) for image in pil]))

    ours(), lightlys()
    turns = max(3, round(seconds / TURN_S))
    rates = [(views_per_second(ours, TURN_S), views_per_second(lightlys, TURN_S)) for _ in range(turns)]
    low, middle, high = statistics.quantiles((a / b for a, b in rates), n=4)
    mine, theirs = (statistics.median(side) for side in zip(*rates, strict=True))
    print(
        f"{size:4d} px from {side} px, batch {batch}, preset {preset}, {torch.get_num_threads()} thread: "
        f"zoo {mine:8.0f} views/s, lightly {theirs:8.0f} views/s, ratio {middle:.2f} ({low:.2f}..{high:.2f}), "
        f"{turns} turns of {TURN_S} s"
    )


def main() -> None:
    """Parse the command line and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, choices=SETTINGS, help="view size in pixels (both if left out)")
    parser.add_argument("--seconds", type=float, default=10, help="CPU seconds per side and size")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for size in [arguments.size] if arguments.size else SETTINGS:
        compare(size, arguments.seconds)


if __name__ == "__main__":
    main()
