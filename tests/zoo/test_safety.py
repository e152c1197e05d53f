"""No code of others is ever run: the source is scanned, and hostile names, files and links are handed over."""

from __future__ import annotations

import ast
import json
import os
import shutil
import sys
from pathlib import Path

import pytest

import zoo
from tests.zoo.checkpoints import rebind, write_small
from tests.zoo.test_mutations import FAST, MAYBE, REFUSED, SLOW
from zoo.errors import CheckpointError, ConfigError, UnknownNameError, ZooError
from zoo.publish.check import verify

REPO = Path(zoo.__file__).resolve().parent.parent
SOURCES = sorted(
    path
    for place in ("hubconf.py", "zoo", "training", "evaluation", "benchmarks")
    for path in ([REPO / place] if place.endswith(".py") else (REPO / place).rglob("*.py"))
)
#: file -> (module, names it may use from it): why that runs nothing.
ALLOWED = {
    # The restricted unpickler: `find_class` gives only array and container builders (see its tests).
    "zoo/data/readers/restricted_pickle.py": {"pickle.Unpickler", "pickle.UnpicklingError"},
    # Catches the error that torch.load(weights_only=True) raises; nothing is unpickled with it.
    "zoo/interop/reading.py": {"pickle.UnpicklingError"},
}
PICKLES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
CODE = {"eval", "exec", "compile", "__import__"}
#: function -> the keyword argument that makes it harmless
SAFE_WITH = {"torch.load": ("weights_only", True), "np.load": ("allow_pickle", False)}
REFUSED_CALLS = {"os.system", "os.popen", "torch.hub.load", "torch.jit.load", "torch.package.PackageImporter"}
REFUSED_CALLS |= {"yaml.load", "yaml.unsafe_load", "yaml.full_load", "torch.hub.load_state_dict_from_url"}


def problems(source: str, allowed: set[str] = frozenset()) -> list[str]:
    """What in a Python source could run code that came from a file."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [f"import {a.name}" for a in node.names if a.name.split(".")[0] in PICKLES and not allowed]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in PICKLES:
            found.append(f"from {node.module} import")
        elif isinstance(node, ast.Attribute) and _dotted(node).split(".")[0] in PICKLES:
            found += [_dotted(node)] if _dotted(node) not in allowed else []
        elif isinstance(node, ast.Call):
            found += _bad_call(node)
    return found


def _bad_call(node: ast.Call) -> list[str]:
    name = _dotted(node.func)
    keywords = {k.arg: getattr(k.value, "value", None) for k in node.keywords}
    safe = SAFE_WITH.get(name)
    if name in CODE or name in REFUSED_CALLS or (safe and keywords.get(safe[0]) is not safe[1]):
        return [f"{name}(...)"]
    if keywords.get("shell") is True or keywords.get("trust_remote_code") is True:
        return [f"{name}(shell or trust_remote_code)"]
    return []


def _dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(REPO)))
def test_source(path):
    name = str(path.relative_to(REPO))
    assert problems(path.read_text(encoding="utf-8"), ALLOWED.get(name, set())) == []


def test_every_exception_is_still_needed():
    for name, uses in ALLOWED.items():
        assert {use for use in uses if use in (REPO / name).read_text()} == uses


@pytest.mark.parametrize(
    "source",
    [
        "import torch\ntorch.load('x')",
        "torch.load('x', weights_only=False)",
        "torch.load('x', weights_only=flag)",
        "import pickle",
        "from pickle import loads",
        "import joblib",
        "eval('1')",
        "def f():\n    exec(text)",
        "np.load('x')",
        "np.load('x', allow_pickle=True)",
        "yaml.load(text)",
        "os.system('ls')",
        "subprocess.run('ls', shell=True)",
        "torch.hub.load('a/b', 'c')",
        "AutoModel.from_pretrained('x', trust_remote_code=True)",
    ],
)
def test_the_scan_sees(source):
    assert problems(source)


def test_the_scan_lets_pass():
    assert problems("torch.load('x', weights_only=True)\nmodel.eval()\nnp.load('x', allow_pickle=False)") == []


def test_the_slow_suite_tries_ten_thousand_checkpoints():
    assert len(REFUSED) * (SLOW // 2) + len(MAYBE) * SLOW >= 10_000 > len(REFUSED) * FAST


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    folder = tmp_path_factory.mktemp("published") / "simclr_small_toys"
    write_small(folder)
    return folder


@pytest.fixture
def folder(pristine, tmp_path):
    return shutil.copytree(pristine, tmp_path / "zoo" / "simclr_small_toys")


@pytest.mark.parametrize(
    "name",
    ["../simclr_small_toys", "..", ".", "/etc", "simclr_small_toys/..", "a\0b", "a\nb", "a" * 10_000, "..\\x", "~root"]
    + ["SIMCLR_SMALL_TOYS", "Simclr_Small_Toys", "simclr_small_toys ", "simclr_small_toys\u0301"],
)
def test_names_that_are_none(folder, monkeypatch, name):
    monkeypatch.setenv("ZOO_CHECKPOINTS", str(folder.parent))
    for ask in (zoo.load, zoo.show, verify):
        with pytest.raises(UnknownNameError) as caught:
            ask(name)
        assert "\n" not in str(caught.value).replace(name, "") and len(str(caught.value)) < 1000 + 3 * len(name)


def test_another_case_is_another_name_and_the_right_one_is_told(folder, monkeypatch):
    monkeypatch.setenv("ZOO_CHECKPOINTS", str(folder.parent))
    with pytest.raises(UnknownNameError, match="did you mean 'simclr_small_toys'"):
        zoo.load("SimCLR_Small_Toys")
    shutil.copytree(folder, folder.with_name("SimCLR_Small_Toys"))
    with pytest.warns(UserWarning, match="rename the folder"):
        assert zoo.list_models() == ["simclr_small_toys"]


def edit(folder, change):
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["weights"].update(bytes=1 << 60), "weights.bytes"),
        (lambda c: c["weights"].update(bytes=-1), "weights.bytes"),
        (lambda c: c["weights"].update(bytes=True), "weights.bytes|bytes"),
        (lambda c: c["weights"].update(file="../../etc/passwd"), "weights.file"),
        (lambda c: c["weights"].update(file="a\0.safetensors"), "weights.file"),
        (lambda c: c.update(num_features=1 << 40), "num_features"),
        (lambda c: c["input"].update(size=[1 << 30, 1 << 30]), "size"),
        (lambda c: c.update(mirrors=["https://x"] * 17), "mirrors"),
        (lambda c: c.update(mirrors=["x" * 10_000]), "mirrors"),
        (lambda c: c.update(mirrors="https://x"), "mirrors"),
        (lambda c: c.update(name="a" * 200), "name"),
        (lambda c: c.update(__class__="os.system"), "__class__"),
        (lambda c: c["training"].update(versions=[1]), "versions"),
    ],
)
def test_hostile_config(folder, change, message):
    edit(folder, change)
    with pytest.raises(ZooError, match=message) as caught:
        zoo.load(f"local-dir:{folder}")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    "arguments",
    [
        {"model": "resnet18", "stem": "cifar", "model_args": {"block": "os.system"}},
        {"model": "resnet18", "stem": "cifar", "model_args": {"norm_layer": {"a": 1}}},
        {"model": "resnet18", "stem": "cifar", "model_args": {"nonsense": 1}},
        {"model": "hf-hub:org/name", "stem": "imagenet"},
        {"model": "local-dir:/etc", "stem": "imagenet"},
        {"model": "resnet18", "weights": "/etc/passwd"},
        {"model": "resnet18", "model_args": {"layers": [1 << 60]}},
        {"model": "resnet18", "model_args": {"layers": [[[[1]]]]}},
    ],
)
def test_hostile_architecture_arguments(folder, arguments):
    rebind(folder, architecture={"family": "timm", "arguments": arguments})
    with pytest.raises((ConfigError, CheckpointError)) as caught:
        zoo.load(f"local-dir:{folder}")
    assert "\n" not in str(caught.value)


def test_links_in_the_cache_of_the_hub(folder, tmp_path):
    """A snapshot whose files are links elsewhere: nothing of what they point to is told or used."""
    secret = tmp_path / "secret"
    secret.write_text("password = hunter2")
    snapshot = tmp_path / "models--o--n" / "snapshots" / "c0ffee"
    snapshot.mkdir(parents=True)
    shutil.copy(folder / "config.json", snapshot)
    (snapshot / "model.safetensors").symlink_to(secret)
    with pytest.raises(CheckpointError, match="link out of its folder"):
        zoo.load(f"local-dir:{snapshot}")
    (snapshot / "config.json").unlink()
    (snapshot / "config.json").symlink_to(secret)
    with pytest.raises(ConfigError) as caught:
        zoo.load(f"local-dir:{snapshot}")
    assert "hunter2" not in str(caught.value)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_in_place_of_a_file_does_not_hang(folder):
    (folder / "config.json").unlink()
    os.mkfifo(folder / "config.json")
    with pytest.raises(ConfigError, match="no config"):
        zoo.load(f"local-dir:{folder}")


@pytest.mark.parametrize("name", ["reference.json", "results.json", "README.md"])
@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe", b"[" * 100_000, b"{}", b"null", b'{"rows": 1e999}', b" " * (9 << 20)]
)
def test_evidence_that_is_none(folder, name, content):
    (folder / name).write_bytes(content)
    failed = [check.text for check in verify(f"local-dir:{folder}") if not check.ok]
    assert failed and all("\n" not in text and len(text) < 1000 for text in failed)


def test_loading_imports_nothing_that_the_checkpoint_names(folder, tmp_path, monkeypatch):
    """A module called as the checkpoint says, lying beside it, is not imported."""
    (tmp_path / "timn.py").write_text("raise SystemExit('ran')")
    monkeypatch.syspath_prepend(str(tmp_path))
    rebind(folder, architecture={"family": "timn:Encoder", "arguments": {}})
    with pytest.raises(ConfigError, match="unknown architecture family"):
        zoo.load(f"local-dir:{folder}")
    assert "timn" not in sys.modules
