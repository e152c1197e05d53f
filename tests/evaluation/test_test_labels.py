"""Nothing is ever chosen on the test split: with every test label poisoned, each choice and prediction is the same."""

from __future__ import annotations

import numpy as np
import pytest

from evaluation.evaluate import evaluate
from evaluation.frozen import Features
from evaluation.protocols import PROTOCOLS, protocol
from tests.evaluation.test_finetune import coloured
from tests.zoo.checkpoints import small_encoder
from zoo.features.extract import embed

#: Small, but with something to choose in every grid.
SETTINGS = {
    "finetune": {"steps": 4, "batch_size": 8, "lr_grid": (0.01, 0.1)},
    "few_label": {"amounts": (1, 5), "draws": 2},
    "prototypes": {"ways": 2, "shots": (1, 2), "queries": 3, "episodes": 5},
}


@pytest.fixture(scope="module")
def parts():
    """Training and test features with the data and the network behind them."""
    encoder = small_encoder()

    def part(split: str, n: int, seed: int) -> Features:
        data = coloured(split, n, seed)
        return Features(embed(encoder, data), data.labels, data, encoder)

    return part("train", 96, 0), part("test", 40, 1)


def poisoned(test: Features) -> Features:
    """Every label wrong, by the same classes in other places: no count of them tells."""
    wrong = (test.labels + 1) % 4
    data = test.dataset.subset(np.arange(len(test)))
    data.labels = wrong
    assert not (wrong == test.labels).any()
    return Features(test.features, wrong, data, test.network)


@pytest.mark.parametrize("name", PROTOCOLS)
@pytest.mark.parametrize("official", [False, True], ids=["drawn", "official validation"])
def test_every_protocol_chooses_without_the_test_labels(parts, name, official):
    train, test = parts
    held = np.arange(80, 96) if official else None
    made = protocol(name, SETTINGS.get(name), precision="fp32")
    honest, blind = (list(made.outcomes(train, part, held)) for part in (test, poisoned(test)))
    assert len(honest) == len(blind) >= 1
    for a, b in zip(honest, blind, strict=True):
        assert a.chosen == b.chosen and a.settings == b.settings and a.warnings == b.warnings
        assert (a.predicted is None) == (b.predicted is None)
        if a.predicted is not None:
            assert np.array_equal(a.predicted, b.predicted)


def test_the_scores_do_see_the_poison(parts):
    """Else the test above could not fail."""
    train, test = parts
    made = protocol("knn")
    honest, blind = made.run(train, test), made.run(train, poisoned(test))
    assert (honest.predicted == test.labels).mean() > 0.5 > (blind.predicted == poisoned(test).labels).mean()


def test_a_whole_evaluation_states_the_same_choices(parts):
    encoder, train, test = parts[0].network, parts[0].dataset, parts[1].dataset
    asked = {"protocols": ("logreg", "knn"), "floors": False}
    honest = evaluate(encoder, train, test, **asked)
    blind = evaluate(encoder, train, poisoned(parts[1]).dataset, **asked)
    assert [row.chosen for row in honest.rows] == [row.chosen for row in blind.rows]
    assert [row.settings for row in honest.rows] == [row.settings for row in blind.rows]
    assert [row.metrics for row in honest.rows] != [row.metrics for row in blind.rows]
