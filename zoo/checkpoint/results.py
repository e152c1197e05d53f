"""`results.json`: measured numbers, each with its protocol, data, interval and the command that repeats it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from zoo.errors import ConfigError
from zoo.strict import Sha256, Strict, first_problem
from zoo.text import Markdown, markdown


class Difference(Strict):
    """`arm` minus `other`, mean over seeds, with its 95 % interval; fractions of 1, interval None for one seed."""

    arm: str
    other: str
    mean: float
    low: float | None = None
    high: float | None = None


class Claim(Strict):
    """What was compared and what it gave.

    Attributes:
        title: in one sentence. measure: what the numbers are. setting: network, length, hardware.
        arms: name -> one value per seed, fractions of 1.
        differences: of all pairs of arms.
        command, code_commit: what repeats it.
    """

    title: str
    measure: str
    setting: str
    seeds: tuple[int, ...] = Field(min_length=1)
    arms: dict[str, tuple[float, ...]]
    differences: tuple[Difference, ...]
    command: str
    code_commit: str

    def to_json(self) -> str:
        """Text of a `claim.json`."""
        return json.dumps(self.model_dump(mode="json"), indent=1, ensure_ascii=False) + "\n"

    def table(self) -> Markdown:
        """Each arm by seed, then the differences, in per cent."""
        lines = [
            "| arm | " + " | ".join(f"seed {seed}" for seed in self.seeds) + " | mean |",
            "|---|" + "---:|" * (len(self.seeds) + 1),
        ]
        for name, values in self.arms.items():
            cells = [*values, sum(values) / len(values)]
            lines.append(f"| {markdown(name)} | " + " | ".join(f"{100 * v:.2f}" for v in cells) + " |")
        lines += ["", "| difference | points | 95 % interval |", "|---|---:|---:|"]
        for d in self.differences:
            interval = "one seed" if d.low is None else f"[{100 * d.low:+.2f}, {100 * d.high:+.2f}]"
            lines.append(f"| {markdown(d.arm)} − {markdown(d.other)} | {100 * d.mean:+.2f} | {interval} |")
        return Markdown("\n".join(lines))


def read_claim(path: str | Path) -> Claim:
    """Read a `claim.json`. Raises ConfigError: missing or not valid."""
    try:
        return Claim.model_validate(json.loads(Path(path).read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist; a claim's benchmark writes one") from None
    except ValidationError as error:
        raise ConfigError(f"{path} is not a valid claim: {first_problem(error)}") from None
    except ValueError as error:
        raise ConfigError(f"{path} is not valid JSON ({error})") from None


class Metric(Strict):
    """A value with its 95 % interval, all fractions of 1 (not per cent)."""

    value: float
    low: float
    high: float


class DataRecord(Strict):
    """One side of an evaluation: dataset name, split, content fingerprint, sample count."""

    name: str
    split: str
    fingerprint: str
    samples: int = Field(ge=1)


class Versus(Strict):
    """The encoder minus another subject on the same test samples, with its 95 % interval, fractions of 1.

    Attributes:
        other: the other subject. metric: what is compared.
        p: two-sided p-value of no difference, not corrected for other comparisons.
        test: where `p` comes from: McNemar's exact test, or the bootstrap that also gives the interval.
        groups: how many groups of test samples (such as persons) were drawn whole; None: samples were drawn.
    """

    other: str
    metric: str
    value: float
    low: float
    high: float
    p: float = Field(ge=0, le=1)
    test: Literal["mcnemar", "bootstrap"]
    groups: int | None = Field(default=None, ge=1)


class Result(Strict):
    """One row of an evaluation table.

    `subject`: `"encoder"` for the checkpoint itself; `"untrained"` (same network, random weights)
    and `"raw"` (pixels or joints) are the baselines that stand beside it. `protocol` is a versioned
    name from `evaluation.protocols`; `settings` are its fixed settings, `chosen` what it selected
    on held-out training data. `headline` names the metric that the field reports for this dataset and protocol, if
    the row comes from a suite. `warnings` are sentences a reader must see next to the number.
    `spread` holds each metric at every random initialisation of an untrained network, of which `metrics` are the means;
    it is empty where there was one. `versus` are the paired differences of an encoder with its baselines; results
    written before these were measured have none.
    """

    protocol: str
    subject: Literal["encoder", "untrained", "raw"]
    modality: Literal["image", "skeleton"] = "image"
    train: DataRecord
    test: DataRecord
    classes: int = Field(ge=2)
    metrics: dict[str, Metric]
    spread: dict[str, tuple[float, ...]] = {}
    versus: tuple[Versus, ...] = ()
    headline: str | None = None
    settings: dict[str, Any] = {}
    chosen: dict[str, Any] = {}
    seed: int = 0
    warnings: tuple[str, ...] = ()
    seconds: float = Field(default=0.0, ge=0)
    command: str = ""


class Results(Strict):
    """All of `results.json`: the rows, the hash of the weights they were measured on, and the claims of the method
    that were tested beside them, on networks of their own."""

    format_version: Literal[1] = 1
    weights_sha256: Sha256 | None = None
    rows: tuple[Result, ...] = ()
    claims: tuple[Claim, ...] = ()

    def to_json(self) -> str:
        """The text of `results.json`."""
        return json.dumps(self.model_dump(mode="json"), indent=1, ensure_ascii=False) + "\n"


def variant_of(row: Result) -> str:
    """What tells this row from others of its protocol that the same run made: `"5 %"`, `"k = 20"`; "" for none."""
    return str(row.settings.get("labels") or row.settings.get("variant") or "")


def read_results(path: str | Path) -> Results:
    """Read a `results.json`.

    Raises:
        ConfigError: missing or not valid.
    """
    try:
        return parse_results(Path(path).read_bytes(), str(path))
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist; `python -m evaluation` writes one") from None


def merged(parts: Sequence[Results]) -> Results:
    """All rows and claims of several measurements of the same weights, in order, repeated ones once.

    Raises:
        ConfigError: they were measured on different weights.
    """
    hashes = {part.weights_sha256 for part in parts}
    if len(hashes) > 1:
        shown = ", ".join(sorted(f"{str(sha256)[:12]}..." for sha256 in hashes))
        raise ConfigError(f"the results belong to different weights ({shown}); measure one checkpoint and give those")
    rows = {row.model_dump_json(exclude={"seconds"}): row for part in parts for row in part.rows}
    claims = {claim.to_json(): claim for part in parts for claim in part.claims}
    return Results(weights_sha256=hashes.pop(), rows=tuple(rows.values()), claims=tuple(claims.values()))


def parse_results(text: bytes, source: str) -> Results:
    """Parse the text of a `results.json`; `source` names it in errors. Raises ConfigError."""
    try:
        return Results.model_validate(json.loads(text))
    except ValidationError as error:
        raise ConfigError(f"{source} is not a valid results file: {first_problem(error)}") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{source} is not valid JSON ({error})") from None


def setting_text(value: object) -> str:
    """A setting as a person writes it."""
    if value is None:
        return "none"
    if isinstance(value, (list, tuple)):
        return ", ".join(setting_text(part) for part in value)
    return f"{value:g}" if isinstance(value, float) else str(value)
