"""`zoo verify`: what a published checkpoint promises, checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from zoo import catalog
from zoo.cards import render_card
from zoo.errors import ZooError
from zoo.loading import load

CARDS = Path(__file__).parents[1] / "model_cards"


@dataclass(frozen=True)
class Check:
    """One line of a verification: whether it holds, and what was checked."""

    ok: bool
    text: str


def verify(name: str) -> list[Check]:
    """Check a checkpoint without any data: hash and strict load, results, card.

    Raises:
        UnknownNameError: no such checkpoint.
    """
    catalog.find(name)
    try:
        encoder = load(name)
        config = encoder.config
        assert config is not None
        checks = [
            Check(
                True, f"sha256 {config.weights.sha256[:12]}..., {config.weights.parameters:,} parameters load strictly"
            )
        ]
        results = catalog.results(name)
    except ZooError as error:
        return [Check(False, str(error))]
    rows = 0 if results is None else len(results.rows)
    checks.append(Check(rows > 0, f"{rows} results measured on these weights"))
    card = CARDS / f"{name}.md"
    if card.exists():
        same = card.read_text(encoding="utf-8") == render_card(config, results)
        fix = "" if same else f"; render it again with `zoo publish {catalog.find(name)} --name {name} --overwrite`"
        checks.append(Check(same, f"model card {'equals' if same else 'differs from'} its results{fix}"))
    return checks
