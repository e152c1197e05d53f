"""The claim's benchmark end to end on made motion, and the claim it writes."""

from __future__ import annotations

from benchmarks.claims.ms2l import ALL, ARMS, RELEASED, main
from benchmarks.claims.study import FLOOR
from training.recipe import read_recipe
from zoo.checkpoint.results import read_claim


def test_every_arm_is_a_recipe_that_trains_the_tasks_it_names():
    for arm, overrides in ARMS.items():
        config = read_recipe("ms2l_bigru64_nucla", overrides).method_config()
        on = [task for task in ("motion", "jigsaw", "contrastive") if getattr(config, task)]
        assert on == (ALL if arm == RELEASED else arm).split("+")
    assert len(ARMS) == 8


def test_the_command_trains_probes_and_goes_on_where_it_stopped(tmp_path, capsys):
    out = tmp_path / "claim"
    arguments = ["smoke_ms2l", "data=synthetic:motion?n=64", "epochs=1", "batch_size=16", "monitor=null"]
    arguments += ["encoder.hidden=8", "--out", str(out), "--seeds", "0", "1", "--arms", "jigsaw", ALL]
    arguments += ["--splits", "train/test"]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    found = read_claim(out / "claim_train-test.json")
    assert list(found.arms) == [FLOOR, "jigsaw", ALL] and found.seeds == (0, 1)
    assert all(len(values) == 2 and 0 <= min(values) <= max(values) <= 1 for values in found.arms.values())
    assert {frozenset((d.arm, d.other)) for d in found.differences} == {frozenset((ALL, x)) for x in ("jigsaw", FLOOR)}
    assert "smoke_ms2l, 1 epochs" in found.setting and found.command.endswith("--splits train/test")
    neighbours = read_claim(out / "claim_train-test_neighbours.json")
    assert "logreg-v3" in found.measure and "knn-v2" in neighbours.measure
    assert neighbours.arms != found.arms
    stamp = (out / "jigsaw_seed1" / "encoder" / "config.json").stat().st_mtime_ns
    assert main(arguments) == 0
    assert (out / "jigsaw_seed1" / "encoder" / "config.json").stat().st_mtime_ns == stamp
    assert capsys.readouterr().out.endswith(printed[printed.index("top-1 accuracy") :])


def test_tasks_that_the_recipe_leaves_out_are_no_arms(tmp_path, capsys):
    out = tmp_path / "claim"
    arguments = ["smoke_ms2l", "data=synthetic:motion?n=64", "epochs=1", "batch_size=16", "monitor=null"]
    arguments += [
        "encoder.hidden=8",
        "method.jigsaw=0",
        "--out",
        str(out),
        "--seeds",
        "0",
        "1",
        "--splits",
        "train/test",
    ]
    assert main([*arguments, "--arms", "jigsaw", "contrastive", "motion+contrastive", ALL]) == 0
    found = read_claim(out / "claim_train-test.json")
    assert list(found.arms) == [FLOOR, "contrastive", "motion+contrastive"]
    assert "motion and contrastive" in found.title
    assert {frozenset((d.arm, d.other)) for d in found.differences} == {
        frozenset(("motion+contrastive", other)) for other in ("contrastive", FLOOR)
    }


def test_arms_that_all_need_tasks_of_another_recipe_are_refused(tmp_path, capsys):
    assert main(["smoke_ms2l", "method.jigsaw=0", "--arms", "jigsaw", "--out", str(tmp_path / "claim")]) == 2
    assert "smoke_ms2l trains none of jigsaw; known: motion, contrastive" in capsys.readouterr().err
    assert not (tmp_path / "claim").exists()
