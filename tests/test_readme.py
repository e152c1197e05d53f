"""The README is true: its Python runs, its commands exist, its two commands are those that CI and users run."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from typer.main import get_command

from zoo.checkpoint.catalog import list_models
from zoo.cli import app, main, parse
from zoo.publish.models_table import END, START, models_table

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_the_python_snippets_run(tmp_path):
    """In one fresh process, in order, from another folder, without the network."""
    script = "\n".join(blocks("python")).replace("path/to/this/checkout", str(ROOT))
    assert "zoo.load(" in script and "torch.hub.load(" in script
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_zoo_command_in_it_parses():
    named = set(re.findall(r"`zoo ([a-z]+)\b", README))
    assert {"list", "show", "extract", "probe", "train", "plan", "publish", "verify", "env"} <= named
    assert named <= set(get_command(app).commands)
    for line in re.findall(r"`zoo ([a-z]+ [^`]*)`", README):
        command, *words = shlex.split(line)
        parse(command, words)


def test_every_module_command_in_it_parses():
    commands = {"training": "train", "evaluation": "probe"}
    found = re.findall(r"-m (training|evaluation) ([^`\n]*)", README)
    assert found
    for name, arguments in found:
        parse(commands[name], shlex.split(arguments))


def test_it_is_short_and_its_table_is_that_of_the_catalogue():
    assert len(README.splitlines()) - models_table().count("\n") <= 108  # 120 with a dozen models
    written = README.partition(START)[2].partition(END)[0].strip()
    assert written == models_table().strip(), "the table is stale; `zoo list --write README.md` renews it"
    assert models_table().count("\n") == 2 + len(list_models())


def test_the_table_is_written_between_its_marks_only(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"# Before\n{START}\nold\n{END}\nafter\n")
    assert main(["list", "--write", str(page)]) == 0
    assert page.read_text() == f"# Before\n{START}\n{models_table()}{END}\nafter\n"
    page.write_text("no marks")
    assert main(["list", "--write", str(page)]) == 2 and page.read_text() == "no marks"


def test_every_link_and_picture_in_it_is_there():
    targets = re.findall(r"\]\(([^)#:]+)\)", README)
    assert targets and all((ROOT / target).exists() for target in targets), targets


def test_ci_runs_the_readmes_test_command():
    (command,) = [block for block in blocks("bash") if "pytest" in block]
    steps = [step.strip() for step in command.split("&&")]
    assert [line for line in (ROOT / ".ci" / "run").read_text().splitlines() if line.strip() in steps] == steps
