"""Model cards and short descriptions, made from config.json and results.json: no number is typed by hand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from zoo.architectures.cell_picture import cell_svg
from zoo.architectures.genotype import parse_genotype
from zoo.checkpoint.catalog import check_measured_on, config, results
from zoo.checkpoint.config import CheckpointConfig, StartedFrom, parse_config
from zoo.checkpoint.judging import headline_of
from zoo.checkpoint.numbers import interval_text, metric_title, rounded
from zoo.checkpoint.opening import open_source
from zoo.checkpoint.results import Metric, Results, parse_results, setting_text
from zoo.checkpoint.timm_layout import TimmCheckpoint, is_timm, parse_timm
from zoo.publish import summary
from zoo.text import amount, code_block, code_span, markdown, printable, web_link


def show(address: str) -> str:
    """The essentials of a checkpoint as text: method, data, sizes, measured results, licence.

    Args:
        address: a catalogue name, or any other address that `zoo.load` takes.

    Raises:
        UnknownNameError: no such checkpoint.
        ConfigError: its files are malformed.
        HubError: the hub cannot be reached or does not hold it.
    """
    if ":" not in address:
        return essentials(config(address), results(address))
    source = open_source(address)
    if is_timm(source.config):
        return _timm_essentials(parse_timm(source))
    found = parse_config(source.config, source.label)
    text = source.extra("results.json")
    measured = None if text is None else parse_results(text, f"{source.label}: results.json")
    check_measured_on(measured, found, f"{source.label}: results.json")
    return essentials(found, measured)


def _timm_essentials(found: TimmCheckpoint) -> str:
    """What timm says of its checkpoint; the weights are not fetched for it."""
    (paper, url), input = found.origin, found.input
    lines = [
        f"timm {found.title}: an encoder of the library timm, trained by others.",
        "",
        f"origin      {' '.join(part for part in (paper, url) if part) or 'not stated by timm'}",
        f"address     {found.address}",
        f"input       {input.size[0]}x{input.size[1]} px RGB, {input.interpolation}, crop {input.crop_fraction:g} "
        f"({input.crop_mode})",
        f"licence     {found.licence} (weights)",
    ]
    return "\n".join(printable(line) for line in lines)


TEMPLATE = Path(__file__).resolve().parent / "templates" / "card.md"
#: How the file name of the picture of the results ends.
CHART = "_results.svg"
#: As pyproject.toml says.
CODE_LICENCE = "MIT"
_SUBJECTS = ("encoder", "untrained", "raw")
_PIPELINES = {"image": "image-feature-extraction", "skeleton": "feature-extraction"}
_TASKS = {"image": "image-classification", "skeleton": "other"}


def render_card(config: CheckpointConfig, results: Results | None = None) -> str:
    """The model card as Markdown with Hugging Face front matter, including its model-index.

    The same config and results give the same text. Raises ImportError without jinja2 or huggingface_hub.
    """
    import yaml
    from huggingface_hub import ModelCard
    from jinja2 import Environment, StrictUndefined

    rows = results.rows if results else ()
    claims = results.claims if results else ()
    # `finalize` is the one way out: whatever the template prints is escaped, unless a filter made Markdown of it.
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=markdown)
    environment.filters.update(interval=_interval, number=amount, duration=duration_text, pairs=_pairs)
    environment.filters.update(code=code_span, block=code_block, link=web_link)
    body = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        config=config,
        training=config.training,
        rows=rows,
        comparisons=comparisons(results),
        claims=claims,
        lines=summary.lines(results),
        shown=summary.SHOWN,
        paired=summary.paired(results),
        missing=summary.missing(results),
        not_shown=[*summary.not_shown(results), *summary.search_not_judged(config, claims)],
        claim_summaries=summary.claim_summaries(claims),
        records=list(dict.fromkeys(side for row in rows for side in (row.train, row.test))),
        settings=_settings(results),
        commands=list(dict.fromkeys(row.command for row in rows if row.command)),
        code_licence=CODE_LICENCE,
        input_text=_input(config),
        protocol_name=summary.protocol_name,
        spread_text=summary.spread_text,
        recipe=yaml.safe_dump(config.training.recipe, sort_keys=False, allow_unicode=True).strip(),
        title=config.method.title,
        starts=starts(config),
        start_text=start_text,
        self_supervised=self_supervised(config),
        warnings=sorted({warning for row in rows for warning in row.warnings}),
        metric_title=metric_title,
        pictures=list(card_pictures(config)),
        chart=next((file for file in card_pictures(config, results) if file.endswith(CHART)), None),
    )
    return str(ModelCard(f"---\n{_front_matter(config, results)}\n---\n\n{body.strip()}\n")).rstrip() + "\n"


def card_pictures(config: CheckpointConfig, results: Results | None = None) -> dict[str, str]:
    """Pictures that the card shows, to stand beside it: file name -> SVG.

    The results as bars where there are any; a searched network also shows its cell.
    """
    chart = None if results is None else summary.chart_svg(results, f"{config.name}: results beside baselines")
    found = {} if chart is None else {f"{config.name}{CHART}": chart}
    if config.architecture.family != "cell_network":
        return found
    genotype = parse_genotype(config.architecture.arguments["genotype"])
    title = f"{config.name}: {'NAS-Bench-201' if genotype.format.startswith('nas') else 'DARTS'} cell"
    return found | {f"{config.name}_cell.svg": cell_svg(genotype, title)}


def comparisons(results: Results | None) -> list[dict[str, Any]]:
    """Rows for a table: one per data, protocol, seed and metric, with the encoder beside its baselines.

    Each is a dict of `train`, `test`, `classes`, `protocol`, `seed`, `metric` and, per subject, a
    `Metric` or None.
    """
    table: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in results.rows if results else ():
        for metric, value in row.metrics.items():
            key = (row.test, row.train, summary.protocol_name(row), row.seed, metric)
            line = table.setdefault(
                key,
                {"train": row.train, "test": row.test, "classes": row.classes, "protocol": summary.protocol_name(row)}
                | {"seed": row.seed, "metric": metric}
                | dict.fromkeys(_SUBJECTS),
            )
            line[row.subject] = value
    return list(table.values())


def essentials(config: CheckpointConfig, results: Results | None = None) -> str:
    """A plain-text summary, as `zoo show` and `torch.hub.help` print it."""
    training, data, weights = config.training, config.training.dataset, config.weights
    lines = [
        f"{config.method.title} encoder: {architecture_text(config)}, trained on {data.name} "
        f"{'without' if self_supervised(config) else 'with'} labels.",
        "",
        f"method      {config.method.paper}" + (f" {config.method.url}" if config.method.url else ""),
        f"data        {data.name}/{data.split}, {amount(data.samples)} samples (licence: {data.licence})",
        f"training    {amount(training.epochs)} epochs, {amount(training.samples_seen)} samples seen, "
        f"seed {amount(training.seed)}, {training.hardware}, {duration_text(training.wall_time_s)}",
        *(f"started     from {start_text(start)}" for start in starts(config)),
        f"input       {_input(config)}",
        f"features    {config.num_features} per sample",
        f"parameters  {weights.parameters:,}, stored as {weights.dtype} in {weights.bytes / 1e6:.1f} MB",
        f"licence     {config.licence} (weights)",
    ]
    return "\n".join(map(printable, [*lines, "", *_measured(results)]))


def starts(config: CheckpointConfig) -> list[StartedFrom]:
    """The checkpoints that the training went on from, the latest first; empty for one from random weights."""
    found, start = [], config.training.started_from
    while start is not None:
        found.append(start)
        start = start.started_from
    return found


def start_text(start: StartedFrom) -> str:
    """`NAME, sha256 ..., itself trained for ...`."""
    return (
        f"{start.name}, sha256 {start.sha256}, itself trained for {amount(start.epochs)} epochs "
        f"({amount(start.samples_seen)} samples seen) with {start.method} on {start.dataset.name}"
    )


def self_supervised(config: CheckpointConfig) -> bool:
    """False for strategies that train with labels beside the self-supervised tasks."""
    method = config.training.recipe.get("method")
    return not isinstance(method, dict) or method.get("strategy", "pretrain") == "pretrain"


def _front_matter(config: CheckpointConfig, results: Results | None) -> str:
    from huggingface_hub import ModelCardData

    known = re.fullmatch(r"[A-Za-z0-9.-]+", config.licence)
    data = ModelCardData(
        license=config.licence.lower() if known else "other",
        license_name=None if known else printable(config.licence),
        library_name="encoder-zoo",
        pipeline_tag=_PIPELINES[config.modality],
        tags=["self-supervised", printable(config.method.name), config.modality],
        model_name=config.name,
        eval_results=_eval_results(config, results) or None,
    )
    return data.to_yaml()


def _eval_results(config: CheckpointConfig, results: Results | None) -> list[Any]:
    from huggingface_hub import EvalResult

    return [
        EvalResult(
            task_type=_TASKS[config.modality],
            dataset_type=printable(row.test.name.lower()),
            dataset_name=printable(row.test.name),
            dataset_split=printable(row.test.split),
            dataset_revision=printable(row.test.fingerprint),
            metric_type="accuracy" if metric == "top1" else printable(metric),
            metric_name=printable(f"{metric_title(metric)}, {summary.protocol_name(row)}, seed {row.seed}"),
            metric_value=rounded(row.metrics[metric].value),
        )
        for row in (results.rows if results else ())
        if row.subject == "encoder"
        for metric in [headline_of(row)]
    ]


def _settings(results: Results | None) -> list[tuple[str, dict[str, Any]]]:
    """Each protocol with its settings, once: `labels` and `variant` stand in its name."""
    found: dict[str, tuple[str, dict[str, Any]]] = {}
    for row in results.rows if results else ():
        own = {name: value for name, value in row.settings.items() if name not in ("labels", "variant", "name")}
        found.setdefault(f"{row.protocol} {own}", (row.protocol, own))
    return list(found.values())


def architecture_text(config: CheckpointConfig) -> str:
    """The network and the arguments that are not empty."""
    arguments = config.architecture.arguments
    extra = ", ".join(
        f"{key} {value}" for key, value in arguments.items() if key != "model" and value not in ({}, None)
    )
    return str(arguments.get("model", config.architecture.family)) + (f" ({extra})" if extra else "")


def _input(config: CheckpointConfig) -> str:
    if config.input.modality == "image":
        height, width = config.input.size
        return f"RGB images, {height} x {width} px; encoder.transform() makes them"
    return f"skeletons of {config.input.joints} joints x {config.input.channels} ({config.input.layout})"


def _measured(results: Results | None) -> list[str]:
    lines = ["measured (95 % intervals; baselines: the same probe on the untrained network and on the raw input)"]
    table = comparisons(results)
    if not table:
        return ["not measured yet"]
    for line in table:
        if line["encoder"] is None:
            continue
        known = [subject for subject in _SUBJECTS[1:] if line[subject] is not None]
        baselines = [f"{subject} {_interval(line[subject])}" for subject in known]
        lines.append(
            f"  {line['test'].name}/{line['test'].split}, {line['protocol']}, {metric_title(line['metric'])}: "
            f"{_interval(line['encoder'])}; baselines: {', '.join(baselines) or 'none measured'}"
        )
    return lines


def duration_text(seconds: float | None) -> str:
    """Seconds as a reader takes them in."""
    if seconds is None:
        return "time unknown"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _interval(metric: Metric | None) -> str:
    return interval_text(metric, " %")


def _pairs(row: dict[str, Any]) -> str:
    return ", ".join(f"{key} = {_bracketed(value)}" for key, value in row.items()) or "none"


def _bracketed(value: object) -> str:
    return f"[{setting_text(value)}]" if isinstance(value, (list, tuple)) else setting_text(value)
