"""Labels in tables and lists beside a folder of images, and labels as people have them."""

from __future__ import annotations

import json
import unicodedata

import numpy as np
import pytest

from tests.data_fixtures import make_folder, write_image
from zoo.data.addresses import available_splits, open_dataset
from zoo.data.labels import encode_labels
from zoo.data.pairs import check_pair
from zoo.errors import DataError

pytestmark = pytest.mark.filterwarnings("ignore::zoo.errors.DataWarning")


@pytest.fixture
def flat(tmp_path):
    """Six pictures without class folders."""
    for i in range(6):
        write_image(tmp_path / "images" / f"{i}.png", i)
    return tmp_path


CAT = ["cat", "dog", "dog", "cat", "dog", "cat"]


def rows(header="file,label", name="images/{}.png", labels=CAT, separator=","):
    lines = [f"{name.format(i)}{separator}{label}" for i, label in enumerate(labels)]
    return "\n".join([header.replace(",", separator), *lines] if header else lines) + "\n"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("labels.csv", rows()),
        ("labels.csv", "\ufeff" + rows("file;label", separator=";")),
        ("labels.tsv", rows(separator="\t")),
        ("labels.csv", rows(None)),
        ("labels.csv", rows("id,species", name="{}")),  # names without folder and ending
        ("labels.csv", rows("filename,breed", name="{}.png")),
        ("labels.csv", rows("image,what")),
        ("labels.csv", rows(name="images\\{}.png")),
        ("labels.txt", rows(None, separator=" ")),
        ("labels.txt", rows(None, separator="\t")),
        ("metadata.csv", rows("file_name,label")),
        (
            "metadata.jsonl",
            "\n".join(json.dumps({"file_name": f"images/{i}.png", "label": c}) for i, c in enumerate(CAT)),
        ),
    ],
)
def test_tables_of_many_kinds(flat, name, text):
    (flat / name).write_text(text, encoding="utf-8")
    data = open_dataset(flat / name)
    assert data.class_names == ("cat", "dog") and data.labels.tolist() == [0, 1, 1, 0, 1, 0]
    assert list(data.keys) == [f"images/{i}.png" for i in range(6)]
    assert f"labels from {name}" in str(data.report)
    assert data.report.left.get("pictures that are not listed") is None
    again = open_dataset(flat, labels=name)
    assert again.fingerprint == data.fingerprint
    if name != "labels.txt":
        assert open_dataset(flat).fingerprint == data.fingerprint  # it is the only table of the folder
    assert available_splits(flat / name) == ["train", "test", "all"]
    check_pair(open_dataset(flat / name, "train"), open_dataset(flat / name, "test"))


def test_a_parquet_table(flat):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"file": [f"images/{i}.png" for i in range(6)], "label": CAT}), flat / "x.parquet")
    data = open_dataset(flat, labels=flat / "x.parquet")
    assert data.labels.tolist() == [0, 1, 1, 0, 1, 0]


def test_a_column_of_splits(flat):
    lines = [f"images/{i}.png,{c},{s}" for i, (c, s) in enumerate(zip(CAT, ["Training", "test"] * 3, strict=True))]
    (flat / "labels.csv").write_text("\n".join(["file,label,split", *lines]))
    assert available_splits(flat) == ["train", "test"]
    train, test = open_dataset(flat, "train"), open_dataset(flat, "test")
    assert train.labels.tolist() == [0, 1, 1] and test.labels.tolist() == [1, 0, 0]
    assert train.class_names == test.class_names == ("cat", "dog")


def test_a_table_or_list_for_each_split(flat):
    for split, members in (("train", (0, 1, 2)), ("test", (3, 4))):
        (flat / f"{split}.txt").write_text("".join(f"images/{i}.png {CAT[i]}\n" for i in members))
    assert available_splits(flat) == ["train", "test"]
    train = open_dataset(flat, "train")
    assert train.labels.tolist() == [0, 1, 1]
    assert train.report.left["pictures that are not listed"] == ("images/5.png",)
    assert "labels from test.txt and train.txt" in str(train.report)


def test_metadata_in_each_split_folder(tmp_path):
    """The convention of Hugging Face's ImageFolder."""
    for split in ("train", "test"):
        for i in range(2):
            write_image(tmp_path / split / f"{i}.png", i + len(split))
        (tmp_path / split / "metadata.csv").write_text("file_name,label\n0.png,dog\n1.png,cat\n")
    train, test = open_dataset(tmp_path, "train"), open_dataset(tmp_path, "test")
    assert list(train.keys) == ["train/0.png", "train/1.png"] and train.labels.tolist() == [1, 0]
    assert list(test.keys) == ["test/0.png", "test/1.png"] and test.class_names == ("cat", "dog")


def test_class_folders_beside_a_stray_table_stay_class_folders(tmp_path):
    make_folder(tmp_path, splits=())
    (tmp_path / "sizes.csv").write_text("file,label\ncat/0.png,12\n")
    assert open_dataset(tmp_path).class_names == ("cat", "dog")


def test_numbers_in_text_keep_their_order(flat):
    (flat / "labels.csv").write_text(rows(labels=[10, 9, 2, 10, 9, 2]))
    data = open_dataset(flat)
    assert data.class_names == ("2", "9", "10") and data.labels.tolist() == [2, 1, 0, 2, 1, 0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", r"none of its columns \(a, b\) names pictures"),
        ("", "it is empty"),
        (rows() + "images/7.png,cat\n", r"1 of 7 listed pictures are missing or not unique, such as images/7.png"),
        (rows() + "images/0.png,dog\n", r"lists images/0.png twice, with the labels 'cat' and 'dog'"),
        ("file,label\nimages/0.png,cat,x\n", r"row 2: 3 cells, but 2 columns"),
        ("file,label\nimages/0.png,cat\nimages/1.png,\n", "1 labels are null"),
    ],
)
def test_tables_that_cannot_be_used(flat, text, message):
    (flat / "labels.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        open_dataset(flat / "labels.csv")


def test_missing_pictures_can_be_left_out(flat):
    (flat / "labels.csv").write_text(rows() + "images/7.png,cat\n")
    data = open_dataset(flat, skip_bad=True)
    assert len(data) == 6 and data.report.left["listed but missing"] == ("images/7.png",)


def test_labels_must_be_a_file(flat):
    with pytest.raises(DataError, match="is no file of"):
        open_dataset(flat, labels="nowhere.csv")


# --- labels as people have them ---------------------------------------------------------------------


def test_only_values_that_occur_are_classes():
    values = {"train": [2_000_000, 7, 7, 2_000_000], "test": [7, 7]}
    labels, names = encode_labels(values, "train", (), "x")
    assert labels.tolist() == [1, 0, 0, 1] and names == ("7", "2000000")
    assert encode_labels(values, "test", (), "x")[0].tolist() == [0, 0]


def test_a_split_without_labels():
    values = {"train": [0, 1], "test": None, "hidden": [-1, -1], "empty": [None, None]}
    assert encode_labels(values, "train", (), "x")[1] == ("0", "1")
    for split in ("test", "hidden", "empty"):
        assert encode_labels(values, split, (), "x") == (None, ())


def test_kinds_that_do_not_fit_are_one_error():
    with pytest.raises(
        DataError, match=r"x\.parquet: labels are of different kinds \(text in train, whole numbers in te"
    ):
        encode_labels({"train": ["0", "1"], "test": [0, 1]}, "test", (), "x.parquet")
    with pytest.raises(DataError, match="split 'train': labels must be whole numbers or text, got both"):
        encode_labels({"train": ["0", 1]}, "train", (), "x")
    with pytest.raises(DataError, match=r"2 labels are null \(rows 1, 3\)"):
        encode_labels({"train": [0, None, 1, float("nan")]}, "train", (), "x")


def test_numbers_with_gaps_and_truth_values():
    assert encode_labels({"a": [1.0, 3.0]}, "a", (), "x")[1] == ("1", "3")
    assert encode_labels({"a": [True, False]}, "a", (), "x")[1] == ("False", "True")
    assert encode_labels({"a": [np.int64(4)]}, "a", (), "x")[1] == ("4",)


def test_text_is_one_unicode_form_and_look_alikes_are_refused():
    composed, apart = (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))
    labels, names = encode_labels({"train": [composed, "b"], "test": [apart, "b"]}, "test", (), "x")
    assert names == ("b", composed) and labels.tolist() == [1, 0]
    with pytest.raises(DataError, match=r"'Cat' \(train\) and 'cat' \(test\)"):
        encode_labels({"train": ["Cat"], "test": ["cat"]}, "train", (), "x")


def test_parquet_with_labels_in_one_split_only(tmp_path):
    from tests.zoo.test_data_readers import write_parquet

    write_parquet(tmp_path / "train.parquet", range(4), [2_000_000, 7, 7, 2_000_000])
    write_parquet(tmp_path / "test.parquet", range(4, 6))
    train, test = open_dataset(tmp_path, "train"), open_dataset(tmp_path, "test")
    assert train.class_names == ("7", "2000000") and test.labels is None
    with pytest.raises(DataError, match="/test has no labels"):
        check_pair(train, test)
