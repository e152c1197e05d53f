"""Figures: readable PNGs of sane size, the same for the same seed, and true to the data they show."""

from __future__ import annotations

import contextlib
import importlib
import io
import re

import numpy as np
import pytest
from PIL import Image

from evaluation.report.confused import class_rows, wrong_pairs
from evaluation.report.confusion import confusion, counts_of, worst_part
from evaluation.report.drawing import class_name, wrapped
from evaluation.report.maps import _look, _numbers, _spread, embedding_map, score_chart
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
    assert 150 <= image.height <= 3000
    assert figure.caption
    assert figure.alt
    return image


@contextlib.contextmanager
def drawn(monkeypatch, module: str):
    """The canvases that a module of the report makes PNG files of."""
    module = importlib.import_module(f"evaluation.report.{module}")
    sheets, save = [], module.png
    monkeypatch.setattr(
        module, "png", lambda sheet, *args, **options: sheets.append(sheet) or save(sheet, *args, **options)
    )
    yield sheets


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
    assert f"{agreeing} of 12 on this sheet" in figure.caption
    assert "at random (seed 0)" in figure.caption
    opened(figure)


def test_each_query_says_how_many_of_its_neighbours_share_its_class_and_names_stand_whole(monkeypatch):
    train, test = Coloured(40), Coloured(12)
    x, y = clusters(40, 3, seed=1)[0], clusters(12, 3, seed=2)[0]
    names = ("oxeye_daisy_of_the_northern_meadows", "a name with words that are short", "n" * 100)
    with drawn(monkeypatch, "neighbours") as sheets:
        figure = nearest_neighbours(x, train.labels, train, y, test.labels, test, names, queries=4, neighbours=3)
    opened(figure)
    hits = [text.get_text() for text in sheets[0].texts if re.fullmatch(r"\d of 3", text.get_text())]
    assert len(hits) == 4 and f"{sum(int(text[0]) for text in hits)} of 12 on this sheet" in figure.caption
    shown = {axes.get_xlabel().replace("\n", "") for axes in sheets[0].axes} - {""}
    assert shown <= {name.replace(" ", "") for name in names} | set(names) | {"a name withwords that areshort"}
    assert max(len(line) for axes in sheets[0].axes for line in axes.get_xlabel().split("\n")) <= 15


@pytest.mark.parametrize(
    "name, lines",
    [
        ("rose", ["rose"]),
        ("", [""]),
        ("hard-leaved_pocket_orchid", ["hard-leaved_", "pocket_orchid"]),
        ("two words here now", ["two words here", "now"]),
        ("n" * 33, ["n" * 15, "n" * 15, "nnn"]),
        ("a " + "n" * 20, ["a", "n" * 15, "nnnnn"]),
    ],
)
def test_names_are_broken_where_they_can_be_and_lose_nothing(name, lines):
    assert wrapped(name, 15).split("\n") == lines


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


def test_the_numbers_on_a_map_of_many_classes_are_those_of_its_legend(monkeypatch):
    x, labels = clusters(210, 102)
    names = [f"a_flower_with_quite_a_long_name_{index}" for index in range(102)]
    with drawn(monkeypatch, "maps") as sheets:
        opened(embedding_map(x, labels, names))
    (axes,) = sheets[0].axes
    legend = [text.get_text().replace("\n", "") for text in axes.get_legend().get_texts()]
    assert legend == [f"{number}  {name}" for number, name in enumerate(names, 1)]
    assert [text.get_text() for text in axes.texts] == [str(number) for number in range(1, 103)]
    frame = sheets[0].bbox
    box = axes.get_legend().get_window_extent()
    assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= frame.width, "the legend leaves the picture"


@pytest.mark.parametrize(
    "names, numbers",
    [
        (["036_cape_flower", "001_rose", "002.iris"], [36, 1, 2]),
        (["036_cape_flower", "rose"], [1, 2]),
        (["1_a", "1_b"], [1, 2]),
        (["7", "8"], [1, 2]),
        ([], []),
    ],
)
def test_classes_keep_the_numbers_that_their_names_begin_with(names, numbers):
    assert _numbers(names) == numbers


def test_few_classes_with_names_that_would_cover_the_samples_are_numbered(monkeypatch):
    x, labels = clusters(60, 3)
    names = ["short", "chrysanthemum_" * 6, "rose"]
    with drawn(monkeypatch, "maps") as sheets:
        opened(embedding_map(x, labels, names))
    (axes,) = sheets[0].axes
    legend = [text.get_text().replace("\n", "") for text in axes.get_legend().get_texts()]
    assert legend == ["1  short", f"2  {names[1]}", "3  rose"]


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


def test_102_classes_have_102_looks():
    assert len({_look(index) for index in range(102)}) == 102


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
def test_confusion_is_drawn_whole_up_to_30_classes(classes):
    labels = np.arange(classes)
    figure = confusion(labels, labels, HOSTILE[:classes])
    opened(figure)
    assert figure.alt == f"Confusion matrix of {classes} classes."
    assert confusion(labels[:0], labels[:0]) is None


def test_of_more_classes_the_worst_part_is_drawn(monkeypatch):
    # Class 90 is taken for 7 three times, 41 for 40 once; ten samples of 7 are right.
    true = np.array([90, 90, 90, 41, *[7] * 10, *range(100)])
    predicted = np.array([7, 7, 7, 40, *[7] * 10, *range(100)])
    names = [f"flower_with_a_long_name_{index}" for index in range(102)]
    with drawn(monkeypatch, "confusion") as sheets:
        figure = confusion(true, predicted, names)
    opened(figure)
    assert "flower_with_a_long_name_90, taken for flower_with_a_long_name_7 3 of 4 times" in figure.caption
    assert "Of 102 classes, the 20 that take part in most confusions" in figure.caption
    (axes,) = sheets[0].axes
    rows = [label.get_text().replace("\n", "") for label in axes.get_yticklabels()]
    columns = [label.get_text().replace("\n", "") for label in axes.get_xticklabels()]
    assert len(rows) == 20 and columns == [*rows, "any of 82 others"]
    assert {names[label] for label in (7, 40, 41, 90)} <= set(rows)
    cells = {(rows[int(t.get_position()[1])], columns[int(t.get_position()[0])]): t.get_text() for t in axes.texts}
    assert (
        cells[names[90], names[7]] == "3" and cells[names[7], names[7]] == "11" and cells[names[41], names[40]] == "1"
    )


def test_long_names_beside_a_matrix_take_two_lines_that_can_be_read(monkeypatch):
    names = ["rose", "chrysanthemum_" * 6, "lily"]
    with drawn(monkeypatch, "confusion") as sheets:
        opened(confusion(np.arange(3), np.arange(3), names))
    labels = sheets[0].axes[0].get_yticklabels()
    assert [label.get_text().replace("\n", "") for label in labels] == names
    assert labels[1].get_text().count("\n") == 1 and labels[1].get_fontsize() == 8


def test_the_worst_part_counts_what_was_taken_for_any_other_class():
    true, predicted = np.array([0, 0, 1, 2]), np.array([1, 3, 0, 2])
    pairs, times = wrong_pairs(true, predicted)
    assert worst_part(pairs, times, 4, size=2).tolist() == [0, 1]
    assert counts_of(true, predicted, np.array([0, 1])).tolist() == [[0, 1, 1], [1, 0, 0]]


def test_a_million_classes_cost_no_more_than_their_samples():
    true, predicted = np.array([5, 999_999]), np.array([999_999, 999_999])
    figure = confusion(true, predicted)
    opened(figure)
    assert "Of 1,000,000 classes" in figure.caption and "class 5, taken for class 999999 1 of 1 times" in figure.caption
    assert [row.taken_for for row in class_rows(true, predicted)] == ["class 999999", ""]


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
