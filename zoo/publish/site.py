"""`zoo site`: the catalogue as one static, searchable page that needs no server and loads nothing from elsewhere."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

from zoo.checkpoint import catalog
from zoo.checkpoint.config import CheckpointConfig
from zoo.checkpoint.numbers import interval_text, metric_title, percent
from zoo.checkpoint.results import Claim, Results
from zoo.errors import CheckpointError
from zoo.files import disk_errors, write_text
from zoo.publish.card import (
    card_pictures,
    comparisons,
    duration_text,
    render_card,
    self_supervised,
)
from zoo.publish.summary import protocol_name
from zoo.text import amount, page_text

TEMPLATE = Path(__file__).resolve().parent / "templates" / "site.html"
#: Pictures that lie in a checkpoint folder are shown; larger ones would make the page heavy.
MAX_PICTURE_BYTES = 400_000
_PICTURES = {".png": "image/png", ".jpg": "image/jpeg", ".svg": "image/svg+xml", ".webp": "image/webp"}
#: Width and height at most of a picture in the table, twice what it takes there.
THUMBNAIL = (176, 88)
#: Charts on a card before the reader opens it.
_CHARTS = 3
#: Columns of numbers in the table that compares: what they are called -> how their protocol's name begins.
_COMPARED = {"linear": "logreg", "kNN": "knn-v"}


def write_site(out: str | Path, title: str = "Encoder Zoo") -> Path:
    """Write `out/index.html` and `out/cards/NAME.md` for every published checkpoint; returns the page's path.

    Raises:
        ConfigError: a checkpoint's files are malformed.
        CheckpointError: the disk is full or not writable.
    """
    from jinja2 import Environment, StrictUndefined

    out = Path(out)
    found = {name: (catalog.config(name), catalog.results(name)) for name in catalog.list_models()}
    entries = [_entry(name, config, results) for name, (config, results) in found.items()]
    keys = {"modality": "modality", "method": "method", "dataset": "dataset"}
    choices = {label: sorted({entry[key] for entry in entries}) for label, key in keys.items()}
    environment = Environment(
        undefined=StrictUndefined, autoescape=True, trim_blocks=True, lstrip_blocks=True, finalize=page_text
    )
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    files = {out / "cards" / f"{name}.md": render_card(config, results) for name, (config, results) in found.items()}
    for config, results in found.values():
        files |= {out / "cards" / file: text for file, text in card_pictures(config, results).items()}
    headers = ["name", "test data", *(f"{title}, %" for title in _COMPARED), "method", "features", "parameters", "MB"]
    files[out / "index.html"] = template.render(title=title, entries=entries, choices=choices, headers=headers)
    for path, text in files.items():
        with disk_errors(path, CheckpointError):
            path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text, CheckpointError)
    return out / "index.html"


def _entry(name: str, config: CheckpointConfig, results: Results | None) -> dict[str, Any]:
    import yaml

    training, data = config.training, config.training.dataset
    dataset = data.name.partition(" (")[0]
    rows = results.rows if results else ()
    tested = " ".join(sorted({row.test.name for row in rows}))
    method, network = config.method, config.architecture
    pictures = [*_pictures(catalog.find(name)), *_embedded(config)]
    model = str(network.arguments.get("model", network.family))
    labels = "without" if self_supervised(config) else "with"
    words = (name, method.title, method.name, config.modality, model, network.family, data.name, tested)
    return {
        "name": name,
        "modality": config.modality,
        "method": config.method.title,
        "dataset": dataset,
        "features": f"{config.num_features:,}",
        "parameters": _short(config.weights.parameters),
        "text": " ".join(words).lower(),
        "sentence": f"{model}, trained {labels} labels on {data.name}{_effort(config)}.",
        "snippet": f'import zoo\nencoder = zoo.load("{name}")',
        "compared": _compared(config, results),
        "charts": _charts(results),
        "warnings": sorted({warning for row in rows for warning in row.warnings}),
        "pictures": pictures,
        "thumbnail": _thumbnail(pictures),
        "rows": _rows(results),
        "claims": [_claim(claim) for claim in (results.claims if results else ())],
        "tables": {
            "Network": _plain(network.arguments),
            "Preprocessing": _plain(config.input.model_dump()),
            "Training": _training(config),
        },
        "recipe": yaml.safe_dump(training.recipe, sort_keys=False, allow_unicode=True).strip(),
    }


def _compared(config: CheckpointConfig, results: Results | None) -> list[dict[str, Any]]:
    """Cells of the comparison after the name: what is printed, and the number a column is sorted by."""
    shown = [line for line in comparisons(results) if line["metric"] == "top1" and line["encoder"] is not None]
    first = {
        title: next((line for line in shown if line["protocol"].startswith(start)), None)
        for title, start in _COMPARED.items()
    }
    tests = dict.fromkeys(f"{line['test'].name}/{line['test'].split}" for line in first.values() if line is not None)
    cells: list[dict[str, Any]] = [{"text": ", ".join(tests) or "not measured", "sort": None}]
    for line in first.values():
        if line is None:
            cells.append({"text": "", "sort": ""})
            continue
        value, floor = line["encoder"].value, line["untrained"]
        cells.append(
            {
                "text": percent(value),
                "sort": value,
                "width": f"{60 * min(max(value, 0), 1):.1f}",
                "floor": None if floor is None else f"{60 * min(max(floor.value, 0), 1):.1f}",
                "floor_text": "" if floor is None else f"untrained {percent(floor.value)} %",
            }
        )
    cells.append({"text": config.method.title, "sort": None})
    cells.append({"text": f"{config.num_features:,}", "sort": config.num_features})
    cells.append({"text": _short(config.weights.parameters), "sort": config.weights.parameters})
    cells.append({"text": f"{config.weights.bytes / 1e6:.1f}", "sort": config.weights.bytes})
    return cells


def _short(count: int) -> str:
    return f"{count / 1e6:.1f} M" if count >= 1e6 else f"{count / 1e3:.0f} k" if count >= 1e4 else f"{count:,}"


def _effort(config: CheckpointConfig) -> str:
    training = config.training
    if training.epochs is None:
        return ""
    seen = f", {training.samples_seen:,} samples seen" if training.samples_seen is not None else ""
    return f" for {amount(training.epochs)} epochs{seen}"


def _charts(results: Results | None) -> list[dict[str, Any]]:
    """Bars of top-1 accuracy, the encoder beside its baselines; one chart per data and protocol."""
    charts = []
    for line in comparisons(results):
        if line["metric"] != "top1" or line["encoder"] is None:
            continue
        bars = [
            {"label": subject, "own": subject == "encoder", "width": f"{100 * value.value:.1f}"}
            | {"value": f"{100 * value.value:.1f} %"}
            for subject in ("encoder", "untrained", "raw")
            if (value := line[subject]) is not None
        ]
        test = line["test"]
        title = f"{test.name}/{test.split}, {line['classes']} classes, {line['protocol']}, seed {line['seed']}: top-1"
        charts.append({"title": title, "bars": bars})
    return charts[:_CHARTS]


def _rows(results: Results | None) -> list[dict[str, str]]:
    return [
        {
            "what": f"{row.test.name}, {protocol_name(row)}, {row.subject}",
            "value": "; ".join(
                f"{metric_title(key)} {interval_text(value, ' %')}" for key, value in row.metrics.items()
            ),
            "command": row.command if row.subject == "encoder" else "",
        }
        for row in (results.rows if results else ())
    ]


def _claim(claim: Claim) -> dict[str, Any]:
    """A claim as its title, what was measured, and one line per arm and per difference."""
    seeds = f"{len(claim.seeds)} seed" + ("s" if len(claim.seeds) > 1 else "")
    facts = {name: f"{100 * sum(values) / len(values):.1f} % (mean of {seeds})" for name, values in claim.arms.items()}
    for d in claim.differences:
        interval = "one seed" if d.low is None or d.high is None else f"[{100 * d.low:+.1f}, {100 * d.high:+.1f}]"
        facts[f"{d.arm} − {d.other}"] = f"{100 * d.mean:+.1f} points {interval}"
    return {"title": claim.title, "note": f"{claim.measure}. {claim.setting}", "facts": facts, "command": claim.command}


def _training(config: CheckpointConfig) -> dict[str, str]:
    training, data = config.training, config.training.dataset
    facts = {
        "paper": config.method.paper,
        "dataset": f"{data.name}/{data.split}" + (f", {data.samples:,} samples" if data.samples is not None else ""),
        "data licence": data.licence,
        "weights licence": config.licence,
        "seed": training.seed,
        "hardware": training.hardware,
        "wall time": None if training.wall_time_s is None else duration_text(training.wall_time_s),
        "code commit": training.code_commit,
        "versions": ", ".join(f"{key} {value}" for key, value in training.versions.items()),
        "sha256": config.weights.sha256,
    }
    return _plain(facts)


def _plain(facts: dict[str, Any]) -> dict[str, str]:
    return {
        key.replace("_", " "): ", ".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
        for key, value in facts.items()
        if value is not None
    }


def _embedded(config: CheckpointConfig) -> list[dict[str, str]]:
    """The pictures of the card."""
    return [
        _picture(Path(file), Path(file).stem.removeprefix(f"{config.name}_"), text.encode())
        for file, text in card_pictures(config).items()
    ]


def _picture(path: Path, caption: str, content: bytes) -> dict[str, str]:
    return {"caption": caption, "source": f"data:{_PICTURES[path.suffix]};base64,{base64.b64encode(content).decode()}"}


def _thumbnail(pictures: list[dict[str, str]]) -> str:
    """The first picture, small, for the table; empty without one or where it cannot be read."""
    if not pictures:
        return ""
    source = pictures[0]["source"]
    if source.startswith("data:image/svg"):
        return source
    from PIL import Image

    try:
        with Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))) as picture:
            small = picture.convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError):
        return ""
    small.thumbnail(THUMBNAIL)
    buffer = io.BytesIO()
    small.save(buffer, format="PNG", optimize=True)
    return _picture(Path("thumbnail.png"), "", buffer.getvalue())["source"]


def _pictures(folder: Path) -> list[dict[str, str]]:
    """Pictures beside the weights, embedded; the file name is the caption."""
    return [
        _picture(path, path.stem.replace("_", " "), path.read_bytes())
        for path in sorted(folder.iterdir())
        if path.suffix in _PICTURES and path.is_file() and path.stat().st_size <= MAX_PICTURE_BYTES
    ]
