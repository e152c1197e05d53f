"""Recipes: strict keys, overrides, defaults; every recipe that comes with the zoo is valid."""

from __future__ import annotations

import pytest
import yaml

from training.init import resolve_init
from training.methods import METHODS, method_class
from training.recipe import RECIPES, SHORTHANDS, available_recipes, parse_recipe, read_recipe
from zoo.architectures import build
from zoo.errors import ConfigError, UnknownNameError


@pytest.mark.parametrize("name", available_recipes())
def test_every_recipe_is_valid_and_states_how_to_run_it(name):
    recipe = read_recipe(name)
    assert recipe.method["name"] in METHODS
    header = (RECIPES / f"{name}.yaml").read_text().split("\nname:")[0]
    assert all(line.startswith("#") for line in header.splitlines())
    assert f"training {name}" in header
    round_trip = parse_recipe(yaml.safe_load(yaml.safe_dump(recipe.dump())), name)
    assert round_trip == recipe


@pytest.mark.parametrize("name", [n for n in available_recipes() if not n.startswith("paper/")])
def test_every_recipe_builds_its_encoder(name):
    recipe = resolve_init(read_recipe(name))
    encoder = build(recipe.architecture(), recipe.input)
    assert encoder.num_features > 0


AS_RELEASED = [n for n in available_recipes() if (RECIPES / f"{n}.yaml").read_text().startswith("# MS2L as released")]


@pytest.mark.parametrize("name", AS_RELEASED)
def test_ms2l_as_released_clips_each_module_on_its_own(name):
    optim = read_recipe(name).optim
    assert optim.clip_modules and optim.clip_grad_norm == 10


def test_every_structure_and_dataset_of_ms2l_is_there_as_released():
    assert len(AS_RELEASED) == 5


def test_the_smallest_image_is_of_the_encoders_class():
    raw = read_recipe("simclr_resnet18_cifar10").dump()
    with pytest.raises(ConfigError, match="16 px"):
        parse_recipe({**raw, "encoder": {"family": "airbench"}, "input": {**raw["input"], "size": [12, 12]}}, "small")


def test_small_images_get_the_small_stem_and_the_config_says_so():
    recipe = read_recipe("simclr_resnet18_cifar10")
    assert recipe.encoder["stem"] == "cifar"
    large = read_recipe("simclr_resnet18_cifar10", ["input.size=[224,224]"])
    assert large.encoder["stem"] == "imagenet"


def test_overrides_reach_nested_keys_and_keep_the_rest():
    recipe = read_recipe(
        "simclr_resnet18_cifar10",
        ["epochs=3", "data=some/folder", "optim.lr=0.5", "method.temperature=0.1", "encoder.model=resnet34"],
    )
    assert recipe.epochs == 3 and recipe.optim.lr == 0.5
    assert recipe.data.dataset == "some/folder" and recipe.data.held_out == 0.1
    assert recipe.method["temperature"] == 0.1 and recipe.encoder["model"] == "resnet34"


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("epoch=3", "'epochs'"),
        ("optim.learning_rate=3", "optim.learning_rate"),
        ("method.temprature=0.1", "'temperature'"),
        ("encoder.modle=resnet18", "'model'"),
        ("data.heldout=0.1", "'held_out'"),
        ("monitor.evry_epochs=1", "'every_epochs'"),
        ("epochs=many", "epochs"),
        ("epochs=0", "epochs"),
        ("optim.lr=-1", "optim.lr"),
        ("epochs", "key=value"),
        ("epochs.more=1", "not a group"),
        ("view_sizes=[{until: 0.5, size: 16}]", "end at 1"),
        ("encoder.family=tim", "'timm'"),
        ("name=Bad Name", "lower-case"),
    ],
)
def test_a_wrong_key_or_value_names_the_fix(override, expected):
    with pytest.raises(ConfigError) as caught:
        read_recipe("simclr_resnet18_cifar10", [override])
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_names_list_the_nearest():
    with pytest.raises(UnknownNameError, match="simclr_resnet18_cifar10"):
        read_recipe("simclr_resnet18_cifar")
    with pytest.raises(UnknownNameError, match="'simclr'"):
        read_recipe("simclr_resnet18_cifar10", ["method=simclrr"])


@pytest.mark.parametrize("key, setting", [("augment", "crop_scale=[0.3,1.0]"), ("corrupt", "shuffle_p=0.1")])
def test_one_setting_of_a_preset_that_is_given_by_name_can_be_changed(key, setting):
    name, value = setting.split("=")
    preset = {"augment": "imagenet", "corrupt": "grey"}[key]
    found = getattr(
        read_recipe("smoke_conrec", [f"method.{key}={preset}", f"method.{key}.{setting}"]).method_config(), key
    )
    plain = getattr(read_recipe("smoke_conrec", [f"method.{key}={preset}"]).method_config(), key)
    assert found == plain.model_copy(update={name: type(getattr(plain, name))(yaml.safe_load(value))})
    assert found != plain


def test_whatever_takes_a_preset_by_name_is_known_as_such():
    found = {
        name
        for method in METHODS
        for name, field in method_class(method).Config.model_fields.items()
        if "preset's name" in (field.description or "")
    }
    assert found == {name for name, key in SHORTHANDS.items() if key == "preset"}
