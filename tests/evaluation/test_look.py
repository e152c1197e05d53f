"""`look`: planted faults are found, numbers follow their formulas, bad input gets a sentence instead of a crash."""

from __future__ import annotations

import csv
import json
import re

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from evaluation.look import look
from evaluation.look.clusters import clusters
from evaluation.look.duplicates import likeness, near_duplicates, thumbnails_of
from evaluation.look.labels import MOST_CLASSES, check_labels, overlaps
from evaluation.look.outliers import outliers
from evaluation.look.statistics import covering, spectrum
from evaluation.report.maps import map_places
from tests.evaluation.test_report import Page
from tests.zoo.feature_fixtures import tiny_encoder
from zoo.data.images import ArrayImages, ImageSequence
from zoo.errors import DataError


def blobs(classes: int = 3, each: int = 40, width: int = 16, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features in well separated groups, and the group of each."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), each)
    centres = 4 * np.eye(width)[:classes]
    return (centres[labels] + 0.3 * rng.normal(size=(len(labels), width))).astype(np.float32), labels


def scenes(count: int, side: int = 48, seed: int = 0) -> np.ndarray:
    """uint8 `(count, side, side, 3)`: soft random pictures with structure at every scale, as photographs have."""
    rng = np.random.default_rng(seed)
    made = np.zeros((count, side, side, 3))
    for cells in (3, 6, 12, 24):
        coarse = rng.normal(size=(count, cells, cells, 3)).astype(np.float32)
        grown = [
            np.stack([np.asarray(Image.fromarray(c[..., i]).resize((side, side), 3)) for i in range(3)], -1)
            for c in coarse
        ]
        made += np.stack(grown)
    made = (made - made.min()) / np.ptp(made)
    return (255 * made).astype(np.uint8)


# --- numbers -----------------------------------------------------------------------------------------------------


def test_effective_rank_and_rankme_follow_their_formulas():
    x = np.random.default_rng(0).normal(size=(60, 7)) @ np.diag([9, 4, 2, 1, 0.5, 0.1, 0]) + 3
    x = x.astype(np.float32)
    found = spectrum(x)
    for value, table, epsilon in ((found.effective_rank, x - x.mean(0), 0), (found.rankme, x, 1e-7)):
        s = np.linalg.svd(table.astype(np.float64), compute_uv=False)
        p = s / s.sum() + epsilon
        p = p[p > 0]
        assert value == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-3)
    assert found.constant == 1


def test_rank_of_known_features():
    assert spectrum(np.eye(5, dtype=np.float32)).rankme == pytest.approx(5, rel=1e-4)
    constant = spectrum(np.full((30, 4), 0.1, dtype=np.float32))
    assert constant.effective_rank == 0 and constant.constant == 4
    assert constant.rankme == pytest.approx(1, abs=1e-4)


def test_density_and_coverage_against_a_slow_loop():
    rng = np.random.default_rng(1)
    first, second = rng.normal(size=(40, 5)).astype(np.float32), rng.normal(size=(25, 5)).astype(np.float32)
    x, y = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in (first, second))
    k, inside, covered = 3, 0, set()
    for i in range(len(x)):
        radius = sorted(np.linalg.norm(x[i] - x[j]) for j in range(len(x)) if j != i)[k - 1]
        near = [j for j in range(len(y)) if np.linalg.norm(x[i] - y[j]) <= radius]
        inside += len(near)
        covered |= {i} if near else set()
    found = covering(first, second, k)
    assert found.density == pytest.approx(inside / (k * len(y)))
    assert found.coverage == pytest.approx(len(covered) / len(x))
    assert set(found.uncovered.tolist()) == set(range(40)) - covered


def test_coverage_tells_a_missing_kind_from_a_fair_draw():
    x, labels = blobs(each=60)
    draw, _ = blobs(each=60, seed=5)
    fair, partial = covering(x, draw), covering(x, draw[labels < 2])
    assert fair.coverage == pytest.approx(fair.expected, abs=0.08)
    assert fair.density == pytest.approx(1, abs=0.25)
    assert partial.coverage < 0.75
    assert (labels[partial.uncovered[:40]] == 2).all()


# --- planted faults ----------------------------------------------------------------------------------------------

CHANGES = {
    "exact": lambda image: image,
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.2),
    "smaller": lambda image: image.resize((36, 36), Image.Resampling.BICUBIC),
    "mirrored": ImageOps.mirror,
    "cropped": lambda image: image.resize(image.size, Image.Resampling.BICUBIC, box=(2, 4, 44, 46)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_is_a_near_duplicate_and_other_pictures_are_not(change):
    pictures = scenes(30)
    copies = [CHANGES[change](Image.fromarray(pictures[i])) for i in (3, 17, 22)]
    shades = thumbnails_of(ImageSequence([*map(Image.fromarray, pictures), *copies]))
    # Features that know nothing but which picture came first: every copy is a candidate, and so are strangers.
    features = np.random.default_rng(0).normal(size=(33, 8)).astype(np.float32)
    features[30:] = features[[3, 17, 22]] + 0.01
    found = near_duplicates(features, shades)
    assert {tuple(pair) for pair in found.pairs.tolist()} == {(3, 30), (17, 31), (22, 32)}
    assert sorted(map(tuple, (group.tolist() for group in found.groups()))) == [(3, 30), (17, 31), (22, 32)]
    assert found.across(np.repeat([0, 1], [30, 3])).all()


def test_many_copies_of_one_picture_are_one_group():
    pictures = scenes(40)
    pictures[5:25] = pictures[5]
    features = np.random.default_rng(0).normal(size=(40, 8)).astype(np.float32)
    features[5:25] = features[5]
    found = near_duplicates(features, thumbnails_of(ArrayImages("toys", "all", pictures, None)))
    assert [group.tolist() for group in found.groups()] == [list(range(5, 25))]


def test_pictures_without_structure_are_like_themselves_alone():
    grey = np.stack([np.full((32, 32), shade, dtype=np.uint8) for shade in (90, 90, 200)])
    assert likeness(grey[:2], grey[1:]).tolist() == [1.0, 0.0]


def test_foreign_samples_are_the_outliers():
    x, _ = blobs(each=50)
    far = np.random.default_rng(2).normal(size=(4, 16)).astype(np.float32)
    far[:, :3] = 0
    found = outliers(np.concatenate([x, far]))
    assert set(found.order[:4].tolist()) == {150, 151, 152, 153}
    assert set(found.flagged[:4].tolist()) == {150, 151, 152, 153}
    assert len(found.flagged) <= 12
    assert (np.diff(found.score[found.order]) <= 0).all()


def test_clusters_are_the_groups_and_start_at_their_centres():
    x, labels = blobs()
    found = clusters(x, 3)
    assert len(found) == 3
    for rows in found.nearest:
        assert len(set(labels[rows].tolist())) == 1
        unit = x[rows] / np.linalg.norm(x[rows], axis=1, keepdims=True)
        distance = np.linalg.norm(unit - unit.mean(axis=0), axis=1)
        assert (np.diff(distance) >= -1e-5).all()
    assert len(clusters(np.repeat(x[:2], 20, axis=0), 10)) == 2


def test_swapped_labels_are_suspected_with_the_right_class():
    x, labels = blobs(each=150)
    swapped = np.random.default_rng(4).permutation(450)[:28]
    given = labels.copy()
    given[swapped] = (labels[swapped] + np.arange(28) % 2 + 1) % 3
    found = check_labels(x, given)
    hits = np.isin(found.suspected, swapped)
    assert hits.sum() >= 18 and hits.mean() >= 0.95
    assert (found.instead == labels[found.suspected])[hits].all()
    assert (np.diff(found.given_probability[found.suspected]) >= 0).all()
    assert set(np.argsort(found.given_probability)[:28].tolist()) == set(swapped.tolist())
    assert set(swapped.tolist()) <= set(found.confidently_wrong.tolist())
    assert len(check_labels(x, labels).suspected) == 0


def test_overlapping_classes_are_named_first():
    x, labels = blobs(classes=4, each=80)
    x[labels == 3] = x[labels == 2][::-1] + 0.01
    first = overlaps(check_labels(x, labels))[0]
    assert (first.first, first.second) == (2, 3)
    assert first.share > 0.3 and first.times == round(first.share * 160)


def test_class_indices_may_have_gaps():
    x, labels = blobs(each=30)
    given = np.array([2, 7, 40])[labels]
    given[:3] = 7
    found = check_labels(x, given)
    assert set(found.suspected.tolist()) <= {0, 1, 2} and set(found.instead.tolist()) == {2}


# --- bad input ---------------------------------------------------------------------------------------------------


def test_a_million_classes_are_refused_in_a_sentence():
    x, _ = blobs()
    with pytest.raises(DataError, match="120 classes for 120 samples, and 0 of them have two samples"):
        check_labels(x, np.arange(120) * 9999)
    count = 2 * (MOST_CLASSES + 1)
    with pytest.raises(DataError, match=f"at most {MOST_CLASSES:,} classes"):
        check_labels(np.zeros((count, 2), dtype=np.float32), np.repeat(np.arange(count // 2), 2))


def test_numbers_refuse_what_they_cannot_use():
    with pytest.raises(DataError, match="at least 2 samples"):
        spectrum(np.zeros((1, 3), dtype=np.float32))
    with pytest.raises(DataError, match="NaN"):
        spectrum(np.array([[0, np.nan], [1, 2]], dtype=np.float32))
    with pytest.raises(DataError, match="more than k = 5 samples"):
        covering(np.zeros((5, 3), dtype=np.float32), np.zeros((5, 3), dtype=np.float32))
    assert map_places(np.eye(3, dtype=np.float32)) is None


def test_one_picture_and_skeletons_are_refused():
    with pytest.raises(DataError, match="holds one picture"):
        look(tiny_encoder(), ImageSequence([Image.new("RGB", (16, 16))]))
    moving = ArrayImages("motion", "all", scenes(3, 16), None)
    moving.modality = "skeleton"
    with pytest.raises(DataError, match="holds skeleton sequences; `look` shows pictures"):
        look(tiny_encoder(), moving)


def test_three_pictures_and_equal_pictures_give_a_page_that_says_why(tmp_path):
    three = look(tiny_encoder(), ArrayImages("toys", "all", scenes(3, 16), None), out=tmp_path)
    assert three.outliers is three.clusters is three.places is None
    text = " ".join("".join(Page((tmp_path / "look.html").read_text(encoding="utf-8")).text).split())
    assert "3 pictures are too few; at least 5 are needed." in text
    same = ArrayImages("toys", "all", np.repeat(scenes(1, 16), 12, axis=0), np.arange(12) % 2, ("a", "b"))
    equal = look(tiny_encoder(), same, out=tmp_path)
    assert [len(group) for group in equal.duplicates.groups()] == [12]
    assert "All 12 features are the same" in equal.notes[0]
    assert set(equal.missing) == {"outliers", "clusters", "places", "check"}
    assert "nothing to tell apart" in (tmp_path / "look.html").read_text(encoding="utf-8")


# --- the whole ---------------------------------------------------------------------------------------------------

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def looked(tmp_path_factory):
    """Two labelled splits with a copy within, a copy across, and a second set."""
    folder = tmp_path_factory.mktemp("look")
    pictures = scenes(60, 16)
    pictures[41] = pictures[2]
    pictures[9] = pictures[8]
    labels = np.arange(60) % 2
    train = ArrayImages("toys", "train", pictures[:40], labels[:40], (HOSTILE, "dog"))
    test = ArrayImages("toys", "test", pictures[40:], labels[40:], (HOSTILE, "dog"))
    second = ArrayImages("others", "all", scenes(30, 16, seed=9), None)
    return look(tiny_encoder(), [train, test], second, out=folder, count=3), folder


def test_look_finds_copies_within_and_across_splits(looked):
    found, _ = looked
    assert {(2, 41), (8, 9)} <= {tuple(pair) for pair in found.duplicates.pairs.tolist()}
    assert found.covering is not None and found.check is not None and found.places is not None
    assert len(found.clusters) == 3
    assert found.place_of(41) == (found.parts[1], 1)


def test_page_is_self_contained_escapes_names_and_shows_every_point(looked):
    found, folder = looked
    text = (folder / "look.html").read_text(encoding="utf-8")
    parsed = Page(text)
    assert not {"script", "link", "iframe", "object", "embed", "base"} & set(parsed.tags)
    for _, name, value in parsed.attributes:
        assert name not in ("href", "srcset", "onload", "onerror")
        if name == "src":
            assert value.startswith("data:image/")
        if name == "style":
            place = r"(left|background-position):-?[\d.]+[%px]+[ ;][-#%:;.\w]*"
            assert re.fullmatch(place, value) or re.fullmatch(r"background:#[0-9a-f]{6}", value)
    assert not re.search(r"url\((?!\"data:image)", text)
    assert text.count('class="point ') == len(found.places.rows)
    said = " ".join("".join(parsed.text).split())
    assert "across test and train" in said and HOSTILE in said
    assert "1 pair across splits" in said
    for wanted in ("effective rank", "RankMe", "density", "coverage", "Classes that overlap", "Cluster 2"):
        assert wanted in said


def test_the_legend_of_the_map_names_each_class_with_its_points_and_one_can_be_chosen(looked):
    text = (looked[1] / "look.html").read_text(encoding="utf-8")
    legend = text[text.index("<fieldset") : text.index("</fieldset>")]
    assert re.findall(r'value="(\w+)"', legend) == ["all", "0", "1"]
    assert "all (60)" in legend and "dog (30)" in legend and "&lt;script&gt;" in legend
    points = dict(re.findall(r'class="point (g\d) [\w ]+" tabindex="-1" style="[^"]*background:(#\w+)"', text))
    assert points == {f"g{i}": c for i, c in enumerate(re.findall(r"background:(#\w+)", legend))}
    assert text.count('class="point g0 ') == text.count('class="point g1 ') == 30
    for group in ("0", "1"):
        assert f'[value="{group}"]:checked) .point:not(.g{group})' in text


def test_the_table_of_samples_holds_what_was_found(looked):
    found, folder = looked
    rows = list(csv.DictReader((folder / "samples.csv").open(newline="", encoding="utf-8")))
    assert len(rows) == 60
    assert rows[2]["duplicate_group"] == rows[41]["duplicate_group"] != "-1"
    assert [row["split"] for row in rows[38:42]] == ["train", "train", "test", "test"]
    assert np.array_equal(np.array(json.loads(rows[5]["feature"]), dtype=np.float32), found.features[5])
    assert float(rows[7]["x"]) == pytest.approx(float(found.places.places[7, 0]))
    assert sum(row["suspected_label"] != "" for row in rows) == len(found.check.suspected)


def test_a_limit_is_said():
    data = ArrayImages("toys", "all", scenes(30, 16), None)
    found = look(tiny_encoder(), data, limit=12)
    assert len(found.features) == 12
    assert found.notes == ("12 of 30 pictures of toys/all were looked at.",)
