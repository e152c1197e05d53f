"""SIGKILL aimed at each moment of a state's writing: a whole state is always left, and no half one stays."""

from __future__ import annotations

import os
import signal
import sys

import pytest
import torch

from training.state import load_state, save_state

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
CPU = torch.device("cpu")


def state(step):
    return {"step": step, "method": {"queue": torch.full((64, 8), float(step))}}


def killed_while_saving(folder, name, call, after):
    """Save step 3 in a child that is killed before or after its `call`-th `os.<name>`; whether it was killed."""
    child = os.fork()
    if child == 0:
        real, count = getattr(os, name), [0]

        def fatal(*arguments):
            count[0] += 1
            if count[0] == call and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            result = real(*arguments)
            if count[0] == call:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        setattr(os, name, fatal)
        try:
            save_state(folder, state(3))
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(("name", "calls"), [("fsync", 2), ("replace", 2)])
def test_a_kill_at_any_moment_of_the_write(tmp_path, name, calls, after):
    steps = set()
    for call in range(1, calls + 1):
        folder = tmp_path / f"{name}{call}{after}"
        save_state(folder, state(1))
        save_state(folder, state(2))
        assert killed_while_saving(folder, name, call, after), f"{name} is called {calls} times"
        found, _ = load_state(folder, CPU)
        assert found["step"] in (2, 3)
        assert torch.equal(found["method"]["queue"], state(found["step"])["method"]["queue"])
        steps.add(found["step"])
        save_state(folder, state(4))
        assert load_state(folder, CPU)[0]["step"] == 4
        assert sorted(path.name for path in folder.iterdir()) == ["last.pt", "previous.pt"]
    assert not killed_while_saving(tmp_path / "whole", name, calls + 1, after)
    assert 2 in steps, "an early kill leaves the state before"
