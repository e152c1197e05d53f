"""The contract between methods and everything that calls them: one base class, asked directly."""

from __future__ import annotations

import ast
import textwrap
from pathlib import Path

import pytest

import training
import zoo
from training.__main__ import main
from training.methods import METHODS, method_class
from training.methods.base import Method

TRAINING = Path(training.__file__).parent
SOURCES = sorted(TRAINING.rglob("*.py"))


@pytest.mark.parametrize("name", list(METHODS))
def test_a_method_says_what_it_is(name):
    cls = method_class(name)
    assert issubclass(cls, Method) and cls.title and cls.paper and cls.url.startswith("https://")
    assert isinstance(cls.Config().crops, tuple) and not cls.uses_labels
    assert [key for key, field in cls.Config.model_fields.items() if not field.description] == []


def test_what_is_no_method_is_refused(monkeypatch):
    monkeypatch.setitem(METHODS, "odd", dict)
    with pytest.raises(TypeError, match="must be a subclass"):
        method_class("odd")


def test_nobody_probes_a_method():
    """Hooks have defaults in the base class, so none is looked for; and no method is handed its trainer to keep."""
    found = []
    for path in SOURCES:
        text = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text)):
            called = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""
            if called in ("hasattr", "getattr") and "method" in (ast.get_source_segment(text, node.args[0]) or ""):
                found.append(f"{path.name}:{node.lineno}: {called}")
            if isinstance(node, ast.Attribute) and node.attr in ("attach", "_trainer"):
                found.append(f"{path.name}:{node.lineno}: {node.attr}")
    assert not found


@pytest.mark.parametrize("path", sorted((TRAINING / "methods").glob("*.py")), ids=lambda path: path.stem)
def test_a_method_is_one_short_file(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 150


NEW = '''
"""The embedding's dimensions have unit variance, and both views agree."""
import torch

from training.augment.choice import Augment, augmentation_for
from training.augment.parameters import PRESETS
from training.methods.base import Method


class Spread(Method):
    """Views agree while the embeddings of a batch stay spread out."""

    title, paper, url = "Spread", "none", "https://example.org"

    class Config(Method.Config):
        """One setting."""

        augment: Augment = PRESETS["cifar"]

    def views(self, batch, generator):
        augment = augmentation_for(self.encoder, self.config.augment, self.image_size)
        return [augment(batch["images"], generator, size=self.view_size) for _ in range(2)]

    def loss(self, views):
        a, b = self.encoder(torch.cat(views)).float().chunk(2)
        spread = sum(torch.relu(1 - h.std(dim=0)).mean() for h in (a, b))
        return {"loss": (a - b).square().mean() + spread}
'''

RECIPE = """
name: spread_tiny_shapes
method: spread
encoder: {model: resnet10t, model_args: {channels: [8, 8, 16, 16], stem_width: 8}}
data: {dataset: "synthetic:shapes?n=120", held_out: 0.2}
optim: {name: sgd, lr: 0.01, lr_scaling: none}
epochs: 2
batch_size: 16
view_sizes: [{until: 0.5, size: 24}, {until: 1.0, size: 32}]
monitor: null
"""


def test_a_new_method_is_one_file_and_one_recipe(tmp_path, monkeypatch):
    """With views that grow, and without a line of its own on resuming, exporting, labels or the run's end."""
    (tmp_path / "spread_method.py").write_text(textwrap.dedent(NEW))
    (tmp_path / "spread.yaml").write_text(RECIPE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(METHODS, "spread", "spread_method:Spread")
    command = [str(tmp_path / "spread.yaml"), "--out", str(tmp_path / "run"), "--device", "cpu"]
    assert main([*command, "--minutes", "0"]) == 1, "stopped after a step"
    assert main(command) == 0
    encoder = zoo.load(f"local-dir:{tmp_path / 'run' / 'encoder'}")
    assert encoder.config.method.title == "Spread" and encoder.config.training.epochs == 2
