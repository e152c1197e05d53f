"""The benchmark of ConRec's claim: arms share everything but what they are named for, and the interval is right."""

from __future__ import annotations

import pytest

from benchmarks.conrec_claim import ARMS, FRACTIONS, differences, table
from training.recipe import read_recipe


def test_arms_differ_in_pooling_decoder_and_corruption_only():
    recipes = {arm: read_recipe("conrec_unet16_rectangles", changes).dump() for arm, changes in ARMS.items()}
    reference = recipes["conrec"]
    for arm, recipe in recipes.items():
        assert {k: v for k, v in recipe.items() if k not in ("method", "encoder")} == {
            k: v for k, v in reference.items() if k not in ("method", "encoder")
        }
        differing = {k for k in recipe["method"] if recipe["method"][k] != reference["method"][k]}
        assert differing == (set() if arm == "conrec" else {"reconstruction", "corrupt"})
        differing = {k for k in recipe["encoder"] if recipe["encoder"][k] != reference["encoder"][k]}
        assert differing == ({"pool"} if arm == "simclr" else set())


def test_paired_differences():
    a, b = [0.5, 0.6, 0.7], [0.4, 0.4, 0.7]
    scores = {
        arm: {str(s): {str(f): v for f in FRACTIONS} for s, v in enumerate(values)}
        for arm, values in (("x", a), ("y", b))
    }
    found = differences(scores, [0, 1, 2])["x - y"]["1.0"]
    # Mean 0.1, standard deviation 0.1, t(2, 0.975) = 4.3027.
    assert found["mean"] == pytest.approx(0.1) and found["high"] - found["mean"] == pytest.approx(0.24841, abs=1e-4)
    text = table({"scores": scores, "differences": {"x - y": {"1.0": found}}})
    assert "| x | 60.0" in text and "+10.0 [-14.8, +34.8]" in text
