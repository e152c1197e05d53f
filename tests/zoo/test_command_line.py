"""The one command line: what it starts without, whose code it runs, what it says while and after it works."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.main import get_command

from tests.zoo.checkpoints import results_for, write_small
from zoo import cli
from zoo.console import LINE_SECONDS, stages

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = get_command(cli.app).commands


def python(code: str, *, cwd: Path, path: str = str(ROOT)) -> subprocess.CompletedProcess:
    """A fresh Python with the zoo on its path, started in `cwd`."""
    script = cwd / "script_of_the_test.py"
    script.write_text(code)
    return subprocess.run(
        [sys.executable, str(script)], cwd=cwd, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True
    )


@pytest.mark.parametrize("arguments", [[], ["list"], ["--help"], ["--version"], ["probe", "--help"], ["env"]])
def test_what_only_looks_imports_no_torch(arguments, tmp_path):
    done = python(
        f"import sys, zoo.cli\nstatus = zoo.cli.main({arguments!r})\nsys.exit(status or 10 * ('torch' in sys.modules))",
        cwd=tmp_path,
    )
    assert done.returncode == 0 and done.stdout, done.stderr


def test_a_callers_own_folders_are_never_run(tmp_path):
    for name in ("training", "evaluation"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('the wrong code ran')")
        (tmp_path / name / "recipe.py").write_text("raise SystemExit('the wrong code ran')")
    code = "import sys\nfrom zoo.cli import main\nsys.exit(main(['train', '--list']))"
    done = python(code, cwd=tmp_path, path=os.pathsep.join([str(tmp_path), str(ROOT)]))
    assert done.returncode == 0 and "simclr_airbench95_cifar10" in done.stdout, done.stderr


def test_the_modules_are_the_same_commands(capsys):
    from evaluation.__main__ import main as evaluate
    from training.__main__ import main as train

    def said(run, *arguments):
        return run(list(arguments)), *capsys.readouterr()

    assert said(train, "--list") == said(cli.main, "train", "--list")
    assert said(train, "smok") == said(cli.main, "train", "smok")
    assert said(evaluate, "nothing_like_it", "digits") == said(cli.main, "probe", "nothing_like_it", "digits")
    assert said(train, "smoke", "--nonsense")[0] == said(evaluate, "--nonsense")[0] == 2


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("--k 1 5 20 --limit 9", "--k 1 --k 5 --k 20 --limit 9"),
        ("NAME DATA --labels 1 0.5 --k 1", "NAME DATA --labels 1 --labels 0.5 --k 1"),
        ("--k 5 NAME DATA", "--k 5 NAME DATA"),
        ("--labels -1", "--labels -1"),
        ("--limit 5 6", "--limit 5 6"),
    ],
)
def test_a_list_of_numbers_may_follow_an_option(given, expected):
    assert cli.spread(given.split(), ("--k", "--labels")) == expected.split()


@pytest.mark.parametrize(
    ("command", "message", "said"),
    [
        ("extract", "name one, as in split='train'", "name one, as in --split train"),
        ("publish", "published already; pass overwrite=True", "published already; pass --overwrite"),
        ("publish", "say where to publish with out=FOLDER", "say where to publish with --out FOLDER"),
        ("probe", "pass --download (download=True) to fetch it", "pass --download to fetch it"),
        ("probe", "no config; pass floors=False", "no config; pass --no-baselines"),
        ("probe", "name the folder with root=... or ZOO_DATA", "name the folder with --root ... or ZOO_DATA"),
        ("probe", "labels='my birds.csv' is no file", "--labels-file 'my birds.csv' is no file"),
        ("probe", "skip_bad=True leaves it out", "--skip-bad leaves it out"),
        ("train", "pass --download (download=True) to fetch it", "pass data.download=true to fetch it"),
        ("train", "set classes='leaf' or split='all'", "set data.classes=leaf or data.split=all"),
        ("train", "use device='cpu' or batch_size=64, data.split=x", "use --device cpu or batch_size=64, data.split=x"),
    ],
)
def test_advice_of_a_function_is_said_in_the_words_of_the_command_line(command, message, said):
    assert cli.as_options(message, COMMANDS[command]) == said


def test_whatever_computes_takes_the_same_words():
    for name in ("extract", "probe", "demo", "publish", "verify"):
        options = {option for parameter in COMMANDS[name].params for option in parameter.opts}
        assert {"--device", "--batch-size", "--workers", "--quiet"} <= options, name
    assert {"--device", "--batch-size", "--quiet"} <= {o for p in COMMANDS["train"].params for o in p.opts}


def test_help_says_baseline_and_explains_it():
    text = " ".join((COMMANDS["probe"].help or "").split())
    assert "baseline is what the same probe reaches without training" in text
    for name, command in COMMANDS.items():
        words = [command.help or "", *(getattr(parameter, "help", None) or "" for parameter in command.params)]
        assert not any("floor" in each for each in words), name


def test_ctrl_c_ends_in_one_line(monkeypatch, capsys):
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("zoo.checkpoint.catalog.list_models", interrupt)
    assert cli.main(["list"]) == cli.INTERRUPTED
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("interrupted")


def test_an_unknown_option_or_command_is_one_line(capsys):
    for arguments, message in ((["list", "--modaliti", "image"], "--modality"), (["extrct"], "'extract'")):
        assert cli.main(arguments) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert line.startswith("error: ") and message in line


def test_without_a_terminal_progress_is_a_line_now_and_then(capsys):
    now = [0.0]
    with stages(clock=lambda: now[0]) as progress:
        for done in range(0, 100, 10):
            now[0] += LINE_SECONDS / 4
            progress("features of test", done, 100)
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines == [
        "features of test: 0 of 100",
        "features of test: 40 of 100, 30 s left",
        "features of test: 80 of 100, 10 s left",
    ]
    with stages(quiet=True) as progress:
        progress("features of test", 1, 2)
    assert capsys.readouterr().err == ""


def test_env_names_what_an_issue_needs(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "not" / "there"))
    assert cli.main(["env"]) == 0
    out = capsys.readouterr().out
    for word in ("zoo ", "python", "torch", "processor", "avx", "zoo cache", "GB free", str(tmp_path)):
        assert word in out or word == "avx", word
    assert not (tmp_path / "not").exists()


def test_publishing_elsewhere_advises_a_call_that_works(tmp_path, capsys, monkeypatch):
    import zoo

    config = write_small(tmp_path / "run" / "encoder")
    write_small(tmp_path / "run" / "encoder", results=results_for(config))
    for number, known in enumerate((False, True)):
        out = tmp_path / f"published{number}"
        if known:
            monkeypatch.setenv("ZOO_CHECKPOINTS", str(out))
        assert cli.main(["publish", str(tmp_path / "run"), "--name", "simclr_small_elsewhere", "--out", str(out)]) == 0
        said = capsys.readouterr().out.strip()
        address = said[said.index("zoo.load('") + len("zoo.load('") : said.rindex("')")]
        assert address.startswith("local-dir:") != known
        assert zoo.load(address).num_features == config.num_features


def test_methods_are_known_by_the_name_that_list_prints(tmp_path, monkeypatch):
    from zoo import UnknownNameError, list_models

    monkeypatch.setenv("ZOO_CHECKPOINTS", str(tmp_path))
    write_small(tmp_path / "simclr_small_toys")
    assert list_models(method="SimCLR") == list_models(method="simclr") == ["simclr_small_toys"]
    assert list_models("other*", method="simclr") == []
    with pytest.raises(UnknownNameError, match="did you mean 'simclr'"):
        list_models(method="simclrr")
    with pytest.raises(UnknownNameError, match="'skeleton'"):
        list_models(modality="skeletons")


def test_a_feature_table_says_what_it_is():
    from zoo.features.table import FeatureTable

    table = FeatureTable(np.zeros((1200, 8), np.float32), None, range(1200), dataset="toys", split="test", encoder="e")
    assert repr(table) == "<FeatureTable 1,200 x 8 of toys/test by e, no labels, fp32>"


@pytest.mark.parametrize("sizes", [[7] * 130, [1] * 100 + [900], [500, 300, 200], [2] * 600])
def test_a_limit_is_a_limit(sizes):
    """Rounding up in every class once gave 936 samples for a limit of 900."""
    from zoo.data.splits import at_most

    labels = np.repeat(np.arange(len(sizes)), sizes)
    kept = at_most(labels, len(labels), 900, seed=0)
    assert len(kept) <= 900 and len(set(kept.tolist())) == len(kept) and (np.diff(kept) > 0).all()
    assert len(kept) > 0.5 * min(900, len(labels))
    assert np.array_equal(at_most(None, 10, 20, seed=0), np.arange(10))
    assert len(at_most(None, 2000, 900, seed=0)) == 900


def test_a_command_that_is_advised_stays_in_one_line(capsys):
    """Wrapped at 80 columns in a log, it could not be copied."""
    from training.console import ConsoleReport

    with ConsoleReport() as report:
        report.say("done; publish with `zoo publish runs/" + "name" * 40 + "`")
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_warning_is_one_line_without_code(tmp_path):
    """A person reads what was left out, not which line of the program noticed it."""
    from PIL import Image

    for name, colour in (("apple", "red"), ("pear", "green")):
        (tmp_path / "fruit" / name).mkdir(parents=True)
        for number in range(10):
            Image.new("RGB", (16, 16), colour).save(tmp_path / "fruit" / name / f"{number}.png")
    (tmp_path / "fruit" / "apple" / "notes.txt").write_text("mine")
    code = "import sys, zoo.cli; sys.exit(zoo.cli.main(['probe', 'ms2l_bigru_nucla', 'fruit']))"
    done = python(code, cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.count("1 .txt") == 1, done.stderr
    assert "open_dataset(" not in done.stderr and "command.py" not in done.stderr


def test_whatever_warns_shows_its_text_alone(tmp_path):
    code = r"""
import sys, warnings
import zoo.cli
from zoo.commands import look
look.environment = lambda: warnings.warn("files of yours \x1b[2J") or []
sys.exit(zoo.cli.main(["env"]))
"""
    done = python(code, cwd=tmp_path)
    assert done.returncode == 0 and done.stderr == "warning: files of yours \\x1b[2J\n", done.stderr
