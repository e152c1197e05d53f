"""The airbench family in training: fitted to the data once, alike on every rank."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch

from tests.training.distributed_cases import spawn
from tests.training.test_loop import in_parts, same_state, tiny, trainer_for
from tests.zoo.test_airbench import SHAPES, fresh_buffers, network
from training import batches
from training.batches import TrainingData, epoch_order, statistics_images
from zoo.preprocessing.image import ImageInput


def moco() -> dict:
    return {"name": "moco", "queue_size": 32, "bn_groups": 1, "head": "none", "augment": "moco_cifar"}


def test_training_fits_before_the_momentum_encoder_copies(tmp_path):
    trainer = trainer_for(tmp_path / "run", tiny(**SHAPES, method=moco()))
    expected = network(ImageInput(size=(16, 16)))
    default = fresh_buffers(expected.whitening)
    expected.fit_to_data(statistics_images(trainer.data, 0))
    for encoder in (trainer.method.encoder, trainer.method.key_encoder.encoder):
        for ours, fitted, plain in zip(encoder.whitening.buffers(), expected.whitening.buffers(), default, strict=True):
            assert torch.equal(ours, fitted) and not torch.equal(ours, plain)


def test_a_resumed_run_does_not_fit_again(tmp_path, monkeypatch):
    recipe = tiny(**SHAPES)
    whole = trainer_for(tmp_path / "whole", recipe)
    whole.run()
    fitted = []
    fit = type(whole.method.encoder).fit_to_data
    monkeypatch.setattr(
        type(whole.method.encoder), "fit_to_data", lambda self, images: (fitted.append(len(images)), fit(self, images))
    )
    second = in_parts(lambda: trainer_for(tmp_path / "parts", recipe), at=7)
    same_state(whole.state(), second.state())
    assert fitted == [96]  # the first start, with all 96 training samples


def whitening_of_a_rank(folder) -> dict:
    """What this rank's encoder whitens with, before anything is sent between ranks."""
    found = {}
    data = TrainingData(tiny(**SHAPES))
    batches.STATISTICS_IMAGES = 30
    for seed in (0, 1):
        encoder = network(ImageInput(size=(16, 16)))
        encoder.fit_to_data(statistics_images(data, seed))
        found[str(seed)] = encoder.whitening.weight
    trainer = trainer_for(folder / "run", tiny(**SHAPES))
    found["run"] = trainer.method.encoder.whitening.weight
    return found


def test_two_ranks_get_the_same_whitening(tmp_path):
    first, second = spawn(partial(whitening_of_a_rank, tmp_path), 2, tmp_path)
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not torch.equal(first["0"], first["1"])  # the seed chooses the images


def test_large_images_are_fewer():
    class Stored:
        train = np.arange(3000)
        array = np.zeros((3000, 64, 64, 3), dtype=np.uint8)

        def rows(self, positions):
            return positions

        def order(self, seed, epoch, samples):
            return epoch_order(seed, epoch, samples)

    assert statistics_images(Stored(), 0).shape == (1250, 3, 64, 64)
