"""Killed at each moment of writing a state, for every method: the same command goes on to the very same end."""

from __future__ import annotations

import multiprocessing
import os
import signal

import pytest
import torch
import yaml

from tests.training.test_loop import ROOT, same_state, tiny, trainer_for
from training import state as states
from training.methods import METHODS
from training.recipe import parse_recipe

FORK = multiprocessing.get_context("fork") if hasattr(os, "fork") else None
pytestmark = pytest.mark.skipif(FORK is None, reason="needs fork")
#: The save that is killed: one that finds both an older and a newest state.
NUMBER = 3
#: Moment -> step that the run goes on from.
MOMENTS = {
    "half of the file": NUMBER - 1,
    "before the hash": NUMBER - 1,
    "before the renaming": NUMBER - 1,
    "between the two renamings": NUMBER - 1,
    "after the renaming": NUMBER,
}
QUEUE = {"queue_size": 64, "bn_groups": 4}
DISTILL = {"name": "distill", "teacher": "simclr_airbench94_cifar10", "queue_size": 64}


def smoke(name: str, **changes):
    raw = yaml.safe_load((ROOT / "training" / "recipes" / f"{name}.yaml").read_text())
    return parse_recipe({**raw, "epochs": 2, "monitor": None, "save_minutes": 1e-9, **changes}, name)


RECIPES = {
    "simclr": lambda: tiny(epochs=1, monitor=None, save_minutes=1e-9),
    "moco": lambda: tiny(epochs=1, monitor=None, save_minutes=1e-9, method={"name": "moco", **QUEUE}),
    "clsa": lambda: tiny(epochs=1, monitor=None, save_minutes=1e-9, method={"name": "clsa", **QUEUE}),
    "distill": lambda: tiny(epochs=1, monitor=None, save_minutes=1e-9, method=DISTILL),
    "conrec": lambda: smoke(
        "smoke_conrec",
        encoder={"family": "unet", "width": 8, "depth": 2},
        data={"dataset": "synthetic:shapes?n=64", "held_out": 0.2},
        batch_size=16,
    ),
    "ms2l": lambda: smoke("smoke_ms2l", data={"dataset": "synthetic:motion?n=80", "held_out": 0.2}, batch_size=16),
    "ssnas": lambda: smoke(
        "smoke_ssnas", data={"dataset": "synthetic:shapes?n=80&size=16", "held_out": 0.2}, batch_size=16
    ),
}


def test_every_method_is_killed():
    assert RECIPES.keys() == METHODS.keys()


def die(*_) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arm(moment: str) -> None:
    """Make save number `NUMBER` of this process die at `moment`."""
    save, saves = states.torch.save, [0]
    replace, hashed = os.replace, states._sha256

    def saving(content, file):
        saves[0] += 1
        save(content, file)
        if saves[0] == NUMBER and moment == "half of the file":
            file.truncate(file.tell() // 2)
            die()

    def hashing(*arguments):
        return die() if saves[0] == NUMBER and moment == "before the hash" else hashed(*arguments)

    def renaming(source, target):
        now, name = saves[0] == NUMBER, os.path.basename(target)
        if now and name == states.PREVIOUS and moment == "before the renaming":
            die()
        replace(source, target)
        ends = {states.PREVIOUS: "between the two renamings", states.LAST: "after the renaming"}
        if now and ends.get(name) == moment:
            die()

    states.torch.save, states._sha256, os.replace = saving, hashing, renaming


def train(path, name, moment) -> None:
    torch.set_num_threads(1)
    arm(moment)
    trainer_for(path, RECIPES[name]()).run()


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def survive(tmp_path, name, moments) -> None:
    whole = trainer_for(tmp_path / "whole", RECIPES[name]())
    whole.run()
    for moment in moments:
        path = tmp_path / moment.replace(" ", "_")
        process = FORK.Process(target=train, args=(path, name, moment))
        process.start()
        process.join(300)
        if process.is_alive():
            process.terminate()
        assert process.exitcode == -signal.SIGKILL, "the run must die while it saves"
        second = trainer_for(path, RECIPES[name]())
        assert second.resume() and second.step == MOMENTS[moment]
        second.run()
        same_state(whole.state(), second.state())


def test_moco_and_its_queue_between_the_two_renamings(tmp_path, one_thread):
    survive(tmp_path, "moco", ["between the two renamings"])


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_every_method_at_every_moment(tmp_path, one_thread, name):
    survive(tmp_path, name, MOMENTS)
