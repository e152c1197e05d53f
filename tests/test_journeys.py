"""Every advice works: journeys from the checkout, in this process. `tests/test_wheel.py` runs them from the wheel."""

from __future__ import annotations

import io
import os
import traceback
from contextlib import redirect_stderr, redirect_stdout

import pytest

import zoo.cli
from tests.journeys import JOURNEYS
from zoo.checkpoint.catalog import EMBEDDED


def here(words, folder):
    """What a fresh process would do and print, without the seconds that importing torch takes."""
    out, program = io.StringIO(), [*words]
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(out):
        patch.chdir(folder)
        if words[:2] == ["python", "-c"]:
            try:
                exec(words[2], {})
                status = 0
            except zoo.ZooError:
                traceback.print_exc()
                status = 1
        elif words[:2] == ["python", "-m"]:
            command = {"training": "train", "evaluation": "probe"}[program[2]]
            status = zoo.cli.main(program[3:], command=command, program=f"python -m {program[2]}")
        else:
            status = zoo.cli.main(program[1:])
    return status, out.getvalue()


@pytest.mark.parametrize("journey", JOURNEYS, ids=lambda journey: journey.__name__)
def test_what_is_advised_on_the_way_works(journey, tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_CHECKPOINTS", f"{tmp_path / 'checkpoints'}{os.pathsep}{EMBEDDED}")
    journey(here, tmp_path)
