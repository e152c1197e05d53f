"""Figures: readable PNGs of sane size, the same for the same seed, and true to the data they show."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
from PIL import Image

from evaluation.report.drawing import class_name
from evaluation.report.maps import _look, _spread, confusion, embedding_map, score_chart
from evaluation.report.neighbours import nearest_neighbours
from tests.evaluation.test_report import row, rows
from zoo.data.base import Dataset
from zoo.errors import DataError

HOSTILE = ("<b>$\\frac{$", "a" * 300, "line\nbreak", "", "ユニコード")


class Coloured(Dataset):
    """Images of one colour each, of class `index % classes`, that count how often they are read."""

    def __init__(self, count: int, classes: int = 3, size: tuple[int, int] = (32, 32), modality: str = "image") -> None:
        self.name, self.split, self.modality, self.size = "coloured", "test", modality, size
        self.keys = [str(i) for i in range(count)]
        self.labels = np.arange(count) % classes
        self.read: list[int] = []

    def sample(self, index: int) -> Image.Image:
        self.read.append(index)
        return Image.new(
            "L" if index % 2 else "RGB", self.size, 10 * index % 256 if index % 2 else (index % 256, 80, 160)
        )


def opened(figure) -> Image.Image:
    image = Image.open(io.BytesIO(figure.png))
    image.load()
    assert image.format == "PNG"
    assert 200 <= image.width <= 2000
    assert 150 <= image.height <= 2500
    assert figure.caption
    assert figure.alt
    return image


def clusters(count: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    centres = generator.normal(size=(classes, 16)) * 3
    return (centres[labels] + generator.normal(size=(count, 16))).astype(np.float32), labels


def sheet(train: Dataset, test: Dataset, train_labels=None, test_labels=None, **options):
    x, _ = clusters(len(train), 3)
    y, _ = clusters(len(test), 3)
    return nearest_neighbours(x, train_labels, train, y, test_labels, test, HOSTILE, **options)


def test_sheet_reads_exactly_the_nearest_samples_by_cosine():
    train, test = Coloured(40), Coloured(12)
    x, _ = clusters(40, 3, seed=1)
    x *= np.linspace(0.01, 100, 40)[:, None].astype(np.float32)
    y, _ = clusters(12, 3, seed=2)
    figure = nearest_neighbours(x, train.labels, train, y, test.labels, test, HOSTILE, queries=4, neighbours=3)
    assert len(test.read) == 4
    agreeing = 0
    for place, query in enumerate(test.read):
        cosine = [float(a @ y[query] / np.linalg.norm(a) / np.linalg.norm(y[query])) for a in x]
        best = sorted(range(40), key=lambda i: -cosine[i])[:3]
        assert train.read[3 * place : 3 * place + 3] == best
        agreeing += sum(train.labels[i] == test.labels[query] for i in best)
    assert f"{agreeing} of 12 neighbours" in figure.caption
    assert "at random (seed 0)" in figure.caption
    opened(figure)


def test_sheet_depends_on_the_seed_alone():
    train, test = Coloured(30), Coloured(30)
    first, again, other = (sheet(train, test, train.labels, test.labels, queries=3, seed=s) for s in (0, 0, 1))
    assert first.png == again.png
    assert first.png != other.png


def test_sheet_marks_agreement_by_colour():
    train, test = Coloured(9, classes=1), Coloured(9, classes=1)

    def has(figure, colour):
        pixels = np.asarray(opened(figure).convert("RGB")).reshape(-1, 3)
        return bool((pixels == colour).all(axis=1).any())

    green, orange = (0x00, 0x7A, 0x5A), (0xC4, 0x46, 0x01)
    same = sheet(train, test, train.labels, test.labels, queries=2, neighbours=2)
    other = sheet(train, test, train.labels, test.labels + 1, queries=2, neighbours=2)
    unknown = sheet(train, test, None, None, queries=2, neighbours=2)
    assert [(has(f, green), has(f, orange)) for f in (same, other, unknown)] == [
        (True, False), (False, True), (False, False),
    ]  # fmt: skip
    assert "share the class" not in unknown.caption


def test_small_images_stay_crisp():
    class Checks(Coloured):
        def sample(self, index):
            return Image.fromarray((np.indices((8, 8)).sum(axis=0) % 2 * 255).astype(np.uint8))

    image = opened(sheet(Checks(4), Checks(4), queries=1, neighbours=1))
    query = np.asarray(image.convert("L"))[60:150, 30:120]
    assert np.isin(query, (0, 255)).mean() > 0.99


@pytest.mark.parametrize("size", [(1, 1), (300, 20), (500, 700)])
def test_sheet_takes_images_of_any_size(size):
    opened(sheet(Coloured(5, size=size), Coloured(5, size=size), queries=2, neighbours=2))


def test_a_sample_is_not_its_own_neighbour():
    data = Coloured(6)
    x, _ = clusters(6, 3)
    nearest_neighbours(x, data.labels, data, x, data.labels, data, queries=2, neighbours=9)
    for query in (data.read[:6], data.read[6:]):
        assert sorted(query) == list(range(6))


def test_sheet_skips_skeletons_and_refuses_tables_of_other_data():
    assert sheet(Coloured(4, modality="skeleton"), Coloured(4, modality="skeleton")) is None
    with pytest.raises(DataError, match="3 features for 4 samples"):
        nearest_neighbours(np.ones((3, 2)), None, Coloured(4), np.ones((4, 2)), None, Coloured(4))


@pytest.mark.parametrize("classes", [2, 12, 100])
def test_map_is_drawn_for_few_and_many_classes(classes):
    x, labels = clusters(200, classes)
    figure = embedding_map(x, labels, HOSTILE)
    opened(figure)
    assert "t-SNE" in figure.caption


def test_map_depends_on_the_seed_and_draws_at_most_the_points_asked_for():
    x, labels = clusters(120, 3)
    first, again, other = (embedding_map(x, labels, ("a", "b", "c"), points=60, seed=s) for s in (0, 0, 1))
    assert first.png == again.png
    assert first.png != other.png
    assert "60 samples" in first.caption


def test_map_of_unlabelled_or_unmappable_features():
    x, labels = clusters(40, 2)
    figure = embedding_map(x, None)
    opened(figure)
    assert "labels" not in figure.caption
    assert embedding_map(np.ones((50, 4)), None) is None
    assert embedding_map(x[:4], labels[:4]) is None
    opened(embedding_map(x[:, :1], labels))
    opened(embedding_map(x[:5], labels[:5]))
    x[3, 3] = np.nan
    with pytest.raises(DataError, match="NaN"):
        embedding_map(x, labels)


def test_hundred_classes_have_a_hundred_looks():
    assert len({_look(index) for index in range(100)}) == 100


def test_names_on_the_map_do_not_cover_each_other():
    sizes = np.tile([0.2, 0.055], (12, 1))
    places = _spread(np.full((12, 2), 0.5) + np.arange(12)[:, None] * 1e-3, sizes)
    for i in range(12):
        for j in range(i):
            assert (np.abs(places[i] - places[j]) >= sizes[0] - 1e-3).any()
    assert (places >= sizes / 2 - 1e-9).all()
    assert (places <= 1 - sizes / 2 + 1e-9).all()


def test_confusion_names_the_commonest_mistake():
    true, predicted = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 1, 1, 1, 1, 0])
    figure = confusion(true, predicted, ("cat", "dog", "owl"), title="knn-v2")
    opened(figure)
    assert "cat, taken for dog 2 of 3 times" in figure.caption
    assert figure.png == confusion(true, predicted, ("cat", "dog", "owl"), title="knn-v2").png


@pytest.mark.parametrize("classes", [2, 30])
def test_confusion_is_drawn_up_to_30_classes(classes):
    labels = np.arange(classes)
    opened(confusion(labels, labels, HOSTILE[:classes]))
    assert confusion(np.arange(31), np.arange(31)) is None
    assert confusion(labels[:0], labels[:0]) is None


def test_score_chart_tells_every_number_in_words():
    figure = score_chart(rows(), "simclr")
    opened(figure)
    assert re.findall(r"(\d+\.\d) %", figure.alt) == ["71.3", "40.1", "39.0", "66.5", "33.0", "34.5"]
    assert score_chart([row(metrics={})]) is None
    assert figure.png == score_chart(rows(), "simclr").png


def test_bars_are_as_long_as_the_numbers():
    def blue(value: float) -> int:
        image = np.asarray(opened(score_chart([row(value=value, half=0.0)])).convert("RGB"))
        return int((image == (0x0B, 0x62, 0xA4)).all(axis=2).sum(axis=1).max())

    assert blue(0.8) / blue(0.4) == pytest.approx(2, rel=0.03)


def test_matplotlib_settings_of_the_user_neither_matter_nor_change():
    import matplotlib

    plain = score_chart(rows()).png
    with matplotlib.rc_context({"text.color": "red", "font.size": 30, "figure.facecolor": "black"}):
        assert score_chart(rows()).png == plain
        assert matplotlib.rcParams["font.size"] == 30


def test_class_names_are_cut_to_one_short_line():
    assert class_name(("a\nb",), 0, 10) == "a b"
    assert class_name(("x" * 50,), 0, 10) == "x" * 9 + "…"
    assert class_name((), 7, 10) == "class 7"
