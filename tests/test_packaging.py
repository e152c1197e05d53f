"""pyproject.toml tells the truth: what is imported is declared, what messages name as an extra is one."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest brings it where Python has none of its own

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("zoo", "training", "evaluation")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
#: Name of an import -> name of the package, where they differ.
PACKAGES = {"sklearn": "scikit-learn", "PIL": "pillow", "yaml": "pyyaml", "faiss": "faiss-cpu"}


def names(requirements: list[str]) -> set[str]:
    return {re.match(r"[\w.-]+", requirement)[0].lower().replace("_", "-") for requirement in requirements}


def imported(path: Path) -> set[str]:
    """The packages that a file imports, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found - set(sys.stdlib_module_names) - set(ROOMS) - {"__future__", "hubconf"}


def test_every_import_is_declared():
    declared = names(PROJECT["dependencies"]) | {name for extra in EXTRAS.values() for name in names(extra)}
    for path in (path for room in ROOMS for path in (ROOT / room).rglob("*.py")):
        packages = {PACKAGES.get(name, name).lower().replace("_", "-") for name in imported(path)}
        assert packages <= declared, f"{path}: {sorted(packages - declared)}"


def test_every_declared_package_is_imported():
    used = {PACKAGES.get(name, name).lower().replace("_", "-") for room in ROOMS
            for path in (ROOT / room).rglob("*.py") for name in imported(path)}  # fmt: skip
    assert names(PROJECT["dependencies"]) - used <= {"tensorboard"}  # torch.utils.tensorboard writes with it


def test_every_extra_that_a_message_names_exists():
    sources = [*(path for room in ROOMS for path in (ROOT / room).rglob("*.py")), *(ROOT / "docs").rglob("*.md")]
    named = {name for path in sources for name in re.findall(r"encoder-zoo\[(\w+)\]", path.read_text(encoding="utf-8"))}
    assert named and named <= set(EXTRAS), sorted(named - set(EXTRAS))


def test_the_version_is_the_same_everywhere():
    import zoo

    assert PROJECT["version"] == zoo.__version__
    assert f"version: {zoo.__version__}" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"## {zoo.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert PROJECT["license"] in (ROOT / "LICENSE").read_text(encoding="utf-8")
