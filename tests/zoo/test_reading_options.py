"""`--classes`, `--labels-file`, `--test-share` and `--skip-bad`: every command that opens pictures takes them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.main import get_command

from tests.data_fixtures import make_folder, write_image
from tests.zoo.checkpoints import write_small
from zoo import cli
from zoo.features.index import Index
from zoo.features.table import FeatureTable

COMMANDS = get_command(cli.app).commands
OPTIONS = {"--classes", "--labels-file", "--test-share", "--skip-bad"}
NAME = "simclr_small_toys"
TINY = ("epochs=1", "batch_size=4", "encoder.model_args.channels=[8,8,8,8]", "monitor=null", "precision=fp32")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """`shop/fruit|milk/*/N.png`, `flat/N.png` with `flat.csv`, and `flat` holds one file that is no picture."""
    place = tmp_path_factory.mktemp("place")
    write_small(place / "catalogue" / NAME)
    for number, name in enumerate(("fruit/apple", "fruit/pear", "milk/arla", "milk/oatly")):
        for i in range(5):
            write_image(place / "shop" / name / f"{i}.png", 5 * number + i)
    rows = ["file,label"]
    for i in range(20):
        write_image(place / "flat" / f"{i}.png", 100 + i)
        rows.append(f"{i}.png,{'wren' if i % 2 else 'owl'}")
    (place / "flat" / "broken.png").write_bytes(b"no picture")
    (place / "flat.csv").write_text("\n".join([*rows, "broken.png,owl"]) + "\n")
    return place


@pytest.fixture
def zoo_command(place, monkeypatch, capsys):
    """Run `zoo ARGUMENTS` beside the pictures; gives exit status, stdout, stderr."""
    monkeypatch.setenv("ZOO_CHECKPOINTS", str(place / "catalogue"))
    monkeypatch.chdir(place)

    def run(*arguments: object) -> tuple[int, str, str]:
        return cli.main([str(each) for each in arguments]), *capsys.readouterr()

    return run


def test_all_commands_that_open_pictures_take_the_same_words():
    for name in ("extract", "probe", "look", "index", "search", "publish"):
        assert {option for p in COMMANDS[name].params for option in p.opts} >= OPTIONS, name


def test_the_keys_of_a_recipe_are_the_arguments_of_a_dataset():
    import inspect

    from training.data_settings import Data
    from zoo.data.addresses import open_dataset

    assert set(cli.DATA_KEYS) <= set(Data.model_fields) & set(inspect.signature(open_dataset).parameters)


@pytest.mark.parametrize("command", ["extract", "probe", "look", "index"])
def test_an_ambiguous_folder_is_answered_by_the_option_that_the_error_names(zoo_command, command, tmp_path):
    out = tmp_path / ("out.npz" if command == "extract" else "out")
    more = ("--protocol", "knn", "--no-baselines") if command == "probe" else ()
    asked = (command, NAME, "shop", "--out", out, *more)
    status, _, err = zoo_command(*asked)
    assert status == 2 and not out.exists()
    assert "set --classes top (2: fruit, milk), --classes leaf (4: apple, arla, oatly, ...) or --classes level:N" in err
    for classes, count in (("top", 2), ("leaf", 4), ("level:2", 4)):
        status, _, err = zoo_command(*asked, "--classes", classes)
        assert status == 0, err
        assert f"20 images, {count} classes (" in err.splitlines()[0] and "DataWarning" not in err
    status, _, err = zoo_command(*asked, "--classes", "leafs")
    assert status == 2 and "--classes leafs names no folder of a path; expected top, leaf or level:N" in err


def test_a_probe_reads_a_table_leaves_bad_files_out_and_its_command_repeats_it(zoo_command, place, tmp_path):
    from evaluation.command import probe, read_command

    asked = ("probe", NAME, "flat", "--labels-file", "flat.csv", "--test-share", 0.4)
    asked += ("--protocol", "knn", "--k", 1, "--no-baselines", "--precision", "fp32", "--out", tmp_path)
    status, _, err = zoo_command(*asked)
    assert status == 2 and "--skip-bad leaves it out" in err and "broken.png" in err
    assert list(tmp_path.iterdir()) == []
    status, _, err = zoo_command(*asked, "--skip-bad")
    assert status == 0, err
    first = err.splitlines()[0]
    assert first.startswith("20 images, 2 classes (owl, wren), train[60% of each class, seed 0] 12 / test[40% of each")
    assert "1 unreadable" in first and "drawn by chance" in first
    (row,) = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert row["test"]["samples"] == 8
    for words in ("--labels-file flat.csv", "--test-share 0.4", "--skip-bad"):
        assert words in row["command"]
    (again,) = probe(*read_command(row["command"]), quiet=True).rows
    assert again.test.fingerprint == row["test"]["fingerprint"]
    assert again.metrics["top1"].value == row["metrics"]["top1"]["value"]


def test_extract_and_index_take_what_can_be_read(zoo_command, tmp_path):
    status, _, err = zoo_command("extract", NAME, "flat", "--out", tmp_path / "a.npz", "--skip-bad")
    assert status == 0, err
    assert len(FeatureTable.load(tmp_path / "a.npz")) == 20
    asked = ("extract", NAME, "flat", "--out", tmp_path / "b.npz", "--skip-bad", "--labels-file", "flat.csv")
    status, _, err = zoo_command(*asked, "--split", "test", "--test-share", 0.3)
    assert status == 0, err
    assert np.bincount(FeatureTable.load(tmp_path / "b.npz").labels).tolist() == [3, 3]
    status, _, err = zoo_command("index", NAME, "flat", "--out", tmp_path / "index", "--skip-bad", "-q")
    assert status == 0 and len(Index.open(tmp_path / "index")) == 20
    status, out, err = zoo_command("search", tmp_path / "index", "flat", "-k", 1, "--skip-bad")
    assert status == 0 and len(out.splitlines()) == 20, err


def test_look_takes_each_picture_once(zoo_command, tmp_path):
    """Data without splits once came three times: as train, as test and as all."""
    status, out, err = zoo_command("look", NAME, "shop", "--out", tmp_path, "--classes", "leaf", "-q")
    assert status == 0 and out.startswith("20 pictures: 0 groups of near-duplicates"), (out, err)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("flat", "--classes", "top"), "no folder can be their class"),
        (("flat", "--labels-file", "none.csv"), "--labels-file none.csv is no file of"),
        (("shop", "--classes", "leaf", "--test-share", 1.5), "--test-share 1.5 does not lie strictly between 0 and 1"),
        (("digits", "--classes", "leaf"), "digits takes no --classes leaf; that is for a folder of images"),
        (("synthetic:shapes", "--labels-file", "x.csv"), "x.csv is no file of"),
        (("--suite", "downstream", "--classes", "leaf"), "--classes is for one dataset; leave it out with --suite"),
        (("--suite", "downstream", "--skip-bad"), "--skip-bad is for one dataset"),
    ],
)
def test_bad_options_are_said_in_the_words_of_the_command_line(zoo_command, arguments, message):
    status, _, err = zoo_command("probe", NAME, *arguments)
    assert status == 2 and message in err, err


def test_a_division_of_data_with_splits_is_refused(zoo_command, tmp_path):
    make_folder(tmp_path / "pets")
    status, _, err = zoo_command("probe", NAME, tmp_path / "pets", "--test-share", 0.3)
    assert status == 2 and "splits of its own (train, test); leave --test-share 0.3 out" in err


def test_training_reads_the_same_way_and_says_so_first(zoo_command, tmp_path):
    run = tmp_path / "run"
    status, _, err = zoo_command("train", "smoke", *TINY, "data.dataset=shop", "--out", run)
    assert status == 2 and "set data.classes=top (2: fruit, milk), data.classes=leaf" in err
    changed = ("data.dataset=shop", "data.classes=leaf", "data.test_share=0.4", "data.held_out=0.25")
    status, _, err = zoo_command("train", "smoke", *TINY, *changed, "--out", run, "--fresh")
    assert status == 0, err
    lines = err.splitlines()
    assert lines[0].startswith("12 images, 4 classes (apple, arla, oatly, ...), train[60% of each class, seed 0] 12")
    assert "decoding" in err and "DataWarning" not in err
    table = ("data.dataset=flat", "data.labels=flat.csv", "data.held_out=0.25")
    status, _, err = zoo_command("train", "smoke", *TINY, *table, "--out", tmp_path / "birds")
    assert status == 2 and "data.skip_bad=true leaves it out" in err
    status, _, err = zoo_command("train", "smoke", *TINY, *table, "data.skip_bad=true", "--out", tmp_path / "birds2")
    assert status == 0 and "1 unreadable" in err.splitlines()[0], err


def test_a_quiet_command_keeps_the_warning(zoo_command, tmp_path):
    from zoo.errors import DataWarning

    with pytest.warns(DataWarning, match="1 unreadable"):
        status, _, err = zoo_command("extract", NAME, "flat", "--out", tmp_path / "a.npz", "--skip-bad", "-q")
    assert status == 0 and "images" not in err


def test_names_of_timm_are_searched_without_the_network(zoo_command, monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("the network was asked")

    monkeypatch.setattr("socket.socket.connect", refuse)
    status, out, err = zoo_command("list", "--timm", "vit*dino*")
    assert status == 0, err
    assert "timm:vit_small_patch14_dinov2.lvd142m" in out.splitlines()
    assert all(line.startswith("timm:vit") and "dino" in line for line in out.splitlines())
    status, _, err = zoo_command("list", "--timm", "dino")
    assert status == 2 and "'*dino*'" in err
    status, _, err = zoo_command("list", "--timm", "vit*", "--method", "SimCLR")
    assert status == 2 and "leave --modality, --method and --write out" in err
