"""When a run saves and stops: the same step on every process, whatever its clock; and signals."""

from __future__ import annotations

import os
import signal
import time
from functools import partial
from pathlib import Path

import pytest
import torch

from tests.training.distributed_cases import spawn
from tests.training.test_loop import CPU, same_state, tiny, trainer_for
from training import distributed, watch
from training.loop import Trainer
from training.run_folder import RunFolder
from training.state import has_state, load_state
from training.watch import Stopped, Watch

#: A save is due several times in a run of a second.
RECIPE = {"epochs": 4, "monitor": None, "save_minutes": 0.0005}


def together(folder: Path, stops: int = -1) -> dict:
    """A run in which rank 1 is slow after each step and, if asked to, wants to stop after step `stops`."""
    watch.PATIENCE = 0.0  # ask after every step
    if distributed.is_main():
        RunFolder(folder).prepare(tiny(**RECIPE), "test")
    distributed.barrier()
    trainer, saved = Trainer(tiny(**RECIPE), RunFolder(folder), CPU), []
    save = trainer._save

    def note() -> None:
        saved.append(trainer.step)
        save()

    def after(step: int) -> None:
        time.sleep(0.04 * distributed.rank())
        if distributed.rank() == 1 and step == stops:
            trainer.watch.reason = "test"

    trainer._save = note
    try:
        trainer.run(on_step=after)
        ended = "done"
    except Stopped as stopped:
        ended = str(stopped)
    return {"saved": saved, "step": trainer.step, "total": trainer.total_steps, "ended": ended}


def test_processes_of_unequal_speed_save_at_the_same_steps(tmp_path):
    first, second = spawn(partial(together, tmp_path / "run"), 2, tmp_path)
    assert first["saved"] == second["saved"] and len(first["saved"]) > 2
    assert first["ended"] == second["ended"] == "done" and first["saved"][-1] == first["total"]
    assert load_state(tmp_path / "run" / "state", CPU)[0]["step"] == first["total"]


def test_a_stop_that_one_process_wants_stops_all_at_the_same_step(tmp_path):
    first, second = spawn(partial(together, tmp_path / "run", 5), 2, tmp_path)
    assert first["step"] == second["step"] == 5 == first["saved"][-1]
    assert (first["ended"], second["ended"]) == ("another process was asked to stop", "test")
    assert load_state(tmp_path / "run" / "state", CPU)[0]["step"] == 5


def disagreeing(folder: Path) -> str:
    """Each rank resumes from a folder of its own, which only the main process has a state in."""
    own = RunFolder(folder / str(distributed.rank()))
    own.prepare(tiny(**RECIPE), "test")
    trainer = Trainer(tiny(**RECIPE), own, CPU)
    trainer.step = 3
    trainer._save()
    try:
        trainer.resume()
    except Exception as error:
        return str(error)
    return "resumed"


def test_processes_that_see_different_states_do_not_mix_them(tmp_path):
    said = spawn(partial(disagreeing, tmp_path), 2, tmp_path)
    assert all("step 3 and step -1" in text and "a disk that all nodes share" in text for text in said)


def test_the_main_process_chooses_when_to_ask_again(monkeypatch):
    """Two processes as one of them sees it: the other's votes are added by hand."""
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    asked = []

    def votes(values):
        asked.append(list(values))
        return [max(pair) for pair in zip(values, [0, 0, 4], strict=True)]

    monkeypatch.setattr(distributed, "all_reduce_max", votes)
    monkeypatch.setattr(distributed, "is_main", lambda: False)
    mine = Watch(10, minutes=0, save_minutes=1e-9)
    assert mine.ask(11)[0] == "time limit reached"
    assert asked == [[1, 0, 0]], "only the main process finds a save due"
    assert mine.ask(12) == mine.ask(14) == (None, False) and len(asked) == 1
    mine.ask(15)
    assert len(asked) == 2


def test_one_process_asks_nobody():
    alone = Watch(0, minutes=None, save_minutes=1e-9)
    assert alone.ask(1) == (None, True)
    alone.reason = "test"
    assert alone.ask(2)[0] == "test"


@pytest.mark.parametrize("hidden", [False, True])
def test_a_signal_ends_a_first_step_that_takes_minutes(tmp_path, hidden):
    """Nothing of it is saved, also where a library turns the exception into its own; the next run starts over."""
    trainer = trainer_for(tmp_path / "run", tiny(epochs=1))

    def endless():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            for _ in range(3000):
                time.sleep(0.01)
        except Exception as error:
            raise RuntimeError("compilation failed") if hidden else error from None
        raise AssertionError("the step went on")

    trainer._step = endless
    with pytest.raises(Stopped, match="SIGTERM received"):
        trainer.run()
    assert not has_state(tmp_path / "run" / "state")
    again, whole = trainer_for(tmp_path / "run", tiny(epochs=1)), trainer_for(tmp_path / "whole", tiny(epochs=1))
    assert not again.resume()
    again.run()
    whole.run()
    same_state(again.state(), whole.state())


def test_a_signal_in_a_later_step_lets_it_end_and_saves(tmp_path):
    trainer = trainer_for(tmp_path / "run", tiny(epochs=1))
    take = trainer._step

    def step():
        if trainer.step == 2:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)
        return take()

    trainer._step = step
    before = signal.getsignal(signal.SIGINT)  # ignored where pytest runs in the background
    with pytest.raises(Stopped, match="SIGINT received"):
        trainer.run()
    assert load_state(tmp_path / "run" / "state", torch.device("cpu"))[0]["step"] == 3
    assert signal.getsignal(signal.SIGINT) is before
