"""`encoder.init=timm:...`: training starts from exactly timm's weights and keeps their preprocessing and licence."""

from __future__ import annotations

import pytest
import torch

import zoo
from tests.training.test_init import same_weights, starting, trainer_from
from tests.zoo.timm_checkpoints import write_timm
from training.export import export_encoder
from zoo.publish.card import essentials


@pytest.mark.parametrize("family", ["resnet", "vit_registers"])
def test_training_goes_on_from_a_checkpoint_of_timm(tmp_path, family):
    write_timm(tmp_path / "timm", family)
    address = f"local-dir:{tmp_path / 'timm'}"
    start = zoo.load(address)
    recipe = starting(address, input={}, epochs=1, monitor=None)
    trainer = trainer_from(tmp_path / "run", recipe)
    same_weights(trainer.method.encoder, start)
    assert trainer.method.encoder.input == start.input
    trainer.run()
    trained = zoo.load(f"local-dir:{export_encoder(trainer)}")
    x = torch.rand(2, 3, *start.input.size)
    assert trained.input == start.input and not torch.equal(trained(x), start(x))
    assert trained(x).shape == start(x).shape
    record = trained.config.training.started_from
    assert record.sha256 == start.config.weights.sha256 and record.method == f"timm {start.config.method.title[5:]}"
    # Terms are not washed off by training on.
    assert trained.config.licence == record.licence == "cc-by-nc-4.0"
    assert "cc-by-nc-4.0 (weights)" in essentials(trained.config)
