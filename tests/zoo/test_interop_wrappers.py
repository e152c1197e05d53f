"""Foreign checkpoints as people save them: wrapped in any order, without counters, with numbers beside the weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models.resnet import BasicBlock, ResNet

import zoo
from zoo.errors import CheckpointError
from zoo.interop import import_checkpoint
from zoo.interop.wrappers import unwrapped

ARGS = {"layers": [1, 1, 1, 1]}
X = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))


def network(**options) -> ResNet:
    torch.manual_seed(0)
    made = ResNet(BasicBlock, [1, 1, 1, 1], **options)
    with torch.no_grad():
        made.train()(torch.rand(4, 3, 64, 64))
    return made.eval()


def check(encoder, model: ResNet) -> None:
    """The encoder gives the pooled features of the network that was saved."""
    height, width = encoder.input.size
    x = X[..., :height, :width]
    model.fc = nn.Identity()
    with torch.no_grad():
        torch.testing.assert_close(encoder(x), model.eval()(x), rtol=1e-4, atol=1e-5)


def imported(state, tmp_path, source="torchvision", architecture="resnet18", model_args=ARGS, **beside):
    torch.save({"state_dict": state, **beside} if source != "torchvision" else state, tmp_path / "file.pth")
    _, account = import_checkpoint(
        tmp_path / "file.pth", source, tmp_path / "out", architecture=architecture, model_args=model_args
    )
    encoder = zoo.load(f"local-dir:{tmp_path / 'out'}")
    return encoder, account


PREFIXES = ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "backbone.", "model.", "module.model."]
PREFIXES += ["model.module.backbone.", "model._orig_mod.", "backbone._orig_mod.module.", "encoder."]


@pytest.mark.parametrize(("prefix", "head"), [(prefix, i % 2 == 0) for i, prefix in enumerate(PREFIXES)])
def test_wrappers_come_off_in_any_order(tmp_path, prefix, head):
    model = network()
    state = {prefix + key: value for key, value in model.state_dict().items() if head or not key.startswith("fc.")}
    encoder, account = imported(state, tmp_path)
    check(encoder, model)
    assert set(account.left) == ({prefix + "fc.weight", prefix + "fc.bias"} if head else set())
    assert account.used.keys() | account.left.keys() == state.keys()


def test_a_wrapper_in_the_middle_of_a_name():
    assert unwrapped(["layer1._orig_mod.0.weight"]) == {"layer1._orig_mod.0.weight": "layer1.0.weight"}
    assert unwrapped(["encoder_k.module.0.weight"]) == {"encoder_k.module.0.weight": "encoder_k.module.0.weight"}
    with pytest.raises(CheckpointError, match="are the same key apart from module"):
        unwrapped(["module.conv1.weight", "conv1.weight"])


def test_missing_counters_are_filled_and_said(tmp_path):
    model = network()
    state = {key: value for key, value in model.state_dict().items() if "num_batches" not in key}
    encoder, account = imported(state, tmp_path)
    check(encoder, model)
    assert len(account.filled) == 12 and all(key.endswith("num_batches_tracked") for key in account.filled)
    assert "added   12 keys *.num_batches_tracked: not in the file, set to 0" in account.lines()[-1]
    del state["bn1.weight"]
    with pytest.raises(CheckpointError, match="1 of its tensors are missing"):
        imported(state, tmp_path)


def test_numpy_numbers_beside_the_weights(tmp_path):
    model = network()
    state = {f"backbone.{key}": value for key, value in model.state_dict().items()}
    torch.save(
        {"state_dict": state, "best": np.float64(0.5), "epoch": np.int64(3), "arch": "resnet18"}, tmp_path / "x.pth"
    )
    import_checkpoint(tmp_path / "x.pth", "simclr-pytorch", tmp_path / "out", model_args=ARGS)
    encoder = zoo.load(f"local-dir:{tmp_path / 'out'}")
    check(encoder, model)


def test_a_numpy_array_of_objects_beside_the_weights_is_refused(tmp_path):
    torch.save({"state_dict": network().state_dict(), "x": np.array([object()])}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match="is refused: to read it, numpy"):
        import_checkpoint(tmp_path / "x.pth", "torchvision", tmp_path / "out", architecture="resnet18")
    assert not (tmp_path / "out").exists()


# --- layouts, by the names that the projects' own modules give ------------------------------------------


def other(model: ResNet, prefix: str) -> dict[str, torch.Tensor]:
    """A second network of other values: taking it by mistake must show."""
    return {prefix + key: torch.zeros_like(value) for key, value in model.state_dict().items()}


def swav(model: ResNet) -> dict[str, torch.Tensor]:
    """src/resnet50.py: the ResNet itself, with a projection head and one or more prototype layers."""
    state = {key: value for key, value in model.state_dict().items() if not key.startswith("fc.")}
    head = nn.Sequential(nn.Linear(512, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 16))
    state |= {f"projection_head.{key}": value for key, value in head.state_dict().items()}
    state |= {"prototypes.prototypes0.weight": torch.rand(30, 16), "prototypes.prototypes1.weight": torch.rand(30, 16)}
    return {f"module.{key}": value for key, value in state.items()}


def moco_v3(model: ResNet) -> dict[str, torch.Tensor]:
    """moco/builder.py: base_encoder and momentum_encoder whose fc is an MLP, and a predictor."""
    state = {f"base_encoder.{key}": value for key, value in model.state_dict().items() if not key.startswith("fc.")}
    for name in ("base_encoder.fc", "predictor"):
        head = nn.Sequential(nn.Linear(8, 8, bias=False), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 8, bias=False))
        state |= {f"{name}.{key}": value for key, value in head.state_dict().items()}
    state |= other(model, "momentum_encoder.")
    return {f"module.{key}": value for key, value in state.items()}


def mmselfsup(model: ResNet) -> dict[str, torch.Tensor]:
    """mmselfsup 1.x: backbone, neck, head and a momentum network in an averaging wrapper."""
    state = {f"backbone.{key}": value for key, value in model.state_dict().items() if not key.startswith("fc.")}
    state |= {"neck.fc0.weight": torch.rand(8, 8), "head.predictor.fc0.weight": torch.rand(8, 8)}
    state |= other(model, "target_net.module.0.") | {"target_net.steps": torch.tensor(3)}
    return state | {"data_preprocessor.mean": torch.rand(3, 1, 1)}


def mmselfsup_moco(model: ResNet) -> dict[str, torch.Tensor]:
    """mmselfsup 0.x, moco.py: backbone and neck are the parts of encoder_q, saved under both names."""
    backbone = {key: value for key, value in model.state_dict().items() if not key.startswith("fc.")}
    state = {f"encoder_q.0.{key}": value for key, value in backbone.items()}
    state |= {f"backbone.{key}": value for key, value in backbone.items()}
    state |= {"encoder_q.1.mlp.0.weight": torch.rand(8, 8), "neck.mlp.0.weight": torch.rand(8, 8)}
    state |= other(model, "encoder_k.0.")
    return state | {"queue": torch.rand(8, 16), "queue_ptr": torch.zeros(1, dtype=torch.long)}


def mmselfsup_backbone(model: ResNet) -> dict[str, torch.Tensor]:
    """What tools/model_converters/extract_backbone_weights.py of mmselfsup leaves."""
    return {key: value for key, value in model.state_dict().items() if not key.startswith("fc.")}


def simclr_pytorch(model: ResNet) -> dict[str, torch.Tensor]:
    """models/resnet_simclr.py: a torchvision ResNet as backbone, its fc a projection head."""
    state = {f"backbone.{key}": value for key, value in model.state_dict().items() if not key.startswith("fc.")}
    return state | {"backbone.fc.0.weight": torch.rand(8, 8), "backbone.fc.2.bias": torch.rand(8)}


@pytest.mark.parametrize(
    ("source", "make"),
    [
        ("swav", swav),
        ("moco-v3", moco_v3),
        ("mmselfsup", mmselfsup),
        ("mmselfsup", mmselfsup_moco),
        ("mmselfsup", mmselfsup_backbone),
        ("simclr-pytorch", simclr_pytorch),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_layouts_of_other_projects(tmp_path, source, make):
    model = network()
    state = make(model)
    encoder, account = imported(state, tmp_path, source, epoch=100)
    check(encoder, model)
    assert account.used.keys() | account.left.keys() == state.keys() and not account.filled
    with pytest.raises(CheckpointError, match="1 keys are unknown to the layout"):
        imported(state | {"something.else": torch.rand(2)}, tmp_path, source)


def test_a_vision_transformer_of_moco_v3(tmp_path):
    """vits.py: timm's VisionTransformer; ViT-S with 12 heads, which shapes do not show."""
    import timm

    torch.manual_seed(0)
    small = {"depth": 1, "embed_dim": 24, "num_heads": 12}
    model = timm.create_model("vit_small_patch16_224", num_classes=0, **small).eval()
    state = {f"module.base_encoder.{key}": value for key, value in model.state_dict().items()}
    state |= {"module.base_encoder.head.0.weight": torch.rand(4, 4), "module.predictor.0.weight": torch.rand(4, 4)}
    torch.save({"state_dict": state, "arch": "vit_small"}, tmp_path / "x.pth.tar")
    args = {"depth": 1, "embed_dim": 24}
    config, _ = import_checkpoint(tmp_path / "x.pth.tar", "moco-v3", tmp_path / "out", model_args=args)
    assert config.architecture.arguments["model_args"]["num_heads"] == 12
    with torch.no_grad():
        torch.testing.assert_close(zoo.load(f"local-dir:{tmp_path / 'out'}")(X), model(X), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("container", ["state_dict", "model", "model_state_dict", "net"])
def test_the_usual_entries_of_a_file_are_looked_into_whatever_the_layout(container, tmp_path):
    model = network()
    saved = {container: model.state_dict(), "optimizer": {"state": {}, "lr": 0.1}, "epoch": np.float64(3)}
    torch.save(saved, tmp_path / "file.pth")
    arguments = {"architecture": "resnet18", "model_args": ARGS}
    import_checkpoint(tmp_path / "file.pth", "torchvision", tmp_path / "out", **arguments)
    check(zoo.load(f"local-dir:{tmp_path / 'out'}"), model)


def test_two_state_dicts_in_one_file_are_not_guessed_between(tmp_path):
    torch.save({"encoder": network().state_dict(), "net": network().state_dict()}, tmp_path / "file.pth")
    with pytest.raises(CheckpointError, match="holds no state dict"):
        import_checkpoint(tmp_path / "file.pth", "torchvision", tmp_path / "out", architecture="resnet18")
