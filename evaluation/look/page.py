"""The page of `look`: one HTML file that needs no other, no script and no network."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evaluation.look.duplicates import THRESHOLD, split_numbers
from evaluation.look.labels import FOLDS
from evaluation.look.outliers import LIMIT
from evaluation.report.drawing import class_name
from evaluation.report.maps import COLOURS
from evaluation.report.page import TEMPLATES
from evaluation.report.pictures import SPRITE, sprite, tile_uri
from zoo.files import write_whole

if TYPE_CHECKING:
    from evaluation.look.run import Look

#: How many groups, pictures of a group, outliers, pictures of a cluster, suspected labels the page shows.
GROUPS, MEMBERS, OUTLIERS, NEAREST, SUSPECTS = 24, 9, 27, 9, 36
#: A legend of more classes is folded.
UNFOLDED = 20


def write(found: Look, folder: str | Path) -> Path:
    """Write `look.html` and `samples.csv`; returns the page's path."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    found.samples().save(folder / "samples.csv")
    return write_whole(folder / "look.html", render(found).encode())


def render(found: Look) -> str:
    """The page as text."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("look.html.j2").render(
        title=f"{found.parts[0].name} through {found.encoder}",
        encoder=found.encoder,
        summary=summary(found),
        notes=found.notes,
        missing=found.missing,
        parts=[{"name": p.name, "split": p.split, "samples": len(p), "licence": p.licence} for p in found.parts],
        spectrum=found.spectrum,
        most=min(found.spectrum.samples, found.spectrum.width),
        groups=_groups(found),
        all_groups=int(found.duplicates.group.max(initial=-1)) + 1,
        threshold=THRESHOLD,
        outliers=_outliers(found),
        flagged=0 if found.outliers is None else len(found.outliers.flagged),
        directions=0 if found.outliers is None else found.outliers.directions,
        limit=LIMIT,
        clusters=_clusters(found),
        map=_map(found),
        covering=found.covering,
        second=None if found.second is None else f"{found.second.name}/{found.second.split}",
        uncovered=[] if found.covering is None else _tiles(found, found.covering.uncovered[:OUTLIERS]),
        folds=FOLDS,
        accuracy="" if found.check is None else f"{100 * found.check.accuracy:.0f}",
        suspects=_suspects(found),
        all_suspects=0 if found.check is None else len(found.check.suspected),
        wrong=_wrong(found),
        overlaps=[
            {
                "first": class_name(found.class_names, each.first, 60),
                "second": class_name(found.class_names, each.second, 60),
                "share": f"{100 * each.share:.1f}",
                "times": each.times,
            }
            for each in found.overlaps
        ],
    )


def summary(found: Look) -> str:
    """One sentence of counts, such as `"2,040 pictures: 3 groups of near-duplicates, 12 outliers."`."""
    groups = int(found.duplicates.group.max(initial=-1)) + 1
    text = f"{_counted(len(found.features), 'picture')}: {_counted(groups, 'group')} of near-duplicates"
    if len(found.parts) > 1:
        across = int(found.duplicates.across(split_numbers(found.parts)).sum())
        text += f" ({_counted(across, 'pair')} across splits)"
    if found.outliers is not None:
        text += f", {_counted(len(found.outliers.flagged), 'outlier')}"
    if found.check is not None:
        text += f", {_counted(len(found.check.suspected), 'label')} that may be wrong"
    return text + "."


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _tile(found: Look, row: int, text: str = "") -> dict[str, Any]:
    part, index = found.place_of(int(row))
    key = str(part.keys[index]).encode(errors="backslashreplace").decode()
    label = "" if found.labels is None else class_name(found.class_names, int(found.labels[row]), 40)
    lines = [line for line in (text, label) if line]
    return {
        "picture": tile_uri(part.sample(index)),
        "key": f"{part.split}/{key}" if len(found.parts) > 1 else key,
        "lines": lines,
    }


def _tiles(found: Look, rows: Iterable[int]) -> list[dict[str, Any]]:
    return [_tile(found, row) for row in rows]


def _groups(found: Look) -> list[dict[str, Any]]:
    """Groups of near-duplicates, those across splits first, then the larger ones."""
    split = split_numbers(found.parts)
    rows = sorted(found.duplicates.groups(), key=lambda group: len(np.unique(split[group])) == 1)
    alike = np.zeros(len(split), dtype=np.float32)
    np.maximum.at(alike, found.duplicates.pairs.ravel(), np.repeat(found.duplicates.likeness, 2))
    shown = []
    for group in rows[:GROUPS]:
        names = sorted({found.parts[number].split for number in split[group]})
        labels = set() if found.labels is None else {int(found.labels[row]) for row in group}
        text = f"{_counted(len(group), 'picture')}, likeness {alike[group].max():.2f}"
        if len(names) > 1:
            text += f", across {' and '.join(names)}"
        if len(labels) > 1:
            text += ", with different labels"
        shown.append({"text": text, "tiles": _tiles(found, group[:MEMBERS])})
    return shown


def _outliers(found: Look) -> list[dict[str, Any]]:
    if found.outliers is None:
        return []
    rows = found.outliers.order[:OUTLIERS]
    return [_tile(found, row, f"{found.outliers.score[row]:.2f}") for row in rows]


def _clusters(found: Look) -> list[dict[str, Any]]:
    if found.clusters is None:
        return []
    shown = []
    for number, rows in enumerate(found.clusters.nearest):
        text = f"Cluster {number}: {_counted(len(rows), 'picture')}"
        if found.labels is not None:
            labels, counts = np.unique(found.labels[rows], return_counts=True)
            first = np.argsort(-counts, kind="stable")[:3]
            shares = [
                f"{class_name(found.class_names, int(labels[i]), 30)} {100 * counts[i] / len(rows):.0f} %"
                for i in first
            ]
            text += f"; {', '.join(shares)}"
        shown.append({"text": text, "tiles": _tiles(found, rows[:NEAREST])})
    return shown


def _map(found: Look) -> dict[str, Any] | None:
    """Points in per cent of the map, each with the place of its picture on one sprite."""
    if found.places is None:
        return None
    places = found.places.places
    low, high = places.min(axis=0), places.max(axis=0)
    shares = (places - low) / np.maximum(high - low, 1e-9)
    colour_of = found.labels if found.labels is not None else found.clusters.of if found.clusters is not None else None
    sheet, columns = sprite([part.sample(i) for part, i in map(found.place_of, found.places.rows.tolist())])
    drawn = found.places.rows if colour_of is None else colour_of[found.places.rows]
    groups, of, counts = np.unique(drawn, return_inverse=True, return_counts=True)
    if colour_of is None:
        groups, of = groups[:0], np.zeros(len(drawn), dtype=np.int64)
    points = []
    for number, row in enumerate(found.places.rows.tolist()):
        x, y = 1 + 98 * shares[number, 0], 1 + 98 * (1 - shares[number, 1])
        tile = _caption(found, row)
        points.append(
            {
                "x": f"{x:.2f}",
                "y": f"{y:.2f}",
                "side": ("right" if x > 50 else "left") + (" below" if y < 50 else " above"),
                "group": int(of[number]),
                "colour": COLOURS[int(of[number]) % len(COLOURS)],
                "left": -(number % columns) * SPRITE,
                "top": -(number // columns) * SPRITE,
                "text": tile,
            }
        )
    return {
        "sprite": sheet,
        "points": points,
        "groups": [
            {
                "name": f"cluster {group}" if found.labels is None else class_name(found.class_names, group),
                "colour": COLOURS[index % len(COLOURS)],
                "count": count,
            }
            for index, (group, count) in enumerate(zip(groups.tolist(), counts.tolist(), strict=True))
        ],
        "perplexity": f"{found.places.perplexity:g}",
        "dimensions": found.places.dimensions,
        "coloured": "" if colour_of is None else "class" if found.labels is not None else "cluster",
        "unfolded": UNFOLDED,
    }


def _caption(found: Look, row: int) -> str:
    part, index = found.place_of(row)
    key = str(part.keys[index]).encode(errors="backslashreplace").decode()
    return key if found.labels is None else f"{class_name(found.class_names, int(found.labels[row]), 30)}: {key}"


def _suspects(found: Look) -> list[dict[str, Any]]:
    if found.check is None:
        return []
    rows = list(zip(found.check.suspected.tolist(), found.check.instead.tolist(), strict=True))[:SUSPECTS]
    return [_tile(found, row, f"{class_name(found.class_names, label, 40)}? Now:") for row, label in rows]


def _wrong(found: Look) -> list[dict[str, Any]]:
    """What the probe is surest about and wrong, without what is shown as a suspected label already."""
    if found.check is None:
        return []
    shown = set(found.check.suspected[:SUSPECTS].tolist())
    rows = [row for row in found.check.confidently_wrong.tolist() if row not in shown][:OUTLIERS]
    texts = {
        row: f"{class_name(found.class_names, int(found.check.predicted[row]), 40)} "
        f"{100 * found.check.probability[row]:.0f} %. Given:"
        for row in rows
    }
    return [_tile(found, row, texts[row]) for row in rows]
