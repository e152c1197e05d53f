"""`encoder.init`: training starts from exactly the named weights; a wrong source is refused before any file appears."""

from __future__ import annotations

import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml

import zoo
from tests.training.distributed_cases import spawn
from tests.training.test_loop import CPU, in_parts, same_state, tiny
from tests.zoo.checkpoints import write_small
from training import distributed
from training.__main__ import main
from training.export import export_encoder
from training.init import initial_weights, resolve_init
from training.loop import Trainer
from training.plan import plan
from training.recipe import parse_recipe
from training.run_folder import RunFolder, is_training
from zoo.checkpoint.config import StartedFrom, parse_config
from zoo.errors import CheckpointError, ConfigError, TrainingError, UnknownNameError, ZooError
from zoo.publish.card import essentials, render_card

ROOT = Path(__file__).parents[2]


@pytest.fixture
def source(tmp_path) -> str:
    """Address of a small checkpoint: resnet18 with narrow layers, 16 px, its own mean and std."""
    write_small(tmp_path / "source")
    return f"local-dir:{tmp_path / 'source'}"


def starting(address: str, *, encoder=None, **changes):
    raw = {"input": {"size": [16, 16]}, **changes}
    return tiny(encoder={**(encoder or {}), "init": address}, **raw)


def trainer_from(path, recipe) -> Trainer:
    folder = RunFolder(path)
    recipe = resolve_init(recipe, folder)
    if distributed.is_main():
        folder.prepare(recipe, "test")
    distributed.barrier()
    return Trainer(recipe, folder, CPU)


def same_weights(module, encoder) -> None:
    found = module.state_dict()
    assert found.keys() == encoder.state_dict().keys()
    for key, value in encoder.state_dict().items():
        assert torch.equal(found[key], value), key


# -- what training starts from ---------------------------------------------------------------------


def test_training_starts_from_exactly_those_weights_and_their_preprocessing(tmp_path, source):
    trainer = trainer_from(tmp_path / "run", starting(source))
    encoder = zoo.load(source)
    same_weights(trainer.method.encoder, encoder)
    assert trainer.method.encoder.input == encoder.input  # mean and std, which the recipe leaves open
    assert trainer.recipe.architecture().arguments["model"] == "resnet18"


def test_a_momentum_encoder_copies_the_weights_too(tmp_path, source):
    method = {"name": "moco", "queue_size": 32, "bn_groups": 1}
    trainer = trainer_from(tmp_path / "run", starting(source, method=method))
    same_weights(trainer.method.key_encoder.encoder, zoo.load(source))


def test_all_else_is_as_random_as_without_init(tmp_path, source):
    """The head's first weights depend on the seed alone."""
    trainer = trainer_from(tmp_path / "run", starting(source))
    untouched = {key: value for key, value in trainer.recipe.encoder.items() if not key.startswith("init")}
    plain = trainer_from(tmp_path / "plain", tiny(encoder=untouched, input={"size": [16, 16]}))
    same_weights(trainer.method.head, plain.method.head)
    assert not torch.equal(trainer.method.encoder.backbone.conv1.weight, plain.method.encoder.backbone.conv1.weight)


def test_other_view_sizes_are_trained_where_the_network_allows(tmp_path, source):
    trainer = trainer_from(tmp_path / "run", starting(source, input={"size": [32, 32]}))
    assert trainer.method.encoder.input.size == (32, 32)
    same_weights(trainer.method.encoder, zoo.load(source))


def test_a_catalogue_name_and_a_plan(tmp_path):
    raw = {**tiny().dump(), "encoder": {"init": "simclr_airbench95_cifar10"}, "epochs": 1, "batch_size": 8}
    recipe = parse_recipe({key: value for key, value in raw.items() if key != "input"}, "test")
    resolved = resolve_init(recipe)
    config = zoo.checkpoint.catalog.config("simclr_airbench95_cifar10")
    assert resolved.encoder["init_sha256"] == config.weights.sha256
    assert list(resolved.architecture().arguments["widths"]) == list(config.architecture.arguments["widths"])
    assert resolve_init(resolved) == resolved


def test_plan_counts_the_network_that_init_names(source):
    assert plan(starting(source), CPU)["encoder_parameters"] == zoo.load(source).config.weights.parameters


def start_on_rank(address: str, path: Path) -> dict:
    trainer = trainer_from(path, starting(address, monitor=None))
    return {key: value.clone() for key, value in trainer.method.encoder.state_dict().items()}


def test_all_processes_start_alike(tmp_path, source):
    results = spawn(partial(start_on_rank, source, tmp_path / "run"), 2, tmp_path)
    for result in results:
        for key, value in zoo.load(source).state_dict().items():
            assert torch.equal(result[key], value), key


# -- what is recorded --------------------------------------------------------------------------------


def test_the_start_is_recorded_in_recipe_config_and_card(tmp_path, source):
    sha256 = zoo.load(source).config.weights.sha256
    trainer = trainer_from(tmp_path / "run", starting(source, epochs=1))
    trainer.run()
    written = yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())
    assert written["encoder"]["init"] == source and written["encoder"]["init_sha256"] == sha256
    config = zoo.load(f"local-dir:{export_encoder(trainer)}").config
    start = config.training.started_from
    assert (start.name, start.address, start.sha256) == ("simclr_small_toys", source, sha256)
    assert (start.epochs, start.samples_seen, start.dataset.name, start.method) == (3, 300, "toys", "SimCLR")
    for text in (render_card(config), essentials(config)):
        assert f"simclr_small_toys, sha256 {sha256}, itself trained for 3 epochs (300 samples seen)" in text
    assert "after the training of the checkpoint it started from" in render_card(config)


def test_a_chain_of_starts_is_kept_whole(tmp_path, source):
    first = trainer_from(tmp_path / "first", starting(source, epochs=1))
    first.run()
    export_encoder(first)
    second = trainer_from(tmp_path / "second", starting(f"local-dir:{tmp_path / 'first'}", epochs=1))
    second.run()
    config = zoo.load(f"local-dir:{export_encoder(second)}").config
    assert config.training.started_from.name == "simclr_tiny_shapes"
    assert config.training.started_from.started_from.name == "simclr_small_toys"
    assert "That one started from simclr_small_toys" in render_card(config)


def test_a_config_without_a_start_is_written_and_read_as_before(tmp_path):
    config = write_small(tmp_path / "small")
    text = (tmp_path / "small" / "config.json").read_text()
    assert "started_from" not in text and parse_config(text, "small").training.started_from is None
    names = {"name": "a", "address": "a", "sha256": "0" * 64, "method": "m"}
    start = StartedFrom(**names, dataset=config.training.dataset, epochs=None, samples_seen=None)
    with_start = config.model_copy(update={"training": config.training.model_copy(update={"started_from": start})})
    assert parse_config(with_start.to_json(), "small") == with_start


# -- resume ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fate", ["gone", "changed"])
def test_a_resumed_run_takes_its_state_whatever_became_of_the_source(tmp_path, source, fate):
    recipe = starting(source)
    whole = trainer_from(tmp_path / "whole", recipe)
    whole.run()

    made = []

    def make():
        if made:  # the second trainer, which resumes
            shutil.rmtree(tmp_path / "source")
            if fate == "changed":
                write_small(tmp_path / "source", seed=1)
        made.append(trainer_from(tmp_path / "parts", recipe))
        return made[-1]

    second = in_parts(make, at=7)
    same_state(whole.state(), second.state())
    assert second.started_from == whole.started_from and second.started_from.name == "simclr_small_toys"


def test_a_run_without_a_state_is_not_started_from_other_weights(tmp_path, source):
    trainer_from(tmp_path / "run", starting(source))
    shutil.rmtree(tmp_path / "source")
    write_small(tmp_path / "source", seed=1)
    with pytest.raises(TrainingError, match=r"encoder\.init_sha256 was"):
        trainer_from(tmp_path / "run", starting(source))


def test_a_pinned_hash_takes_no_other_weights(source):
    with pytest.raises(ConfigError, match="the recipe wants 000000000000"):
        resolve_init(starting(source, encoder={"init_sha256": "0" * 64}))


def test_weights_exchanged_after_they_were_resolved_are_refused(tmp_path, source):
    recipe = resolve_init(starting(source))
    shutil.rmtree(tmp_path / "source")
    write_small(tmp_path / "source", seed=1)
    with pytest.raises(ConfigError, match="holds weights with sha256"):
        initial_weights(recipe, RunFolder(tmp_path / "run"))
    with pytest.raises(ConfigError, match="resolve_init"):
        initial_weights(starting(source), RunFolder(tmp_path / "run"))


# -- refusals ----------------------------------------------------------------------------------------


VIT = {"family": "timm", "arguments": {"model": "vit_tiny_patch16_224", "model_args": {"img_size": 32, "depth": 1}}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"encoder": {"model": "resnet34"}},
            r"another architecture.*encoder\.model is 'resnet18' there, 'resnet34'.*init",
        ),
        ({"encoder": {"family": "unet"}}, r"encoder\.family is 'timm' there, 'unet'"),
        ({"input": {"modality": "skeleton"}}, "takes images, the recipe trains on skeletons"),
        ({"input": {"mean": [0.1, 0.1, 0.1]}}, r"input\.mean is \[0\.5, 0\.4, 0\.3\] there.*give input\.mean=\[0\.5"),
    ],
)
def test_an_encoder_that_does_not_fit_is_refused(source, changes, message):
    with pytest.raises(ConfigError, match=message):
        resolve_init(starting(source, **changes))


def test_a_size_that_the_network_does_not_take_is_refused(tmp_path):
    from zoo.architectures import build
    from zoo.preprocessing.image import ImageInput
    from zoo.strict import Architecture

    architecture = Architecture.model_validate(VIT)
    encoder = build(architecture, ImageInput(size=(32, 32)))
    write_small(tmp_path / "vit", encoder=encoder, architecture=architecture)
    address = f"local-dir:{tmp_path / 'vit'}"
    resolve_init(starting(address, input={"size": [32, 32]}))
    with pytest.raises(ConfigError, match="trained on 32x32 px and its network does not take 48x48 px"):
        resolve_init(starting(address, input={"size": [48, 48]}))


@pytest.mark.parametrize(
    ("address", "error", "message"),
    [
        ("simclr_airbench95_cifar", UnknownNameError, "simclr_airbench95_cifar10"),
        ("runs/mine", UnknownNameError, "local-dir:runs/mine"),
        ("local-dir:no/such/folder", ConfigError, "no checkpoint folder"),
    ],
)
def test_an_unknown_address_is_refused(address, error, message):
    with pytest.raises(error, match=message) as caught:
        resolve_init(starting(address))
    assert str(caught.value).startswith("encoder.init")


def test_damaged_weights_are_refused(tmp_path, source):
    weights = tmp_path / "source" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(CheckpointError):
        resolve_init(starting(source))


def test_a_run_without_an_encoder_says_how_to_get_one(tmp_path):
    trainer_from(tmp_path / "run", tiny())
    with pytest.raises(ConfigError, match=r"no encoder yet.*--export"):
        resolve_init(starting(f"local-dir:{tmp_path / 'run'}"))


def test_refusals_come_before_anything_is_written(tmp_path, source, capsys):
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(yaml.safe_dump(tiny(input={"size": [16, 16]}).dump()))
    out = tmp_path / "run"
    assert main([str(recipe), "--out", str(out), "--device", "cpu", f"encoder.init={source}"]) == 2
    assert "another architecture" in capsys.readouterr().err and not out.exists()


def test_the_own_folder_is_refused_and_fresh_does_not_delete_it(tmp_path, capsys):
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(yaml.safe_dump(tiny(epochs=1).dump()))
    command = [str(recipe), "--out", str(tmp_path / "run"), "--device", "cpu"]
    assert main(command) == 0
    kept = (tmp_path / "run" / "encoder" / "config.json").read_bytes()
    for init in (tmp_path / "run", tmp_path / "run" / "encoder"):
        assert main([*command, "--fresh", f"encoder={{init: 'local-dir:{init}'}}"]) == 2
        assert "the run's own folder" in capsys.readouterr().err
    assert (tmp_path / "run" / "encoder" / "config.json").read_bytes() == kept


# -- the lock ----------------------------------------------------------------------------------------


HOLD = """
import sys
from training.run_folder import RunFolder
with RunFolder(sys.argv[1]).locked():
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def trained(tmp_path) -> Path:
    trainer = trainer_from(tmp_path / "trained", tiny(epochs=1))
    trainer.run()
    export_encoder(trainer)
    return tmp_path / "trained"


@pytest.fixture
def other_process(trained):
    """Another process that holds the lock of `trained`, as one that trains there does."""
    command = [sys.executable, "-c", HOLD, str(trained)]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_a_second_training_in_a_folder_is_refused_until_the_first_one_dies(tmp_path, trained, other_process, capsys):
    recipe = trained / "recipe.yaml"
    before = {path: path.stat().st_mtime_ns for path in trained.rglob("*") if path.is_file()}
    command = [str(recipe), "--out", str(trained), "--device", "cpu"]
    for options in ([], ["--fresh"]):
        assert main([*command, *options]) == 1
        said = capsys.readouterr().err
        assert "another process is training in" in said and f"(it is process {other_process.pid} on " in said
    assert {path: path.stat().st_mtime_ns for path in trained.rglob("*") if path.is_file()} == before
    assert is_training(trained)
    other_process.kill()
    other_process.wait()
    assert not is_training(trained)
    assert main([*command, "--fresh"]) == 0
    assert not is_training(trained)


def test_an_encoder_that_is_being_trained_is_no_start(trained, other_process):
    for address in (f"local-dir:{trained}", f"local-dir:{trained / 'encoder'}"):
        with pytest.raises(ConfigError, match="being trained at this moment"):
            resolve_init(starting(address, input={"size": [32, 32]}))
    other_process.kill()
    other_process.wait()
    resolve_init(starting(address, input={"size": [32, 32]}))


def test_export_may_happen_while_the_training_goes_on(trained, other_process):
    assert main([str(trained / "recipe.yaml"), "--out", str(trained), "--device", "cpu", "--export"]) == 0


def test_a_folder_that_cannot_be_written_to_is_one_line(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(ZooError, match="cannot write to"), RunFolder(tmp_path / "file" / "run").locked():
        pass


def test_adapt_takes_any_encoder_by_its_address_alone(tmp_path, source, capsys):
    arguments = ["adapt", f"encoder.init={source}", "data.limit=80", "epochs=1", "--device", "cpu"]
    assert main([*arguments, "--out", str(tmp_path / "run")]) == 0, capsys.readouterr().err
    adapted, before = zoo.load(f"local-dir:{tmp_path / 'run' / 'encoder'}"), zoo.load(source)
    assert adapted.config.training.started_from.sha256 == before.config.weights.sha256
    assert adapted.input == before.input and adapted.num_features == before.num_features
