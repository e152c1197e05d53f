"""`zoo.load`: addresses, the order of checks, and each way a folder can be wrong."""

from __future__ import annotations

import json
import os
import shutil
import threading

import pytest
import torch

import zoo
from tests.zoo.checkpoints import forge, join, rebind, same_weights, small_encoder, split, write_small
from zoo.checkpoint.config import read_config
from zoo.errors import CheckpointError, ConfigError, InputError, UnknownNameError


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    folder = tmp_path_factory.mktemp("published") / "simclr_small_toys"
    write_small(folder, dtype="float32")
    return folder


@pytest.fixture
def folder(pristine, tmp_path):
    return shutil.copytree(pristine, tmp_path / "simclr_small_toys")


def load(folder, **arguments):
    return zoo.load(f"local-dir:{folder}", **arguments)


def test_loads_the_same_function(pristine):
    encoder, x = load(pristine), torch.rand(2, 3, 16, 16)
    assert not encoder.training and encoder.config == read_config(pristine)
    assert same_weights(encoder, small_encoder())
    assert torch.equal(encoder(x), small_encoder()(x))


def test_a_run_folder_loads_its_encoder(folder, tmp_path):
    run = tmp_path / "runs" / "mine"
    run.mkdir(parents=True)
    (run / "recipe.yaml").write_text("name: mine\n")
    with pytest.raises(ConfigError, match=r"the run .*mine has no encoder yet.*--export"):
        load(run)
    shutil.copytree(folder, run / "encoder")
    assert same_weights(load(run), load(folder))


def test_float16_on_disk_is_float32_in_memory(tmp_path):
    write_small(tmp_path / "c")
    encoder = load(tmp_path / "c")
    for name, tensor in small_encoder().state_dict().items():
        stored = tensor.half().float() if tensor.is_floating_point() else tensor
        assert torch.equal(encoder.state_dict()[name], stored)


def test_catalogue_name_and_nearest(pristine, monkeypatch):
    monkeypatch.setenv("ZOO_CHECKPOINTS", str(pristine.parent))
    assert zoo.load("simclr_small_toys").name == "simclr_small_toys"
    with pytest.raises(UnknownNameError, match=r"did you mean 'simclr_small_toys'\?"):
        zoo.load("simclr_smal_toy")


@pytest.mark.parametrize(
    ("address", "fix"),
    [
        ("/some/folder", "local-dir:/some/folder"),
        ("./folder", "local-dir:./folder"),
        ("org/name", "hf-hub:org/name"),
        ("https://huggingface.co/org/name", "hf-hub:org/name"),
        ("https://example.com/model.safetensors", "folder"),
        ("http://example.com/name", "not encrypted"),
        ("https://user:word@example.com/name", "without user"),
        ("https://example.com/a/../name", "without user"),
        ("https://example.com/name?x=1", "without user"),
        ("https://example.com:x/name", "is no URL"),
        ("https://", "is no URL"),
        ("ftp://example.com/name", "unknown scheme"),
        ("hub:org/name", "unknown scheme"),
        ("local-dir:", "names no folder"),
        ("local-dir:a\0b", "names no folder"),
        ("hf-hub:name", "hf-hub:org/name"),
        ("hf-hub:../..", "hf-hub:org/name"),
        ("hf-hub:org/name@", "hf-hub:org/name"),
        ("", "no checkpoint"),
    ],
)
def test_addresses_that_are_none(address, fix):
    with pytest.raises(UnknownNameError) as caught:
        zoo.load(address)
    assert fix in str(caught.value)


def test_a_path_object_is_told_the_address(pristine):
    with pytest.raises(UnknownNameError, match="local-dir:"):
        zoo.load(pristine)


def test_revision_belongs_to_the_hub(pristine):
    with pytest.raises(UnknownNameError, match="revision"):
        load(pristine, revision="main")
    with pytest.raises(UnknownNameError, match="two revisions"):
        zoo.load("hf-hub:org/name@v1", revision="v2")


@pytest.mark.parametrize("device", ["gpu", "cuda:99", 3.5])
def test_unknown_device(pristine, device):
    with pytest.raises(InputError):
        load(pristine, device=device)


def test_untrained(pristine):
    encoder = load(pristine, pretrained=False)
    assert encoder.config is None and not encoder.training
    assert not same_weights(encoder, small_encoder())
    first = encoder.backbone.conv1.weight
    assert first.isfinite().all() and first.std() > 0


def test_loading_leaves_the_random_state_alone(pristine):
    before = torch.get_rng_state()
    load(pristine)
    assert torch.equal(torch.get_rng_state(), before)


def test_buffers_outside_the_state_dict_are_right(tmp_path):
    """Window attention builds index tables that no checkpoint holds; skipping random fills must keep them."""
    from zoo.architectures import build
    from zoo.preprocessing.image import ImageInput
    from zoo.strict import Architecture

    arguments = {"model": "swin_tiny_patch4_window7_224"}
    arguments["model_args"] = {"img_size": 32, "window_size": 4, "embed_dim": 12, "depths": [1, 1], "num_heads": [1, 2]}
    architecture = Architecture(family="timm", arguments=arguments)
    encoder = build(architecture, ImageInput(size=(32, 32))).eval()
    write_small(tmp_path / "c", encoder=encoder, architecture=architecture, dtype="float32")
    loaded, x = load(tmp_path / "c"), torch.rand(2, 3, 32, 32)
    hidden = dict(encoder.named_buffers()).keys() - encoder.state_dict().keys()
    assert hidden
    assert torch.equal(loaded(x), encoder(x))


def test_missing_folder_and_missing_files(folder):
    with pytest.raises(ConfigError, match=r"no config\.json"):
        load(folder / "nothing")
    (folder / "model.safetensors").rename(folder / "model.pth")
    with pytest.raises(CheckpointError, match=r"model\.pth.*write_checkpoint"):
        load(folder)
    (folder / "model.pth").unlink()
    with pytest.raises(CheckpointError, match="missing"):
        load(folder)


@pytest.mark.parametrize("legacy", [False, True])
def test_renamed_pickle(folder, legacy):
    torch.save({"a": torch.zeros(3)}, folder / "model.safetensors", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(CheckpointError, match="never unpickles"):
        load(folder)


def test_config_that_names_a_pickle(folder):
    config = json.loads((folder / "config.json").read_text())
    config["weights"]["file"] = "model.pth"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="write_checkpoint"):
        load(folder)


@pytest.mark.parametrize("name", ["../model.safetensors", "/etc/passwd", "a/b.safetensors", "..", ""])
def test_weights_outside_the_folder(folder, name):
    config = json.loads((folder / "config.json").read_text())
    config["weights"]["file"] = name
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match=r"weights\.file"):
        load(folder)


def test_a_link_out_of_the_folder(folder, tmp_path):
    path = folder / "model.safetensors"
    shutil.move(path, tmp_path / "elsewhere.safetensors")
    path.symlink_to(tmp_path / "elsewhere.safetensors")
    with pytest.raises(CheckpointError, match="link"):
        load(folder)


def test_not_a_regular_file(folder):
    path = folder / "model.safetensors"
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(CheckpointError, match="regular file"):
        load(folder)


def test_git_lfs_pointer(folder):
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")
    with pytest.raises(CheckpointError, match="git lfs pull"):
        load(folder)


def test_size_comes_before_hash(folder):
    path = folder / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    with pytest.raises(CheckpointError, match="truncated"):
        load(folder)
    path.write_bytes(content + b"\0")
    with pytest.raises(CheckpointError, match="too long"):
        load(folder)
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(CheckpointError, match="sha256"):
        load(folder)


def test_edited_preprocessing_is_refused(folder):
    config = json.loads((folder / "config.json").read_text())
    config["input"]["mean"] = [0.0, 0.0, 0.0]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="preprocessing"):
        load(folder)


def test_another_network_is_refused_by_its_tensors(folder):
    architecture = json.loads((folder / "config.json").read_text())["architecture"]
    architecture["arguments"]["model_args"]["layers"] = [1, 1, 1, 2]
    rebind(folder, architecture=architecture)
    with pytest.raises(CheckpointError, match="tensors are missing"):
        load(folder)


@pytest.mark.parametrize(
    "model_args",
    [{"channels": [8, 8, 16, 12000]}, {"layers": [1, 1, 1, 16000]}, {"base_width": 12000}, {"num_classes": 10**9}],
)
def test_a_network_far_larger_than_its_file_takes_no_memory(folder, model_args):
    architecture = json.loads((folder / "config.json").read_text())["architecture"]
    architecture["arguments"]["model_args"] |= model_args
    rebind(folder, architecture=architecture)
    with pytest.raises((CheckpointError, ConfigError)):
        load(folder)


@pytest.mark.parametrize(
    "model_args", [{"checkpoint_path": "/etc/passwd"}, {"pretrained": True}, {"cache_dir": "/tmp"}]
)
def test_arguments_that_reach_for_other_weights(folder, model_args):
    architecture = json.loads((folder / "config.json").read_text())["architecture"]
    architecture["arguments"]["model_args"] |= model_args
    rebind(folder, architecture=architecture)
    with pytest.raises(ConfigError, match="model_args"):
        load(folder)


def test_wrong_shape_dtype_count_and_values(folder, pristine):
    header, data = split((pristine / "model.safetensors").read_bytes())
    names = [name for name in header if name != "__metadata__"]
    weight = next(name for name in names if len(header[name]["shape"]) == 4)

    turned = {**header, weight: {**header[weight], "shape": header[weight]["shape"][::-1]}}
    forge(folder, join(turned, data))
    with pytest.raises(CheckpointError, match="expected"):
        load(folder)

    forge(folder, join({**header, weight: {**header[weight], "dtype": "I32"}}, data))
    with pytest.raises(CheckpointError, match="int32"):
        load(folder)

    forge(folder, join(header, data), parameters=1)
    with pytest.raises(CheckpointError, match="parameters"):
        load(folder)

    start = header[weight]["data_offsets"][0]
    forge(folder, join(header, data[:start] + b"\0\0\xc0\x7f" + data[start + 4 :]), parameters=17504)
    with pytest.raises(CheckpointError, match=f"{weight}.*NaN"):
        load(folder)


def test_number_of_features(folder):
    rebind(folder, num_features=17)
    with pytest.raises(CheckpointError, match="16 features"):
        load(folder)


def test_threads_load_at_once(pristine):
    loaded: list[bool] = []
    expected = small_encoder()
    threads = [threading.Thread(target=lambda: loaded.append(same_weights(load(pristine), expected))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert loaded == [True] * 4


@pytest.mark.parametrize("name", ["x" * 3_000_000, "\x1b[2J\u202e" * 100_000], ids=["long", "acting"])
def test_names_in_a_header_are_clipped_and_written_out(folder, name):
    header, data = split((folder / "model.safetensors").read_bytes())
    first = next(key for key in header if key != "__metadata__")
    forge(folder, join({**header, name: header.pop(first)}, data))
    for change in ({}, {"dtype": name}, {"shape": [1] * 9}, {"data_offsets": [0, 1]}):
        changed = {**header, name: {"dtype": "F16", "shape": [1], "data_offsets": [0, 2], **change}}
        forge(folder, join(changed, data))
        with pytest.raises(CheckpointError) as caught:
            load(folder)
        assert str(caught.value).isprintable() and len(str(caught.value)) < 600


def test_a_header_beyond_the_cap_is_not_parsed(folder, tmp_path, monkeypatch):
    """One of 100 MB took 2.6 GB of memory and 74 seconds to be refused."""
    from zoo.checkpoint import weights
    from zoo.interop.reading import read_foreign

    header, data = split((folder / "model.safetensors").read_bytes())
    text = json.dumps(header).encode()
    forge(folder, join(text + b" " * (weights.MAX_HEADER_BYTES - len(text)), data))
    assert load(folder).num_features == 16
    forge(folder, join(text + b" " * (weights.MAX_HEADER_BYTES + 8 - len(text)), data))
    monkeypatch.setattr(weights, "unique_keys", lambda pairs: pytest.fail("parsed"))
    with pytest.raises(CheckpointError, match="at most 4194304 are read"):
        load(folder)
    with pytest.raises(CheckpointError, match="at most 4194304 are read"):
        read_foreign(folder / "model.safetensors", None)


def test_load_while_the_folder_is_replaced(folder):
    """A reader sees the old checkpoint or the new one, never a mixture or a failure."""
    first, second = small_encoder(0), small_encoder(1)
    stop = threading.Event()

    def replace():
        seed = 1
        while not stop.is_set():
            write_small(folder, seed=seed, dtype="float32")
            seed = 1 - seed

    writer = threading.Thread(target=replace)
    writer.start()
    try:
        for _ in range(40):
            encoder = load(folder)
            assert same_weights(encoder, first) or same_weights(encoder, second)
    finally:
        stop.set()
        writer.join()
