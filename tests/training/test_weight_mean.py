"""The mean of the weights: a slow loop, resume bit for bit, and what the monitor and the export take."""

from __future__ import annotations

from functools import partial

import pytest
import torch

import zoo
from tests.training.distributed_cases import spawn
from tests.training.test_loop import in_parts, same_state, tiny, trainer_for
from training.export import export_encoder
from training.weight_mean import WeightMean, WeightMeanConfig
from zoo.errors import ConfigError


def averaged(path, **changes):
    return trainer_for(path, tiny(weight_mean={"decay": 0.6, **changes}))


def test_the_mean_equals_a_slow_loop_over_the_steps(tmp_path):
    trainer = averaged(tmp_path / "run")
    history = []
    trainer.run(
        on_step=lambda step: history.append({k: v.clone() for k, v in trainer.method.encoder.state_dict().items()})
    )
    expected = {key: value.double() for key, value in history[0].items()}
    for n, weights in enumerate(history[1:], start=2):
        d = min(0.6, (n - 1) / (n + 8))
        for key, value in weights.items():
            expected[key] = d * expected[key] + (1 - d) * value.double() if value.is_floating_point() else value
    assert len(history) > 15  # beyond the warm-up of the decay, which ends at step 14
    found = trainer.weight_mean.encoder.state_dict()
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(found[key].double(), value.double(), rtol=1e-5, atol=1e-6, msg=key)
    assert any("running_var" in key for key in expected)
    assert int(found["backbone.bn1.num_batches_tracked"]) == len(history)


def test_a_short_run_is_not_dominated_by_its_first_weights():
    """With a decay of 0.999 and no warm-up, 50 steps would leave the first weights at 95 %."""
    module = torch.nn.Linear(1, 1, bias=False)
    mean = WeightMean(module, WeightMeanConfig(decay=0.999))
    for step in range(50):
        module.weight.data.fill_(float(step == 0))
        mean.update(module)
    assert 0 < float(mean.encoder.weight) < 1e-6


@pytest.mark.parametrize("changes", [{}, {"method": {"name": "moco", "queue_size": 32, "bn_groups": 1}}])
def test_resume_continues_the_mean_bit_for_bit(tmp_path, changes):
    recipe = tiny(weight_mean={"decay": 0.9}, **changes)
    whole = trainer_for(tmp_path / "whole", recipe)
    whole.run()
    second = in_parts(lambda: trainer_for(tmp_path / "parts", recipe), at=7)
    assert "weight_mean" in whole.state()
    same_state(whole.state(), second.state())


def test_a_run_without_a_mean_trains_the_same_weights_and_saves_nothing_more(tmp_path):
    plain = trainer_for(tmp_path / "plain", tiny())
    plain.run()
    mean = averaged(tmp_path / "mean")
    mean.run()
    assert "weight_mean" not in plain.state()
    same_state(plain.state(), {key: value for key, value in mean.state().items() if key != "weight_mean"})


@pytest.mark.parametrize("export", ["mean", "last"])
def test_the_monitor_and_the_export_take_what_the_recipe_asks_for(tmp_path, export, monkeypatch):
    trainer = averaged(tmp_path / "run", export=export)
    watched = []
    monkeypatch.setattr(trainer.monitor, "run", lambda encoder, size: watched.append(encoder) or 0.5)
    trainer.run()
    wanted = trainer.weight_mean.encoder if export == "mean" else trainer.method.encoder
    other = trainer.method.encoder if export == "mean" else trainer.weight_mean.encoder
    assert watched and all(encoder is wanted for encoder in watched)
    loaded = zoo.load(f"local-dir:{export_encoder(trainer)}")
    assert loaded.config.training.recipe["weight_mean"] == {"decay": 0.6, "export": export}
    for key, value in loaded.state_dict().items():
        assert torch.equal(value, wanted.state_dict()[key].half().to(value.dtype)), key
    assert not torch.equal(loaded.backbone.conv1[0].weight, other.backbone.conv1[0].weight.half().float())


def test_what_is_exported_may_change_on_resume_but_not_the_mean(tmp_path):
    averaged(tmp_path / "run").run()
    again = averaged(tmp_path / "run", export="last")
    assert again.resume() and again.encoder is again.method.encoder
    with pytest.raises(zoo.errors.ZooError, match=r"weight_mean\.decay was 0\.6, now 0\.7"):
        trainer_for(tmp_path / "run", tiny(weight_mean={"decay": 0.7}))


def test_a_method_that_ends_in_no_encoder_has_no_mean():
    with pytest.raises(ConfigError, match=r"'ssnas' does not end in an encoder.*weight_mean=null"):
        tiny(method={"name": "ssnas"}, encoder={"family": "cell_supernet"}, weight_mean={})


def ranks_mean(path) -> dict:
    """The mean and the count on this rank after three steps."""
    trainer = trainer_for(path, tiny(weight_mean={"decay": 0.6}, epochs=1, monitor=None))
    trainer.run()
    return {key: value.clone() for key, value in trainer.weight_mean.state_dict().items()}


def test_processes_hold_one_mean(tmp_path):
    alone = ranks_mean(tmp_path / "alone")
    first, second = spawn(partial(ranks_mean, tmp_path / "two"), 2, tmp_path)
    assert first.keys() == alone.keys()
    for key, value in first.items():
        assert torch.equal(value, second[key]), key
