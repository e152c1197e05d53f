"""Pages with long names and many classes are no wider than their window, legible, and as they say, in a browser."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evaluation.__main__ import main
from evaluation.report.hits import write_sheet
from evaluation.report.page import TEMPLATES
from tests.browser import browser, looked_at
from tests.zoo.checkpoints import write_small
from tests.zoo.feature_fixtures import tiny_encoder
from zoo import cli
from zoo.data.images import ImageSequence
from zoo.features.index import index
from zoo.features.search import search
from zoo.publish.site import TEMPLATE

CLASSES = 102


def write_pictures(data: Path, classes: int) -> Path:
    """Three pictures of noise of each class, two to train on."""
    noise = np.random.default_rng(0)
    for split, count in (("train", 2), ("test", 1)):
        for label in range(classes):
            place = data / split / f"{label:03d}_{('chrysanthemum' + '_' * (label % 2)) * (1 + label % 6)}"
            place.mkdir(parents=True)
            for number in range(count):
                Image.fromarray(noise.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(place / f"{number}.png")
    return data


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Report, comparison, suite, look and hits, of 102 classes with long names, some without a place to break."""
    folder = tmp_path_factory.mktemp("pages")
    addresses = []
    for seed, name in enumerate(("an_encoder_with_a_name_that_is_as_long_as_names_get", "second")):
        write_small(folder / name, seed=seed)
        addresses.append(f"local-dir:{folder / name}")
    data, few = write_pictures(folder / "pictures", CLASSES), write_pictures(folder / "few", 2)
    options = ["--protocol", "knn", "--quiet", "--initialisations", "1"]
    assert main([*addresses, str(few), *options, "--no-baselines", "--out", str(folder / "beside")]) == 0
    assert main([addresses[0], str(data), *options, "--out", str(folder / "report")]) == 0
    suite = ["--suite", "downstream", "--data-root", str(folder / "none"), *options]
    assert main([addresses[0], str(data), *suite, "--out", str(folder / "suite")]) == 0
    assert cli.main(["look", addresses[0], str(data), "--out", str(folder / "look"), "-q"]) == 0
    pictures = ImageSequence([str(path) for path in sorted(data.rglob("*.png"))[:12]])
    encoder = tiny_encoder()
    index(encoder, pictures, folder / "index")
    write_sheet(search(folder / "index", pictures, 5, encoder=encoder), folder / "hits.html")
    names = ("beside/compare", "report/report", "suite/report", "look/look", "hits")
    return [folder / f"{name}.html" for name in names]


@browser
def test_no_page_is_wider_than_its_window(pages, tmp_path):
    opened = 'document.querySelectorAll("details").forEach(d => { d.open = true; })'
    windows = [(page, "", width) for page in pages for width in (1200, 760, 400)]
    for (page, _, width), said in zip(windows, looked_at(windows, tmp_path, opened, "h: 1"), strict=True):
        assert said["inner"] == width and said["wide"] <= width, f"{page} is {said['wide']} px wide in {width} px"


@browser
def test_a_class_chosen_in_the_legend_is_seen_alone(pages, tmp_path):
    (page,) = (path for path in pages if path.name == "look.html")
    choose = """if (location.hash) document.querySelector(`input[value="${location.hash.slice(2)}"]`).click()"""
    found = """of: document.querySelectorAll(".point").length,
        seen: [...document.querySelectorAll(".point")].filter(p => getComputedStyle(p).opacity > 0.5).length,
        own: document.querySelectorAll(".point.g101").length"""
    every, one = looked_at([(page, "", 1200), (page, "#g101", 1200)], tmp_path, choose, found)
    assert every["seen"] == every["of"] == 3 * CLASSES and one["seen"] == one["own"] == 3


def contrast(one: str, other: str) -> float:
    """The ratio of WCAG 2 between two colours such as `#1b1f24`."""

    def light(colour: str) -> float:
        digits = colour.lstrip("#")
        digits = "".join(2 * digit for digit in digits) if len(digits) == 3 else digits
        parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
        parts = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return float(np.dot(parts, (0.2126, 0.7152, 0.0722)))

    lights = sorted((light(one), light(other)))
    return (lights[1] + 0.05) / (lights[0] + 0.05)


@pytest.mark.parametrize("file", [TEMPLATES / "style.css", TEMPLATE], ids=["reports", "site"])
def test_words_stand_out_from_what_is_behind_them_in_light_and_dark(file):
    light, _, dark = file.read_text(encoding="utf-8").partition("@media (prefers-color-scheme: dark)")
    for part in (light, dark.partition("}")[0]):
        colours = dict(re.findall(r"--([\w-]+): (#\w+)", part))
        for words in ("text", "quiet", "accent"):
            for behind in ("back", "panel"):
                assert contrast(colours[words], colours[behind]) >= 4.5, f"{words} on {behind} in {file.name}"
    assert contrast("#000", "#ffffff") == pytest.approx(21) and contrast("#777", "#fff") < 4.5
