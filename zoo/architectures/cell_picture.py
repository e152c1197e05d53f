"""Pictures of cells as SVG: states as boxes, operations as labelled arrows."""

from __future__ import annotations

from html import escape

from zoo.architectures.genotype import NB201_EDGES, DartsGenotype, NB201Genotype

#: (label, colour) of each operation.
_LOOKS = {
    "none": ("none", "#bbbbbb"),
    "skip_connect": ("skip", "#7f7f7f"),
    "max_pool_3x3": ("max 3x3", "#e08214"),
    "avg_pool_3x3": ("avg 3x3", "#a8861a"),
    "sep_conv_3x3": ("sep 3x3", "#2166ac"),
    "sep_conv_5x5": ("sep 5x5", "#4393c3"),
    "dil_conv_3x3": ("dil 3x3", "#1b7837"),
    "dil_conv_5x5": ("dil 5x5", "#5aae61"),
    "nor_conv_1x1": ("conv 1x1", "#4393c3"),
    "nor_conv_3x3": ("conv 3x3", "#2166ac"),
}
#: Pixels per unit of a layout, and around it.
_UNIT, _MARGIN, _TITLE = 130, 60, 34
#: Centre of each state, and its name.
_NB201 = {0: (0.0, 0.0), 1: (1.6, 1.3), 2: (3.2, -1.3), 3: (4.8, 0.0)}
_NB201_NAMES = {0: "input", 1: "1", 2: "2", 3: "output"}
_DARTS = {0: (0.0, -1.0), 1: (0.0, 1.0), 2: (1.5, -1.7), 3: (2.7, 1.8), 4: (3.8, -0.9), 5: (4.8, 0.7), 6: (6.0, 0.0)}
_DARTS_NAMES = {0: "c(k-2)", 1: "c(k-1)", 2: "0", 3: "1", 4: "2", 5: "3", 6: "output"}

Edge = tuple[int, int, str]


def cell_svg(genotype: DartsGenotype | NB201Genotype, title: str = "") -> str:
    """The cell, or the normal and the reduction cell one below the other, as the text of an SVG file.

    An arrow without a label joins a node to the output's concatenation; a dotted one is `none`.
    """
    panels = _panels(genotype)
    centres = _NB201 if isinstance(genotype, NB201Genotype) else _DARTS
    names = _NB201_NAMES if isinstance(genotype, NB201Genotype) else _DARTS_NAMES
    xs, ys = zip(*centres.values(), strict=True)
    width = _UNIT * (max(xs) - min(xs)) + 2 * _MARGIN
    each = 0.75 * _UNIT * (max(ys) - min(ys)) + 2 * _MARGIN
    places = {s: (_MARGIN + _UNIT * x, _MARGIN + 0.75 * _UNIT * (y - min(ys))) for s, (x, y) in centres.items()}
    height = _TITLE + each * len(panels)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
        f'height="{height:.0f}" font-family="sans-serif" font-size="13" text-anchor="middle">',
        f'<rect width="{width:.0f}" height="{height:.0f}" fill="white"/>',
        f'<text x="{width / 2:.0f}" y="22" font-size="15">{escape(title)}</text>',
    ]
    for number, (name, edges) in enumerate(panels.items()):
        parts.append(f'<g transform="translate(0 {_TITLE + number * each:.0f})">')
        parts.append(f'<text x="12" y="16" text-anchor="start" fill="#555555">{name}</text>')
        drawn = [_arrow(places[a], places[b], op, k) for k, (a, b, op) in enumerate(edges)]
        parts += [line for line, _ in drawn] + [label for _, label in drawn if label]  # labels over all arrows
        parts += [_box(*places[state], names[state]) for state in places]
        parts.append("</g>")
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panels(genotype: DartsGenotype | NB201Genotype) -> dict[str, list[Edge]]:
    if isinstance(genotype, NB201Genotype):
        return {"cell": [(j, i, op) for op, (i, j) in zip(genotype.edges, NB201_EDGES, strict=True)]}
    cells = {
        "normal cell": (genotype.normal, genotype.normal_concat),
        "reduction cell": (genotype.reduce, genotype.reduce_concat),
    }
    return {
        name: [(source, 2 + k // 2, op) for k, (op, source) in enumerate(pairs)] + [(n, 6, "") for n in concat]
        for name, (pairs, concat) in cells.items()
    }


def _arrow(start: tuple[float, float], end: tuple[float, float], op: str, number: int) -> tuple[str, str]:
    """A bent arrow that ends at the border of the boxes, and its label."""
    label, colour = _LOOKS.get(op, ("", "#cccccc"))
    (x0, y0), (x1, y1) = start, end
    dx, dy = x1 - x0, y1 - y0
    length = (dx * dx + dy * dy) ** 0.5
    ux, uy = dx / length, dy / length
    gap = min(34 / max(abs(ux), 1e-9), 20 / max(abs(uy), 1e-9))
    x0, y0, x1, y1 = x0 + gap * ux, y0 + gap * uy, x1 - (gap + 7) * ux, y1 - (gap + 7) * uy
    bend = 0.0 if not op else (0.14 if number % 2 else -0.14) * length
    cx, cy = (x0 + x1) / 2 - bend * uy, (y0 + y1) / 2 + bend * ux
    # The head points along the end of the curve.
    hx, hy = x1 - cx, y1 - cy
    size = (hx * hx + hy * hy) ** 0.5
    hx, hy = hx / size, hy / size
    head = " ".join(
        f"{x:.1f},{y:.1f}"
        for x, y in ((x1 + 7 * hx, y1 + 7 * hy), (x1 - 4 * hy, y1 + 4 * hx), (x1 + 4 * hy, y1 - 4 * hx))
    )
    style = ' stroke-dasharray="2 4"' if op == "none" else ""
    line = (
        f'<path d="M{x0:.1f} {y0:.1f}Q{cx:.1f} {cy:.1f} {x1:.1f} {y1:.1f}" fill="none" stroke="{colour}" '
        f'stroke-width="{2 if op else 1.2}"{style}/><polygon points="{head}" fill="{colour}"/>'
    )
    if not label:
        return line, ""
    t = 0.36 + 0.12 * (number % 3)  # nearer to the start, where arrows have not met yet
    x = (1 - t) ** 2 * x0 + 2 * t * (1 - t) * cx + t * t * x1
    y = (1 - t) ** 2 * y0 + 2 * t * (1 - t) * cy + t * t * y1
    half = 3.6 * len(label) + 3
    plate = f'<rect x="{x - half:.1f}" y="{y - 9:.1f}" width="{2 * half:.1f}" height="17" rx="3" fill="white"/>'
    return line, f'{plate}<text x="{x:.1f}" y="{y + 4.5:.1f}" fill="{colour}">{label}</text>'


def _box(x: float, y: float, name: str) -> str:
    return (
        f'<rect x="{x - 32:.1f}" y="{y - 17:.1f}" width="64" height="34" rx="6" fill="#f2f2f2" stroke="#555555"/>'
        f'<text x="{x:.1f}" y="{y + 4.5:.1f}">{name}</text>'
    )
