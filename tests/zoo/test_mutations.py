"""Seeded damage to a checkpoint folder: each case is refused in one line, or loads the very same encoder."""

from __future__ import annotations

import random
import warnings
from pathlib import Path

import pytest

import zoo
from tests.zoo import damage_config, damage_weights
from tests.zoo.checkpoints import same_weights, write_small
from tests.zoo.damage_weights import Case
from zoo.encoder import Encoder
from zoo.errors import ZooError

FAST, SLOW = 20, 600


#: Whatever these do, nothing may load: the file no longer is what config.json and the network need.
REFUSED = [
    damage_weights.header_byte,
    damage_weights.data_byte,
    damage_weights.truncated,
    damage_weights.forged_truncation,
    damage_weights.extended,
    damage_weights.forged_extension,
    damage_weights.header_length,
    damage_weights.header_json,
    damage_weights.removed_tensor,
    damage_weights.removed_entry,
    damage_weights.renamed_tensor,
    damage_weights.added_tensor,
    damage_weights.duplicated_key,
    damage_weights.swapped_names,
    damage_weights.shared_bytes,
    damage_weights.wrong_shape,
    damage_weights.wrong_dtype,
    damage_weights.wrong_offsets,
    damage_weights.wrong_entry,
    damage_weights.not_finite,
    damage_weights.metadata,
    damage_weights.wrong_count,
    damage_config.architecture,
    damage_config.config_twice,
    damage_config.config_version,
]
#: These may hit white space or words that change nothing.
MAYBE = [
    damage_weights.forged_header_byte,
    damage_config.config_byte,
    damage_config.config_cut,
    damage_config.config_text,
    damage_config.config_value,
    damage_config.config_key,
    damage_config.config_deep,
    damage_config.config_whole,
]


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> tuple[Encoder, bytes, bytes]:
    folder = tmp_path_factory.mktemp("original") / "c"
    write_small(folder)
    encoder = zoo.load(f"local-dir:{folder}")
    return encoder, (folder / "config.json").read_bytes(), (folder / "model.safetensors").read_bytes()


def check(mutate, must_refuse: bool, seeds: range, original, folder: Path) -> None:
    encoder, config, weights = original
    for seed in seeds:
        case = Case(folder, config, weights, random.Random(f"{mutate.__name__} {seed}"))
        mutate(case)
        where = f"{mutate.__name__} with seed {seed}"
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                loaded = zoo.load(f"local-dir:{folder}")
        except ZooError as error:
            message = str(error)
            assert message and "\n" not in message and len(message) < 1000 and message.encode(), where
            continue
        except BaseException as error:
            raise AssertionError(f"{where}: {type(error).__name__} instead of a ZooError") from error
        assert not must_refuse, f"{where} was accepted"
        assert same_weights(loaded, encoder), f"{where} gave other weights"
        for part in ("architecture", "input", "num_features"):
            assert getattr(loaded.config, part) == getattr(encoder.config, part), f"{where} gave another {part}"


@pytest.mark.parametrize("mutate", [*REFUSED, *MAYBE], ids=lambda mutate: mutate.__name__)
def test_mutations(mutate, original, tmp_path):
    check(mutate, mutate in REFUSED, range(FAST // 2 if mutate in REFUSED else FAST), original, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("mutate", [*REFUSED, *MAYBE], ids=lambda mutate: mutate.__name__)
def test_many_mutations(mutate, original, tmp_path):
    check(mutate, mutate in REFUSED, range(SLOW // 2 if mutate in REFUSED else SLOW), original, tmp_path)


def test_the_undamaged_folder_loads(original, tmp_path):
    encoder, config, weights = original
    Case(tmp_path, config, weights, random.Random(0)).write()
    assert same_weights(zoo.load(f"local-dir:{tmp_path}"), encoder)
