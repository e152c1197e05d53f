"""The house: who may import whom, no circle of imports, few files per room, each folder says what lives there."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("zoo", "training", "evaluation", "benchmarks")
#: Inside `zoo`, from the top to the bottom: a module may import those below it, and those of its own line.
FLOORS = (
    ("zoo.cli", "zoo.__main__"),
    ("zoo.commands",),
    ("zoo.console",),
    ("zoo.publish", "zoo.interop", "zoo.sklearn"),
    ("zoo.checkpoint", "zoo.features"),
    ("zoo.architectures",),
    ("zoo.data",),
    ("zoo.preprocessing",),
    ("zoo.encoder",),
    ("zoo.device",),
    ("zoo.network",),
    ("zoo.files",),
    ("zoo.strict",),
    ("zoo.errors",),
    ("zoo.text",),
)
#: Other rooms that a room may import.
MAY_IMPORT = {"zoo": (), "training": ("zoo", "evaluation"), "evaluation": ("zoo",)}


def modules(root: Path = ROOT, rooms: tuple[str, ...] = ROOMS) -> dict[str, Path]:
    """Module name -> file, of every Python file of the rooms."""
    found = {}
    for room in rooms:
        for path in (root / room).rglob("*.py"):
            parts = path.relative_to(root).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(tree: ast.AST, known: set[str]) -> Iterator[str]:
    """The modules among `known` that a file imports, inside functions too; not for type checkers alone."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            for other in node.orelse:
                yield from imports(other, known)
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                name = inner if inner in known else node.module
                if name in known:
                    yield name
        yield from imports(node, known)


def graph(files: dict[str, Path]) -> dict[str, set[str]]:
    """Module -> the modules that it imports."""
    known = set(files)
    return {
        name: set(imports(ast.parse(path.read_text(encoding="utf-8")), known)) - {name} for name, path in files.items()
    }


def circles(edges: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules that import each other (strongly connected, by Tarjan's algorithm)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in edges[node]:
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            group = []
            while not group or group[-1] != node:
                group.append(stack.pop())
            if len(group) > 1:
                found.append(sorted(group))

    for node in edges:
        if node not in index:
            visit(node)
    return found


def floor(module: str) -> int | None:
    """The line of `FLOORS` that a module belongs to."""
    for number, names in enumerate(FLOORS):
        if any(module == name or module.startswith(name + ".") for name in names):
            return number
    return None


def upward(edges: dict[str, set[str]]) -> list[str]:
    """Imports inside `zoo` that go up."""
    return sorted(
        f"{name} -> {other}"
        for name, others in edges.items()
        for other in others
        if (here := floor(name)) is not None and (there := floor(other)) is not None and there < here
    )


def test_no_circle_of_imports():
    assert circles(graph(modules())) == []


def test_a_circle_is_found(tmp_path):
    room = tmp_path / "zoo"
    room.mkdir()
    (room / "__init__.py").write_text('"""One."""\n')
    (room / "a.py").write_text("def f():\n    from zoo.b import g\n    return g\n")
    (room / "b.py").write_text("import zoo.c\n")
    (room / "c.py").write_text("from zoo import a\n")
    assert circles(graph(modules(tmp_path, ("zoo",)))) == [["zoo.a", "zoo.b", "zoo.c"]]


def test_imports_inside_zoo_go_down():
    assert upward(graph(modules())) == []


def test_rooms_import_only_the_rooms_below_them():
    wrong = [
        f"{name} -> {other}"
        for name, others in graph(modules()).items()
        for other in others
        if (room := name.partition(".")[0]) in MAY_IMPORT
        and not name.startswith(("zoo.cli", "zoo.commands"))  # calls the other two inside a subcommand
        and (there := other.partition(".")[0]) != room
        and there not in MAY_IMPORT[room]
    ]
    assert sorted(wrong) == []


def test_zoo_has_at_most_ten_files_of_its_own():
    own = sorted(path.name for path in (ROOT / "zoo").glob("*.py"))
    assert len(own) <= 10, own


@pytest.mark.parametrize("room", ROOMS)
def test_every_folder_opens_with_one_sentence(room):
    folders = {path.parent for path in (ROOT / room).rglob("*.py")}
    for folder in sorted(folders):
        opening = folder / "__init__.py"
        assert opening.is_file(), f"{folder} has no __init__.py"
        text = ast.get_docstring(ast.parse(opening.read_text(encoding="utf-8")))
        assert text and text.splitlines()[0].endswith((".", ":")), f"{opening} opens with no sentence"


def test_no_python_file_is_longer_than_400_lines():
    files = [path for room in (*ROOMS, "tests") for path in (ROOT / room).rglob("*.py")]
    long = {str(path.relative_to(ROOT)): lines for path in files if (lines := _lines(path)) > 400}
    assert long == {}


def _lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())
