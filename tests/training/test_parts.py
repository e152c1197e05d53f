"""Parts of the encoder with a learning rate of their own, parts that stand still, and wrong names of parts."""

from __future__ import annotations

import pytest
import torch

from tests.training.test_loop import in_parts, same_state, tiny, trainer_for
from zoo.errors import ConfigError

SGD = {"name": "sgd", "lr": 0.1, "lr_scaling": "none", "momentum": 0.0, "weight_decay": 0.0}
MOCO = {"name": "moco", "queue_size": 64, "bn_groups": 4}
VIT = {
    "model": "vit_tiny_patch16_224",
    "model_args": {"img_size": 32, "patch_size": 8, "depth": 2, "embed_dim": 24, "num_heads": 3},
}


def one_step(tmp_path, name, **changes):
    """The encoder's state before and after one step, and the trainer."""
    trainer = trainer_for(tmp_path / name, tiny(**changes))
    trainer.method.train()
    before = {key: value.clone() for key, value in trainer.method.encoder.state_dict().items()}
    trainer._step()
    return before, trainer.method.encoder.state_dict(), trainer


@pytest.mark.parametrize("method", [{"name": "simclr"}, MOCO], ids=["simclr", "moco"])
def test_frozen_parts_and_their_statistics_stand_still(tmp_path, method):
    frozen = ("backbone.conv1", "backbone.bn1", "backbone.layer1")
    before, after, trainer = one_step(tmp_path, "a", method=method, optim={**SGD, "freeze": frozen})
    moved = {key for key in before if not torch.equal(before[key], after[key])}
    assert moved and not any(key.startswith(frozen) for key in moved)
    assert any(key.startswith("backbone.layer2") and "running" in key for key in moved)
    trainer.run()
    assert trainer.method.encoder.training and not trainer.method.encoder.backbone.bn1.training
    after = trainer.method.encoder.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before if key.startswith(frozen))


@pytest.mark.parametrize("method", [{"name": "simclr"}, MOCO], ids=["simclr", "moco"])
def test_batch_norms_in_eval_mode_keep_the_statistics_that_they_came_with(tmp_path, method):
    before, after, _ = one_step(tmp_path, "a", method=method, optim={**SGD, "batch_norm": "eval"})
    moved = {key for key in before if not torch.equal(before[key], after[key])}
    assert "backbone.conv1.0.weight" in moved or "backbone.conv1.weight" in moved
    assert not any("running" in key or "batches" in key for key in moved)


def test_the_encoder_moves_by_its_own_rate_and_the_head_by_the_whole_one(tmp_path):
    changes = {"method": {"name": "simclr"}, "precision": "fp32"}
    _, _, plain = one_step(tmp_path, "plain", **changes, optim=SGD)
    start, slow, scaled = one_step(tmp_path, "slow", **changes, optim={**SGD, "encoder_lr_scale": 0.1})
    whole = plain.method.encoder.state_dict()
    for key, value in plain.method.encoder.named_parameters():
        torch.testing.assert_close(slow[key] - start[key], 0.1 * (value.detach() - start[key]), rtol=1e-3, atol=1e-6)
    assert whole.keys() == slow.keys()
    for one, other in zip(plain.method.head.parameters(), scaled.method.head.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_layers_further_from_the_output_learn_more_slowly(tmp_path):
    changes = {"encoder": VIT, "input": {"size": [32, 32]}, "data": {"dataset": "synthetic:shapes?n=120&size=32"}}
    _, _, trainer = one_step(tmp_path, "vit", **changes, optim={**SGD, "encoder_lr_scale": 0.5, "layer_decay": 0.1})
    rates = {id(p): group["lr"] for group in trainer.optimizer.param_groups for p in group["params"]}
    peak = max(rates.values())
    backbone = trainer.method.encoder.backbone
    found = [rates[id(p)] / peak for p in (backbone.pos_embed, backbone.blocks[0].norm1.weight,
                                           backbone.blocks[1].norm1.weight, backbone.norm.weight)]  # fmt: skip
    assert found == pytest.approx([0.5e-2, 0.5e-1, 0.5, 0.5])  # the last norm goes with the last block
    assert all(rates[id(p)] == peak for p in trainer.method.head.parameters())


def test_a_run_with_rates_of_its_own_resumes_bit_for_bit(tmp_path):
    recipe = tiny(optim={"name": "muon", "lr": 0.01, "lr_scaling": "none", "encoder_lr_scale": 0.3, "layer_decay": 0.5,
                         "freeze": ["backbone.conv1"]})  # fmt: skip
    whole = trainer_for(tmp_path / "whole", recipe)
    whole.run()
    second = in_parts(lambda: trainer_for(tmp_path / "parts", recipe), at=7)
    same_state(whole.state(), second.state())


@pytest.mark.parametrize(
    ("optim", "said"),
    [
        ({"freeze": ["backbone.conv"]}, r"no part 'backbone.conv'; did you mean 'backbone.conv1'"),
        ({"freeze": ["backbone"]}, "leaves nothing of the encoder to train"),
    ],
)
def test_wrong_parts_are_named(tmp_path, optim, said):
    with pytest.raises(ConfigError, match=said):
        trainer_for(tmp_path / "run", tiny(optim={**SGD, **optim}))


def test_layer_decay_needs_to_know_the_layers(tmp_path):
    recipe = tiny(
        encoder={"family": "airbench", "widths": [8, 8, 8]}, input={"size": [16, 16]},
        data={"dataset": "synthetic:shapes?n=120"}, optim={**SGD, "layer_decay": 0.5},
    )  # fmt: skip
    with pytest.raises(ConfigError, match=r"needs a network of timm.*Airbench does not: use optim.encoder_lr_scale"):
        trainer_for(tmp_path / "run", recipe)
