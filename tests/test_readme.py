"""The README is true: its Python runs, its commands exist, its two commands are those that CI and users run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from typer.main import get_command

from zoo.cli import app, parse

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_the_python_snippets_run(tmp_path):
    """In one fresh process, in order, from another folder, without the network."""
    script = "\n".join(blocks("python")).replace("path/to/this/checkout", str(ROOT))
    assert "zoo.load(" in script and "torch.hub.load(" in script
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr


def test_every_zoo_command_in_it_exists():
    commands = get_command(app).commands
    named = set(re.findall(r"`zoo ([a-z]+)\b", README))
    assert {"list", "show", "extract", "publish", "verify"} <= named <= set(commands)
    for line in re.findall(r"`zoo ([a-z]+ [^`]*)`", README):
        options = {option for parameter in commands[line.split()[0]].params for option in parameter.opts}
        assert set(re.findall(r"--[a-z-]+", line)) <= options, line


def test_every_module_command_in_it_parses():
    commands = {"training": "train", "evaluation": "probe"}
    found = re.findall(r"-m (training|evaluation) ([^`\n]*)", README)
    assert {name for name, _ in found} == {"training", "evaluation"}
    for name, arguments in found:
        parse(commands[name], arguments.split())


def test_ci_runs_the_readmes_test_command():
    (command,) = [block for block in blocks("bash") if "pytest" in block]
    steps = [step.strip() for step in command.split("&&")]
    assert [line for line in (ROOT / ".ci" / "run").read_text().splitlines() if line.strip() in steps] == steps
