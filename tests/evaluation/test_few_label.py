"""Few labels: which samples keep theirs, what the probe looks at, and what its intervals cover."""

from __future__ import annotations

import numpy as np
import pytest

from evaluation.__main__ import main
from evaluation.evaluate import evaluate
from evaluation.frozen import Features
from evaluation.metrics import with_intervals
from evaluation.protocols.few_label import FewLabelProbe, FewLabelV1, draw_labels
from tests.zoo.checkpoints import write_small
from zoo.checkpoint.loading import load
from zoo.checkpoint.results import Results, read_results
from zoo.data.addresses import open_dataset
from zoo.errors import DataError
from zoo.publish.card import comparisons

DATA = "synthetic:shapes?n=160&size=16"


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("few") / "simclr_small_toys"
    write_small(folder)
    return f"local-dir:{folder}"


def clusters(n: int, seed: int, spread: float = 1.0) -> Features:
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 4
    centres = np.random.default_rng(9).normal(size=(4, 12)) * 2
    return Features((centres[labels] + spread * rng.normal(size=(n, 12))).astype(np.float32), labels)


def test_a_draw_is_balanced_nested_and_never_leaves_a_class_out():
    labels = np.repeat([0, 1, 2], [100, 40, 3])
    rows, short = draw_labels(labels, 0.05, seed=0, draw=0)
    assert np.bincount(labels[rows]).tolist() == [5, 2, 1] and short == 0
    more, _ = draw_labels(labels, 0.2, seed=0, draw=0)
    assert set(rows) < set(more)
    assert not np.array_equal(rows, draw_labels(labels, 0.05, seed=0, draw=1)[0])
    shots, short = draw_labels(labels, 5, seed=0, draw=0)
    assert np.bincount(labels[shots]).tolist() == [5, 5, 3] and short == 1


@pytest.mark.parametrize("amount", [0, -0.1, 1.5])
def test_an_amount_that_means_nothing_is_refused(amount):
    with pytest.raises(DataError, match="share below 1 or a whole number"):
        draw_labels(np.array([0, 1]), amount, 0, 0)


def test_more_labels_help():
    train, test = clusters(400, 0, 2.5), clusters(400, 1, 2.5)
    probe = FewLabelProbe(FewLabelV1(amounts=(1, 0.5)))
    few, many = probe.outcomes(train, test)
    assert few.predicted.shape == (5, 400) and (few.chosen["samples"], many.chosen["samples"]) == (4, 200)
    assert (many.predicted == test.labels).mean() > (few.predicted == test.labels).mean() + 0.05


def test_intervals_cover_draws_and_test_samples():
    true = np.arange(200) % 2
    same = np.tile(np.where(np.arange(200) < 150, true, 1 - true), (5, 1))
    found = with_intervals(true, same)["top1"]
    assert found.value == pytest.approx(0.75) and 0.04 < found.high - found.low < 0.18
    # Draws that differ widely make the interval wider than test sampling alone.
    mixed = np.stack([true, true, 1 - true, true, 1 - true])
    wide = with_intervals(true, mixed)["top1"]
    assert wide.value == pytest.approx(0.6) and wide.high - wide.low > 0.4


def test_evaluate_gives_a_row_for_each_amount_and_the_card_keeps_them_apart(address):
    data = open_dataset(DATA, "train"), open_dataset(DATA, "test")
    found = evaluate(
        load(address), *data, protocols=["few_label"], settings={"few_label": {"amounts": (2, 0.5)}}, precision="fp32"
    )
    assert [(row.subject, row.settings["labels"]) for row in found.rows] == [
        (subject, labels) for subject in ("encoder", "untrained", "raw") for labels in ("2 per class", "50 %")
    ]
    lines = [line for line in comparisons(Results(rows=found.rows)) if line["metric"] == "top1"]
    assert [line["protocol"] for line in lines] == ["few-label-v1, 2 per class", "few-label-v1, 50 %"]
    assert all(line[subject] is not None for line in lines for subject in ("encoder", "untrained", "raw"))


def test_the_command_takes_amounts_and_writes_a_report(address, tmp_path, capsys):
    out = tmp_path / "report"
    arguments = [address, DATA, "--protocol", "few_label", "--labels", "0.1", "3", "--no-floors", "--out", str(out)]
    assert main(arguments) == 0
    assert "few-label-v1" in capsys.readouterr().out
    stored = read_results(out / "results.json").rows
    assert [row.settings["labels"] for row in stored] == ["10 %", "3 per class"]
    assert (out / "report.html").is_file()
    assert main([address, DATA, "--protocol", "few_label", "--labels", "-1"]) == 2
    assert "greater than 0" in capsys.readouterr().err
