"""Pages with long names and many classes are no wider than their window, on a desk and on a phone."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from evaluation.__main__ import main
from evaluation.report.hits import write_sheet
from tests.browser import browser, looked_at
from tests.zoo.checkpoints import write_small
from tests.zoo.feature_fixtures import tiny_encoder
from zoo import cli
from zoo.data.images import ImageSequence
from zoo.features.index import index
from zoo.features.search import search

CLASSES = 34


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Report, comparison, suite, look and hits, of 34 classes with long names without a place to break."""
    folder = tmp_path_factory.mktemp("pages")
    addresses = []
    for seed, name in enumerate(("an_encoder_with_a_name_that_is_as_long_as_names_get", "second")):
        write_small(folder / name, seed=seed)
        addresses.append(f"local-dir:{folder / name}")
    noise = np.random.default_rng(0)
    data = folder / "pictures"
    for split, count in (("train", 4), ("test", 2)):
        for label in range(CLASSES):
            place = data / split / f"{label:02d}_{'chrysanthemum' * (1 + label % 4)}"
            place.mkdir(parents=True)
            for number in range(count):
                Image.fromarray(noise.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(place / f"{number}.png")
    options = ["--protocol", "knn", "--quiet"]
    assert main([*addresses, str(data), *options, "--initialisations", "1", "--out", str(folder / "beside")]) == 0
    suite = ["--suite", "downstream", "--data-root", str(folder / "none"), "--no-baselines", *options]
    assert main([addresses[0], str(data), *suite, "--out", str(folder / "suite")]) == 0
    assert cli.main(["look", addresses[0], str(data), "--out", str(folder / "look"), "-q"]) == 0
    pictures = ImageSequence([str(path) for path in sorted(data.rglob("*.png"))[:12]])
    encoder = tiny_encoder()
    index(encoder, pictures, folder / "index")
    write_sheet(search(folder / "index", pictures, 5, encoder=encoder), folder / "hits.html")
    return [path for path in sorted(folder.rglob("*.html")) if "second" not in str(path)]


@browser
def test_no_page_is_wider_than_its_window(pages, tmp_path):
    kinds = {path.parent.name + "/" + path.name for path in pages}
    assert len(kinds) >= 5, kinds
    opened = 'document.querySelectorAll("details").forEach(d => { d.open = true; })'
    windows = [(page, "", width) for page in pages for width in (1200, 400)]
    for (page, _, width), said in zip(windows, looked_at(windows, tmp_path, opened, "h: 1"), strict=True):
        assert said["inner"] == width and said["wide"] <= width, f"{page} is {said['wide']} px wide in {width} px"
