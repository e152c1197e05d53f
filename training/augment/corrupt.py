"""The corruptions of ConRec: a view with something missing, for a whole batch on its device.

Exactly one per view, in the manner of Models Genesis, with the ranges of ConRec's released code (arXiv 2104.04323):
pixels shuffled within windows, blocks painted over, all but a few windows painted over, or, for grey images, a
non-linear intensity curve. Every image has its own draws, all from one generator.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any

import torch
from pydantic import BeforeValidator, Field, model_validator
from torch import Tensor

from zoo.errors import ConfigError, InputError, nearest
from zoo.strict import Strict, validate

#: Points on each intensity curve.
CURVE_POINTS = 64


class CorruptConfig(Strict):
    """What is drawn. The four shares add up to at most 1; the rest of the views stays whole."""

    shuffle_p: float = Field(
        default=0.33,
        ge=0,
        le=1,
        description="Share of views with shuffled windows. Published: a third of each corruption for colour images.",
    )
    inpaint_p: float = Field(default=0.33, ge=0, le=1, description="Share of views with painted blocks.")
    outpaint_p: float = Field(default=0.34, ge=0, le=1, description="Share of views painted over around a few windows.")
    curve_p: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Share of views with a bent intensity curve. Published: a quarter of each "
        "corruption for grey images.",
    )
    grey: bool = Field(default=False, description="Painted areas are grey, not coloured.")
    shuffle_windows: int = Field(default=15, ge=1, le=256, description="At most so many shuffled windows.")
    shuffle_continue: float = Field(
        default=0.99, ge=0, le=1, description="Probability of each further window after the one before it."
    )
    shuffle_side: float = Field(
        default=0.2,
        gt=0,
        le=1,
        description="Sides are uniform from 1 pixel to this fraction of the view's side, exclusive.",
    )
    inpaint_blocks: int = Field(default=5, ge=1, le=256, description="At most so many painted blocks.")
    inpaint_continue: float = Field(
        default=0.95, ge=0, le=1, description="Probability of each block after the one before it, the first one too."
    )
    inpaint_side: tuple[float, float] = Field(
        default=(1 / 7, 1 / 5),
        description="Smallest side of a block and the side that none reaches, fractions of the view's side.",
    )
    inpaint_margin: int = Field(default=3, ge=0, description="Distance of the blocks from the border in pixels.")
    outpaint_windows: int = Field(default=5, ge=1, le=256, description="At most so many windows that stay.")
    outpaint_continue: float = Field(
        default=0.95, ge=0, le=1, description="Probability of each further window; the first one is always there."
    )
    outpaint_side: tuple[float, float] = Field(
        default=(4 / 7, 5 / 7), description="Smallest and largest side of a window, fractions of the view's side."
    )
    outpaint_margin: int = Field(default=3, ge=0, description="Distance of the windows from the border in pixels.")

    @model_validator(mode="after")
    def _consistent(self) -> CorruptConfig:
        total = self.shuffle_p + self.inpaint_p + self.outpaint_p + self.curve_p
        if total > 1 + 1e-9:
            raise ValueError(f"shuffle_p, inpaint_p, outpaint_p and curve_p add up to {total:g}; at most 1 is possible")
        for name in ("inpaint_side", "outpaint_side"):
            low, high = getattr(self, name)
            if not 0 < low <= high <= 1:
                raise ValueError(f"{name} must be (low, high) with 0 < low <= high <= 1, got {(low, high)}")
        return self


#: For colour and for grey images, as released.
PRESETS: dict[str, CorruptConfig] = {
    "colour": CorruptConfig(),
    "grey": CorruptConfig(
        shuffle_p=0.25, inpaint_p=0.25, outpaint_p=0.25, curve_p=0.25, grey=True, shuffle_continue=1.0
    ),
}


def resolve_corrupt(value: Any) -> CorruptConfig | None:
    """The corruption behind a recipe's `corrupt`. Raises ConfigError: unknown preset or setting, or a wrong value."""
    if value is None or isinstance(value, CorruptConfig):
        return value
    settings = {"preset": value} if isinstance(value, str) else value
    if not isinstance(settings, dict):
        raise ConfigError(f"recipe: method.corrupt takes a preset's name, settings or null, got {value!r}")
    preset = settings.get("preset")
    if preset is not None and preset not in PRESETS:
        raise ConfigError(f"recipe: unknown corruption preset {preset!r}; {nearest(str(preset), list(PRESETS))}")
    start = {} if preset is None else PRESETS[preset].model_dump()
    changes = {key: v for key, v in settings.items() if key != "preset"}
    return validate(CorruptConfig, {**start, **changes}, "recipe", prefix="method.corrupt")


#: The setting `corrupt` of a method.
Corruption = Annotated[
    CorruptConfig | None,
    BeforeValidator(resolve_corrupt),
    Field(
        description="What is missing from a view: a preset's name (" + ", ".join(PRESETS) + "), settings (their key "
        "preset names a start), or null for whole views."
    ),
]


class Corrupt:
    """One corruption of each view of a batch; the views themselves stay as they are.

    Example:
        >>> corrupt = Corrupt(PRESETS["colour"])
        >>> corrupt(torch.rand(4, 3, 32, 32), torch.Generator().manual_seed(0)).shape
        torch.Size([4, 3, 32, 32])
    """

    def __init__(self, config: CorruptConfig) -> None:
        self.config = config

    @torch.no_grad()
    def __call__(self, views: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Corrupt a batch.

        Args:
            views: `(N, 3, H, W)` float in 0..1.
            generator: on the device of `views`; the result depends on its state and on nothing else.

        Returns:
            A new tensor of the same shape, dtype and memory format, in 0..1.

        Raises:
            InputError: another rank, channel count or dtype.
        """
        if views.ndim != 4 or views.shape[1] != 3 or not views.is_floating_point():
            raise InputError(f"expected float views (N, 3, H, W) in 0..1, got {tuple(views.shape)} {views.dtype}")
        config, n = self.config, len(views)
        # Every generator call is made for every image, so that one image's kind never moves another's draws.
        kind = torch.rand(n, generator=generator, device=views.device)
        operations = (shuffle_pixels, paint_blocks, paint_around, bend_intensity)
        drawn = [operation(views.shape, config, generator, views.device) for operation in operations]
        out, low = views.clone(), 0.0
        for change, p in zip(
            drawn, (config.shuffle_p, config.inpaint_p, config.outpaint_p, config.curve_p), strict=True
        ):
            out = _where((kind >= low) & (kind < low + p), out, change)
            low += p
        return out.contiguous(memory_format=torch.channels_last)

    def each(self, views: Sequence[Tensor], generator: torch.Generator | None = None) -> list[Tensor]:
        """Corrupt several batches of one shape; in one call where starting kernels costs more than they do."""
        if views[0].device.type == "cpu":
            return [self(view, generator) for view in views]
        return list(self(torch.cat(list(views)), generator).chunk(len(views)))

    def __repr__(self) -> str:
        return f"Corrupt({self.config!r})"


#: What a draw gives: a function of some of the views and their indices.
Change = Callable[[Tensor, "Tensor | slice"], Tensor]


def _where(chosen: Tensor, views: Tensor, change: Change) -> Tensor:
    """`views`, changed where `chosen`. On the CPU only those are worked on; elsewhere that would need a wait."""
    if views.device.type != "cpu":
        return torch.where(chosen.view(-1, 1, 1, 1), change(views, slice(None)), views)
    index = chosen.nonzero()[:, 0]
    return views.index_copy(0, index, change(views[index], index)) if len(index) else views


def shuffle_pixels(shape: torch.Size, config: CorruptConfig, generator, device) -> Change:
    """Permute the pixels within each window. Every window reads the view as it was, so a later one may cover an
    earlier one's pixels but never moves them on."""
    n, _, height, width = shape
    count = config.shuffle_windows
    u = torch.rand(4, n, count, generator=generator, device=device)
    active = _run_of_luck(n, count, config.shuffle_continue, generator, device)
    largest_h, largest_w = (max(1, int(config.shuffle_side * side) - 1) for side in (height, width))
    keys = torch.rand(n, count, largest_h * largest_w, generator=generator, device=device)
    h, w = 1 + _whole(u[0], largest_h), 1 + _whole(u[1], largest_w)
    top, left = _whole(u[2], height - h + 1), _whole(u[3], width - w + 1)

    def change(views: Tensor, i: Tensor | slice) -> Tensor:
        cell = torch.arange(largest_h * largest_w, device=device)
        row, column = cell // largest_w, cell % largest_w
        inside = (row < h[i, :, None]) & (column < w[i, :, None])
        pixel = (top[i, :, None] + row) * width + left[i, :, None] + column
        # Two orders of the same cells, those of the window first: as they lie, and at random.
        still = pixel.gather(2, (~inside).to(torch.uint8).argsort(dim=2, stable=True))
        moved = pixel.gather(2, torch.where(inside, keys[i], 2.0).argsort(dim=2))
        used = (cell < (h * w)[i, :, None]) & active[i, :, None]
        # One more pixel than there are takes what no window wants.
        spare = height * width
        source = torch.arange(spare + 1, device=device).repeat(len(views), 1)
        for k in range(count):
            source.scatter_(1, torch.where(used[:, k], still[:, k], spare), moved[:, k])
        pixels = views.flatten(2)
        return pixels.gather(2, source[:, None, :spare].expand_as(pixels)).view_as(views)

    return change


def paint_blocks(shape: torch.Size, config: CorruptConfig, generator, device) -> Change:
    """Paint blocks over, each in one random colour."""
    n, _, height, width = shape
    count = config.inpaint_blocks
    u = torch.rand(4, n, count, generator=generator, device=device)
    colours = _colours(n, count, config.grey, generator, device)
    active = _run_of_luck(n, count, config.inpaint_continue, generator, device)
    h, w = (_side(u[k], config.inpaint_side, side, largest=False) for k, side in enumerate((height, width)))
    top, left = (_within_margin(u[2 + k], size, side, config.inpaint_margin)
                 for k, (size, side) in enumerate(((h, height), (w, width))))  # fmt: skip

    def change(views: Tensor, i: Tensor | slice) -> Tensor:
        inside = _boxes(top[i], left[i], h[i], w[i], height, width) & active[i][..., None, None]
        for k in range(count):
            views = torch.where(inside[:, k, None], colours[i, k].to(views.dtype)[..., None, None], views)
        return views

    return change


def paint_around(shape: torch.Size, config: CorruptConfig, generator, device) -> Change:
    """Keep a few large windows and paint all else over, in one random colour."""
    n, _, height, width = shape
    count = config.outpaint_windows
    u = torch.rand(4, n, count, generator=generator, device=device)
    colour = _colours(n, 1, config.grey, generator, device)
    active = _run_of_luck(n, count, config.outpaint_continue, generator, device, first_always=True)
    h, w = (_side(u[k], config.outpaint_side, side) for k, side in enumerate((height, width)))
    top, left = (_within_margin(u[2 + k], size, side, config.outpaint_margin)
                 for k, (size, side) in enumerate(((h, height), (w, width))))  # fmt: skip

    def change(views: Tensor, i: Tensor | slice) -> Tensor:
        kept = (_boxes(top[i], left[i], h[i], w[i], height, width) & active[i][..., None, None]).any(dim=1)
        return torch.where(kept[:, None], views, colour[i, 0].to(views.dtype)[..., None, None])

    return change


def bend_intensity(shape: torch.Size, config: CorruptConfig, generator, device) -> Change:
    """Pass every value through a cubic Bezier curve from 0 to 1, or half the time from 1 to 0."""
    u = torch.rand(5, shape[0], generator=generator, device=device)
    t = torch.linspace(0, 1, CURVE_POINTS, device=device)
    inner = 3 * torch.stack([t * (1 - t) ** 2, t**2 * (1 - t)])
    x, y = u[:2].sort(dim=0)[0], u[2:4].sort(dim=0)[0]
    xs, ys = (p.T @ inner + t**3 for p in (x, y))
    ys = torch.where(u[4, :, None] < 0.5, 1 - ys, ys)

    def change(views: Tensor, i: Tensor | slice) -> Tensor:
        # Contiguous: searchsorted and gather along rows that are views of one tensor would copy with a warning.
        curve, level, values = xs[i].contiguous(), ys[i].contiguous(), views.flatten(1).float().contiguous()
        right = torch.searchsorted(curve, values).clamp_(1, CURVE_POINTS - 1)
        x0, x1 = curve.gather(1, right - 1), curve.gather(1, right)
        y0, y1 = level.gather(1, right - 1), level.gather(1, right)
        share = ((values - x0) / (x1 - x0).clamp_min(1e-12)).clamp_(0, 1)
        return (y0 + share * (y1 - y0)).view_as(views).to(views.dtype)

    return change


# -- draws -----------------------------------------------------------------------------------------


def _whole(uniform: Tensor, count: Tensor | int) -> Tensor:
    """U[0, 1) -> whole numbers 0..count-1; `u * count` may round up to count in float32."""
    count = torch.as_tensor(count, device=uniform.device)
    return torch.minimum((uniform * count).long(), count - 1)


def _side(uniform: Tensor, fractions: tuple[float, float], side: int, largest: bool = True) -> Tensor:
    """Whole sides between the two fractions of `side`, at least 1 pixel; the larger one only with `largest`, or where
    there is no other."""
    low, high = (max(1, min(side, int(f * side))) for f in fractions)
    high = high if largest else max(low, high - 1)
    return low + _whole(uniform, high - low + 1)


def _within_margin(uniform: Tensor, size: Tensor, side: int, margin: int) -> Tensor:
    """Where a block of `size` begins so that it keeps `margin` pixels from both borders, or is centred."""
    room = side - size - 2 * margin
    return torch.where(room >= 0, margin + _whole(uniform, (room + 1).clamp_min(1)), (side - size) // 2)


def _run_of_luck(n: int, count: int, p: float, generator, device, first_always: bool = False) -> Tensor:
    """`(n, count)` bool: True until the first draw that fails, False from there on."""
    lucky = torch.rand(n, count, generator=generator, device=device) < p
    if first_always:
        lucky[:, 0] = True
    return lucky.long().cumprod(dim=1).bool()


def _colours(n: int, count: int, grey: bool, generator, device) -> Tensor:
    """`(n, count, 3)` uniform colours."""
    drawn = torch.rand(n, count, 3, generator=generator, device=device)
    return drawn[..., :1].expand(-1, -1, 3) if grey else drawn


def _boxes(top: Tensor, left: Tensor, h: Tensor, w: Tensor, height: int, width: int) -> Tensor:
    """`(N, K)` boxes -> `(N, K, H, W)` bool."""
    y = torch.arange(height, device=top.device)
    x = torch.arange(width, device=top.device)
    rows = (y >= top[..., None]) & (y < (top + h)[..., None])
    columns = (x >= left[..., None]) & (x < (left + w)[..., None])
    return rows[..., :, None] & columns[..., None, :]
