"""Do the cards say what the checkpoints say?"""

from __future__ import annotations

from pathlib import Path

from zoo.publish.card import card_pictures, render_card


def check_cards(cards_dir: str | Path | None = None) -> list[str]:
    """What is wrong with the model cards: one sentence per card that is missing, stale or without a checkpoint.

    Args:
        cards_dir: folder of the cards; None for `model_cards/` of a checkout.
    """
    from zoo.checkpoint import catalog

    folder = Path(cards_dir) if cards_dir is not None else catalog.EMBEDDED.parent.parent / "model_cards"
    names, problems = catalog.list_models(), []
    for name in names:
        path = folder / f"{name}.md"
        for file, picture in card_pictures(catalog.config(name)).items():
            if not (folder / file).is_file() or (folder / file).read_text(encoding="utf-8") != picture:
                problems.append(f"{folder / file} is missing or not what config.json says; publish {name} again")
        if not path.is_file():
            problems.append(f"{path} is missing; `zoo publish` writes it")
        elif path.read_text(encoding="utf-8") != render_card(catalog.config(name), catalog.results(name)):
            problems.append(f"{path} differs from what config.json and results.json say; publish {name} again")
    orphans = sorted({path.stem for path in folder.glob("*.md")} - set(names))
    return problems + [f"{folder / orphan}.md describes no published checkpoint; remove it" for orphan in orphans]
