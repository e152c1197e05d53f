"""Names from disk with markup in them go through the whole probe command: shown on page and terminal, never obeyed."""

from __future__ import annotations

import os

import pytest

from tests.data_fixtures import write_image
from tests.evaluation.test_report import Page
from tests.zoo.checkpoints import write_small
from zoo import cli

#: What a file system lets a name hold: all but a slash, so that closing tags are left out.
SCRIPT = "<script>alert(1)<script>"
IMAGE = "<img src=x onerror=alert(2)>"
ENTITY = "&lt;b&gt; \"'`|[red]{{7*7}}"
ESCAPE = "\x1b[31mred\u202eevil\x07"


@pytest.mark.skipif(os.name != "posix", reason="such names exist on POSIX file systems only")
def test_names_with_markup_through_the_whole_probe_command(tmp_path, capfd):
    data, out, model = tmp_path / IMAGE, tmp_path / "report", tmp_path / "model"
    write_small(model)
    seed = 0
    for split in ("train", "test"):
        for name in (SCRIPT, ENTITY, ESCAPE):
            for i in range(6):
                write_image(data / split / name / f"{IMAGE}{i}.png", seed)
                seed += 1
    status = cli.main(["probe", f"local-dir:{model}", str(data), "--out", str(out), "--protocol", "knn", "--no-floors"])
    said = capfd.readouterr()
    assert status == 0, said.err
    for text in (said.out, said.err, (out / "report.html").read_text(encoding="utf-8")):
        assert "\x1b" not in text and "\u202e" not in text and "\x07" not in text
    page = Page((out / "report.html").read_text(encoding="utf-8"))
    assert not {"script", "iframe", "object", "embed", "base", "link", "b"} & set(page.tags)
    assert not [each for each in page.attributes if each[1].startswith("on")]
    assert all(value.startswith("data:image/png;base64,") for _, name, value in page.attributes if name == "src")
    shown = "".join(page.text)
    assert IMAGE in shown, "the dataset has its name on the page, as text"
