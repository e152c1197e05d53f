"""The loop: resume bit for bit, killed at any moment, and errors that keep the last good state."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

import zoo
from training import distributed
from training.__main__ import main
from training.loop import Trainer
from training.methods import METHODS
from training.methods.base import Method
from training.recipe import parse_recipe
from training.run_folder import RunFolder
from training.state import load_state, save_state
from training.watch import Stopped
from zoo.errors import TrainingError

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")


def tiny(**changes):
    raw = {
        "name": "simclr_tiny_shapes",
        "method": {"name": "simclr", "temperature": 0.2, "head": "official"},
        "encoder": {"model": "resnet10t", "model_args": {"channels": [8, 8, 16, 16], "stem_width": 8}},
        "data": {"dataset": "synthetic:shapes?n=120", "held_out": 0.2},
        "optim": {"name": "sgd", "lr": 0.1, "lr_scaling": "none", "warmup_fraction": 0.1},
        "epochs": 3,
        "batch_size": 16,
        "log_every": 2,
        "precision": "fp32",
        "monitor": {"every_epochs": 1, "train_samples": 50, "held_out_samples": 20, "k": 3},
        **changes,
    }
    return parse_recipe(raw, "tiny")


def trainer_for(path, recipe):
    folder = RunFolder(path)
    for rank in range(distributed.world_size()):  # in turn, as one folder may be that of all
        if rank == distributed.rank():
            folder.prepare(recipe, "test")
        distributed.barrier()
    return Trainer(recipe, folder, CPU)


def same_state(a, b):
    assert a.keys() == b.keys()
    for key in a:
        if isinstance(a[key], dict):
            same_state(a[key], b[key])
        elif isinstance(a[key], torch.Tensor):
            assert torch.equal(a[key], b[key]), key
        elif isinstance(a[key], list):
            same_state(dict(enumerate(a[key])), dict(enumerate(b[key])))
        elif key != "wall_time":
            assert a[key] == b[key], key


def in_parts(make, at):
    """What `make()` trains, interrupted once step `at` is done and gone on with by another trainer; that trainer."""
    first = make()

    def interrupt(step):
        if step == at:
            first.watch.reason = "test"

    with pytest.raises(Stopped):
        first.run(on_step=interrupt)
    second = make()
    assert second.resume() and second.step == at
    second.run()
    return second


VIEWS = {"name": "simclr", "views": [{"count": 2}, {"size": 24, "native": True}], "loss": "dcl", "positives": "mean"}
MUON = {"optim": {"name": "muon", "lr": 0.01, "lr_scaling": "none", "warmup_fraction": 0.1}}


@pytest.mark.parametrize(
    "changes", [{}, {"accumulate": 2, "optim": {"name": "lars"}}, {"precision": "bf16"}, {"method": VIEWS}, MUON]
)
def test_resume_continues_bit_for_bit(tmp_path, changes):
    recipe = tiny(log_every=1, **changes)
    whole = trainer_for(tmp_path / "whole", recipe)
    whole.run()
    second = in_parts(lambda: trainer_for(tmp_path / "parts", recipe), at=7)
    same_state(whole.state(), second.state())

    def strip(path):
        return [
            {k: v for k, v in r.items() if k not in ("samples_per_s", "wall_time_s")} for r in RunFolder(path).records()
        ]

    assert strip(tmp_path / "parts") == strip(tmp_path / "whole")


@pytest.mark.parametrize("apart", [False, True])
def test_gradients_are_clipped_together_or_module_by_module(tmp_path, apart):
    clip = {"name": "sgd", "lr": 1e-4, "lr_scaling": "none", "clip_grad_norm": 0.01, "clip_modules": apart}
    trainer = trainer_for(tmp_path / "run", tiny(optim=clip))
    trainer.method.train()
    trainer._step()

    def norm(module) -> float:
        return float(torch.stack([p.grad.norm() for p in module.parameters() if p.grad is not None]).norm())

    norms = [norm(trainer.method.encoder), norm(trainer.method.head)]
    assert (norms if apart else [norm(trainer.method)]) == pytest.approx([0.01] * (2 if apart else 1), rel=1e-3)


def test_training_learns_and_logs(tmp_path):
    gentle = {"name": "sgd", "lr": 0.01, "lr_scaling": "none", "warmup_fraction": 0.1}
    trainer = trainer_for(tmp_path / "run", tiny(epochs=20, batch_size=32, log_every=1, optim=gentle))
    trainer.run()
    trainer.folder.close()
    losses = [r["loss"] for r in trainer.folder.records() if "loss" in r]
    quarter = len(losses) // 4  # single batches of 32 swing by more than is learned
    assert sum(losses[-quarter:]) / quarter < sum(losses[:quarter]) / quarter - 0.3
    assert any("held_out_knn" in r for r in trainer.folder.records())
    assert (tmp_path / "run" / "curves.png").stat().st_size > 1000
    assert any((tmp_path / "run" / "tensorboard").iterdir())


@pytest.mark.parametrize("moment", [0.0, 0.4, 1.2])
def test_killed_at_any_moment_the_same_command_finishes(tmp_path, moment):
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(yaml.safe_dump({**tiny(epochs=4).dump(), "save_minutes": 0.0005}))
    command = [sys.executable, "-m", "training", str(recipe), "--run", str(tmp_path / "run"), "--device", "cpu"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while not (tmp_path / "run" / "state" / "last.pt").exists() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(moment)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    encoder = zoo.load(f"local-dir:{tmp_path / 'run' / 'encoder'}")
    straight = trainer_for(tmp_path / "straight", parse_recipe(yaml.safe_load(recipe.read_text()), "straight"))
    torch.set_num_threads(1)
    straight.run()
    state = load_state(tmp_path / "run" / "state", CPU)[0]
    same_state(straight.state(), state)
    assert encoder.config.training.steps == straight.total_steps
    steps = [json.loads(line)["step"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(steps)


class ExplodingMethod(Method):
    title, paper, url = "Exploding", "none", ""

    class Config(Method.Config):
        at: int = 5

    calls = 0

    def views(self, batch, generator):
        return [batch["images"].float() / 255]

    def loss(self, views):
        self.calls += 1
        value = self.encoder(views[0]).square().mean()
        return {"loss": value * (float("nan") if self.calls == self.config.at else 1)}


def test_a_new_method_is_one_class_and_a_nan_loss_keeps_the_last_good_state(tmp_path, monkeypatch):
    monkeypatch.setitem(METHODS, "exploding", ExplodingMethod)
    recipe = tiny(method={"name": "exploding"}, monitor=None, save_minutes=1e-9)
    trainer = trainer_for(tmp_path / "run", recipe)
    with pytest.raises(TrainingError, match="at step 5"):
        trainer.run()
    state, _ = load_state(tmp_path / "run" / "state", CPU)
    assert state["step"] == 4
    assert all(torch.isfinite(t).all() for t in state["method"].values())


def test_a_damaged_last_state_falls_back_to_the_previous_one(tmp_path):
    recipe = tiny(save_minutes=1e-9)
    trainer_for(tmp_path / "run", recipe).run()
    last = tmp_path / "run" / "state" / "last.pt"
    last.write_bytes(last.read_bytes()[:1000])
    again = trainer_for(tmp_path / "run", recipe)
    assert again.resume() and again.step == again.total_steps - 1
    (tmp_path / "run" / "state" / "previous.pt").write_bytes(b"junk")
    with pytest.raises(TrainingError, match="--fresh"):
        again.resume()


def test_a_full_disk_keeps_the_older_states(tmp_path, monkeypatch):
    save_state(tmp_path, {"step": 1})
    save_state(tmp_path, {"step": 2})

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(TrainingError, match="the disk is full; the last good state is kept"):
        save_state(tmp_path, {"step": 3})
    assert load_state(tmp_path, CPU)[0]["step"] == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last.pt", "previous.pt"]


def test_a_run_folder_is_never_mixed_with_another_recipe(tmp_path):
    trainer_for(tmp_path / "run", tiny())
    with pytest.raises(TrainingError, match="epochs was 3, now 4"):
        trainer_for(tmp_path / "run", tiny(epochs=4))
    trainer_for(tmp_path / "run", tiny(log_every=5))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("precious")
    with pytest.raises(TrainingError, match="holds no run"):
        trainer_for(tmp_path / "other", tiny())
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(yaml.safe_dump(tiny().dump()))
    assert main([str(recipe), "--run", str(tmp_path / "other"), "--fresh"]) == 1
    assert (tmp_path / "other" / "thesis.txt").exists()


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["nothing"], 2, "unknown recipe"),
        (["smoke", "epoch=1"], 2, "'epochs'"),
        (["smoke", "batch_size=100000"], 2, "fewer than batch_size"),
        (["smoke", "batch_size=127", "accumulate=2"], 1, "multiple of processes x accumulate"),
        (["smoke", "data=no/such/folder"], 2, "no/such/folder"),
    ],
)
def test_bad_input_is_one_line(tmp_path, capsys, arguments, status, message):
    assert main([*arguments, "--run", str(tmp_path / "run"), "--device", "cpu"]) == status
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ") and message in error


def test_compile_reaches_the_momentum_encoder_too(tmp_path, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module, *a, **k: compiled.append(module))
    trainer = trainer_for(
        tmp_path / "run", tiny(method={"name": "moco", "queue_size": 32, "bn_groups": 1}, compile=True)
    )
    assert compiled == [trainer.method.encoder, trainer.method.key_encoder.encoder]


def test_a_network_too_deep_for_its_views_is_not_trained_in_bf16_on_the_cpu(tmp_path):
    small = {"input": {"size": [16, 16]}, "precision": "bf16"}
    with pytest.raises(TrainingError, match=r"views of 16 px reach backbone\.layer4\.0\.conv1 as a single pixel.*fp32"):
        trainer_for(tmp_path / "bf16", tiny(**small))
    stages = [{"until": 0.5, "size": 16}, {"until": 1.0, "size": 32}]
    with pytest.raises(TrainingError, match="views of 16 px"):
        trainer_for(tmp_path / "growing", tiny(precision="bf16", view_sizes=stages))
    crops = {"name": "simclr", "views": [{"count": 2}, {"size": 16, "native": True}]}
    with pytest.raises(TrainingError, match="views of 16 px"):
        trainer_for(tmp_path / "crops", tiny(precision="bf16", method=crops))
    stem = {"model": "resnet10t", "stem": "cifar", "model_args": {"channels": [8, 8, 16, 16]}}
    for number, fix in enumerate(({"precision": "fp32"}, {"encoder": stem}, {"input": {"size": [32, 32]}})):
        method = trainer_for(tmp_path / str(number), tiny(**{**small, **fix})).method
        assert method.encoder.training and method.encoder.strict_input


def test_a_run_that_cannot_start_leaves_nothing_that_hinders_the_next(tmp_path, capsys):
    """The mended command has other settings; it must not be told that the folder holds another run."""
    arguments = ["smoke", "--device", "cpu", "--out", str(tmp_path / "run"), "epochs=1", "monitor=null"]
    assert main([*arguments, "data.limit=100"]) == 2
    assert "fewer than batch_size" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]
    assert main([*arguments, "data.limit=200", "epochs=9", "--minutes", "1e-6"]) == 1
    assert main([*arguments, "data.limit=100"]) == 1
    assert "holds a run with other settings" in capsys.readouterr().err
