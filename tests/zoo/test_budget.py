"""A small file that describes an absurd network is refused by counting, whatever family it is of, pretrained or not."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
import threading
import time

import pytest
import torch
from timm import create_model
from torch import nn
from torch.nn.modules import module as torch_modules

import zoo
from tests.zoo.checkpoints import SMALL, rebind, small_encoder, write_small
from zoo.architectures import build
from zoo.checkpoint import budget
from zoo.checkpoint.budget import _Budget, build_within
from zoo.errors import CheckpointError
from zoo.preprocessing.image import ImageInput
from zoo.preprocessing.skeleton import SkeletonInput
from zoo.strict import Architecture


def timm(model: str, **model_args):
    return {"family": "timm", "arguments": {"model": model, "model_args": model_args}}


DEEP = {
    "resnet": timm("resnet18", layers=[16384] * 4, channels=[1] * 4),
    "vit": timm("vit_tiny_patch16_224", depth=16384, embed_dim=1, num_heads=1),
    "convnext": timm("convnext_tiny", depths=[16384] * 4, dims=[1] * 4),
    "maps": {"family": "timm_maps", "arguments": {"model": "resnet18", "model_args": {"layers": [16384] * 4}}},
}
LARGE = {
    "vit": timm("vit_tiny_patch16_224", img_size=16384),
    "beit": timm("beit_base_patch16_224", img_size=16384),
    "levit": timm("levit_128", img_size=16384),
    "swin": timm("swin_tiny_patch4_window7_224", window_size=16384, img_size=16384),
    "swin, tables": timm("swin_tiny_patch4_window7_224", window_size=200, img_size=12800),
    "swinv2": timm("swinv2_tiny_window8_256", window_size=256, img_size=16384),
    "maxvit": timm("maxvit_tiny_tf_224", img_size=16384),
    "wide": timm("resnet18", channels=[16384] * 4),
    "unet": {"family": "unet", "arguments": {"width": 512, "depth": 5}},
    "cell": {"family": "cell_network", "arguments": {"genotype": "darts_v2", "width": 2048, "depth": 128}},
    "airbench": {"family": "airbench", "arguments": {"widths": [4096] * 3, "depth": 3}},
    "gru": {"family": "skeleton_gru", "arguments": {"hidden": 8192, "layers": 8}},
}


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    folder = tmp_path_factory.mktemp("published") / "simclr_small_toys"
    write_small(folder)
    return folder


@pytest.fixture
def folder(pristine, tmp_path):
    return shutil.copytree(pristine, tmp_path / "simclr_small_toys")


def refused(folder, architecture, message):
    changes = {"input": SkeletonInput().model_dump(mode="json")} if architecture["family"] == "skeleton_gru" else {}
    rebind(folder, architecture=architecture, **changes)
    for pretrained in (True, False):
        with pytest.raises(CheckpointError, match=message):
            zoo.load(f"local-dir:{folder}", pretrained=pretrained)
    assert not torch_modules._global_module_registration_hooks, "the hook is gone after a refusal"


@pytest.mark.parametrize("name", DEEP)
def test_a_network_of_too_many_modules(folder, monkeypatch, name):
    monkeypatch.setattr(budget, "MODULES", 200)
    refused(folder, DEEP[name], "more than 200 modules")


@pytest.mark.parametrize("name", LARGE)
def test_a_network_far_larger_than_its_file(folder, name):
    refused(folder, LARGE[name], "far larger network")


@pytest.mark.slow
def test_the_real_limits_end_in_seconds_and_with_little_memory(folder):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for architecture in DEEP.values():
        started = time.thread_time()
        refused(folder, architecture, "modules|far larger|to build")
        assert time.thread_time() - started < 2 * 3 * budget.SECONDS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 20, "KiB"


def test_time_is_counted_and_drawing_is_not():
    now = iter(range(1000))
    with pytest.raises(CheckpointError, match="s to build"), _Budget(1 << 30, False, clock=lambda: next(now)):
        nn.Sequential(*(nn.ReLU() for _ in range(10)))
    drawing = [0.0]

    def slow(tensor: torch.Tensor) -> torch.Tensor:
        drawing[0] += 100
        return tensor

    with _Budget(1 << 30, True, clock=lambda: drawing[0]) as within:
        within._draw(slow, (torch.zeros(1),), {})
        nn.Sequential(nn.ReLU())


def test_other_threads_build_what_they_like():
    with _Budget(1 << 30, False):
        thread = threading.Thread(target=lambda: made.append(nn.Sequential(nn.ReLU())))
        made: list[nn.Module] = []
        mode = torch_modules._global_module_registration_hooks
        counted = next(iter(mode.values())).__self__
        thread.start()
        thread.join()
        assert made and counted.modules == 0


def test_random_weights_are_those_that_build_draws(folder):
    torch.manual_seed(3)
    loaded = zoo.load(f"local-dir:{folder}", pretrained=False)
    torch.manual_seed(3)
    plain = build(SMALL, small_encoder().input)
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), plain.parameters(), strict=True))


def test_claimed_weights_must_be_there_before_gigabytes_are_drawn(folder):
    """A config.json that also lies about the size of its weights."""
    config = json.loads((folder / "config.json").read_text())
    config["architecture"] = timm("vit_tiny_patch16_224", img_size=16384)
    config["weights"]["bytes"] = 8 << 30
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="the file has another size"):
        zoo.load(f"local-dir:{folder}", pretrained=False)


def test_the_parameters_of_random_weights_are_as_many_as_stated(folder):
    rebind(folder, architecture={"family": "timm", "arguments": {"model": "resnet10t", "stem": "cifar"}})
    with pytest.raises(CheckpointError, match=r"parameters, config.json says"):
        zoo.load(f"local-dir:{folder}", pretrained=False)


@pytest.mark.parametrize(
    "model", ["swin_tiny_patch4_window7_224", "swinv2_tiny_window16_256", "vit_tiny_patch16_224", "levit_128s"]
)
def test_tables_of_ordinary_networks_pass(model):
    """Half precision on disk leaves the least room: twice the file is the network itself."""
    architecture = Architecture(family="timm", arguments={"model": model})
    with torch.device("meta"):
        parameters = sum(p.numel() for p in create_model(model, num_classes=0).parameters())
    side = 256 if "256" in model else 224
    assert build_within(architecture, ImageInput(size=(side, side)), 2 * parameters).num_features > 0


def test_a_first_import_is_no_time_of_the_network():
    """The budget counts processor time from the moment the libraries are there, however slow the machine."""
    code = """
import sys
from zoo.checkpoint import budget
from zoo.preprocessing.image import ImageInput
from zoo.strict import Architecture
built = []
real = budget._Budget.__enter__
def entered(self):
    built.append("timm" in sys.modules)
    return real(self)
budget._Budget.__enter__ = entered
budget.build_within(Architecture(family="timm", arguments={"model": "resnet10t"}), ImageInput(), 1 << 24)
print(built)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=600)
    assert done.stdout.strip() == "[True]"
