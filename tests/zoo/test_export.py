"""Encoders out: ONNX, torch.export and timm folders give the original's features."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import zoo
from tests.zoo.checkpoints import INPUT, SMALL, write_small
from tests.zoo.test_verification import command
from zoo.architectures import build
from zoo.errors import CheckpointError, ConfigError, UnknownNameError
from zoo.interop import export as exporting
from zoo.interop.export import export
from zoo.strict import Architecture


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("published") / "simclr_small_toys"
    write_small(folder)
    return f"local-dir:{folder}"


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A checkpoint with timm's own stem."""
    folder = tmp_path_factory.mktemp("published") / "simclr_plain_toys"
    architecture = Architecture(family="timm", arguments={**SMALL.arguments, "stem": "imagenet"})
    torch.manual_seed(0)
    encoder = build(architecture, INPUT)
    with torch.no_grad():
        encoder.train()(torch.rand(8, 3, 16, 16))
    write_small(folder, name="simclr_plain_toys", encoder=encoder.eval(), architecture=architecture)
    return f"local-dir:{folder}"


def batch(encoder, count=5):
    images = [np.random.default_rng(i).integers(0, 256, (20, 30, 3), dtype=np.uint8) for i in range(count)]
    return torch.stack([encoder.transform()(image) for image in images])


def test_onnx(address, tmp_path, monkeypatch, capsys):
    onnxruntime = pytest.importorskip("onnxruntime", reason="the extra 'onnx' is not installed")
    pytest.importorskip("onnxscript", reason="the extra 'onnx' is not installed")
    path = tmp_path / "encoder.onnx"
    assert command(monkeypatch, "export", address, "--format", "onnx", "--out", str(path)) == 0
    assert "differ by at most" in capsys.readouterr().out
    session, encoder = onnxruntime.InferenceSession(path), zoo.load(address)
    for count in (1, 5):
        x = batch(encoder, count)
        (features,) = session.run(None, {"images": x.numpy()})
        np.testing.assert_allclose(features, encoder(x).detach().numpy(), rtol=1e-4, atol=1e-5)
    facts = session.get_modelmeta().custom_metadata_map
    assert facts["weights_sha256"] == encoder.config.weights.sha256
    assert json.loads(facts["preprocessing"])["mean"] == [0.5, 0.4, 0.3]
    assert [entry.name for entry in tmp_path.iterdir()] == ["encoder.onnx"]


def test_torch_export(address, tmp_path):
    assert export(zoo.load(address), tmp_path / "encoder.pt2", "torch-export") <= 1e-4
    module, encoder = torch.export.load(tmp_path / "encoder.pt2").module(), zoo.load(address)
    for count in (1, 5):
        x = batch(encoder, count)
        torch.testing.assert_close(module(x), encoder(x))


def test_timm(plain, tmp_path):
    import timm
    from timm.data import resolve_data_config

    encoder = zoo.load(plain)
    export(encoder, tmp_path / "net", "timm")
    model = timm.create_model(f"local-dir:{tmp_path / 'net'}", pretrained=True).eval()
    x = batch(encoder)
    torch.testing.assert_close(model(x), encoder(x))
    data = resolve_data_config({}, model=model)
    assert tuple(data["mean"]) == (0.5, 0.4, 0.3) and tuple(data["input_size"]) == (3, 16, 16)


def test_an_older_export_is_replaced_and_nothing_else(plain, tmp_path):
    encoder = zoo.load(plain)
    for _ in range(2):
        export(encoder, tmp_path / "net", "timm")
        assert sorted(p.name for p in (tmp_path / "net").iterdir()) == ["config.json", "model.safetensors"]
    (tmp_path / "net" / "thesis.tex").write_text("years of work")
    with pytest.raises(CheckpointError, match=r"thesis\.tex"):
        export(encoder, tmp_path / "net", "timm")
    with pytest.raises(ConfigError, match="give a file"):
        export(encoder, tmp_path, "torch-export")
    assert (tmp_path / "net" / "thesis.tex").read_text() == "years of work"
    assert [p.name for p in tmp_path.iterdir()] == ["net"]


def test_what_a_format_cannot_hold(address, tmp_path):
    with pytest.raises(ConfigError, match="3x3 stem"):
        export(zoo.load(address), tmp_path / "net", "timm")
    with pytest.raises(UnknownNameError, match="did you mean 'onnx'"):
        export(zoo.load(address), tmp_path / "net", "onxx")
    with pytest.raises(ConfigError, match="published"):
        export(zoo.load(address, pretrained=False), tmp_path / "net", "onnx")
    assert list(tmp_path.iterdir()) == []


def test_an_export_with_other_features_is_not_written(plain, tmp_path, monkeypatch):
    write, _ = exporting.FORMATS["timm"]
    monkeypatch.setitem(exporting.FORMATS, "timm", (write, lambda path: lambda x: torch.zeros(len(x), 16)))
    with pytest.raises(CheckpointError, match="other features"):
        export(zoo.load(plain), tmp_path / "net", "timm")
    assert list(tmp_path.iterdir()) == []


def test_onnx_without_the_extra(address, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"encoder-zoo\[onnx\]"):
        export(zoo.load(address), tmp_path / "x.onnx", "onnx")
