"""What a checkpoint promises, checked without any data: hash, strict load, stored outputs, results."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from zoo.checkpoint import catalog
from zoo.checkpoint.config import CheckpointConfig
from zoo.checkpoint.loading import load_source
from zoo.checkpoint.reference import FILE as REFERENCE
from zoo.checkpoint.reference import check_reference, parse_reference
from zoo.checkpoint.results import Results, parse_results
from zoo.checkpoint.sources import FolderSource, Source
from zoo.encoder import Encoder
from zoo.errors import ZooError


@dataclass(frozen=True)
class Check:
    """One line of a verification: whether it holds, and what was checked."""

    ok: bool
    text: str


def verify_checkpoint(source: Source, *, need_results: bool = True) -> tuple[list[Check], CheckpointConfig | None]:
    """Hash and strict load, features on stored inputs, results; and the config where all could be read.

    Args:
        need_results: count a checkpoint that nobody measured as a failure.
    """
    try:
        encoder = load_source(source).eval()
        if isinstance(source, FolderSource) and source.folder in catalog.folders().values():
            catalog.config(source.folder.name)
    except ZooError as error:
        return [Check(False, str(error))], None
    config = encoder.config
    assert config is not None
    weights = config.weights
    loads = Check(True, f"sha256 {weights.sha256[:12]}..., {weights.parameters:,} parameters load strictly")
    parity = checked(lambda: _check_reference(source, encoder, config))
    try:
        results = stored_results(source, config)
    except ZooError as error:
        return [loads, *parity, Check(False, str(error))], None
    rows = 0 if results is None else len(results.rows)
    measured = Check(rows > 0 or not need_results, f"{rows} results measured on these weights")
    return [loads, *parity, measured], config


def checked(check: Callable[[], list[Check]]) -> list[Check]:
    """What `check` finds; an error of the zoo is a failure."""
    try:
        return check()
    except ZooError as error:
        return [Check(False, str(error))]


def _check_reference(source: Source, encoder: Encoder, config: CheckpointConfig) -> list[Check]:
    text = source.extra(REFERENCE)
    if text is None:
        fix = f"`zoo publish FOLDER --name {config.name} --overwrite` adds them"
        return [Check(False, f"no reference outputs ({REFERENCE}); {fix}")]
    reference = parse_reference(text, source.label)
    if reference.weights_sha256 != config.weights.sha256:
        return [Check(False, f"{REFERENCE} was written for other weights; publish {config.name} again")]
    worst = check_reference(reference, encoder)
    return [Check(True, f"features on {len(reference.features)} stored inputs differ by at most {worst:.1e}")]


def stored_results(source: Source, config: CheckpointConfig) -> Results | None:
    """The results.json of a source, None if there is none. Raises ConfigError: malformed, or of other weights."""
    text = source.extra("results.json")
    results = None if text is None else parse_results(text, f"{source.label}: results.json")
    catalog.check_measured_on(results, config, f"{source.label}: results.json")
    return results
