"""ShuffleBN hides something only if a pass holds whole groups, and more than one."""

from __future__ import annotations

import re

import pytest

from tests.training.test_loop import tiny, trainer_for
from tests.training.test_moco import TINY
from training.modules.batch_norm import group_size
from zoo.errors import ConfigError


@pytest.mark.parametrize(
    ("groups", "accumulate", "fits"),
    [
        (8, 8, False),
        (8, 4, True),
        (8, 3, False),
        (4, 4, False),
        (2, 1, True),
        (4, 2, True),
        (1, 8, True),
        (2, 4, False),
    ],
)
def test_a_pass_holds_two_whole_groups_or_shuffling_hides_nothing(groups, accumulate, fits):
    """With one group in a pass, all keys share their statistics with all positives; with half a group, the two views of
    a symmetric loss share one. A single group for everything is asked for on purpose."""
    if fits:
        assert group_size(groups, 64, accumulate) == 64 // groups
        return
    with pytest.raises(ConfigError, match="at least two groups in each of the") as error:
        group_size(groups, 64, accumulate)
    better = re.search(r"use (\d+)", str(error.value))
    if better:
        group_size(int(better[1]), 64, accumulate)


def test_a_recipe_whose_passes_hold_one_group_is_refused(tmp_path):
    """Measured before it was refused: every key depended on the first image of its pass, as if nothing were split."""
    with pytest.raises(
        ConfigError, match="least two groups in each of the 4 passes: otherwise ShuffleBN hides nothing; use 8"
    ):
        trainer_for(tmp_path / "run", tiny(**TINY, accumulate=4))
