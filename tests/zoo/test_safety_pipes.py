"""`pipe:` runs a command only if a person wrote it as the address, and allowed it; no file, card or host ever runs one.

In all tests but the first commands are allowed (ZOO_ALLOW_PIPE=1), so that nothing but the rule itself holds them back.
"""

from __future__ import annotations

import ast
import contextlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
import yaml

import zoo
from tests.data_fixtures import make_folder
from tests.shard_fixtures import pair, picture, split_shards, write_tar
from tests.static_server import serve_folder
from tests.zoo.checkpoints import rebind, write_small
from training.recipe import parse_recipe, read_recipe
from training.run_folder import RunFolder
from training.search.pipeline import read_pipeline
from zoo.checkpoint.opening import check_mirror
from zoo.data.addresses import available_splits, open_dataset
from zoo.data.copies import Copy
from zoo.data.remote import is_command
from zoo.errors import ConfigError, DataError, UnknownNameError, ZooError

pytestmark = pytest.mark.filterwarnings("ignore::zoo.errors.DataWarning", "ignore::UserWarning")
REPO = Path(zoo.__file__).resolve().parent.parent
#: Leaves a file where it runs; it reads like the name of a shard.
RUN = "pipe:touch ran.tar"


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """The working directory of the test, in which no command has run at its end."""
    monkeypatch.setenv("ZOO_ALLOW_PIPE", "1")
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("zoo.network.asking.WAIT", 0)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    yield tmp_path / "here"
    assert not list(tmp_path.rglob("ran.tar"))


def test_a_person_runs_a_command_by_writing_and_allowing_it(place, monkeypatch):
    """The other tests could not fail if this one did not pass."""
    for ask in (open_dataset, available_splits):
        monkeypatch.delenv("ZOO_ALLOW_PIPE")
        for text in (RUN, f"webdataset:{RUN}", f"{RUN}#label=cls"):
            with pytest.raises(DataError, match="set ZOO_ALLOW_PIPE=1"):
                ask(text)
        for value in ("", "0", "yes", "true"):
            monkeypatch.setenv("ZOO_ALLOW_PIPE", value)
            with pytest.raises(DataError, match="set ZOO_ALLOW_PIPE=1"):
                ask(RUN)
        assert not (place / "ran.tar").exists()
        monkeypatch.setenv("ZOO_ALLOW_PIPE", "1")
    for text in (RUN, f"webdataset:{RUN}"):
        with pytest.raises(DataError, match="gave no shard"):
            open_dataset(text)
        (place / "ran.tar").unlink()


# --- files of data ---------------------------------------------------------------------------------


def test_names_of_files(place):
    write_tar(place / "pipe:touch ran.tar", pair("a"))
    assert len(open_dataset(place, "all")) == 1
    assert len(open_dataset(Path("pipe:touch ran.tar"), "all")) == 1, "a path is a file, whatever it is called"
    assert len(open_dataset("./pipe:touch ran.tar", "all")) == 1
    for text in (RUN, f"webdataset:{RUN}"):  # as a shell writes `*.tar`
        with pytest.raises(DataError, match=r"is a command and the name of a file here; write \./pipe:touch ran\.tar"):
            open_dataset(text)
    (place / "pipe:touch ran.tar").unlink()
    (place / "pipe:touch ran").mkdir()
    make_folder(place / "pipe:touch ran" / "pets")
    for path in (place, Path("pipe:touch ran")):
        open_dataset(path / "pets" if path is not place else path / "pipe:touch ran" / "pets", "train")


@pytest.mark.parametrize(
    "members",
    [
        [(f"{RUN}.png", picture(0)), (f"{RUN}.cls", RUN.encode())],
        [("a.png", picture(0)), ("a.json", json.dumps({"label": RUN, "url": RUN, "__url__": RUN}).encode())],
        [("a.png", RUN.encode()), ("a.cls", b"1")],
        [("a.cls", b"1"), ("a.url", RUN.encode())],
    ],
)
def test_what_lies_in_shards(place, members):
    write_tar(place / "train.tar", members)
    try:
        data = open_dataset(place / "train.tar")
        data.sample(0)
    except DataError as error:
        assert "no picture" in str(error) or "cannot be decoded" in str(error)


@pytest.mark.parametrize("content", [RUN, f"{RUN}\n{RUN}\n", "{pipe:touch ran,b}.tar", "\0" * 512 + RUN])
def test_a_host_that_sends_a_command_or_a_list_in_place_of_a_shard(place, tmp_path, content):
    (tmp_path / "www").mkdir()
    (tmp_path / "www" / "train.tar").write_text(content)
    with serve_folder(tmp_path / "www") as server, pytest.raises(DataError):
        open_dataset(f"{server.url}/train.tar")


def test_a_host_that_redirects_to_a_command(place, tmp_path):
    split_shards(tmp_path)
    with serve_folder(tmp_path / "shards") as server:
        server.faults["train-0000.tar"] = "pipe"
        with pytest.raises(ZooError, match="could not be copied"):
            open_dataset(f"{server.url}/train-0000.tar")


def test_braces_make_no_command_of_what_is_none(place, tmp_path):
    pytest.importorskip("braceexpand")
    with serve_folder(tmp_path) as server:
        for text in (f"{server.url}/{{a,pipe:touch ran}}.tar", "{pipe:touch ran,b}.tar", "[p]ipe:touch ran.tar"):
            with pytest.raises(ZooError):
                open_dataset(text)


def test_what_is_kept_beside_copies(place, tmp_path):
    """A record in the cache that names a command is no record."""
    split_shards(tmp_path)
    with serve_folder(tmp_path / "shards") as server:
        copy = Copy.of(f"{server.url}/train-0000.tar")
        copy.path.parent.mkdir(parents=True)
        record = copy.path.with_name(copy.path.name + ".json")
        record.write_text(json.dumps({"address": RUN, "bytes": 1, "sha256": "0"}))
        assert len(open_dataset(copy.address)) > 0
        assert json.loads(record.read_text())["address"] == copy.address


def test_tables_and_lists_of_files(place):
    folder = make_folder(place / "pets", splits=())
    (place / "labels.csv").write_text(f"file,label\n{RUN},1\n")
    (folder / "metadata.csv").write_text(f"file_name,label\n{RUN},{RUN}\n")
    (folder / "train.txt").write_text(f"{RUN} 0\n")
    for ask in (
        lambda: open_dataset(folder, labels=place / "labels.csv"),
        lambda: open_dataset(folder, "all"),
        lambda: open_dataset(folder, "train"),
        lambda: open_dataset(place / "labels.csv"),
    ):
        with contextlib.suppress(ZooError):
            data = ask()
            for index in range(len(data)):
                data.sample(index)


def test_paths_in_parquet(place):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"image": pa.array([{"bytes": None, "path": RUN}], kind), "label": pa.array([RUN])})
    pq.write_table(table, place / "train.parquet")
    with pytest.raises(DataError):
        open_dataset(place / "train.parquet").sample(0)


def test_arrays_of_names(place):
    np.save(place / "x.npy", np.array([RUN]))
    with pytest.raises(ZooError):
        open_dataset(place / "x.npy")


# --- checkpoints and recipes -----------------------------------------------------------------------


def test_a_checkpoint_and_its_card(place, tmp_path):
    folder = tmp_path / "simclr_small_toys"
    write_small(folder)
    config = json.loads((folder / "config.json").read_text())
    training = config["training"]
    training["dataset"] = {**training["dataset"], "name": RUN, "split": RUN}
    rebind(folder, training=training, mirrors=[RUN], licence=RUN)
    (folder / "README.md").write_text(f"---\ndatasets: ['{RUN}']\n---\n[data]({RUN})\n")
    zoo.load(f"local-dir:{folder}")
    zoo.show(f"local-dir:{folder}")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ZooError):
        zoo.load(f"local-dir:{folder}")
    for address in (RUN, f"webdataset:{RUN}", f"local-dir:{RUN}"):
        with pytest.raises(ZooError):
            zoo.load(address)
    with pytest.raises((ConfigError, UnknownNameError)):
        check_mirror(RUN)


def recipe_of(**changes) -> dict:
    return {
        "name": "simclr_tiny_shapes",
        "method": "simclr",
        "encoder": {"model": "resnet10t"},
        "data": {"dataset": RUN, "split": "all"},
        "optim": {"name": "sgd", "lr": 0.1},
        "epochs": 1,
        "batch_size": 16,
        **changes,
    }


def test_a_recipe_from_a_file(place):
    """Somebody's recipe names a command; whoever means it writes it once more."""
    path = place / "theirs.yaml"
    for data in (RUN, {"dataset": RUN}, {"dataset": f"webdataset:{RUN}"}, {"dataset": "digits", "labels": RUN}):
        path.write_text(yaml.safe_dump(recipe_of(data=data)))
        with pytest.raises(
            ConfigError, match=r"theirs\.yaml names a command .* a file runs no commands; .* give it you"
        ):
            read_recipe(str(path), ["epochs=2"])
    path.write_text(yaml.safe_dump(recipe_of()))
    assert read_recipe(str(path), [f"data={RUN}"]).data.dataset == RUN
    assert read_recipe(str(path), [f"data.dataset={RUN}"]).data.dataset == RUN
    assert read_recipe(str(path), ["data=digits"]).data.dataset == "digits"


def test_a_list_that_holds_itself_in_a_recipe(place):
    (place / "round.yaml").write_text("name: &a [*a]\n")
    with pytest.raises(ConfigError):
        read_recipe(str(place / "round.yaml"))


def test_a_pipeline_from_a_file(place):
    raw = yaml.safe_load((REPO / "training/recipes/pipelines/ssnas_cell_cifar10.yaml").read_text())
    for part in ("search", "pretrain"):
        path = place / f"{part}.yaml"
        path.write_text(yaml.safe_dump({**raw, part: {**raw[part], "data": {"dataset": RUN, "split": "train"}}}))
        with pytest.raises(ConfigError, match="a file runs no commands"):
            read_pipeline(path)
        assert read_pipeline(path, [f"data={RUN}"]).search.data.dataset == RUN


def test_a_run_folder(place):
    """The recipe of a run that reads from a command is compared with what was given, never run."""
    folder = RunFolder(place / "run")
    folder.prepare(parse_recipe(recipe_of(), "mine"), "test")
    folder.check(parse_recipe(recipe_of(data={"dataset": "digits", "split": "all"}), "mine"))
    with pytest.raises(ConfigError, match="a file runs no commands"):
        read_recipe(str(place / "run" / "recipe.yaml"))


@pytest.mark.parametrize("room", ["training", "evaluation", "zoo"])
def test_nothing_that_comes_with_the_zoo_names_a_command(room):
    for path in [*(REPO / room).rglob("*.yaml"), *(REPO / room).rglob("*.json")]:
        assert "pipe:" not in path.read_text(encoding="utf-8"), path


# --- the source ------------------------------------------------------------------------------------


def test_one_function_starts_a_shell_and_only_copies_call_it():
    shells, callers = set(), set()
    for room in ("zoo", "training", "evaluation"):
        for path in (REPO / room).rglob("*.py"):
            name = str(path.relative_to(REPO))
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Constant) and node.value in ("/bin/sh", "sh", "bash", "/bin/bash", "-c"):
                    shells.add(name)
                if isinstance(node, ast.ImportFrom) and node.module == "zoo.data.remote":
                    callers |= {name for alias in node.names if alias.name in ("get", "_run")}
    assert shells == {"zoo/data/remote.py"} and callers == {"zoo/data/copies.py"}


def test_what_a_command_is():
    assert is_command(RUN) and is_command(f"webdataset:{RUN}")
    assert not any(map(is_command, ("https://host/pipe:x.tar", "./pipe:x.tar", os.path.abspath(RUN), " pipe:x.tar")))
