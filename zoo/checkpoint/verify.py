"""`zoo verify`: what a published checkpoint promises, checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from zoo.checkpoint import catalog
from zoo.checkpoint.config import CheckpointConfig
from zoo.checkpoint.loading import load_checked
from zoo.checkpoint.reference import FILE as REFERENCE
from zoo.checkpoint.reference import check_reference, parse_reference
from zoo.checkpoint.results import Results, parse_results
from zoo.checkpoint.sources import Files, FolderFiles, locate
from zoo.encoder import Encoder
from zoo.errors import ZooError
from zoo.publish.card import render_card

CARDS = catalog.EMBEDDED.parent.parent / "model_cards"


@dataclass(frozen=True)
class Check:
    """One line of a verification: whether it holds, and what was checked."""

    ok: bool
    text: str


def verify(address: str, files: Files | None = None, *, need_results: bool = True) -> list[Check]:
    """Check a checkpoint without any data: hash and strict load, features on stored inputs, results, card.

    Args:
        address: whatever `zoo.load` takes.
        files: where its files come from; None for where `address` says.
        need_results: count a checkpoint that nobody measured as a failure.

    Raises:
        UnknownNameError: no such checkpoint.
    """
    files = files or locate(address)
    try:
        encoder = load_checked(files, files.config()).eval()
        if isinstance(files, FolderFiles) and files.folder in catalog.folders().values():
            catalog.config(files.folder.name)
    except ZooError as error:
        return [Check(False, str(error))]
    config = encoder.config
    assert config is not None
    weights = config.weights
    loads = Check(True, f"sha256 {weights.sha256[:12]}..., {weights.parameters:,} parameters load strictly")
    parity = _checked(lambda: _check_reference(files, encoder, config))
    try:
        results = _results(files, config)
    except ZooError as error:
        return [loads, *parity, Check(False, str(error))]
    rows = 0 if results is None else len(results.rows)
    measured = Check(rows > 0 or not need_results, f"{rows} results measured on these weights")
    return [loads, *parity, measured, *_checked(lambda: _check_card(files, config, results))]


def _checked(check: Callable[[], list[Check]]) -> list[Check]:
    try:
        return check()
    except ZooError as error:
        return [Check(False, str(error))]


def _check_reference(files: Files, encoder: Encoder, config: CheckpointConfig) -> list[Check]:
    text = files.extra(REFERENCE)
    if text is None:
        fix = f"`zoo publish FOLDER --name {config.name} --overwrite` adds them"
        return [Check(False, f"no reference outputs ({REFERENCE}); {fix}")]
    reference = parse_reference(text, files.label)
    if reference.weights_sha256 != config.weights.sha256:
        return [Check(False, f"{REFERENCE} was written for other weights; publish {config.name} again")]
    worst = check_reference(reference, encoder)
    return [Check(True, f"features on {len(reference.features)} stored inputs differ by at most {worst:.1e}")]


def _results(files: Files, config: CheckpointConfig) -> Results | None:
    text = files.extra("results.json")
    results = None if text is None else parse_results(text, f"{files.label}: results.json")
    catalog.check_measured_on(results, config, f"{files.label}: results.json")
    return results


def _check_card(files: Files, config: CheckpointConfig, results: Results | None) -> list[Check]:
    card, where = _card(files, config.name)
    if card is None:
        return [Check(False, f"{where} is missing; `zoo publish` writes it")] if where else []
    if card == render_card(config, results):
        return [Check(True, "model card equals its results")]
    fix = f"render it again with `zoo publish {files.label} --name {config.name} --overwrite`"
    return [Check(False, f"model card {where} differs from its results; {fix}")]


def _card(files: Files, name: str) -> tuple[str | None, str]:
    """The card's text, and its place; no place where none is promised (an installed zoo, a run folder)."""
    text = files.extra("README.md")
    if text is not None:
        return text.decode("utf-8", "replace"), "README.md"
    if not isinstance(files, FolderFiles):
        return None, "README.md"
    embedded = files.folder.parent == catalog.EMBEDDED
    path = CARDS / f"{name}.md" if embedded else files.folder.parent / f"{name}.md"
    if path.is_file():
        return path.read_text(encoding="utf-8"), str(path)
    return None, str(path) if embedded and CARDS.is_dir() else ""
