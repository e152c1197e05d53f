"""`--help-recipe`: every key that a recipe may hold, with what its own models say of it."""

from __future__ import annotations

import pytest

from training.__main__ import main
from training.methods import METHODS
from training.recipe import available_pipelines, available_recipes, read_recipe
from training.settings import settings


@pytest.mark.parametrize("name", available_recipes())
def test_every_setting_of_the_training_is_described(name):
    found = settings(read_recipe(name))
    bare = [s.key for s in found if not s.description and not s.key.startswith(("encoder.", "input."))]
    assert not bare
    keys = [s.key for s in found]
    assert len(keys) == len(set(keys))


def test_each_method_occurs_in_a_recipe():
    """So that the test above sees the settings of all."""
    assert {read_recipe(name).method["name"] for name in available_recipes()} | {"ssnas"} == set(METHODS)


def test_keys_and_values_are_those_of_overrides():
    recipe = read_recipe("smoke")
    found = {s.key: s for s in settings(recipe)}
    for key, one in found.items():
        if one.value is not None and key != "name":
            assert read_recipe("smoke", [f"{key}={one.value}"]) == recipe, key
    assert found["method.temperature"].type == "float > 0" and found["method.temperature"].value == "0.2"
    assert found["optim.lr"].default == "0.3" and found["optim.name"].value == "adamw"
    assert found["method.views[].size"].type == "int | null >= 8 and <= 4096"
    assert found["data.dataset"].default is None and found["encoder.init"].default == "null"
    assert found["weight_mean.decay"].value is None and found["weight_mean.decay"].default == "0.999"


def test_the_command(capsys):
    assert main(["--help-recipe", "smoke_conrec", "epochs=7"]) == 0
    said = capsys.readouterr().out
    assert "method.reconstruction: float >= 0; default 100.0" in said and "lambda_rec" in said
    assert "epochs: int >= 1; must be given; here 7" in said
    assert main(["--help-recipe", available_pipelines()[0]]) == 0
    said = capsys.readouterr().out
    assert "search.method.alpha_lr: float > 0" in said and "pretrain.encoder.genotype" in said
    assert main(["--help-recipe", "smok"]) == 2
    assert "'smoke'" in capsys.readouterr().err
