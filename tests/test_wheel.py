"""The wheel as a user gets it: built, installed into an environment of its own, used outside the checkout."""

from __future__ import annotations

import json
import os
import shutil
import site
import subprocess
import sys
import zipfile
from functools import partial
from pathlib import Path

import pytest

from tests.journeys import JOURNEYS

ROOT = Path(__file__).resolve().parents[1]
LEFT_OUT = shutil.ignore_patterns(".git", ".venv", "runs", "reports", "build", "dist", "*.egg-info", "__pycache__")

pytestmark = pytest.mark.slow


def left_out(folder: str, names: list[str]) -> set[str]:
    """`LEFT_OUT`, and the data of the checkout; `zoo/data` is a room."""
    return LEFT_OUT(folder, names) | ({"data"} if Path(folder) == ROOT else set())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    place = tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT, place / "source", ignore=left_out)  # no older build/ gets in
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(place), str(place / "source")]
    subprocess.run(command, check=True)
    (found,) = place.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def zoo_script(wheel, tmp_path_factory):
    """The `zoo` of a fresh environment that holds the wheel and sees the packages installed here."""
    place = tmp_path_factory.mktemp("environment") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place)], check=True)
    python = place / "bin" / "python"
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "--no-deps", "--no-index", str(wheel)],
        check=True,
    )
    (own,) = place.glob("lib/python*/site-packages")
    # Paths alone: the .pth files in them, such as that of an editable install of this checkout, are not read.
    (own / "others.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    return place / "bin" / "zoo"


def run(script: Path, *arguments: str, cwd: Path) -> str:
    done = subprocess.run([script, *arguments], cwd=cwd, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "ZOO_CHECKPOINTS")}


def typed(script: Path, words: list[str], folder: Path) -> tuple[int, str]:
    """A command of a journey in a process of its own."""
    program = script.with_name(words[0])
    done = subprocess.run(
        [program, *words[1:]],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return done.returncode, done.stdout


def test_it_is_light(wheel):
    assert wheel.stat().st_size <= 30e6


def test_it_holds_what_belongs_to_it(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    for part in ("zoo/py.typed", "training/py.typed", "evaluation/py.typed", "training/recipes/adapt.yaml"):
        assert part in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert any(name.endswith(".html.j2") for name in names) and any(name.endswith(".safetensors") for name in names)
    assert not any(name.startswith(("tests/", "docs/", "benchmarks/", "data/")) for name in names)


def test_it_lists_and_probes_outside_the_checkout(zoo_script, tmp_path):
    assert str(zoo_script.parents[1]) in run(zoo_script, "env", cwd=tmp_path)
    assert "simclr_airbench95_cifar10" in run(zoo_script, "list", cwd=tmp_path)
    probe = ("probe", "ssnas_cell_cifar10", "digits", "--limit", "60", "--protocol", "knn", "--no-baselines")
    assert "knn-" in run(zoo_script, *probe, "--out", "report", cwd=tmp_path)
    assert (tmp_path / "report" / "report.html").exists()


def test_it_trains_outside_the_checkout(zoo_script, tmp_path):
    run(zoo_script, "train", "smoke", "epochs=1", "data.limit=200", "monitor=null", "--device", "cpu", cwd=tmp_path)
    assert (tmp_path / "runs" / "simclr_resnet10t_digits" / "encoder" / "model.safetensors").exists()


@pytest.mark.parametrize("journey", JOURNEYS, ids=lambda journey: journey.__name__)
def test_what_is_advised_on_the_way_works(zoo_script, journey, tmp_path):
    journey(partial(typed, zoo_script), tmp_path)


def test_the_demo_and_the_cells_of_the_tour_run_outside_the_checkout(zoo_script, tmp_path):
    assert "kNN" in run(zoo_script, "demo", "--no-adapt", cwd=tmp_path)
    cells = json.loads((ROOT / "docs" / "tour.ipynb").read_text(encoding="utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    (tmp_path / "tour.py").write_text("\n".join(code), encoding="utf-8")
    run(zoo_script.with_name("python"), "tour.py", cwd=tmp_path)
