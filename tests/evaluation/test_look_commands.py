"""`zoo look`, `zoo index` and `zoo search` as a person types them, and the sheets they write."""

from __future__ import annotations

import json
import re

import pytest
from PIL import Image

from evaluation.report.hits import write_sheet
from tests.data_fixtures import make_folder
from tests.evaluation.test_report import Page
from tests.zoo.checkpoints import write_small
from tests.zoo.feature_fixtures import tiny_encoder
from zoo import cli
from zoo.data.images import ImageSequence
from zoo.errors import DataError
from zoo.features.extract import extract
from zoo.features.index import index
from zoo.features.search import search


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("place")
    write_small(folder / "catalogue" / "simclr_small_toys")
    make_folder(folder / "pictures", per_class=6)
    flat = folder / "flat"
    flat.mkdir()
    for i, path in enumerate(sorted((folder / "pictures").rglob("*.png"))[:7]):
        (flat / f"{i}.png").write_bytes(path.read_bytes())
    return folder


@pytest.fixture
def zoo_command(place, monkeypatch, capsys):
    """Run `zoo ARGUMENTS`; gives exit status, stdout, stderr."""
    monkeypatch.setenv("ZOO_CHECKPOINTS", str(place / "catalogue"))

    def run(*arguments: object) -> tuple[int, str, str]:
        return cli.main([str(each) for each in arguments]), *capsys.readouterr()

    return run


def test_look_takes_all_splits_and_says_what_it_found(zoo_command, place, tmp_path):
    status, out, err = zoo_command("look", "simclr_small_toys", place / "pictures", "--out", tmp_path, "--quiet")
    assert status == 0, err
    assert "24 pictures: 0 groups of near-duplicates (0 pairs across splits)" in out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["look.html", "samples.csv"]


def test_look_needs_no_labels_and_writes_a_table(zoo_command, place, tmp_path):
    status, out, err = zoo_command(
        "look", "simclr_small_toys", place / "flat", "--out", tmp_path, "--table", tmp_path / "s.csv", "-q"
    )
    assert status == 0, err
    assert out.startswith("7 pictures: ") and (tmp_path / "s.csv").exists()
    assert "The pictures have no labels" in (tmp_path / "look.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("data", ["flat", "unlabelled"])
def test_probe_without_labels_leads_to_look(zoo_command, place, data):
    if data == "unlabelled":
        for split in ("train", "test"):
            (place / data / split).mkdir(parents=True, exist_ok=True)
            for path in (place / "flat").iterdir():
                (place / data / split / path.name).write_bytes(path.read_bytes())
    status, _, err = zoo_command("probe", "simclr_small_toys", place / data)
    assert status == 2 and "zoo look" in err


def test_index_and_search_from_the_command_line(zoo_command, place, tmp_path):
    made = ("index", "simclr_small_toys", place / "pictures", "--split", "train", "--out", tmp_path / "index", "-q")
    assert "12 pictures; 12 added, 0 there already" in zoo_command(*made)[1]
    assert "12 pictures; 0 added, 12 there already" in zoo_command(*made)[1]
    query = place / "pictures" / "train" / "dog" / "3.png"
    status, out, err = zoo_command("search", tmp_path / "index", query, "-k", 2)
    assert status == 0, err
    assert out.splitlines()[0] == f"1.0000  {query}  {query}" and len(out.splitlines()) == 2
    for name in ("hits.html", "hits.png", "hits.json"):
        status, out, err = zoo_command("search", tmp_path / "index", place / "flat", "--out", tmp_path / name)
        assert status == 0 and out == f"wrote {tmp_path / name}\n", err
    assert len(json.loads((tmp_path / "hits.json").read_text())) == 70
    status, _, err = zoo_command("search", tmp_path / "index", query, place / "flat")
    assert status == 2 and "flat is no picture file" in err
    status, _, err = zoo_command("search", tmp_path / "index", query, "--out", tmp_path / "hits.txt")
    assert status == 2 and "not '.txt'" in err
    status, _, err = zoo_command("search", tmp_path, query)
    assert status == 2 and "holds no index" in err


@pytest.fixture(scope="module")
def hits(place):
    encoder = tiny_encoder()
    files = sorted((place / "flat").iterdir())
    named = [*files, place / "<script>.png"]
    named[-1].write_bytes(files[0].read_bytes())
    index(encoder, ImageSequence([str(path) for path in named]), place / "own")
    found = search(place / "own", [Image.open(files[1]), str(named[-1])], 3, encoder=encoder)
    (place / "flat" / "0.png").rename(place / "flat" / "gone.png")
    return found


def test_a_sheet_of_hits_is_self_contained_and_survives_gone_files(hits, tmp_path):
    text = write_sheet(hits, tmp_path / "new" / "hits.html").read_text(encoding="utf-8")
    parsed = Page(text)
    assert "script" not in parsed.tags and len(re.findall("<figure>", text)) == 8
    assert all(value.startswith("data:image/") for _, name, value in parsed.attributes if name == "src")
    picture = Image.open(write_sheet(hits, tmp_path / "hits.png"))
    assert picture.format == "PNG" and picture.width > picture.height


def test_a_sheet_refuses_vectors_and_other_formats(hits, place, tmp_path):
    with pytest.raises(DataError, match=r"\.html or \.png, not '\.gif'"):
        write_sheet(hits, tmp_path / "hits.gif")
    alone = search(place / "own", extract(tiny_encoder(), [Image.new("RGB", (16, 16))]), 1)
    with pytest.raises(DataError, match="found with vectors alone"):
        write_sheet(alone, tmp_path / "hits.png")
    assert list(tmp_path.iterdir()) == []
