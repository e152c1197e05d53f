"""docs/ as a site: every page is in it, every link leads somewhere, every name of the reference exists."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
INSTALLED = all(find_spec(name) for name in ("mkdocs", "material", "mkdocstrings"))


@pytest.mark.skipif(not INSTALLED, reason="needs the extra docs")
def test_the_site_builds_strictly(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "num_features" in (tmp_path / "site" / "api" / "index.html").read_text(encoding="utf-8")


def pages(entry) -> list[str]:
    """All files that an entry of the navigation names."""
    if isinstance(entry, str):
        return [entry]
    return [page for each in (entry.values() if isinstance(entry, dict) else entry) for page in pages(each)]


def test_every_page_is_in_the_navigation():
    listed = pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"])
    assert sorted(listed) == sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda page: page.stem)
def test_every_link_stays_on_the_site(page):
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
        found = (page.parent / target).resolve()
        assert found.exists() and DOCS in found.parents, f"{page}: {target}"


def test_every_name_of_the_reference_exists_and_is_documented():
    names = re.findall(r"^::: ([\w.]+)$", (DOCS / "api.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert len(names) > 10
    for name in names:
        module, _, attribute = name.rpartition(".")
        value = (
            importlib.import_module(name)
            if name == "zoo.errors"
            else getattr(importlib.import_module(module), attribute)
        )
        assert value.__doc__, name


def test_every_method_has_a_page_that_names_its_file_and_its_recipes():
    from training.methods import METHODS
    from training.recipe import available_pipelines, available_recipes

    known = set(available_recipes() + available_pipelines())
    for name in METHODS:
        text = (DOCS / "methods" / f"{name}.md").read_text(encoding="utf-8")
        assert f"training/methods/{name}.py" in text and (ROOT / "training" / "methods" / f"{name}.py").is_file()
        recipes = set(re.findall(r"`((?:smoke|adapt|paper/)?[a-z0-9]+_[a-z0-9_]+)`", text)) - {"final_momentum"}
        stems = {recipe for recipe in recipes if recipe.startswith((name, "simclr_", "smoke"))}
        assert stems and stems <= known, stems - known
