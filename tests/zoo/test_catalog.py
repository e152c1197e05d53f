"""The catalogue, and every checkpoint that is really published."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import zoo
from tests.zoo.checkpoints import results_for, write_small
from zoo.checkpoint import catalog
from zoo.checkpoint.config import Method
from zoo.errors import ConfigError, UnknownNameError


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("catalogue")
    for name in ("simclr_resnet101_toys", "simclr_resnet18_toys", "simclr_resnet50_toys"):
        config = write_small(folder / name, name=name)
    write_small(folder / name, name=name, results=results_for(config))
    clsa = Method(name="clsa", title="CLSA", paper="Wang and Qi 2022")
    write_small(folder / "clsa_resnet18_toys", name="clsa_resnet18_toys", method=clsa)
    return folder


@pytest.fixture
def catalogue(root, monkeypatch):
    monkeypatch.setenv("ZOO_CHECKPOINTS", str(root))
    return root


def test_natural_order(catalogue):
    assert zoo.list_models() == [
        "clsa_resnet18_toys",
        "simclr_resnet18_toys",
        "simclr_resnet50_toys",
        "simclr_resnet101_toys",
    ]


def test_filters(catalogue):
    assert zoo.list_models("*resnet18*") == ["clsa_resnet18_toys", "simclr_resnet18_toys"]
    assert zoo.list_models(method="clsa") == ["clsa_resnet18_toys"]
    assert zoo.list_models("simclr*", modality="image", method="simclr")[0] == "simclr_resnet18_toys"
    assert zoo.list_models(modality="skeleton") == []


def test_show_names_the_essentials(catalogue):
    text = zoo.show("simclr_resnet50_toys")
    for fact in ("SimCLR", "toys/train", "17,504", "16 per sample", "16 x 16 px", "81.2 %", "untrained 40.6 %", "MIT"):
        assert fact in text, fact
    assert "not measured yet" in zoo.show("simclr_resnet18_toys")
    with pytest.raises(UnknownNameError, match="did you mean"):
        zoo.show("simclr_resnet50_toy")


def test_several_roots_first_wins(catalogue, tmp_path, monkeypatch):
    write_small(tmp_path / "simclr_resnet18_toys", name="simclr_resnet18_toys", seed=1)
    write_small(tmp_path / "moco_resnet18_toys", name="moco_resnet18_toys")
    monkeypatch.setenv("ZOO_CHECKPOINTS", f"{tmp_path}:{catalogue}:{tmp_path / 'nowhere'}")
    assert len(zoo.list_models()) == 5
    assert catalog.find("simclr_resnet18_toys").parent == tmp_path


def test_one_broken_checkpoint_does_not_hide_the_others(tmp_path, monkeypatch):
    write_small(tmp_path / "simclr_small_toys")
    write_small(tmp_path / "simclr_other_toys", name="simclr_renamed_toys")
    monkeypatch.setenv("ZOO_CHECKPOINTS", str(tmp_path))
    with pytest.warns(UserWarning, match="simclr_renamed_toys"):
        assert zoo.list_models() == ["simclr_small_toys"]


def test_results_of_other_weights_are_refused(tmp_path, monkeypatch):
    config = write_small(tmp_path / "simclr_small_toys")
    write_small(tmp_path / "simclr_small_toys", results=results_for(config))
    path = tmp_path / "simclr_small_toys" / "results.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "weights_sha256": "0" * 64}))
    monkeypatch.setenv("ZOO_CHECKPOINTS", str(tmp_path))
    with pytest.raises(ConfigError, match="other weights"):
        zoo.show("simclr_small_toys")


def embedded() -> list[str]:
    return sorted(path.parent.name for path in catalog.EMBEDDED.glob("*/config.json"))


@pytest.mark.parametrize("name", embedded())
def test_published_checkpoint(name, monkeypatch):
    """Each checkpoint loads, runs, and says the truth about its sizes; a new one is tested on arrival."""
    monkeypatch.delenv("ZOO_CHECKPOINTS", raising=False)
    encoder = zoo.load(name)
    config = encoder.config
    weights = Path(catalog.find(name), config.weights.file)
    assert config.name == name and weights.stat().st_size == config.weights.bytes
    assert config.training.samples_seen > 0 and config.training.dataset.licence
    assert sum(p.numel() for p in encoder.parameters()) == config.weights.parameters
    if config.modality == "image":
        x = torch.rand(2, 3, *config.input.size)
        assert encoder(x).shape == (2, config.num_features) and encoder(x).isfinite().all()
    results = catalog.results(name)
    assert results is not None and {row.subject for row in results.rows} == {"encoder", "untrained", "raw"}


def test_public_surface():
    for name in zoo.__all__:
        assert getattr(zoo, name) is not None
    assert set(zoo.__all__) <= set(dir(zoo))
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        _ = zoo.lode
    project = (Path(zoo.__file__).parent.parent / "pyproject.toml").read_text()
    assert f'\nversion = "{zoo.__version__}"\n' in project
