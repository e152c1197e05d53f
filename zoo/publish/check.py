"""`zoo verify`: what a published checkpoint and its card promise, checked."""

from __future__ import annotations

from pathlib import Path

from zoo.checkpoint import catalog
from zoo.checkpoint.config import CheckpointConfig
from zoo.checkpoint.opening import open_source
from zoo.checkpoint.sources import FolderSource, Source
from zoo.checkpoint.verify import Check, checked, stored_results, verify_checkpoint
from zoo.errors import ZooError
from zoo.publish.card import card_pictures, render_card

CARDS = catalog.EMBEDDED.parent.parent / "model_cards"


def verify(address: str | Source, *, need_results: bool = True) -> list[Check]:
    """Check a checkpoint without any data: hash and strict load, features on stored inputs, results, card.

    Args:
        address: whatever `zoo.load` takes, or a source that is open already.
        need_results: count a checkpoint that nobody measured as a failure.

    Raises:
        UnknownNameError: no such checkpoint.
    """
    try:
        source = open_source(address) if isinstance(address, str) else address
    except ZooError as error:
        if isinstance(error, LookupError):
            raise
        return [Check(False, str(error))]
    found, config = verify_checkpoint(source, need_results=need_results)
    return found if config is None else [*found, *checked(lambda: _check_card(source, config))]


def stray_cards(cards_dir: Path | None = None) -> list[Check]:
    """One failure for each card in a folder that describes no published checkpoint.

    Args:
        cards_dir: folder of the cards; None for `model_cards/` of a checkout.
    """
    folder = CARDS if cards_dir is None else cards_dir
    known = {*catalog.folders(), *(path.parent.name for path in catalog.EMBEDDED.glob("*/config.json"))}
    stray = sorted({path.stem for path in folder.glob("*.md")} - known)
    return [Check(False, f"{folder / name}.md describes no published checkpoint; remove it") for name in stray]


def _check_card(source: Source, config: CheckpointConfig) -> list[Check]:
    results = stored_results(source, config)
    again = f"render it again with `zoo publish {source.label} --name {config.name} --overwrite`"
    text, where = source.extra("README.md"), "README.md"
    folder: Path | None = None
    if text is None and isinstance(source, FolderSource):
        embedded = source.folder.parent == catalog.EMBEDDED
        folder = CARDS if embedded else source.folder.parent
        path = folder / f"{config.name}.md"
        if not path.is_file() and not (embedded and CARDS.is_dir()):
            return []  # an installed zoo and a run folder promise no card
        text, where = path.read_bytes() if path.is_file() else None, str(path)
    if text is None:
        return [Check(False, f"{where} is missing; `zoo publish` writes it")]
    if text.decode("utf-8", "replace") != render_card(config, results):
        return [Check(False, f"model card {where} differs from its results; {again}")]
    for name, picture in card_pictures(config, results).items():
        found = source.extra(name) if folder is None else _read(folder / name)
        if found != picture.encode():
            return [Check(False, f"the picture {name} of the model card is missing or another; {again}")]
    return [Check(True, "model card equals its results")]


def _read(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None
