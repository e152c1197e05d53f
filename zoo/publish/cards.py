"""`python -m zoo.publish.cards`: every model card of the catalogue again, from its config.json and results.json."""

from __future__ import annotations

import sys
from pathlib import Path

from zoo.checkpoint import catalog
from zoo.errors import CheckpointError, ZooError
from zoo.files import disk_errors, write_text
from zoo.publish.card import card_pictures, render_card


def write_cards(cards_dir: str | Path | None = None) -> list[Path]:
    """Write `NAME.md` and its pictures for every published checkpoint; nothing is measured.

    Args:
        cards_dir: folder of the cards; None for `model_cards/` of a checkout.

    Returns:
        What was written.

    Raises:
        ConfigError: a checkpoint's files are malformed. CheckpointError: the disk is full or not writable.
    """
    folder = catalog.EMBEDDED.parent.parent / "model_cards" if cards_dir is None else Path(cards_dir)
    with disk_errors(folder, CheckpointError):
        folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name in catalog.list_models():
        config, results = catalog.config(name), catalog.results(name)
        for file, text in {f"{name}.md": render_card(config, results), **card_pictures(config, results)}.items():
            write_text(folder / file, text, CheckpointError)
            written.append(folder / file)
    return written


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 written, 2 a broken checkpoint. Takes the folder of the cards, if another than the checkout's."""
    given = sys.argv[1:] if arguments is None else arguments
    try:
        written = write_cards(*given[:1])
    except ZooError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"wrote {len(written)} files to {written[0].parent}" if written else "the catalogue is empty")
    return 0


if __name__ == "__main__":
    sys.exit(main())
