"""The torch.hub door, as callers use it: in fresh processes, from other folders, beside other packages."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import zoo
from tests.zoo.checkpoints import results_for, write_small

REPO = Path(zoo.__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("catalogue")
    for name in ("simclr_small_toys", "clsa_small_toys"):
        config = write_small(folder / name, name=name)
        write_small(folder / name, name=name, results=results_for(config))
    return folder


def run(script: str, root: Path, cwd: Path) -> subprocess.CompletedProcess:
    """Run a script in a fresh process without the network, where `zoo` is not installed."""
    prelude = f"""
        import sys
        sys.meta_path = [finder for finder in sys.meta_path if "editable" not in getattr(finder, "__name__", "").lower()
                         and "editable" not in type(finder).__module__]
        REPO = {str(REPO)!r}
        sys.path = [path for path in sys.path if path != REPO]
    """
    environment = {
        **os.environ,
        "ZOO_CHECKPOINTS": str(root),
        "HF_HUB_OFFLINE": "1",
        "HF_ENDPOINT": "http://127.0.0.1:1",
    }
    environment.pop("PYTHONPATH", None)
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(prelude) + textwrap.dedent(script)],
        env=environment,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_list_help_load_in_a_fresh_process(root, tmp_path):
    """From another folder, where the caller has packages of our rooms' names that were not imported yet."""
    for name in ("zoo", "training", "evaluation"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('foreign')\n")
    done = run(
        """
        sys.path.insert(0, "")
        try:
            import zoo
            raise SystemExit("the test must run where zoo is not installed")
        except RuntimeError as error:
            assert str(error) == "foreign"
        import unittest.mock, torch
        # list and help know no source="local": hand them the checkout in place of a download.
        with unittest.mock.patch("torch.hub._get_cache_or_reload", lambda *a, **k: REPO):
            print(sorted(torch.hub.list("org/encoder-zoo", trust_repo=True)))
            print(torch.hub.help("org/encoder-zoo", "simclr_small_toys", trust_repo=True))
        encoder = torch.hub.load(REPO, "simclr_small_toys", source="local")
        assert sys.path.index(REPO) == len(sys.path) - 1, "it would hide the caller's packages"
        from PIL import Image
        x = encoder.transform()(Image.new("RGB", (40, 30)))[None]
        print(tuple(encoder(x).shape), encoder.training, encoder.config.name)
        print(torch.hub.load(REPO, "clsa_small_toys", source="local", pretrained=False, device="cpu").config)
        # What was not imported yet when torch.hub took the folder off sys.path again is still found.
        import numpy as np, zoo
        assert zoo.__path__ == [f"{REPO}/zoo"], zoo.__path__
        print(zoo.extract(encoder, np.zeros((3, 20, 20, 3), np.uint8)).features.shape)
        """,
        root,
        tmp_path,
    )
    lines = done.stdout.splitlines()
    assert lines, done.stderr
    assert lines[0] == "['clsa_small_toys', 'simclr_small_toys']"
    for fact in (
        "SimCLR encoder",
        "toys/train",
        "17,504",
        "16 per sample",
        "81.2 %",
        "untrained 40.6 %",
        "MIT",
        "device",
    ):
        assert fact in done.stdout, fact
    assert lines[-3:] == ["(1, 16) False simclr_small_toys", "None", "(3, 16)"]


def test_a_spawned_worker_finds_what_the_hub_loaded(root, tmp_path):
    """As the workers of a DataLoader are where fork is not the default; without site, so that nothing is installed."""
    packages = [path for path in sys.path if "-packages" in path]
    script = f"""
        import multiprocessing, sys
        from concurrent.futures import ProcessPoolExecutor  # a broken worker is an error here, not a wait for ever
        if __name__ == "__main__":
            sys.path = [path for path in sys.path if path != {str(REPO)!r}] + {packages!r}
            import torch
            encoder = torch.hub.load({str(REPO)!r}, "simclr_small_toys", source="local")
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
                print(pool.submit(repr, encoder.transform()).result())
    """
    (tmp_path / "script.py").write_text(textwrap.dedent(script))
    environment = {**os.environ, "ZOO_CHECKPOINTS": str(root), "HF_HUB_OFFLINE": "1"}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        [sys.executable, "-S", "script.py"], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.startswith("ImageTransform("), done.stderr


def test_a_foreign_zoo_is_named(root, tmp_path):
    (tmp_path / "zoo").mkdir()
    (tmp_path / "zoo" / "__init__.py").write_text("animals = ['okapi']\n")
    done = run(
        """
        sys.path.insert(0, "")
        import zoo, torch
        try:
            torch.hub.load(REPO, "simclr_small_toys", source="local")
        except ImportError as error:
            print(error)
        """,
        root,
        tmp_path,
    )
    assert "another package called 'zoo'" in done.stdout and str(tmp_path) in done.stdout, done.stdout + done.stderr
    assert "fresh Python process" in done.stdout


def test_the_embedded_catalogue_is_what_hub_lists(monkeypatch):
    import importlib.util

    from zoo.checkpoint import catalog

    monkeypatch.delenv("ZOO_CHECKPOINTS", raising=False)
    spec = importlib.util.spec_from_file_location("hubconf", REPO / "hubconf.py")
    hubconf = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hubconf)
    entries = [name for name in dir(hubconf) if callable(getattr(hubconf, name)) and not name.startswith("_")]
    assert entries == sorted(catalog.list_models())
    assert all(getattr(hubconf, name).__name__ == name for name in entries)
