"""Foreign checkpoints in: MoCo's and CLSA's layout, built from torchvision's ResNets."""

from __future__ import annotations

import argparse
import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet, resnet50

import zoo
from zoo import cli
from zoo.errors import CheckpointError, ConfigError, UnknownNameError
from zoo.interop import import_checkpoint
from zoo.interop.layouts import LAYOUTS

ARGS = {"layers": [1, 1, 1, 1]}


def network(seed: int = 0, make=lambda: ResNet(Bottleneck, [1, 1, 1, 1])) -> ResNet:
    """torchvision's network with MoCo v2's head and running statistics that are not those of a fresh one."""
    torch.manual_seed(seed)
    made = make()
    width = made.fc.in_features
    made.fc = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 128))
    with torch.no_grad():
        made.train()(torch.rand(4, 3, 64, 64))
    return made.eval()


def moco_file(path: Path, query: ResNet, module: str = "module.", **extras) -> Path:
    """A file as main_moco.py saves it: both encoders and the queue under DistributedDataParallel's prefix."""
    state = {f"{module}encoder_q.{key}": value for key, value in query.state_dict().items()}
    # The key encoder holds other values: taking it by mistake must show.
    state |= {f"{module}encoder_k.{key}": torch.zeros_like(value) for key, value in query.state_dict().items()}
    state |= {f"{module}queue": torch.randn(128, 64), f"{module}queue_ptr": torch.zeros(1, dtype=torch.long)}
    torch.save({"epoch": 200, "arch": "resnet50", "state_dict": state, "optimizer": {"state": {}}, **extras}, path)
    return path


def pooled(model: ResNet, x: Tensor) -> Tensor:
    model = copy.deepcopy(model)
    model.fc = nn.Identity()
    with torch.no_grad():
        return model.eval()(x)


@pytest.fixture(scope="module")
def released(tmp_path_factory) -> tuple[Path, ResNet]:
    query = network()
    return moco_file(tmp_path_factory.mktemp("moco") / "moco_v2_200ep_pretrain.pth.tar", query), query


@pytest.mark.parametrize("source", ["moco", "clsa"])
def test_features_are_those_of_the_query_encoder(tmp_path, released, source):
    file, query = released
    config, account = import_checkpoint(file, source, tmp_path / "net", model_args=ARGS, trained_on="ImageNet-1k")
    encoder = zoo.load(f"local-dir:{tmp_path / 'net'}")
    x = torch.rand(2, 3, 224, 224)
    with torch.no_grad():
        ours = encoder(x)
    torch.testing.assert_close(ours, pooled(query, x), rtol=1e-5, atol=1e-5)
    assert config.method.name == source and config.name == "net" and config.training.epochs == 200
    assert config.training.dataset.name == "ImageNet-1k" and config.training.recipe["imported"]["layout"] == source
    state = torch.load(file, weights_only=True)["state_dict"]
    assert account.used.keys() | account.left.keys() == state.keys() and not account.used.keys() & account.left.keys()
    assert set(account.used.values()) == set(encoder.state_dict())
    assert set(account.left.values()) == set(LAYOUTS[source].left.values())


def test_the_whole_resnet50(tmp_path):
    query = network(1, resnet50)
    file = moco_file(tmp_path / "moco.pth", query)
    import_checkpoint(file, "moco", tmp_path / "net", name="moco_resnet50_imagenet")
    encoder = zoo.load(f"local-dir:{tmp_path / 'net'}")
    encoder.strict_input = False
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        ours = encoder(x)
    torch.testing.assert_close(ours, pooled(query, x), rtol=1e-4, atol=1e-5)
    assert encoder.config.weights.parameters == 23_508_032


def test_a_network_for_small_images_without_the_prefix(tmp_path):
    def make() -> ResNet:
        small = ResNet(BasicBlock, [1, 1, 1, 1])
        small.conv1, small.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
        return small

    query = network(2, make)
    file = moco_file(tmp_path / "moco.pth", query, module="", arch="resnet18")
    config, _ = import_checkpoint(file, "moco", tmp_path / "net", model_args=ARGS)
    assert config.architecture.arguments["stem"] == "cifar"
    x = torch.rand(1, 3, 224, 224)
    with torch.no_grad():
        ours = zoo.load(f"local-dir:{tmp_path / 'net'}")(x)
    torch.testing.assert_close(ours, pooled(query, x), rtol=1e-4, atol=1e-5)


def test_command_accounts_for_every_key(tmp_path, released, capsys):
    def output_of(*arguments: str) -> str:
        status = cli.main(arguments)
        out, err = capsys.readouterr()
        assert status == 0, err
        return out

    file, query = released
    command = ["import", str(file), "--from", "moco", "--out", str(tmp_path / "net"), "--model-args"]
    command += ['{"layers": [1, 1, 1, 1]}', "--size", "64"]
    short, long = output_of(*command), output_of(*command, "--keys")
    n = len(query.state_dict())
    encoder_keys = sum(not key.startswith("fc.") for key in query.state_dict())
    assert f"used   {encoder_keys:3d} keys module.encoder_q.* -> backbone.*" in short
    assert f"left   {n:3d} keys module.encoder_k.*: momentum encoder" in short
    assert "left     4 keys module.encoder_q.fc.*: projection head" in short
    assert f"{2 * n + 2} keys of" in short and "zoo.load('local-dir:" in short
    for key in torch.load(file, weights_only=True)["state_dict"]:
        assert any(line.split()[1].rstrip(":") == key for line in long.splitlines()[:-1])
    assert zoo.load(f"local-dir:{tmp_path / 'net'}").input.size == (64, 64)
    shown = output_of("show", f"local-dir:{tmp_path / 'net'}")
    assert "200 epochs, unknown samples seen" in shown


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def broken(folder: Path) -> list[tuple[Path, str]]:
    """Files that are no MoCo checkpoint, and what is said of each."""
    query = network()
    state = {f"module.encoder_q.{key}": value for key, value in query.state_dict().items()}
    made = {
        "trap": ({"state_dict": state, "x": Trap(folder / "ran")}, "would have to be run; in the project"),
        "other": ({"state_dict": {"backbone.conv1.weight": torch.zeros(1)}}, "no key is an encoder's in the layout"),
        "more": ({"state_dict": {**state, "predictor.0.weight": torch.zeros(1)}}, "'predictor.0.weight'"),
        "tensor": (torch.zeros(3), "holds a Tensor, not a dict"),
        "empty": ({}, "got nothing"),
        "nested": ({"state_dict": {"a": {"b": 1}}}, "got 'a', a dict"),
        "less": (
            {"arch": "resnet50", "state_dict": {k: v for k, v in state.items() if "layer1" not in k}},
            "is no resnet50: .* missing",
        ),
        "nan": (
            {"arch": "resnet50", "state_dict": {**state, "module.encoder_q.bn1.weight": torch.full((64,), torch.nan)}},
            "NaN",
        ),
        "unnamed": ({"state_dict": state}, "--arch resnet50"),
    }
    files = []
    for name, (content, said) in made.items():
        torch.save(content, folder / f"{name}.pth")
        files.append((folder / f"{name}.pth", said))
    (folder / "text.pth").write_text("no checkpoint")
    (folder / "cut.pth").write_bytes((folder / "more.pth").read_bytes()[:2000])
    (folder / "text.safetensors").write_text("no checkpoint")
    return [
        *files,
        *[(folder / f, "text.pth|cut.pth|safetensors") for f in ("text.pth", "cut.pth", "text.safetensors")],
    ]


def test_what_does_not_fit_is_refused_and_nothing_is_written_or_run(tmp_path):
    for file, said in broken(tmp_path):
        with pytest.raises((CheckpointError, ConfigError), match=said) as caught:
            import_checkpoint(file, "moco", tmp_path / "net", model_args=ARGS)
        assert "\n" not in str(caught.value), file
        assert not (tmp_path / "net").exists() and not (tmp_path / "ran").exists()
    with pytest.raises(CheckpointError, match=r"gone\.pth cannot be read"):
        import_checkpoint(tmp_path / "gone.pth", "moco", tmp_path / "net")
    with pytest.raises(UnknownNameError, match="'moco'"):
        import_checkpoint(tmp_path / "gone.pth", "mocco", tmp_path / "net")


def test_settings_saved_beside_the_weights_do_no_harm(tmp_path, released):
    file = moco_file(
        tmp_path / "args.pth", released[1].__class__(Bottleneck, [1, 1, 1, 1]), args=argparse.Namespace(lr=1)
    )
    config, _ = import_checkpoint(file, "moco", tmp_path / "net", model_args=ARGS, dtype="float16")
    assert config.weights.dtype == "float16"
