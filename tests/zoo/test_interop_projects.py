"""Checkpoints of other projects in: features equal those of the model that their own package builds."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn
from torchvision.models.resnet import BasicBlock, ResNet

import zoo
from zoo.errors import CheckpointError
from zoo.interop import import_checkpoint
from zoo.interop.layouts import LAYOUTS
from zoo.preprocessing.image import ImageInput

SMALL = {"layers": [1, 1, 1, 1]}
SIZE = ImageInput(size=(64, 64))


def used(model: nn.Module, size: int = 64) -> nn.Module:
    """Running statistics that are not those of a fresh network."""
    with torch.no_grad():
        model.train()(torch.rand(4, 3, size, size))
    return model.eval()


def resnet(classifier: bool = False) -> ResNet:
    """A short ResNet of torchvision; without classifier it gives its 512 features."""
    torch.manual_seed(0)
    made = used(ResNet(BasicBlock, [1, 1, 1, 1], num_classes=7))
    if not classifier:
        made.fc = nn.Identity()
    return made


def check(tmp_path, content, source, expected, *, size=64, arch="resnet18", model_args=SMALL, left=()):
    """Import `content` and compare features with `expected`, a function of a batch."""
    file = tmp_path / "foreign.pth"
    torch.save(content, file)
    config, account = import_checkpoint(
        file, source, tmp_path / "net", architecture=arch, model_args=model_args, input=ImageInput(size=(size, size))
    )
    encoder, x = zoo.load(f"local-dir:{tmp_path / 'net'}"), torch.rand(2, 3, size, size)
    with torch.no_grad():
        torch.testing.assert_close(encoder(x), expected(x), rtol=1e-5, atol=1e-5)
    assert set(account.left) == set(left) and config.training.recipe["imported"]["layout"] == source
    return account


def prefixed(prefix, state):
    return {prefix + key: value for key, value in state.items()}


def other(state):
    """The same names with other values: taking them by mistake must show."""
    return {key: torch.zeros_like(value) for key, value in state.items()}


@pytest.mark.parametrize("prefix", ["", "module."])
def test_torchvision(tmp_path, prefix):
    model = resnet(classifier=True)
    state = prefixed(prefix, model.state_dict())
    left = [f"{prefix}fc.weight", f"{prefix}fc.bias"]
    check(tmp_path, {"model": state, "epoch": 3}, "torchvision", resnet(), left=left)


@pytest.mark.parametrize(
    ("arch", "arguments", "size"),
    [
        ("resnet18", {"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16]}, 64),
        ("vit_tiny_patch16_224", {"img_size": 32, "depth": 2, "embed_dim": 48}, 32),
        ("convnext_atto", {"depths": [1, 1, 1, 1], "dims": [8, 8, 16, 16]}, 64),
    ],
)
def test_timm(tmp_path, arch, arguments, size):
    torch.manual_seed(0)
    model = used(timm.create_model(arch, num_classes=5, **arguments), size)
    left = [key for key in model.state_dict() if key in ("fc.weight", "fc.bias", "head.weight", "head.bias")]
    left += [key for key in model.state_dict() if key.startswith("head.fc.")]
    assert left

    def expected(x):
        return model.forward_head(model.forward_features(x), pre_logits=True)

    content = {"state_dict": model.state_dict(), "epoch": 1}
    check(tmp_path, content, "timm", expected, size=size, arch=arch, model_args=arguments, left=left)


@pytest.mark.parametrize("prefix", ["backbone.", "encoder."])
def test_solo_learn(tmp_path, prefix):
    model = resnet()
    state = prefixed(prefix, model.state_dict())
    left = prefixed("momentum_" + prefix, other(model.state_dict()))
    left |= {"classifier.weight": torch.zeros(3, 512), "classifier.bias": torch.zeros(3), "queue": torch.zeros(2, 3)}
    left |= prefixed("projector.", nn.Linear(512, 8).state_dict()) | {"momentum_projector.0.weight": torch.zeros(3)}
    check(tmp_path, {"state_dict": {**state, **left}, "epoch": 9}, "solo-learn", model, left=left)


def test_lightly_by_name_and_by_number(tmp_path):
    heads = pytest.importorskip("lightly.models.modules.heads", reason="lightly is not installed")
    model = resnet()
    head = prefixed("projection_head.", heads.SimCLRProjectionHead(512, 16, 8).state_dict())
    for name, backbone in (("named", model), ("numbered", nn.Sequential(*list(model.children())[:-1]))):
        (tmp_path / name).mkdir()
        content = {"state_dict": {**prefixed("backbone.", backbone.state_dict()), **head}}
        check(tmp_path / name, content, "lightly", model, left=head)


def test_lightly_generator_is_refused(tmp_path):
    """lightly's own ResNet for small images, cut into a Sequential as its guide does, has no ReLU after the stem.

    No timm network does without it: the tensors would fit under other names, the features would not be the same.
    """
    lightly = pytest.importorskip("lightly.models", reason="lightly is not installed")
    made = lightly.ResNetGenerator("resnet-18")
    backbone = nn.Sequential(*list(made.children())[:-1], nn.AdaptiveAvgPool2d(1))
    content = {"state_dict": prefixed("backbone.", backbone.state_dict())}
    with pytest.raises(CheckpointError, match="is no resnet18"):
        check(tmp_path, content, "lightly", None, size=32, model_args={})


def test_vissl(tmp_path):
    model = resnet()
    heads = {"0.clf.0.weight": torch.zeros(4, 512)}
    trunk = prefixed("_feature_blocks.", model.state_dict())
    content = {"classy_state_dict": {"base_model": {"model": {"trunk": trunk, "heads": heads}}, "phase_idx": 3}}
    check(tmp_path, content, "vissl", model, left=["heads.0.clf.0.weight"])


def test_dino(tmp_path):
    torch.manual_seed(0)
    arguments = {"img_size": 32, "depth": 2, "embed_dim": 48}
    model = timm.create_model("vit_tiny_patch16_224", num_classes=0, **arguments).eval()
    state = model.state_dict()
    head = {"head.mlp.0.weight": torch.zeros(3, 48), "head.last_layer.weight_g": torch.ones(3, 1)}
    student = prefixed("module.backbone.", other(state))
    whole = {"student": student, "teacher": {**prefixed("backbone.", state), **head}, "epoch": 100}

    def cls(x):
        """As DINO's VisionTransformer: the class token after the last norm."""
        return model.forward_features(x)[:, 0]

    keywords = {"size": 32, "arch": "vit_tiny_patch16_224", "model_args": arguments}
    check(tmp_path, whole, "dino", cls, left=head, **keywords)
    (tmp_path / "released").mkdir()
    check(tmp_path / "released", state, "dino", cls, **keywords)


@pytest.mark.parametrize("source", ["solo-learn", "lightly", "vissl", "dino"])
def test_a_key_that_nobody_knows_is_an_error(tmp_path, source):
    pattern = {"vissl": "_feature_blocks.", "dino": "backbone."}.get(source, "backbone.")
    state = {**prefixed(pattern, resnet().state_dict()), "surprise.weight": torch.zeros(1)}
    content = {"teacher" if source == "dino" else "state_dict": state} if source != "vissl" else state
    with pytest.raises(CheckpointError, match=r"surprise\.weight"):
        check(tmp_path, content, source, None)
    assert not (tmp_path / "net").exists()


def test_every_layout_is_tested():
    here = {"moco", "clsa", "solo-learn", "lightly", "vissl", "dino", "timm", "torchvision"}
    from_key_lists = {"swav", "moco-v3", "mmselfsup", "simclr-pytorch"}  # tests/zoo/test_interop_wrappers.py
    assert LAYOUTS.keys() == here | from_key_lists
