"""`evaluate`, its floors and its command line, on a small checkpoint and images drawn on the spot."""

from __future__ import annotations

import shlex
import shutil
from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from evaluation.__main__ import main
from evaluation.command import ProbeOptions, command_text, probe, read_command
from evaluation.evaluate import evaluate
from evaluation.floors import raw, untrained
from evaluation.frozen import Features
from evaluation.probing import named_places
from evaluation.protocols import protocol
from evaluation.protocols.knn import KNNProbe, KnnV2
from evaluation.protocols.logistic import LogisticProbe, LogRegV3
from tests.data_fixtures import make_folder
from tests.zoo.checkpoints import same_weights, small_encoder, write_small
from zoo.checkpoint.loading import load
from zoo.checkpoint.results import read_results
from zoo.data.addresses import open_dataset
from zoo.errors import ConfigError, DataError

DATA = "synthetic:shapes?n=160&size=16"


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint") / "simclr_small_toys"
    write_small(folder)
    return f"local-dir:{folder}"


def test_every_subject_stands_under_every_protocol(address):
    found = evaluate(load(address), open_dataset(DATA, "train"), open_dataset(DATA, "test"), precision="fp32")
    assert {(row.protocol, row.subject) for row in found.rows} == {
        (name, subject) for name in ("logreg-v3", "knn-v2") for subject in ("encoder", "untrained", "raw")
    }
    for row in found.rows:
        assert row.settings and row.metrics["top1"].low <= row.metrics["top1"].value <= row.metrics["top1"].high
    own = next(row for row in found.rows if (row.protocol, row.subject) == ("logreg-v3", "encoder"))
    right = (found.predicted["logreg-v3"] == found.test.labels).mean()
    assert own.metrics["top1"].value == pytest.approx(right)


def test_the_untrained_floor_is_the_same_network_with_other_weights(address):
    encoder, state = load(address), torch.get_rng_state()
    floor = untrained(encoder, seed=3)
    assert torch.equal(torch.get_rng_state(), state) and not floor.training
    assert [p.shape for p in floor.parameters()] == [p.shape for p in encoder.parameters()]
    assert not same_weights(floor, encoder) and same_weights(floor, untrained(encoder, seed=3))
    with pytest.raises(DataError, match="no config"):
        untrained(small_encoder())


def test_the_raw_floor_is_the_encoders_own_input(address):
    encoder, data = load(address), open_dataset(DATA, "test")
    pixels = encoder.transform().pixels(data.sample(2))
    np.testing.assert_allclose(raw(encoder, data)[2], pixels.reshape(-1) / 255, atol=1e-7)


def test_the_command_line_writes_what_its_stored_command_repeats(address, tmp_path, capsys):
    out = tmp_path / "out"
    assert main([address, DATA, "--limit", "80", "--precision", "fp32", "--out", str(out)]) == 0
    assert "raw pixels" in capsys.readouterr().out
    assert {"results.json", "results.csv", "report.html"} <= {path.name for path in out.iterdir()}
    stored = read_results(out / "results.json")
    assert stored.weights_sha256 == load(address).config.weights.sha256
    command = shlex.split(stored.rows[0].command)
    assert command[:3] == ["python", "-m", "evaluation"] and "--out" not in command
    again = probe(*read_command(stored.rows[0].command), quiet=True)
    assert [row.metrics for row in again.rows] == [row.metrics for row in stored.rows]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--protocol", "logrg"], "did you mean 'logreg'"),
        (["--protocol", ","], "no protocol was given"),
        (["--protocol", "knn", "--k", "0"], "greater than or equal to 1"),
        (["--protocol", "knn", "--k", "100000", "--no-floors"], "smaller k"),
        (["--limit", "1"], "at least 4"),
        (["--test-split", "tset"], "no split 'tset'"),
    ],
)
def test_bad_input_is_one_line_and_exit_status_2(address, arguments, message, capsys):
    assert main([address, DATA, *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error
    assert sum(line.startswith("error: ") for line in error.splitlines()) == 1


def test_copies_of_training_images_in_the_test_split_are_reported(address, tmp_path):
    make_folder(tmp_path, per_class=10)
    shutil.copy(tmp_path / "train" / "cat" / "0.png", tmp_path / "test" / "cat" / "copy.png")
    with pytest.warns(UserWarning, match=r"1 of 21 test samples \(4.76 %\) are exact copies of train samples"):
        probe(address, str(tmp_path), ProbeOptions(protocol="knn", no_floors=True), quiet=True)


def test_the_same_samples_as_train_and_test_are_refused(address):
    with pytest.raises(DataError, match="share 160 of 160 samples"):
        probe(address, DATA, ProbeOptions(test_split="train", protocol="knn", no_floors=True), quiet=True)


def test_one_class_is_refused_before_any_feature_is_computed(address):
    data = open_dataset(DATA, "train")
    one = data.subset(np.flatnonzero(np.asarray(data.labels) == 0))
    with pytest.raises(DataError, match=r"one class only \('disc'\)"):
        evaluate(load(address), one, one, progress=lambda what, done, total: pytest.fail(what))


def test_unusable_settings_are_refused():
    for name, settings in (("knn", {"k_grid": (-3,)}), ("knn", {"k_grid": ()}), ("logreg", {"c_grid": (0.0,)})):
        with pytest.raises(ConfigError, match=name):
            protocol(name, settings)


def test_a_k_that_a_person_fixed_is_the_k_that_votes():
    labels = np.arange(40) % 2
    part = Features(np.random.default_rng(0).normal(size=(40, 5)).astype(np.float32), labels)
    for k in (1, 38, 40):  # 38 and 40 exceed what is left once a part is held out
        assert KNNProbe(KnnV2(k_grid=(k,))).run(part, part).chosen["k"] == k


def test_the_chosen_c_comes_from_the_grid_even_when_nothing_can_be_held_out():
    pair = Features(np.eye(2, dtype=np.float32), np.array([0, 1]))
    assert LogisticProbe(LogRegV3(c_grid=(1e-4, 1e-3))).run(pair, pair).chosen["C"] == 1e-3


def test_constant_features_are_counted_whatever_their_value():
    x = np.random.default_rng(0).normal(size=(50_000, 3)).astype(np.float32)
    x[:, 1] = 0.1  # its float32 deviation over so many samples is not zero
    part = Features(x, np.arange(50_000) % 2)
    outcome = LogisticProbe(LogRegV3(c_grid=(1e-3,))).run(part, part)
    assert any("1 of 3 features are constant" in warning for warning in outcome.warnings)


def test_a_stored_command_is_read_as_the_command_line_reads_it():
    from zoo.cli import parse

    texts = [
        "NAME data/x --train-split train+val --protocol logreg,knn --k 1 5 --limit 80 --seed 3 --precision fp32",
        "NAME shop --classes level:2 --labels-file my/labels.csv --test-share 0.3 --skip-bad",
        "NAME --suite downstream --data-root data --labels 0.5 1 --download --simclr-finetune --no-floors",
        "NAME data/x --no-baselines --initialisations 2 --test-split=val --batch-size 8 --device cpu --workers 2",
    ]
    for text in texts:
        encoder, data, options = read_command(f"python -m evaluation {text}")
        values = parse("probe", text.split())
        read = {field.name: values[field.name] for field in fields(ProbeOptions)}
        read |= {name: tuple(read[name] or ()) for name in ("k", "labels")}
        encoders, place = named_places(values["places"], read["suite"] is not None)
        assert ([encoder], data, options) == (encoders, place, ProbeOptions(**read))
        again = read_command(command_text(encoder, data, options))
        assert again == (encoder, data, replace(options, device=None, batch_size=256, workers=None))
    assert read_command("python -m benchmarks.claims.clsa x") is None
    for text, message in (("N d --k", "needs a value"), ("N d --kk 1", "did you mean '--k'"), ("a b c", "at most one")):
        with pytest.raises(ConfigError, match=message):
            read_command(f"zoo probe {text}")
