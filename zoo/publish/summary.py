"""The part of a card that a person reads: the one table, what did not show, and the strongest thing against a claim."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from zoo.checkpoint.config import CheckpointConfig
from zoo.checkpoint.judging import Judgement, headline_of, headline_versus, judged, subject_title, versus_text
from zoo.checkpoint.numbers import interval_text, metric_title, percent, points
from zoo.checkpoint.results import Claim, Difference, Result, Results, variant_of

#: Rows of the table that a reader meets first; the rest folds away.
SHOWN = 7
#: Protocols in the order of the table: the beginning of a versioned name.
ORDER = ("logreg", "knn-v", "few-label", "finetune", "transfer", "retrieval")
#: Whoever publishes is asked for these; a card says which are missing.
EXPECTED = {"logreg": "linear probe", "knn-v": "kNN", "few-label": "few labels", "finetune": "fine-tuning"}
#: What tables call an arm with random weights.
BASELINE = "untrained"


@dataclass(frozen=True)
class Line:
    """One row of the table, ready to print; numbers in per cent."""

    data: str
    protocol: str
    metric: str
    encoder: str
    untrained: str
    raw: str
    difference: str


def protocol_name(row: Result) -> str:
    """The protocol, and what tells its rows apart or how long it trained: `"few-label-v1, 5 %"`."""
    return ", ".join(part for part in (row.protocol, variant_of(row), _length(row)) if part)


def _length(row: Result) -> str:
    """How long fine-tuning trained, without which its numbers mean little: `"100 steps of 32"`; else nothing."""
    epochs, steps, batch = (row.settings.get(name) for name in ("epochs", "steps", "batch_size"))
    if not row.protocol.startswith("finetune") or steps is None:
        return ""
    return f"{steps} steps of {batch}" if epochs is None else f"{epochs} epochs"


def spread_text(row: Result) -> str:
    """The main metric at each initialisation of an untrained network, per cent."""
    name = headline_of(row)
    values = ", ".join(percent(value) for value in row.spread[name])
    return f"{metric_title(name)} at each of {len(row.spread[name])} initialisations: {values}"


def lines(results: Results | None) -> list[Line]:
    """One row per data set and protocol in the metric of the field, the most telling first."""
    return [_line(each) for each in _judgements(results)]


def missing(results: Results | None) -> list[str]:
    """Which of the usual measurements a card lacks."""
    names = [row.protocol for row in results.rows] if results else []
    return [title for start, title in EXPECTED.items() if not any(name.startswith(start) for name in names)]


def paired(results: Results | None) -> bool:
    """Whether every comparison with a baseline is a paired one."""
    return all(each.versus is not None for each in _judgements(results) if each.baseline is not None)


def not_shown(results: Results | None) -> list[str]:
    """Where the encoder does not beat the better of its baselines: a sentence for each data set and outcome."""
    found: dict[str, list[str]] = {}
    comparisons = sum(len(headline_versus(row)) for row in results.rows) if results else 0
    for each in _judgements(results):
        if each.outcome not in ("same", "below") or each.baseline is None:
            continue
        said = "is worse than" if each.outcome == "below" else "is not distinguishable from"
        data = f"{each.row.test.name}/{each.row.test.split}"
        corrected = f", corrected for {comparisons} comparisons (Holm)," if each.versus and comparisons > 1 else ""
        head = f"On {data} the encoder {said} {subject_title(each.baseline)}{corrected} by"
        found.setdefault(head, []).append(f"{protocol_name(each.row)} ({_difference(each)})")
    return [f"{head} {'; '.join(parts)}." for head, parts in found.items()]


def search_not_judged(config: CheckpointConfig, claims: Sequence[Claim]) -> list[str]:
    """A sentence for a searched cell that no claim compares with random cells; else nothing."""
    genotype = config.architecture.arguments.get("genotype")
    if not isinstance(genotype, Mapping) or not genotype.get("search"):
        return []
    if any(arm.startswith("random cell") for claim in claims for arm in claim.arms):
        return []
    return [
        "Whether the search helped is not known: no random cell of the same size was trained by this recipe at this "
        "length, so no number here speaks for the searched cell against another one."
    ]


def claim_summaries(claims: Sequence[Claim]) -> list[str]:
    """One sentence for all claims of one title: the best evidence, and the strongest thing against it."""
    titles: dict[str, list[Claim]] = {}
    for claim in claims:
        titles.setdefault(claim.title, []).append(claim)
    return [_summary(title, members) for title, members in titles.items()]


def _summary(title: str, claims: Sequence[Claim]) -> str:
    own = [(claim, d) for claim in claims for d in map(_forwards(claim), claim.differences) if d is not None]
    certain = [each for each in own if each[1].low is not None and each[1].low > 0]
    rivals = [each for each in own if each[1].other != BASELINE] or own
    doubtful = [each for each in rivals if each[1].low is None or each[1].low <= 0]
    measures = {claim.measure for claim in claims}
    head = title.rstrip(".") + (f" ({claims[0].measure})" if len(measures) == 1 else "")

    def told(claim: Claim, d: Difference) -> str:
        interval = "" if d.low is None or d.high is None else f" [{points(d.low)}, {points(d.high)}]"
        seeds = f"{len(claim.seeds)} seed{'s' * (len(claim.seeds) > 1)}"
        where = claim.setting if len(measures) == 1 else f"{claim.measure}; {claim.setting}"
        return f"{d.arm} minus {d.other} {points(d.mean)} points{interval} over {seeds} ({where})"

    parts = []
    if certain:
        # A rival before random weights, then most seeds.
        best = max(certain, key=lambda each: (each[1].other != BASELINE, len(each[0].seeds), each[1].mean))
        parts.append(f"best evidence for it: {told(*best)}")
    else:
        parts.append("no comparison shows it with certainty")
    if doubtful:
        parts.append(f"strongest against it: {told(*min(doubtful, key=lambda each: each[1].mean))}")
    elif any(each[1].other != BASELINE for each in rivals):
        parts.append("nothing measured speaks against it")
    else:
        parts.append("compared with random weights only")
    return f"{head}: {'; '.join(parts)}."


def _forwards(claim: Claim):
    """A difference as the last arm, which the claim is about, minus another; None for one between other arms."""
    main = list(claim.arms)[-1]

    def turned(d: Difference) -> Difference | None:
        if d.arm == main:
            return d
        if d.other != main:
            return None
        low, high = (None, None) if d.low is None or d.high is None else (-d.high, -d.low)
        return Difference(arm=main, other=d.arm, mean=-d.mean, low=low, high=high)

    return turned


def _judgements(results: Results | None) -> list[Judgement]:
    def order(each: Judgement) -> int:
        return next((i for i, start in enumerate(ORDER) if each.row.protocol.startswith(start)), len(ORDER))

    return sorted(judged(results.rows), key=order) if results else []


def _difference(each: Judgement) -> str:
    """The encoder minus the better baseline, in points."""
    if each.versus is not None or each.baseline is None:
        return versus_text(each.versus)
    own, other = (row.metrics[each.metric].value for row in (each.row, each.baseline))
    return f"{points(own - other)}, unpaired"


def _line(each: Judgement) -> Line:
    row = each.row
    values = {subject: other.metrics[each.metric] for subject, other in each.baselines.items()}
    return Line(
        data=f"{row.test.name}/{row.test.split}, {row.classes} classes, {row.test.samples:,} samples",
        protocol=protocol_name(row),
        metric=metric_title(each.metric),
        encoder=interval_text(row.metrics[each.metric], " %"),
        untrained=interval_text(values.get("untrained"), " %"),
        raw=interval_text(values.get("raw"), " %"),
        difference=_difference(each),
    )


def chart_svg(results: Results, title: str) -> str | None:
    """The table as a picture: the encoder's bar and its baselines' under each protocol, whiskers for intervals.

    Returns:
        SVG text; None where nothing was measured.
    """
    from html import escape

    from zoo.text import printable

    looks = {"encoder": "#0b62a4", "untrained": "#9aa5b1", "raw": "#cfd6dc"}
    parts, top = [], 34
    for each in _judgements(results)[:SHOWN]:
        head = printable(
            f"{protocol_name(each.row)}, {each.row.test.name}/{each.row.test.split}, {metric_title(each.metric)}"
        )
        parts.append(f'<text x="10" y="{top}" font-weight="bold">{escape(head)}</text>')
        for row in [each.row, *each.baselines.values()]:
            metric = row.metrics[each.metric]
            width, low, high = (4 * 100 * min(max(x, 0), 1) for x in (metric.value, metric.low, metric.high))
            middle = top + 14
            parts.append(
                f'<text x="124" y="{middle + 4}" text-anchor="end">{escape(subject_title(row))}</text>'
                f'<rect x="130" y="{top + 7}" width="{width:.1f}" height="13" fill="{looks[row.subject]}"/>'
                f'<path d="M{130 + low:.1f} {middle}H{130 + high:.1f}" stroke="#1b1f24" stroke-width="1.5"/>'
                f'<text x="{136 + max(width, high):.1f}" y="{middle + 4}">{percent(metric.value)} %</text>'
            )
            top += 18
        top += 24
    if not parts:
        return None
    height = top - 10
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="600" height="{height}" viewBox="0 0 600 {height}" role="img" '
        f'aria-label="{escape(printable(title))}" font-family="sans-serif" font-size="12" fill="#1b1f24">'
        f'<rect width="600" height="{height}" fill="#ffffff"/>{"".join(parts)}</svg>\n'
    )
