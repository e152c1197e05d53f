"""The how-to pages are true: their Python and their commands are run, on tiny data, in the order of the page."""

from __future__ import annotations

import inspect
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import evaluation.__main__
import training.__main__
import zoo
import zoo.cli
from evaluation.protocols import PROTOCOLS
from tests.hub_writable import serve_writable
from training.methods import METHODS
from zoo.data import registry

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))
#: What makes a documented training a matter of seconds.
TINY = ["epochs=1", "batch_size=8", "encoder.model=resnet10t", "view_sizes=[]", "monitor=null"]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder as a reader has it: `my/images` with two classes of pictures, a foreign weights file, a finished run."""
    from torchvision.models import resnet18

    place, rng = tmp_path_factory.mktemp("reader"), np.random.default_rng(0)
    for split, count in (("train", 12), ("test", 6)):
        for shade, name in enumerate(("dark", "light")):
            folder = place / "my" / "images" / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(100 * shade, 100 * shade + 120, (40, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    torch.save(resnet18().state_dict(), place / "foreign.pth")
    return place


@pytest.fixture
def here(workplace, monkeypatch):
    """In that folder, with a hub of its own and a catalogue of the bundled checkpoints."""
    from huggingface_hub import constants

    monkeypatch.chdir(workplace)
    monkeypatch.setitem(METHODS, "barlow", None)
    monkeypatch.setitem(PROTOCOLS, "nearest_mean", None)
    monkeypatch.setattr(registry, "READERS", list(registry.READERS))
    with serve_writable() as hub:
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield workplace


def run_command(line: str) -> None:
    """One documented command, in this process."""
    words = shlex.split(line)
    if words[0] == "torchrun":
        module = words[words.index("-m") + 1 :]
        words = {"training": ["python", "-m", *module], "zoo.cli": ["zoo", *module[1:]]}[module[0]]
        if words[0] == "python":
            zoo.cli.parse("train", words[3:])
            return
    if words[0] == "zoo" and words[1] in ("train", "probe"):  # the same under another name
        words = ["python", "-m", {"train": "training", "probe": "evaluation"}[words[1]], *words[2:]]
    if words[:3] == ["python", "-m", "training"]:
        tiny = [*TINY[:1], "batch_size=64", "data.limit=300"] if words[3].endswith(".yaml") else TINY
        if words[3] == "adapt":  # it takes its encoder as it is
            tiny = [TINY[0], *TINY[3:]]
        elif words[3].startswith("distill"):  # its encoder is no network of timm
            tiny = [*TINY[:2], *TINY[3:], "encoder.widths=[8,8,8]", "method.queue_size=16"]
        assert training.__main__.main([*words[3:], *tiny]) == 0, line
    elif words[:3] == ["python", "-m", "evaluation"]:
        assert evaluation.__main__.main(words[3:]) == 0, line
    else:
        assert words[0] == "zoo", f"the test does not know how to run {line!r}"
        assert zoo.cli.main(words[1:]) == 0, line


def plant(place: Path, tree: str) -> None:
    """Make the tree of folders and pictures that a page draws: four spaces a level, files behind their folder."""
    rng, above = np.random.default_rng(0), []
    for line in tree.splitlines():
        depth = (len(line) - len(line.lstrip())) // 4
        folder, *files = line.split()
        above = [*above[:depth], folder]
        home = place.joinpath(*above)
        home.mkdir(parents=True)
        for name in files:
            Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(home / name)


def blocks(page: Path) -> list[tuple[str, str]]:
    return re.findall(r"```(\w+)\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.mark.filterwarnings("ignore")  # a dozen pictures are few for every protocol, and it says so
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_page(page, here, capsys):
    if page.stem == "publish" and not (here / "runs/mine/encoder").exists():
        run_command("python -m training simclr_resnet18_cifar10_cpu data=my/images --out runs/mine")
    names: dict = {"__name__": "page"}
    for language, text in blocks(page):
        if language == "python":
            exec(compile(text, str(page), "exec"), names)
        elif language == "bash":
            for line in text.splitlines():
                run_command(line)
        elif language == "text":
            plant(here, text)
        elif language in ("py", "sh"):  # what needs a cluster is read only, and what it imports of ours is there
            for line in text.splitlines():
                if line.startswith("from zoo"):
                    exec(line, {})
        else:
            assert language == "yaml", f"{page}: the test does not know {language!r}"
            (here / "barlow.yaml").write_text(text)


def test_every_page_is_listed_and_every_link_leads_somewhere():
    index = (ROOT / "docs" / "README.md").read_text()
    assert all(page.name in index for page in PAGES if page.stem != "README")
    for page in [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md"]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page}: {target}"


def test_contributing_names_what_exists():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    for path in re.findall(r"`((?:tests|zoo|training|evaluation)/[\w/.]+)`", text):
        assert (ROOT / path).exists(), path


def test_the_public_surface_is_documented():
    """Every public name, and every public method of its classes: a docstring; functions say what they raise."""
    for name in zoo.__all__:
        value = getattr(zoo, name)
        if isinstance(value, str):
            continue
        assert (inspect.getdoc(value) or "").strip(), f"zoo.{name} has no docstring"
        if inspect.isfunction(value):
            text = inspect.getdoc(value)
            assert re.match(r"[^\n]+[.:]", text), f"zoo.{name}: the first line is no sentence"
            for parameter in list(inspect.signature(value).parameters):
                assert re.search(rf"\b{parameter}\b", text), f"zoo.{name}: {parameter} is not described"
        elif inspect.isclass(value) and value.__module__.startswith("zoo"):
            for method, function in inspect.getmembers(value, inspect.isfunction):
                if not method.startswith("_") and function.__module__.startswith("zoo"):
                    assert inspect.getdoc(function), f"zoo.{name}.{method} has no docstring"


def test_every_command_has_help():
    from typer.main import get_command

    for name, command in get_command(zoo.cli.app).commands.items():
        assert command.help, f"zoo {name} has no help"
        undocumented = [p.name for p in command.params if not getattr(p, "help", None) and p.name != "help"]
        assert not undocumented, f"zoo {name}: {undocumented}"
