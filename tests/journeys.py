"""What a person does with the zoo, command after command, doing everything that it says on the way.

Each journey is run by a test from the checkout, within the test's process, and by a slow one from the wheel.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

from tests.data_fixtures import make_folder, write_image
from tests.static_server import serve_folder

COMMAND = re.compile(r"`((?:zoo|python -m (?:training|evaluation)) [^`]*)`")
CALL = re.compile(r"zoo\.load\((?:'[^']*'|\"[^\"]*\")\)")
#: `--option value` as a refusal lists them: "set --classes top (2: a, b), --classes leaf (...) or --classes level:N".
OPTION = re.compile(r"--(?:classes (?:top|leaf|level:N)|overwrite|fresh)")
FAST = ["--protocol", "knn", "--no-baselines", "--device", "cpu", "--limit", "24"]
SMOKE = ["smoke", "monitor=null", "data.limit=160", "--device", "cpu"]

#: Runs words in a folder; gives the exit status and all that was printed.
Run = Callable[[list[str], Path], tuple[int, str]]


class Journey:
    """Commands in one folder. What was printed can be followed.

    Args:
        run: how commands are run. folder: where. filled: words for the gaps of an advice, such as `ENCODER`.
    """

    def __init__(self, run: Run, folder: Path, **filled: str) -> None:
        self.run, self.folder, self.filled = run, folder, filled

    def type(self, *words: str, status: int = 0) -> str:
        """Run a command that ends with `status`; gives what it printed."""
        found, text = self.run([*words], self.folder)
        assert found == status, f"{shlex.join(words)} ended with {found}: {text}"
        return text

    def follow(self, text: str, *more: str) -> str:
        """Do all that `text` advises, commands with `more` words; at least one thing. Gives what was printed."""
        said = []
        for command in COMMAND.findall(" ".join(text.split("\n"))):
            said.append(self.type(*(self.filled.get(word, word) for word in shlex.split(command)), *more))
        for call in CALL.findall(text):
            said.append(self.type("python", "-c", f"import zoo; print({call}.num_features)"))
        assert said, f"nothing is advised in: {text}"
        return "\n".join(said)

    def mend(self, text: str, *words: str) -> list[str]:
        """Run a refused command again with each option that the refusal names; gives these options."""
        options = list(dict.fromkeys(OPTION.findall(text)))
        for number, option in enumerate(options):
            words_of_option = option.replace("level:N", "level:2").split()
            self.type(*words, *words_of_option, *([] if "--out" in words else ["--out", f"mended{number}"]))
        return options


def train_and_publish(run: Run, folder: Path) -> None:
    """A run elsewhere, its encoder, its publication, and both again."""
    journey = Journey(run, folder)
    done = journey.type("zoo", "train", *SMOKE, "epochs=1", "--out", "else/run")
    published = journey.follow(done)
    journey.follow(published)
    name = re.search(r"--name (\w+)", done)[1]
    refused = journey.type("zoo", "publish", "else/run", "--name", name, status=2)
    assert journey.mend(refused, "zoo", "publish", "else/run", "--name", name, "--out", "checkpoints") == [
        "--overwrite"
    ]
    again = journey.type("zoo", "publish", "else/run", "--name", name, "--out", "else/published")
    journey.follow(again)
    other = journey.type("zoo", "train", *SMOKE, "epochs=2", "--out", "else/run", status=1)
    assert journey.mend(other, "zoo", "train", *SMOKE, "epochs=1", "--out", "else/run") == ["--fresh"]
    journey.type("zoo", "mirror", "www")
    with serve_folder(folder / "www") as server:
        said = journey.type("zoo", "mirror", "www").replace("http://127.0.0.1:8000", server.url)
        journey.follow(said)


def stop_and_go_on(run: Run, folder: Path) -> None:
    """A run that is stopped holds no encoder; the error says how to get it."""
    journey = Journey(run, folder)
    stopped = journey.type("zoo", "train", *SMOKE, "epochs=900", "--minutes", "0.02", "--out", "else/long", status=1)
    assert "run the same command to go on" in stopped
    refused = journey.type("python", "-c", "import zoo; zoo.load('local-dir:else/long')", status=1)
    journey.follow(journey.follow(refused, "--device", "cpu"))


def pictures_of_every_kind(run: Run, folder: Path) -> None:
    """Folders in folders, then pictures without labels."""
    journey = Journey(run, folder, ENCODER="ssnas_cell_cifar10", PICTURES="flat")
    for number, path in enumerate(("a/x", "a/y", "b/x", "b/z")):
        for index in range(6):
            write_image(folder / "nested" / path / f"{index}.png", 10 * number + index)
    probe = ("zoo", "probe", "ssnas_cell_cifar10", "nested", *FAST)
    refused = journey.type(*probe, status=2)
    assert journey.mend(refused, *probe) == ["--classes top", "--classes leaf", "--classes level:N"]
    make_folder(folder / "flat", splits=(), classes=("",), per_class=8)
    looked = journey.follow(journey.type("zoo", "probe", "ssnas_cell_cifar10", "flat", status=2), "--device", "cpu")
    assert "report" in looked or ".html" in looked
    missing = journey.type("zoo", "search", "index", "flat/0.png", status=2)
    journey.follow(missing, "--device", "cpu")
    assert "0.png" in journey.type("zoo", "search", "index", "flat/0.png", "--device", "cpu")


JOURNEYS = (train_and_publish, stop_and_go_on, pictures_of_every_kind)
