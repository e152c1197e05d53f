"""Search, derive, pretrain, publish: one command, every stage alone, killed and continued."""

from __future__ import annotations

import json

import pytest
import torch
import yaml

import zoo
from training.__main__ import main
from training.recipe import available_pipelines, pipeline_file, read_recipe
from training.run_folder import RunFolder
from training.search.pipeline import read_pipeline
from zoo.checkpoint.config import read_config
from zoo.errors import ConfigError

DATA = {"dataset": "synthetic:shapes?n=80", "held_out": 0.2}
SGD = {"name": "sgd", "lr": 0.05, "lr_scaling": "none", "clip_grad_norm": 5.0}
SHARED = {"data": DATA, "optim": SGD, "input": {"size": [16, 16]}, "monitor": None, "batch_size": 16}
TINY = {
    "name": "ssnas_cell_toys",
    "search": {
        **SHARED,
        "method": {"name": "ssnas", "out_dim": 8, "alpha_lr": 0.05},
        "encoder": {"family": "cell_supernet", "space": "nb201", "width": 4, "depth": 1},
        "epochs": 2,
    },
    "pretrain": {
        **SHARED, "method": {"name": "simclr", "out_dim": 8}, "encoder": {"width": 4, "depth": 1}, "epochs": 1,
    },
}  # fmt: skip


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(TINY))
    return str(path)


def test_all_stages_then_nothing_left_to_do(recipe, tmp_path, capsys):
    run = tmp_path / "run"
    command = [recipe, "--out", str(run), "--device", "cpu"]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "published: zoo.load" in said and "zoo publish" in said
    config = read_config(run / "published" / "ssnas_cell_toys")
    found = json.loads((run / "search" / "genotype.json").read_text())
    assert config.architecture.arguments["genotype"] == found and config.method.name == "ssnas"
    assert set(config.training.recipe) == {"search", "pretrain"}
    card = (run / "published" / "ssnas_cell_toys.md").read_text()
    assert "nas-bench-201-cell" in card and "alpha_lr" in card and "SSNAS encoder" in card
    picture = (run / "published" / "ssnas_cell_toys_cell.svg").read_text()
    assert "(ssnas_cell_toys_cell.svg)" in card and "ssnas_cell_toys: NAS-Bench-201 cell" in picture
    assert picture.count("<path") == 6 and (run / "search" / "cell.svg").read_text().count("<path") == 6
    encoder, trained = (zoo.load(f"local-dir:{run / part}") for part in ("encoder", "pretrain/encoder"))
    x = torch.rand(2, 3, 16, 16)
    assert torch.equal(encoder(x), trained(x))
    before = [(run / part).stat().st_mtime_ns for part in ("search/genotype.json", "pretrain/encoder/config.json")]
    assert main(command) == 0
    assert before == [
        (run / part).stat().st_mtime_ns for part in ("search/genotype.json", "pretrain/encoder/config.json")
    ]
    assert main([*command, "stage=publish", "data.title=Toy shapes", "data.licence=CC0-1.0"]) == 0
    told = read_config(run / "published" / "ssnas_cell_toys").training.dataset
    assert (told.name, told.licence) == ("Toy shapes", "CC0-1.0")
    assert main([*command, "search.epochs=3"]) == 1
    assert "other settings" in capsys.readouterr().err


def test_stages_alone_and_a_stop_within_one(recipe, tmp_path, capsys):
    run = tmp_path / "run"
    command = [recipe, "--out", str(run), "--device", "cpu"]
    assert main([*command, "stage=pretrain"]) == 1 and "run stage=search first" in capsys.readouterr().err
    assert main([*command, "stage=search", "--minutes", "0"]) == 1
    assert not (run / "search" / "genotype.json").exists() and (run / "search" / "state" / "last.pt").exists()
    assert main([*command, "stage=search"]) == 0
    assert not (run / "pretrain").exists()
    assert main([*command, "stage=publish"]) == 1 and "run stage=pretrain first" in capsys.readouterr().err
    assert main([*command, "--minutes", "0"]) == 1 and not (run / "published").exists()
    assert main(command) == 0 and (run / "published" / "ssnas_cell_toys" / "config.json").exists()


def test_a_pipeline_that_another_process_runs_is_refused(recipe, tmp_path, capsys):
    with RunFolder(tmp_path / "run").locked():
        assert main([str(recipe), "--out", str(tmp_path / "run"), "--device", "cpu"]) == 1
    assert "another process is training in" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]


def test_overrides_name_their_stage(recipe):
    path = pipeline_file(recipe)
    made = read_pipeline(path, ["search.epochs=5", "pretrain.optim.lr=0.3", "data.held_out=0.3", "seed=4"])
    assert made.search.epochs == 5 and made.search.data.held_out == 0.3 and made.search.seed == 4
    other = made.example()
    assert other.optim.lr == 0.3 and other.data.held_out == 0.3 and other.seed == 4 and other.epochs == 1
    assert other.encoder["family"] == "cell_network" and other.encoder["stem"] == "cifar"
    assert read_pipeline(path, ["data=synthetic:shapes?n=90"]).search.data.dataset == "synthetic:shapes?n=90"


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("epochs=3", r"search\.epochs= or pretrain\.epochs="),
        ("stage=derive", "unknown stage 'derive'"),
        ("search.epoch=3", "did you mean 'epochs'"),
        ("pretrain.encoder.wide=3", "unknown key 'encoder.wide'"),
        ("search.method=simclr", "search's method is ssnas"),
    ],
)
def test_wrong_overrides(recipe, override, said):
    with pytest.raises(ConfigError, match=said):
        read_pipeline(pipeline_file(recipe), [override])


def test_malformed_pipelines(tmp_path):
    path = tmp_path / "bad.yaml"
    for change, said in [
        ({"serch": {}}, "unknown key 'serch'"),
        ({"pretrain": None}, "keys name, search and pretrain"),
    ]:
        path.write_text(yaml.safe_dump({**TINY, **change}))
        with pytest.raises(ConfigError, match=said):
            read_pipeline(path)


@pytest.mark.parametrize("name", available_pipelines())
def test_bundled_pipelines_parse(name):
    path = pipeline_file(name)
    made = read_pipeline(path, ["data=data/cifar10"])
    assert made.search.data.dataset == "data/cifar10" == made.example().data.dataset
    header = path.read_text().split("\nname:")[0]
    assert f"python -m training {name}" in header


def test_the_paper_recipe_is_darts_search():
    recipe = read_recipe("paper/ssnas_darts_cifar10")
    assert recipe.encoder["width"] == 16 and recipe.encoder["depth"] == 8 and recipe.epochs == 50
    assert pipeline_file("paper/ssnas_darts_cifar10") is None and pipeline_file("smoke_ssnas") is None
