"""`zoo verify`: what is published holds what it promises, and each broken promise is seen."""

from __future__ import annotations

import json
import shlex

import pytest
import torch

import zoo
from tests.zoo.checkpoints import rebind, results_for, write_small
from zoo.checkpoint import catalog
from zoo.checkpoint.config import read_config
from zoo.checkpoint.reference import check_reference, make_reference, parse_reference, reference_features
from zoo.cli import main
from zoo.errors import CheckpointError
from zoo.publish.check import verify
from zoo.publish.publishing import publish


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A published checkpoint with results and card."""
    config = write_small(tmp_path / "run" / "encoder")
    folder = publish(tmp_path / "run", "simclr_small_toys", out=tmp_path / "zoo", results=results_for(config))
    monkeypatch.setenv("ZOO_CHECKPOINTS", str(tmp_path / "zoo"))
    return folder


def failures(address="simclr_small_toys"):
    return [check.text for check in verify(address) if not check.ok]


def command(monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["zoo", *arguments])
    return main()


def test_every_bundled_checkpoint_holds(monkeypatch, capsys):
    """The gate of CI: hash, strict load, stored outputs, results of these weights, card."""
    monkeypatch.delenv("ZOO_CHECKPOINTS", raising=False)
    assert catalog.folders(), "nothing is bundled"
    assert command(monkeypatch, "verify", "--all", "--no-data") == 0, capsys.readouterr().out
    out = capsys.readouterr().out
    for name in catalog.folders():
        assert f"{name}: features on 2 stored inputs" in out


def test_a_whole_checkpoint(published, monkeypatch, capsys):
    assert [check.ok for check in verify("simclr_small_toys")] == [True] * 4
    assert command(monkeypatch, "verify", "--no-data") == 0
    assert capsys.readouterr().out.count("ok  ") == 4


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_results_of_other_weights_are_an_error(published, monkeypatch, capsys):
    edit(published / "results.json", lambda r: r.update(weights_sha256="0" * 64))
    assert any("measured on other weights" in text for text in failures())
    assert command(monkeypatch, "verify", "--all", "--no-data") == 1
    assert "FAIL simclr_small_toys" in capsys.readouterr().out


def test_a_number_edited_in_results_or_card(published):
    edit(published / "results.json", lambda r: r["rows"][0]["metrics"]["top1"].update(value=0.9))
    assert any("differs from its results" in text for text in failures())


def test_altered_weights(published):
    path = published / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert any("sha256" in text for text in failures())


def test_preprocessing_that_acts_otherwise(published, monkeypatch):
    """Hash and tensors are right, yet the features are not: only the stored outputs can tell."""
    from zoo.preprocessing.image import ImageTransform

    whole = ImageTransform.normalise
    monkeypatch.setattr(ImageTransform, "normalise", lambda self, pixels: whole(self, pixels) + 0.05)
    assert any("differ by" in text for text in failures())


def test_a_network_that_acts_otherwise(published, monkeypatch):
    monkeypatch.setattr("torch.nn.ReLU.forward", lambda self, x: torch.nn.functional.silu(x))
    assert any("differ by" in text for text in failures())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.update(features=[[0.5] * 15] * 2), "holds features"),
        (lambda r: r.update(features=[[0.5] * 16, [0.5]]), "differ in length"),
        (lambda r: r.update(features=[]), "not valid"),
        (lambda r: r.update(features=[[float("nan")] * 16]), "not valid"),
        (lambda r: r.update(weights_sha256="0" * 64), "other weights"),
        (lambda r: r.update(inputs="random"), "not valid"),
    ],
)
def test_broken_reference_outputs(published, change, message):
    edit(published / "reference.json", change)
    found = failures()
    assert len(found) == 1 and message in found[0] and "\n" not in found[0]


def test_older_checkpoints_get_reference_outputs_by_publishing_again(published, tmp_path):
    stored = (published / "reference.json").read_bytes()
    (published / "reference.json").unlink()
    assert "--overwrite" in failures()[0]
    publish(published, "simclr_small_toys", out=tmp_path / "zoo", overwrite=True)
    assert failures() == []
    again = parse_reference((published / "reference.json").read_bytes(), "again")
    check_reference(again, zoo.load("simclr_small_toys"))
    assert again.weights_sha256 == json.loads(stored)["weights_sha256"]


def test_publishing_again_keeps_the_older_outputs_and_refuses_false_ones(published, tmp_path):
    stored = (published / "reference.json").read_bytes()
    publish(published, "simclr_small_toys", out=tmp_path / "zoo", overwrite=True)
    assert (published / "reference.json").read_bytes() == stored
    edit(published / "reference.json", lambda r: r["features"][1].reverse())
    with pytest.raises(CheckpointError, match="differ by"):
        publish(published, "simclr_small_toys", out=tmp_path / "zoo", overwrite=True)


def test_missing_card_of_an_embedded_checkpoint(published, tmp_path, monkeypatch):
    monkeypatch.setattr(catalog, "EMBEDDED", tmp_path / "zoo")
    monkeypatch.setattr("zoo.publish.check.CARDS", tmp_path / "model_cards")
    assert failures() == [], "an installed zoo has no cards"
    (tmp_path / "model_cards").mkdir()
    assert any("is missing" in text for text in failures())


def test_a_folder_under_another_name(published):
    published.rename(published.with_name("simclr_other_toys"))
    assert any("rename the folder" in text for text in failures("simclr_other_toys"))


def test_addresses(published):
    assert [check.ok for check in verify(f"local-dir:{published}")] == [True] * 4
    with pytest.raises(zoo.UnknownNameError):
        verify("simclr_smal_toys")


def test_skeleton_encoders_have_reference_outputs():
    from zoo.architectures import build
    from zoo.preprocessing.skeleton import SkeletonInput
    from zoo.strict import Architecture

    encoder = build(
        Architecture(family="skeleton_gru", arguments={"hidden": 6, "layers": 1}),
        SkeletonInput(layout="kinect_v1", frames=20, steps=("align_mean",)),
    ).eval()
    reference = make_reference(encoder, "0" * 64)
    assert len(reference.features) == 2 and len(reference.features[0]) == 12
    assert check_reference(parse_reference(reference.to_json().encode(), "r"), encoder) < 1e-5


def test_reference_inputs_never_change(published):
    """Stored features are worth nothing once the inputs move."""
    import hashlib

    from zoo.checkpoint.reference import _images, _sequences
    from zoo.preprocessing.skeleton import SkeletonInput

    config = read_config(published)
    images = b"".join(image.tobytes() for image in _images(config.input))
    assert [image.shape for image in _images(config.input)] == [(16, 16, 3), (24, 33, 3)]
    assert hashlib.sha256(images).hexdigest()[:16] == "9c47016a537a302d"
    sequences = _sequences(SkeletonInput())
    assert hashlib.sha256(b"".join(s.tobytes() for s in sequences)).hexdigest()[:16] == "0d493e3097c519cf"
    assert reference_features(zoo.load("simclr_small_toys")).shape == (2, 16)


def test_rebound_architecture_is_caught_by_outputs(published):
    """An attacker who may rewrite config.json and weights still has to forge the stored outputs."""
    config = json.loads((published / "config.json").read_text())
    config["input"]["mean"] = [0.1, 0.1, 0.1]
    rebind(published, input=config["input"])
    edit(published / "reference.json", lambda r: r.update(weights_sha256=read_config(published).weights.sha256))
    assert any("differ by" in text for text in failures())


def test_numbers_are_repeated_where_the_data_is_at_hand(tmp_path, monkeypatch):
    from evaluation.command import ProbeOptions, probe, weights_sha256
    from evaluation.repeat import repeat
    from zoo.checkpoint.results import Results

    write_small(tmp_path / "run" / "encoder")
    address = f"local-dir:{tmp_path / 'run' / 'encoder'}"
    given = ["synthetic:shapes?n=80&size=16", "--protocol", "knn", "--no-floors", "--precision", "fp32"]
    options = ProbeOptions(protocol="knn", no_floors=True, precision="fp32")
    rows = probe(address, given[0], options, quiet=True).rows
    here = f"python -m evaluation simclr_small_toys {shlex.join(given)}"
    away = "python -m evaluation simclr_small_toys no/such/folder"
    rows = [row.model_copy(update={"command": command}) for command in (here, away) for row in rows]
    results = Results(weights_sha256=weights_sha256(zoo.load(address)), rows=tuple(rows))
    folder = publish(tmp_path / "run", "simclr_small_toys", out=tmp_path / "zoo", results=results)
    monkeypatch.setenv("ZOO_CHECKPOINTS", str(tmp_path / "zoo"))
    first, second = repeat("simclr_small_toys")
    assert first.ok and "knn-v2, encoder: top1" in first.text
    assert second.ok and "not repeated" in second.text and "no/such/folder" in second.text
    edit(folder / "results.json", lambda r: r["rows"][0]["metrics"]["top1"].update(value=0.999))
    assert not repeat("simclr_small_toys")[0].ok


def test_numbers_of_an_earlier_protocol_are_repeated_with_it(tmp_path, monkeypatch):
    """The command says "logreg", which was logreg-v1 when the card was written."""
    from evaluation.command import ProbeOptions, probe, weights_sha256
    from evaluation.repeat import repeat
    from zoo.checkpoint.results import Results

    write_small(tmp_path / "run" / "encoder")
    address = f"local-dir:{tmp_path / 'run' / 'encoder'}"
    given = ["synthetic:shapes?n=80&size=16", "--no-floors", "--precision", "fp32"]
    options = ProbeOptions(protocol="logreg_v1", no_floors=True, precision="fp32")
    rows = probe(address, given[0], options, quiet=True).rows
    command = f"python -m evaluation simclr_small_toys {shlex.join(given)} --protocol logreg"
    rows = [row.model_copy(update={"command": command}) for row in rows]
    rows.append(rows[0].model_copy(update={"protocol": "logreg-v0"}))
    results = Results(weights_sha256=weights_sha256(zoo.load(address)), rows=tuple(rows))
    publish(tmp_path / "run", "simclr_small_toys", out=tmp_path / "zoo", results=results)
    monkeypatch.setenv("ZOO_CHECKPOINTS", str(tmp_path / "zoo"))
    first, second = repeat("simclr_small_toys")
    assert first.ok and "logreg-v1, encoder: top1" in first.text
    assert not second.ok and second.text == "logreg-v0, encoder: not measured again"
