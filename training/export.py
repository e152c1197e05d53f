"""The end of a run: the encoder as a checkpoint folder that `zoo.load("local-dir:...")` takes."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from platform import python_version

from training.environment import code_commit, hardware
from training.loop import Trainer
from zoo.checkpoint.config import LICENCE, DatasetRecord, Method, Training
from zoo.checkpoint.writing import write_checkpoint


def export_encoder(trainer: Trainer) -> Path:
    """Write `RUN/encoder/`: config.json with the full training record, and the weights.

    A method that does not end in an encoder writes its own result instead; returns what was written.
    """
    if not trainer.method.ends_in_encoder:
        return trainer.method.export(trainer)
    recipe, data = trainer.recipe, trainer.data
    method = trainer.method
    dataset = data.dataset
    training = Training(
        recipe=recipe.dump(),
        dataset=DatasetRecord(
            name=recipe.data.title or dataset.name,
            split=dataset.split,
            samples=len(data.train),
            fingerprint=dataset.fingerprint,
            licence=recipe.data.licence or dataset.licence,
        ),
        epochs=trainer.step / trainer.steps_per_epoch,
        steps=trainer.step,
        samples_seen=trainer.step * recipe.batch_size,
        seed=recipe.seed,
        code_commit=code_commit(),
        versions={"python": python_version()} | {n: version(n) for n in ("torch", "timm", "numpy", "safetensors")},
        hardware=hardware() + (f" x {trainer.world} processes" if trainer.world > 1 else ""),
        wall_time_s=round(trainer.wall_time, 1),
        started_from=trainer.started_from,
    )
    folder = trainer.folder.path / "encoder"
    write_checkpoint(
        trainer.encoder,
        folder,
        name=recipe.name,
        architecture=recipe.architecture(),
        method=Method(name=recipe.method["name"], title=method.title, paper=method.paper, url=method.url),
        training=training,
        licence=LICENCE if training.started_from is None else training.started_from.licence or LICENCE,
    )
    return folder


def draw_pictures(trainer: Trainer) -> list[Path]:
    """What the method draws of held-out images, or of training images where none are held out."""
    if trainer.recipe.input.modality != "image":
        return []
    held = trainer.data.held if len(trainer.data.held) else trainer.data.train
    # Evenly spaced, as files are ordered by class.
    chosen = held[:: max(1, len(held) // 8)][:8]
    images = trainer.batches.get(trainer.data.rows(chosen))["images"]
    with trainer.autocast():
        return trainer.method.draw(images, trainer.folder.path)
