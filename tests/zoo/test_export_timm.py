"""Encoders of timm out again, convolutional and transformers: every format gives the original's features."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
from packaging.version import Version

import zoo
from tests.zoo.timm_checkpoints import SMALL, write_timm
from zoo.errors import CheckpointError
from zoo.interop import export as module
from zoo.interop.export import TOLERANCE, export


def skip_if_too_old(family: str, *, torch_below: str = "0", timm_below: str = "0", of: str) -> None:
    """Where `export` refuses in one line, as `test_what_a_library_cannot_do_is_said_in_one_line` shows."""
    if family == of and (
        Version(torch.__version__) < Version(torch_below) or Version(timm.__version__) < Version(timm_below)
    ):
        pytest.skip(f"torch {torch.__version__} or timm {timm.__version__} cannot do it")


@pytest.fixture(scope="module")
def addresses(tmp_path_factory):
    root = tmp_path_factory.mktemp("timm")
    for family in SMALL:
        write_timm(root / family, family)
    return {family: f"local-dir:{root / family}" for family in SMALL}


@pytest.mark.parametrize(
    "family", [each if each == "vit_registers" else pytest.param(each, marks=pytest.mark.slow) for each in SMALL]
)
def test_torch_export_of_every_family_takes_any_number_of_images(addresses, family, tmp_path):
    skip_if_too_old(family, torch_below="2.7", of="vit_registers")
    encoder = zoo.load(addresses[family])
    assert export(encoder, tmp_path / "encoder.pt2", "torch-export") <= TOLERANCE
    program = torch.export.load(tmp_path / "encoder.pt2").module()
    for count in (2, 5):
        x = torch.rand(count, 3, *encoder.input.size)
        with torch.inference_mode():
            torch.testing.assert_close(program(x), encoder(x), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("family", SMALL)
def test_a_folder_of_timm_and_back(addresses, family, tmp_path):
    """Preprocessing, size and arguments survive: the exported folder loads as the same encoder."""
    skip_if_too_old(family, timm_below="1.0.30", of="swin")
    encoder = zoo.load(addresses[family])
    assert export(encoder, tmp_path / "out", "timm") <= TOLERANCE
    again = zoo.load(f"local-dir:{tmp_path / 'out'}")
    x = torch.rand(2, 3, *encoder.input.size)
    assert again.input == encoder.input and again.config.licence == encoder.config.licence
    with torch.inference_mode():
        assert torch.equal(again(x), encoder(x))


@pytest.mark.slow
@pytest.mark.parametrize("family", SMALL)
def test_onnx_of_every_family_takes_any_number_of_images(addresses, family, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime", reason="the extra 'onnx' is not installed")
    pytest.importorskip("onnxscript", reason="the extra 'onnx' is not installed")
    encoder = zoo.load(addresses[family])
    assert export(encoder, tmp_path / "encoder.onnx", "onnx") <= TOLERANCE
    session = onnxruntime.InferenceSession(tmp_path / "encoder.onnx")
    for count in (1, 5):
        x = torch.rand(count, 3, *encoder.input.size)
        (features,) = session.run(None, {"images": x.numpy()})
        np.testing.assert_allclose(features, encoder(x).detach().numpy(), rtol=1e-3, atol=1e-4)


def test_what_a_library_cannot_do_is_said_in_one_line(addresses, tmp_path, monkeypatch):
    def refusing(*arguments):
        raise RuntimeError("Constraints violated (N)!\nmany more lines")

    monkeypatch.setitem(module.FORMATS, "torch-export", (refusing, refusing))
    with pytest.raises(CheckpointError, match=r"cannot do torch-export \(RuntimeError: Constraints"):
        export(zoo.load(addresses["resnet"]), tmp_path / "encoder.pt2", "torch-export")
    assert not list(tmp_path.iterdir())
