"""Distillation: SEED's loss beside a slow loop, what the teacher sees, where its weights are, and wrong teachers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml

import zoo
from tests.training.test_loop import CPU, in_parts, same_state, tiny
from tests.zoo.checkpoints import write_small
from training.export import export_encoder
from training.init import resolve_method
from training.loop import Trainer
from training.losses import similarity_distillation
from training.modules.teacher import Teacher
from training.run import train
from training.run_folder import RunFolder
from zoo.errors import ConfigError, TrainingError, UnknownNameError
from zoo.preprocessing.image import ImageInput


@pytest.fixture
def teacher(tmp_path) -> str:
    """Address of a small teacher: resnet18 with narrow layers, 16 px, its own mean and std."""
    write_small(tmp_path / "teacher")
    return f"local-dir:{tmp_path / 'teacher'}"


def distilling(address: str, **method):
    return tiny(method={"name": "distill", "teacher": address, "queue_size": 32, **method})


def trainer_from(path, recipe) -> Trainer:
    folder = RunFolder(path)
    recipe = resolve_method(recipe)
    folder.prepare(recipe, "test")
    return Trainer(recipe, folder, CPU)


# -- the loss and the targets ----------------------------------------------------------------------


def test_similarity_distillation_equals_a_slow_loop():
    g = torch.Generator().manual_seed(0)
    student, teacher, queue = (torch.randn(n, 5, generator=g, dtype=torch.float64) for n in (3, 3, 7))
    student.requires_grad_()
    queue = F.normalize(queue, dim=1)
    total = torch.zeros((), dtype=torch.float64)
    for s, t in zip(student, teacher, strict=True):
        others = [t, *queue]
        p = torch.stack([torch.exp(torch.cosine_similarity(t, o, dim=0) / 0.05) for o in others])
        q = torch.stack([torch.exp(torch.cosine_similarity(s, o, dim=0) / 0.2) for o in others])
        total = total - (p / p.sum() * (q / q.sum()).log()).sum() / 3
    ours = similarity_distillation(student, teacher, queue, 0.2, 0.05)
    torch.testing.assert_close(ours, total)
    (gradient,) = torch.autograd.grad(ours, student)
    torch.testing.assert_close(gradient, torch.autograd.grad(total, student)[0])


def test_the_teacher_sees_whole_images_as_its_own_preprocessing_gives_them(teacher):
    encoder = zoo.load(teacher)
    found = Teacher(encoder)
    images = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    expected = torch.stack([encoder.transform()(image.permute(1, 2, 0).numpy()) for image in images])
    torch.testing.assert_close(found.of_images(images), encoder(expected), rtol=1e-4, atol=1e-5)
    assert not found.of_images(images).requires_grad


def test_the_teacher_sees_a_students_view_in_its_own_normalisation(teacher):
    encoder = zoo.load(teacher)
    theirs = ImageInput(size=(16, 16), mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    plain = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (theirs.mean, theirs.std))
    own_mean, own_std = (torch.tensor(v).view(1, 3, 1, 1) for v in (encoder.input.mean, encoder.input.std))
    found = Teacher(encoder).of_student((plain - mean) / std, theirs)
    torch.testing.assert_close(found, encoder((plain - own_mean) / own_std), rtol=1e-4, atol=1e-5)


# -- in a run --------------------------------------------------------------------------------------


@pytest.mark.parametrize("sees", ["image", "views"])
@pytest.mark.parametrize("loss", ["similarity", "cosine"])
def test_the_student_comes_to_agree_with_its_teacher(teacher, tmp_path, sees, loss):
    recipe = distilling(teacher, teacher_sees=sees, loss=loss).model_copy(update={"epochs": 8})
    trainer = trainer_from(tmp_path / "run", recipe)
    trainer.run()
    cosines = [record["cosine"] for record in trainer.folder.records() if "cosine" in record]
    assert cosines[-1] > cosines[0] + 0.05
    weights = {p.data_ptr() for p in trainer.method._teacher[0].encoder.parameters()}
    assert not weights & {p.data_ptr() for p in trainer.method.parameters()}
    assert not any("teacher" in name for name in trainer.method.state_dict())
    assert not trainer.method._teacher[0].encoder.training
    before = zoo.load(teacher).state_dict()
    assert all(torch.equal(v, before[k]) for k, v in trainer.method._teacher[0].encoder.state_dict().items())


def test_a_stopped_run_goes_on_bit_for_bit_and_asks_the_teacher_once(teacher, tmp_path, monkeypatch):
    recipe = resolve_method(distilling(teacher))
    whole = trainer_from(tmp_path / "whole", recipe)
    whole.run()
    second = in_parts(lambda: trainer_from(tmp_path / "parts", recipe), at=7)
    same_state(whole.state(), second.state())
    monkeypatch.setattr(Teacher, "of_images", None)
    assert trainer_from(tmp_path / "parts", recipe).resume()
    known = np.load(tmp_path / "parts" / "teacher.npy")
    assert known.dtype == np.float16 and len(known) == 120 and np.isfinite(known).all()


def test_the_card_and_the_recipe_name_the_teacher(teacher, tmp_path):
    done = train(distilling(teacher), out=tmp_path / "run", quiet=True, device="cpu")
    sha256 = zoo.load(teacher).config.weights.sha256
    assert yaml.safe_load((done.folder / "recipe.yaml").read_text())["method"]["teacher_sha256"] == sha256
    config = zoo.load(f"local-dir:{done.result}").config
    assert config.training.recipe["method"]["teacher_sha256"] == sha256
    assert config.method.title == f"Distillation of {zoo.load(teacher).name}"


# -- what is refused -------------------------------------------------------------------------------


def test_another_teacher_at_the_same_address_is_refused(teacher, tmp_path):
    recipe = resolve_method(distilling(teacher))
    write_small(tmp_path / "teacher", seed=1)
    with pytest.raises(ConfigError, match=r"method.teacher=local-dir:.*the recipe wants"):
        trainer_from(tmp_path / "run", recipe)
    assert not (tmp_path / "run").exists()


def test_wrong_teachers_and_students_are_refused(teacher, tmp_path):
    with pytest.raises(UnknownNameError, match=r"method\.teacher=simclr_nothing"):
        train(distilling("simclr_nothing"), out=tmp_path / "run", quiet=True, device="cpu")
    with pytest.raises(ConfigError, match="a teacher takes images"):
        train(distilling("ms2l_bigru_nucla"), out=tmp_path / "run", quiet=True, device="cpu")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("content", [b"nothing", None])
def test_a_damaged_answer_of_the_teacher_is_named(teacher, tmp_path, content):
    trainer = trainer_from(tmp_path / "run", distilling(teacher))
    path = tmp_path / "run" / "teacher.npy"
    if content is None:
        np.save(path, np.zeros((3, 2), dtype=np.float32))
    else:
        path.write_bytes(content)
    with pytest.raises(TrainingError, match=r"teacher.npy .*delete it"):
        trainer.run()


def test_the_exported_student_is_the_student_alone(teacher, tmp_path):
    trainer = trainer_from(tmp_path / "run", distilling(teacher))
    trainer.run()
    student = zoo.load(f"local-dir:{export_encoder(trainer)}")
    assert student.state_dict().keys() == trainer.encoder.state_dict().keys()
