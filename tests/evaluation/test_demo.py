"""The demo's choice of an encoder: the one that README names, whatever else is published beside it."""

from __future__ import annotations

import json

import pytest

from evaluation.demo import default_encoder
from tests.zoo.checkpoints import write_small
from zoo.errors import UnknownNameError


def test_the_bundled_demo_shows_the_simclr_resnet_of_cifar10():
    assert default_encoder() == "simclr_resnet18_cifar10"
    assert default_encoder("skeleton") == "ms2l_bigru_nucla"


def test_another_catalogue_gives_what_it_has(tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_CHECKPOINTS", str(tmp_path))
    with pytest.raises(UnknownNameError, match="no image encoder"):
        default_encoder()
    for name in ("conrec_small_toys", "simclr_a_toys", "simclr_resnet18_cifar10"):
        write_small(tmp_path / name)
        config = json.loads((tmp_path / name / "config.json").read_text())
        (tmp_path / name / "config.json").write_text(json.dumps({**config, "name": name}))
    assert default_encoder() == "simclr_resnet18_cifar10"
    for name in ("simclr_resnet18_cifar10", "simclr_a_toys"):
        expected = {"simclr_resnet18_cifar10": "simclr_a_toys", "simclr_a_toys": "conrec_small_toys"}[name]
        (tmp_path / name / "config.json").unlink()
        assert default_encoder() == expected
