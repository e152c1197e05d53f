"""timm's checkpoints: the same features and pixels as timm's own, from every kind of address, and each fault told."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_data_config

import zoo
from tests.hub_stub import COMMIT, REPO, serve
from tests.zoo.timm_checkpoints import SMALL, write_timm
from zoo.checkpoint import timm_names
from zoo.checkpoint.timm_names import ALIASES, search_timm
from zoo.errors import CheckpointError, ConfigError, HubError, UnknownNameError

RNG = np.random.default_rng(0)
PHOTOS = [Image.fromarray(RNG.integers(0, 256, (h, w, 3), dtype=np.uint8)) for h, w in ((61, 90), (120, 47), (64, 64))]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """family -> folder and timm's own network."""
    root = tmp_path_factory.mktemp("timm")
    return {family: (root / family, write_timm(root / family, family)) for family in SMALL}


@pytest.fixture
def hub(folders, monkeypatch):
    """A hub that offers the ResNet; timm's name `test_resnet.r160_in1k` leads to it."""
    from huggingface_hub import constants

    monkeypatch.setattr("time.sleep", lambda seconds: None)
    registered = timm.models.get_pretrained_cfg("test_resnet.r160_in1k")
    known = dataclasses.replace(registered, hf_hub_id=REPO)
    for name in ("test_resnet", "test_resnet.r160_in1k"):
        monkeypatch.setitem(timm.models._registry._model_pretrained_cfgs, name, known)
    with serve(folders["resnet"][0]) as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield hub


@pytest.mark.parametrize("family", SMALL)
def test_features_are_timms_own(folders, family):
    folder, model = folders[family]
    encoder = zoo.load(f"local-dir:{folder}")
    own = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    transform = create_transform(**resolve_data_config({}, model=own))
    x = torch.stack([transform(photo) for photo in PHOTOS])
    with torch.inference_mode():
        for network in (own, model):
            wanted = network.forward_head(network.forward_features(x), pre_logits=True)
            torch.testing.assert_close(encoder(x), wanted, rtol=1e-5, atol=1e-5)
        assert encoder(x).std(0).max() > 1e-3, "the photos must not all look alike"
    assert not any("head.fc" in name or name.endswith("head.weight") for name in encoder.state_dict())
    table = zoo.extract(encoder, PHOTOS, precision="fp32")
    np.testing.assert_allclose(table.features, wanted.numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", SMALL)
def test_pixels_are_those_of_timms_transform(folders, family):
    encoder = zoo.load(f"local-dir:{folders[family][0]}", pretrained=False)
    cfg = json.loads((folders[family][0] / "config.json").read_text())["pretrained_cfg"]
    transform, stopped = encoder.transform(), create_transform(**resolve_data_config({}, pretrained_cfg=cfg))
    for photo in (*PHOTOS, PHOTOS[0].resize(encoder.input.size[::-1])):
        assert torch.equal(transform(photo), stopped(photo))
        assert transform.pixels(photo).dtype == np.uint8


def test_the_same_from_every_address(hub, folders, tmp_path):
    expected = zoo.load(f"local-dir:{folders['resnet'][0]}")
    x = torch.rand(2, 3, 40, 40)
    cache = {"cache_dir": tmp_path / "cache"}
    for address in ("timm:test_resnet.r160_in1k", "timm:test_resnet", f"timm:test_resnet@{COMMIT}", f"hf-hub:{REPO}"):
        encoder = zoo.load(address, **cache)
        assert torch.equal(encoder(x), expected(x))
        assert encoder.config.training.recipe == {"address": f"hf-hub:{REPO}@{COMMIT}"}
        assert encoder.config.weights == expected.config.weights
    hub.requests.clear()
    zoo.load("timm:test_resnet.r160_in1k", revision=COMMIT, **cache)
    assert hub.requests == [], "a pinned and cached checkpoint makes no request"
    assert not any(path.endswith((".bin", ".pth")) for _, path in hub.requests)


def test_licence_and_origin_are_shown(hub):
    text = zoo.show("timm:test_resnet.r160_in1k")
    for fact in ("test_resnet.toys", "cc-by-nc-4.0", "https://example.com/toys", COMMIT, "40x40 px", "crop 0.95"):
        assert fact in text, fact
    assert not any(path.endswith(".safetensors") for _, path in hub.requests), "nothing is fetched to show it"


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("404", "never unpickles"),
        ("401", "HF_TOKEN"),
        ("gated", "ask for access"),
        ("500", "answers 500"),
        ("no-revision", "no such revision"),
    ],
)
def test_faults_are_one_line(hub, tmp_path, fault, said):
    hub.faults["model.safetensors"] = fault
    with pytest.raises(HubError) as caught:
        zoo.load("timm:test_resnet.r160_in1k", cache_dir=tmp_path)
    assert said in str(caught.value) and "timm:test_resnet.r160_in1k" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_offline_and_a_revision_that_is_gone(hub, tmp_path):
    with pytest.raises(HubError, match="network is off"):
        zoo.load("timm:test_resnet", cache_dir=tmp_path, local_files_only=True)
    with pytest.raises(HubError, match="no such revision"):
        zoo.load("timm:test_resnet@v9", cache_dir=tmp_path)
    with pytest.raises(UnknownNameError, match="two revisions"):
        zoo.load("timm:test_resnet@v9", cache_dir=tmp_path, revision="v8")


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("dinov2_vits14", "write 'timm:vit_small_patch14_dinov2.lvd142m'"),
        ("resnet50", "write 'timm:resnet50.a1_in1k'"),
        ("dino_vits16", "write 'timm:vit_small_patch16_224.dino'"),
        ("vit_tiny_patch16_224", "write 'timm:vit_tiny_patch16_224'"),
        ("timm:dinov2_vits14", "write 'timm:vit_small_patch14_dinov2.lvd142m'"),
        ("timm:resnet5", "did you mean 'resnet50'"),
        ("timm:resnet50.a1_in", "did you mean 'resnet50.a1_in1k'"),
        ("timm:legacy_senet154.in1k", "never unpickles"),
        ("timm:resnet50@", "names no revision"),
    ],
)
def test_names_that_people_type_are_answered_with_an_address(address, said):
    with pytest.raises(UnknownNameError) as caught:
        zoo.load(address)
    assert said in str(caught.value)


def test_every_alias_is_a_pretrained_model_of_timm():
    known = set(timm.list_pretrained())
    assert set(ALIASES.values()) <= known


def test_names_are_searched_without_the_network():
    found = search_timm("vit*dino*")
    assert "timm:vit_small_patch14_dinov2.lvd142m" in found and all("dino" in name for name in found)
    assert search_timm("nothing*") == [] and timm_names.address_for("nothing") is None


@pytest.fixture
def broken(tmp_path):
    write_timm(tmp_path / "c", "resnet")
    return tmp_path / "c"


def test_weights_that_do_not_fit_are_refused(broken):
    from safetensors.torch import load_file, save_file

    state = load_file(broken / "model.safetensors")
    first = next(name for name, tensor in state.items() if tensor.is_floating_point())
    for changed in ({k: v for k, v in state.items() if k != first}, {**state, "stray": torch.zeros(1)}):
        save_file(changed, broken / "model.safetensors")
        with pytest.raises(CheckpointError, match=r"do not fit timm's test_resnet\.toys"):
            zoo.load(f"local-dir:{broken}")
    save_file({**state, first: torch.full_like(state[first], float("nan"))}, broken / "model.safetensors")
    with pytest.raises(CheckpointError, match="NaN"):
        zoo.load(f"local-dir:{broken}")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"architecture": "no_such_net"}, "has no model 'no_such_net'"),
        ({"architecture": "../x"}, "architecture"),
        ({"model_args": {"pretrained": True}}, "no argument of the network"),
        ({"pretrained_cfg": {"input_size": [1, 28, 28]}}, "input_size"),
        ({"pretrained_cfg": {"crop_mode": "tile"}}, "crop_mode"),
    ],
)
def test_a_config_that_cannot_be(broken, changes, said):
    raw = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps({**raw, **changes}))
    with pytest.raises(ConfigError, match=said):
        zoo.load(f"local-dir:{broken}")


def test_probe_and_scikit_learn_take_the_address(folders):
    from evaluation import evaluate
    from zoo.sklearn import EncoderTransformer

    address = f"local-dir:{folders['vit_registers'][0]}"
    encoder = zoo.load(address)
    train, test = (zoo.open_dataset("synthetic:shapes?n=40&size=16", split) for split in ("train", "test"))
    found = evaluate(encoder, train, test, protocols=("knn",), precision="fp32")
    assert {row.subject for row in found.rows} >= {"encoder", "untrained", "raw"}
    features = EncoderTransformer(address).fit_transform(PHOTOS)
    assert np.array_equal(features, zoo.extract(encoder, PHOTOS).features)
