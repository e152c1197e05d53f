"""Every command and call that the program prints in a message exists and can be read, whatever fills its gaps."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

import zoo
from zoo.cli import app, as_options, parse

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("zoo", "training", "evaluation")
COMMAND = re.compile(r"`((?:zoo|python -m (?:training|evaluation)|torchrun) [^`\n]*)`")
CALL = re.compile(r"(?<![\w/.])zoo\.[a-zA-Z_.]+\((?:[^()]|\([^()]*\))*\)")
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]+")
#: An argument of `open_dataset` with a value, and the same without one where no plain word is meant.
READING = re.compile(r"(?<![\w.-])(?:classes|labels|test_share|skip_bad)='?[\w.]")
BARE = re.compile(r"(?<![\w.-])(?:test_share|skip_bad)(?![\w=])")
#: Options of other programs that messages speak of: torchrun's and git's.
OTHERS = {"--sort", "--nproc-per-node", "--rdzv-endpoint", "--porcelain", "--untracked-files"}
#: Words that stand for a number or a choice in an advice.
FILLED = {"N": "4", "onnx|torch-export|timm": "onnx"}


def messages() -> list[tuple[str, str]]:
    """`(where, text)` of every string in the rooms that is no docstring; what an f-string fills in is `X`."""
    found = []
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            skipped = {
                id(node.body[0].value)
                for node in ast.walk(tree)
                if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and node.body
                if isinstance(node.body[0], ast.Expr)
            }
            skipped |= {
                id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node)
            }
            for node in ast.walk(tree):
                where = f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
                if isinstance(node, ast.JoinedStr):
                    parts = [value.value if isinstance(value, ast.Constant) else "X" for value in node.values]
                    found.append((where, "".join(parts)))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in skipped:
                    found.append((where, node.value))
    return found


MESSAGES = messages()
ADVISED = [(where, command) for where, text in MESSAGES for command in COMMAND.findall(text)]
CALLS = [(where, call) for where, text in MESSAGES for call in CALL.findall(text)]


def test_the_search_finds_what_is_there():
    commands, calls = {command for _, command in ADVISED}, {call for _, call in CALLS}
    assert "zoo publish X --name X" in commands and "zoo list" in commands and len(commands) > 5
    assert "zoo.load('local-dir:X')" in calls and len(calls) > 2


@pytest.mark.parametrize(("where", "command"), ADVISED)
def test_an_advised_command_is_one(where, command):
    words = [FILLED.get(word, word) for word in shlex.split(command)]
    if words[0] == "torchrun":
        words = ["python", *words[words.index("-m") :]]
    if words[:2] == ["python", "-m"]:
        words = ["zoo", {"training": "train", "evaluation": "probe"}[words[2]], *words[3:]]
    commands = get_command(app).commands
    assert words[1] in commands, f"{where}: {command}"
    if len(words) > 2:  # a bare name speaks of the command, more words are meant to be typed
        readable(words[1], words[2:])


def readable(command: str, words: list[str]) -> None:
    """Raise ZooError unless the words can be read, with each gap filled by a text or by a number."""
    try:
        parse(command, words)
    except zoo.ZooError:
        parse(command, [word.replace("X", "40") for word in words])


@pytest.mark.parametrize(("where", "call"), CALLS)
def test_an_advised_call_is_one(where, call):
    tree = ast.parse(call, mode="eval").body
    assert isinstance(tree, ast.Call), where
    *modules, name = ast.unparse(tree.func).split(".")
    function = getattr(importlib.import_module(".".join(modules)), name)
    keywords = {keyword.arg: None for keyword in tree.keywords}
    inspect.signature(function).bind(*tree.args, **keywords)
    assert modules != ["zoo"] or name in zoo.__all__, where


@pytest.mark.parametrize("command", ["probe", "extract", "look", "index", "search", "publish", "train"])
def test_what_a_reader_of_data_advises_is_said_as_options_or_keys(command):
    """Messages of the data room write `name=value`, which is what `as_options` turns into the words of a command."""
    parsed = get_command(app).commands[command]
    advised = [(where, text) for where, text in MESSAGES if where.startswith("zoo/data/") and READING.search(text)]
    assert len(advised) > 4
    for where, text in advised:
        said = as_options(text, parsed)
        assert not READING.search(said.replace("data.", "data_")), f"{where}: {said}"
    bare = [(where, text) for where, text in MESSAGES if " " in text and BARE.search(text)]
    assert not bare, "write name=value, so that a command line can say it in its own words"


def test_every_option_that_a_message_names_exists():
    known = {option for command in get_command(app).commands.values() for p in command.params for option in p.opts}
    known |= {"--help", "--version", "--"} | OTHERS
    for where, text in MESSAGES:
        assert set(OPTION.findall(text)) <= known, f"{where}: {sorted(set(OPTION.findall(text)) - known)}"


@pytest.mark.parametrize("command", ["demo", "extract", "probe", "look", "index", "search", "publish", "verify"])
def test_whatever_computes_features_takes_the_same_options(command):
    known = {option for parameter in get_command(app).commands[command].params for option in parameter.opts}
    assert known >= {"--device", "--batch-size", "--workers", "--quiet"}
