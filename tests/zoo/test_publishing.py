"""Writing checkpoint folders and model cards: whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import resource

import pytest
import torch
import yaml

import zoo
from tests.zoo.checkpoints import SMALL, record, results_for, same_weights, small_encoder, write_small
from zoo import files
from zoo.checkpoint.config import read_config
from zoo.checkpoint.results import read_results
from zoo.errors import CheckpointError, ConfigError
from zoo.publish import card as cards
from zoo.publish.check import stray_cards
from zoo.publish.publishing import publish
from zoo.strict import Architecture


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_folder_says_what_it_holds(tmp_path):
    config = write_small(tmp_path / "c")
    content = (tmp_path / "c" / "model.safetensors").read_bytes()
    assert config == read_config(tmp_path / "c")
    assert config.weights.bytes == len(content) and config.weights.sha256 == hashlib.sha256(content).hexdigest()
    assert config.weights.parameters == sum(p.numel() for p in small_encoder().parameters())
    assert os.listdir(tmp_path) == ["c"]


def test_other_readers_can_read_the_weights(tmp_path):
    from safetensors.torch import load_file

    write_small(tmp_path / "c")
    state = load_file(tmp_path / "c" / "model.safetensors")
    assert state.keys() == small_encoder().state_dict().keys()
    assert {t.dtype for t in state.values()} == {torch.float16, torch.int64}


def test_same_encoder_same_bytes(tmp_path):
    assert write_small(tmp_path / "a").weights == write_small(tmp_path / "b").weights


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_dtypes(tmp_path, dtype):
    assert write_small(tmp_path / "c", dtype=dtype).weights.dtype == dtype
    loaded = zoo.load(f"local-dir:{tmp_path / 'c'}")
    assert {t.dtype for t in loaded.state_dict().values()} == {torch.float32, torch.int64}


def test_values_beyond_float16_are_stored_as_float32(tmp_path):
    encoder = small_encoder()
    with torch.no_grad():
        encoder.backbone.conv1.weight[0] = 1e6
    with pytest.warns(UserWarning, match="stored as float32"):
        assert write_small(tmp_path / "c", encoder=encoder).weights.dtype == "float32"
    assert same_weights(zoo.load(f"local-dir:{tmp_path / 'c'}"), encoder)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_is_refused_and_the_old_checkpoint_stays(tmp_path, value):
    write_small(tmp_path / "c")
    before = contents(tmp_path / "c")
    encoder = small_encoder(1)
    with torch.no_grad():
        encoder.backbone.conv1.weight[0] = value
    with pytest.raises(CheckpointError, match=r"conv1\.weight"):
        write_small(tmp_path / "c", encoder=encoder)
    assert contents(tmp_path / "c") == before and os.listdir(tmp_path) == ["c"]


def test_an_architecture_that_does_not_fit_is_refused_before_anything_is_replaced(tmp_path):
    write_small(tmp_path / "c")
    before = contents(tmp_path / "c")
    other = Architecture(
        family="timm", arguments={**SMALL.arguments, "model_args": {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]}}
    )
    with pytest.raises(CheckpointError, match=r"would not load: .*/c/model\.safetensors.*expected"):
        write_small(tmp_path / "c", seed=1, architecture=other)
    assert contents(tmp_path / "c") == before and os.listdir(tmp_path) == ["c"]


@pytest.mark.parametrize("change", [{"name": "Not A Name"}, {"name": "class"}, {"dtype": "int8"}])
def test_impossible_settings(tmp_path, change):
    with pytest.raises(ConfigError):
        write_small(tmp_path / "c", **change)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("exchange", [True, False])
def test_replacing_keeps_nothing_of_the_old(tmp_path, monkeypatch, exchange):
    if not exchange:
        monkeypatch.setattr(files, "_exchange", lambda a, b: False)
    config = write_small(tmp_path / "c")
    write_small(tmp_path / "c", results=results_for(config))
    assert (tmp_path / "c" / "results.json").exists()
    write_small(tmp_path / "c", seed=1)
    assert sorted(os.listdir(tmp_path / "c")) == ["config.json", "model.safetensors", "reference.json"]
    assert os.listdir(tmp_path) == ["c"]


@pytest.mark.parametrize("exchange", [True, False])
def test_a_disk_that_fills_up_leaves_the_old_checkpoint(tmp_path, monkeypatch, exchange):
    if not exchange:
        monkeypatch.setattr(files, "_exchange", lambda a, b: False)
    write_small(tmp_path / "c")
    before, real = contents(tmp_path / "c"), os.fsync
    for allowed in range(3):
        left = [allowed]

        def full(descriptor, left=left):
            left[0] -= 1
            if left[0] < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            real(descriptor)

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(CheckpointError, match=r"the disk is full.*untouched.*free some space"):
            write_small(tmp_path / "c", seed=1)
        assert contents(tmp_path / "c") == before and os.listdir(tmp_path) == ["c"]


def test_a_write_that_the_system_cuts_short(tmp_path):
    """A real failing write: the process may not write files beyond 8 kB."""
    write_small(tmp_path / "old")
    before, encoder = contents(tmp_path / "old"), small_encoder(1)
    _, hard = limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))
    try:
        for name in ("old", "new"):
            with pytest.raises(CheckpointError, match="File too large"):
                write_small(tmp_path / name, encoder=encoder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert os.listdir(tmp_path) == ["old"] and contents(tmp_path / "old") == before


def test_tied_weights_that_the_architecture_does_not_tie(tmp_path):
    encoder = small_encoder()
    encoder.backbone.layer1[0].bn2.weight = encoder.backbone.layer1[0].bn1.weight
    with pytest.raises(CheckpointError, match="parameters"):
        write_small(tmp_path / "c", encoder=encoder)


def test_a_folder_of_other_things_is_not_replaced(tmp_path):
    """`--out ~` must not cost anyone their home."""
    (tmp_path / "home" / "photos").mkdir(parents=True)
    (tmp_path / "home" / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"'photos'.*not replaced"):
        write_small(tmp_path / "home")
    assert sorted(os.listdir(tmp_path / "home")) == ["config.json", "photos"]
    (tmp_path / "file").write_text("text")
    with pytest.raises(CheckpointError, match="is a file"):
        write_small(tmp_path / "file")
    assert sorted(os.listdir(tmp_path)) == ["file", "home"]
    write_small(tmp_path / "empty" / "c")
    (tmp_path / "void").mkdir()
    write_small(tmp_path / "void")


@pytest.fixture
def run(tmp_path):
    write_small(tmp_path / "run" / "encoder", name="simclr_unnamed_run")
    return tmp_path / "run"


def test_publish_a_run(run, tmp_path, monkeypatch):
    results = results_for(read_config(run / "encoder"))
    folder = publish(run, "simclr_small_toys", out=tmp_path / "zoo", results=results, cards_dir=tmp_path / "cards")
    monkeypatch.setenv("ZOO_CHECKPOINTS", str(tmp_path / "zoo"))
    assert folder == tmp_path / "zoo" / "simclr_small_toys"
    assert zoo.list_models() == ["simclr_small_toys"]
    assert zoo.load("simclr_small_toys").name == "simclr_small_toys"
    assert read_results(folder / "results.json") == results
    assert stray_cards(tmp_path / "cards") == []
    assert read_config(run / "encoder").name == "simclr_unnamed_run"


def test_publish_does_not_overwrite_unless_told(run, tmp_path):
    publish(run, "simclr_small_toys", out=tmp_path / "zoo")
    before = contents(tmp_path / "zoo" / "simclr_small_toys")
    write_small(run / "encoder", name="simclr_unnamed_run", seed=1)
    with pytest.raises(CheckpointError, match="published already"):
        publish(run, "simclr_small_toys", out=tmp_path / "zoo")
    assert contents(tmp_path / "zoo" / "simclr_small_toys") == before
    publish(run, "simclr_small_toys", out=tmp_path / "zoo", overwrite=True)
    assert contents(tmp_path / "zoo" / "simclr_small_toys") != before


def test_publish_refuses_results_of_other_weights(run, tmp_path):
    other = results_for(write_small(tmp_path / "other", seed=1))
    for results in (other, other.model_copy(update={"weights_sha256": None})):
        with pytest.raises(CheckpointError, match="measured on"):
            publish(run, "simclr_small_toys", out=tmp_path / "zoo", results=results)
    assert not (tmp_path / "zoo").exists()


def test_publish_keeps_keys_that_decide_how_the_weights_act(run, tmp_path):
    """config.json of another version may omit defaults; renaming it must not change the digest in the weights."""
    path = run / "encoder" / "config.json"
    text = json.loads(path.read_text())
    publish(run, "simclr_small_toys", out=tmp_path / "zoo")
    published = json.loads((tmp_path / "zoo" / "simclr_small_toys" / "config.json").read_text())
    assert published == {**text, "name": "simclr_small_toys"}


def test_publish_nothing_or_something_broken(run, tmp_path):
    with pytest.raises(CheckpointError, match="training run"):
        publish(tmp_path / "empty", "simclr_small_toys", out=tmp_path / "zoo")
    with pytest.raises(ConfigError, match="lower-case"):
        publish(run, "../evil", out=tmp_path / "zoo")
    path = run / "encoder" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(CheckpointError, match="truncated"):
        publish(run, "simclr_small_toys", out=tmp_path / "zoo")
    assert not (tmp_path / "zoo").exists()


def test_card_holds_every_fact(tmp_path):
    config = write_small(tmp_path / "c")
    card = cards.render_card(config, results_for(config))
    front = yaml.safe_load(card.split("---")[1])
    assert front["license"] == "mit" and front["library_name"] == "encoder-zoo"
    entry = front["model-index"][0]["results"][0]
    assert entry["metrics"][0]["value"] == 0.8123 and entry["dataset"]["revision"] == "cd34"
    for fact in (
        "81.2 % [80.2, 82.2] | 40.6 % [39.6, 41.6] | 30.0 % [29.0, 31.0] | +40.7, unpaired |",
        "code MIT, weights MIT, training data CC0",
        "Not measured: linear probe, kNN, few labels, fine-tuning.",
        "(simclr_small_toys_results.svg)",
        "logistic_v1",
        "`python -m evaluation simclr_small_toys toys`",
        "only 50 test samples",
        "CC0",
        "ab12",
        config.weights.sha256,
        'zoo.load("simclr_small_toys")',
        "torch.hub.load(",
        "| samples seen | 300 |",
        "temperature: 0.5",
        "2 CPU cores",
        "0.5, 0.4, 0.3",
        "Chen et al. 2020",
        "https://arxiv.org/abs/2002.05709",
    ):
        assert fact in card, fact
    assert len(front["model-index"][0]["results"]) == 1, "the floors are no results of this model"


def test_card_writes_settings_as_a_person_would(tmp_path):
    config = write_small(tmp_path / "c")
    results = results_for(config)
    odd = {"c_grid": [1e-6, 10**-5.5], "limit": None, "name": "x"}
    rows = tuple(row.model_copy(update={"settings": odd, "chosen": {"C": 10**0.5}}) for row in results.rows)
    card = cards.render_card(config, results.model_copy(update={"rows": rows}))
    assert "c_grid = [1e-06, 3.16228e-06], limit = none" in card and "C = 3.16228\n" in card


def test_card_without_results_claims_nothing(tmp_path):
    card = cards.render_card(write_small(tmp_path / "c"))
    assert "Not measured yet" in card and "%" not in card and "model-index" not in card and "svg" not in card


def test_card_table_survives_odd_text(tmp_path):
    config = write_small(tmp_path / "c", training=record(hardware="a | b\nc"), licence="My own terms")
    card = cards.render_card(config)
    assert "| hardware | a \\| b c |" in card
    front = yaml.safe_load(card.split("---")[1])
    assert (front["license"], front["license_name"]) == ("other", "My own terms")


def test_a_card_without_a_checkpoint_is_seen(run, tmp_path, monkeypatch):
    publish(run, "simclr_small_toys", out=tmp_path / "zoo", cards_dir=tmp_path / "cards")
    monkeypatch.setenv("ZOO_CHECKPOINTS", str(tmp_path / "zoo"))
    (tmp_path / "cards" / "ghost.md").write_text("# ghost")
    (problem,) = stray_cards(tmp_path / "cards")
    assert not problem.ok and "ghost.md" in problem.text


def test_every_bundled_card_has_its_checkpoint(monkeypatch):
    monkeypatch.delenv("ZOO_CHECKPOINTS", raising=False)
    assert stray_cards() == []


def test_measurements_of_the_same_weights_are_merged_and_of_others_refused():
    from zoo.checkpoint.results import Metric, Result, Results, merged

    def row(split: str, value: float, seconds: float = 0.0) -> Result:
        data = {"name": "toys", "fingerprint": "f", "samples": 4}
        metric = Metric(value=value, low=value, high=value)
        return Result(
            protocol="logreg-v1", subject="encoder", train={**data, "split": "train"}, test={**data, "split": split},
            classes=2, metrics={"top1": metric}, seconds=seconds,
        )  # fmt: skip

    first = Results(weights_sha256="a" * 64, rows=(row("test", 0.5, 1.0),))
    second = Results(weights_sha256="a" * 64, rows=(row("test", 0.5, 2.0), row("test-leakfree", 0.4)))
    found = merged([first, second])
    assert [r.test.split for r in found.rows] == ["test", "test-leakfree"] and found.weights_sha256 == "a" * 64
    with pytest.raises(ConfigError, match="different weights"):
        merged([first, Results(weights_sha256="b" * 64)])
