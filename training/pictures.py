"""Pictures of a run: curves, reconstructions, masks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from training.augment.render import denormalised, normalise_
from zoo.architectures.attention import AttentionPool, MapEncoder
from zoo.architectures.attention_picture import mask_over
from zoo.files import replacing


def draw_curves(records: list[dict[str, float]], path: Path, title: str) -> None:
    """One panel per logged quantity over whole epochs, fractions in per cent; nothing when there are no records."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import MaxNLocator

    keys = sorted({k for r in records for k in r} - {"step", "epoch", "wall_time_s"}, key=_panel_order)
    if not keys:
        return
    rows = (len(keys) + 2) // 3
    figure, axes = plt.subplots(rows, min(3, len(keys)), figsize=(4.4 * min(3, len(keys)), 3 * rows), squeeze=False)
    for axis, key in zip(axes.flat, keys, strict=False):
        factor = 100 if is_fraction(key) else 1
        points = [(r["epoch"], factor * r[key]) for r in records if key in r]
        axis.plot(*zip(*points, strict=True), marker="o" if len(points) < 40 else None, markersize=3, linewidth=1.3)
        axis.set_title(key.replace("_", " ") + (", %" if factor == 100 else ""), fontsize=10)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axis.set_xlabel("epoch", fontsize=9)
        axis.grid(alpha=0.3)
    for axis in list(axes.flat)[len(keys) :]:
        axis.remove()
    figure.suptitle(title)
    figure.tight_layout()
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
    plt.close(figure)


def is_fraction(key: str) -> bool:
    """Whether a logged quantity is a share of 1, which people read in per cent."""
    return "knn" in key or "accuracy" in key


def _panel_order(key: str) -> tuple[int, str]:
    first = ["loss", "held_out_knn", "lr"]
    return (first.index(key) if key in first else len(first), key)


#: Images in a picture.
COLUMNS = 8


@torch.no_grad()
def draw_conrec(method: nn.Module, images: Tensor, folder: Path) -> list[Path]:
    """`masks.png`, if the encoder pools by attention, and `reconstructions.png`, if there is a decoder.

    Args:
        method: a `ConRec`. It is put into eval mode for this.
        images: uint8 `(N, 3, H, W)` on the method's device; the first 8 are shown.

    Returns:
        The files that were written.
    """
    images = images[:COLUMNS]
    generator = torch.Generator(images.device).manual_seed(0)
    modes = [(module, module.training) for module in method.modules()]
    strict = method.encoder.strict_input
    method.eval()
    method.encoder.strict_input = False
    written = []
    try:
        views = method.views({"images": images}, generator)
        if isinstance(method.encoder, MapEncoder) and isinstance(method.encoder.pooling, AttentionPool):
            whole = _resized(images, method.view_size)
            masks = method.encoder.attention_mask(normalise_(whole.clone(), method.normalisation)).cpu().numpy()[:, 0]
            pixels = _pixels(whole)
            rows = [pixels, np.stack([mask_over(*pair) for pair in zip(pixels, masks, strict=True)])]
            spread = f"mask values {masks.min():.2f} to {masks.max():.2f}; each is stretched to its own range"
            written.append(draw_rows(folder / "masks.png", rows, ["image", "attention mask"], spread))
        if method.config.reconstruction:
            corrupted = denormalised(views["x_a"], method.normalisation)
            restored = method.restore(views["x_a"])
            error = float((restored - views["y_a"]).square().mean())
            rows = [_pixels(v) for v in (corrupted, restored, views["y_a"])]
            title = f"mean squared error {error:.4f}"
            written.append(
                draw_rows(folder / "reconstructions.png", rows, ["input", "reconstruction", "target"], title)
            )
    finally:
        method.encoder.strict_input = strict
        for module, training in modes:
            module.training = training
    return written


def draw_rows(path: Path, rows: Sequence[np.ndarray], names: Sequence[str], title: str) -> Path:
    """A PNG file with one named row of images `(N, H, W, 3)` uint8 below the other."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    count = len(rows[0])
    figure, axes = plt.subplots(
        len(rows), count, figsize=(1.25 * count + 0.4, 1.3 * len(rows) + 0.4), squeeze=False, layout="constrained"
    )
    for row, name, line in zip(rows, names, axes, strict=True):
        for image, axis in zip(row, line, strict=True):
            axis.imshow(image, interpolation="nearest")
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
        line[0].set_ylabel(name, fontsize=9)
    figure.suptitle(title, fontsize=9)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
    plt.close(figure)
    return path


def _resized(images: Tensor, size: int) -> Tensor:
    """uint8 -> float in 0..1 of `size` px."""
    x = images.float().div_(255)
    if x.shape[-1] != size or x.shape[-2] != size:
        x = nn.functional.interpolate(x, (size, size), mode="bicubic", antialias=True).clamp_(0, 1)
    return x


def _pixels(x: Tensor) -> np.ndarray:
    return x.clamp(0, 1).mul(255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
