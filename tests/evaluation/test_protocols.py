"""Every protocol keeps the contract, and a new one is one file and one entry."""

from __future__ import annotations

import re

import numpy as np
import pytest

from evaluation.__main__ import main
from evaluation.frozen import Features
from evaluation.protocols import PROTOCOLS, describe, protocol, protocol_title, short_name
from tests.evaluation.test_probe import clusters
from tests.zoo.checkpoints import write_small
from zoo.checkpoint.results import read_results
from zoo.errors import UnknownNameError

#: Five classes of sixteen samples and more: enough for an episode of `prototypes`.
TRAIN, TEST = clusters(100, classes=5, seed=1), clusters(100, classes=5, seed=2)
#: Settings that make a test of seconds.
QUICK = {"prototypes": {"episodes": 10, "queries": 10}, "linear_sgd": {"epochs": 3}}
FROZEN = [short for short, each in PROTOCOLS.items() if not each.needs_network]
FILE = '''
"""The share of the commonest training class: what guessing reaches."""

import numpy as np

from evaluation.frozen import check, Outcome
from evaluation.protocols.base import Protocol
from zoo.strict import Strict


class MajorityV1(Strict):
    """Every test sample takes the commonest training class."""


class Majority(Protocol[MajorityV1]):
    name = "majority-v1"
    title = "the commonest class"
    settings_type = MajorityV1

    def run(self, train, test, held=None):
        return Outcome(np.full(len(test), np.bincount(train.labels).argmax()), {}, check(train, test))
'''


@pytest.mark.parametrize("short", PROTOCOLS)
def test_every_protocol_says_what_it_is(short):
    each = PROTOCOLS[short]
    assert re.fullmatch(r"[a-z0-9-]+-v\d+", each.name) and short_name(each.name) == short
    assert len(each.text()) > 80 and describe(each.name) == each.text() and "`" not in each.text()
    assert protocol_title(each.name) == each.title != each.name
    undescribed = [name for name, field in each.settings_type.model_fields.items() if not field.description]
    assert not undescribed, f"{short}: settings without a description: {undescribed}"


def test_names_are_unique_and_unknown_ones_keep_theirs():
    assert len({each.name for each in PROTOCOLS.values()}) == len(PROTOCOLS)
    assert (
        describe("logreg-v0") == "" and short_name("logreg-v0") is None and protocol_title("logreg-v0") == "logreg-v0"
    )
    with pytest.raises(UnknownNameError, match="'logreg'"):
        protocol("logrg")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("short", FROZEN)
def test_every_protocol_on_features_gives_numbers_and_never_chooses_on_test_labels(short):
    first = list(protocol(short, QUICK.get(short)).outcomes(TRAIN, TEST))
    shuffled = Features(TEST.features, np.random.default_rng(0).permutation(TEST.labels))
    second = list(protocol(short, QUICK.get(short)).outcomes(TRAIN, shuffled))
    assert first and len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        assert one.predicted is not None or one.metrics
        assert one.settings == other.settings
        if short != "prototypes":  # labels of the test split say which samples an episode draws
            assert one.chosen == other.chosen
        if one.predicted is not None:
            assert one.predicted.shape[-1] == len(TEST) and (one.predicted == other.predicted).all()


def test_a_protocol_in_one_file_reaches_the_command_the_report_and_the_csv(tmp_path, monkeypatch, capsys):
    names: dict = {"__name__": "majority"}
    exec(compile(FILE, "majority.py", "exec"), names)
    monkeypatch.setitem(PROTOCOLS, "majority", names["Majority"])
    write_small(tmp_path / "simclr_small_toys")
    out = tmp_path / "out"
    data = "synthetic:shapes?n=60&size=16"
    arguments = [f"local-dir:{tmp_path / 'simclr_small_toys'}", data, "--protocol", "majority", "--out", str(out)]
    assert main(arguments) == 0
    assert "majority-v1" in capsys.readouterr().out
    rows = read_results(out / "results.json").rows
    assert [row.subject for row in rows] == ["encoder", "untrained", "raw"] and {row.protocol for row in rows} == {
        "majority-v1"
    }
    page = (out / "report.html").read_text()
    assert "the commonest class" in page and "Every test sample takes the commonest training class." in page
    assert (out / "results.csv").read_text().count("majority-v1") == 3
    assert main([*arguments[:2], "--protocol", "majorty"]) == 2 and "'majority'" in capsys.readouterr().err
