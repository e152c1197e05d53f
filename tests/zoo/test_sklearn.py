from __future__ import annotations

import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from tests.zoo.feature_fixtures import TINY, tiny_encoder
from zoo.checkpoint.config import DatasetRecord, Method, Training
from zoo.checkpoint.writing import write_checkpoint
from zoo.errors import InputError, ZooError
from zoo.features.extract import embed
from zoo.sklearn import EncoderTransformer


@pytest.fixture(scope="module")
def encoder():
    return tiny_encoder(8)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (9, 8, 8, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def address(encoder, tmp_path_factory):
    """A checkpoint folder as `zoo.load` takes it."""
    none = DatasetRecord(name="none", split="none", samples=0, fingerprint="", licence="none")
    counts = {"epochs": 0, "steps": 0, "samples_seen": 0, "seed": 0, "wall_time_s": 0}
    folder = tmp_path_factory.mktemp("checkpoint")
    write_checkpoint(
        encoder,
        folder,
        name="simclr_tiny_random",
        architecture=TINY,
        method=Method(name="simclr", title="SimCLR", paper="arXiv 2002.05709"),
        training=Training(recipe={}, dataset=none, code_commit="", versions={}, hardware="", **counts),
        dtype="float32",
    )
    return f"local-dir:{folder}"


def test_estimator_checks(address):
    """Rows of any length are grey strips here, which is what lets scikit-learn's generated data through."""
    transformer = EncoderTransformer(address, image_shape=(1, -1), pixel_range=(-1e4, 1e4), precision="fp32")
    results = check_estimator(transformer, on_fail=None, on_skip=None)
    failed = {r["check_name"]: r["exception"] for r in results if r["status"] not in ("passed", "skipped")}
    assert not failed
    # Runs only where SCIPY_ARRAY_API=1 is in the environment: https://scikit-learn.org/stable/modules/array_api.html
    assert {r["check_name"] for r in results if r["status"] == "skipped"} <= {"check_array_api_input"}
    assert len(results) > 35


def test_estimator_checks_with_an_encoder_object(encoder):
    transformer = EncoderTransformer(encoder, image_shape=(1, -1), pixel_range=(-1e4, 1e4), precision="fp32")
    results = check_estimator(
        transformer,
        on_fail=None,
        on_skip=None,
        expected_failed_checks={"check_estimators_overwrite_params": "joblib.hash differs between copies of a module"},
    )
    assert {r["check_name"] for r in results if r["status"] == "failed"} == set()


def test_every_kind_of_input_gives_the_features_of_embed(encoder, images, tmp_path):
    expected = embed(encoder, images)
    paths = [str(tmp_path / f"{i}.png") for i in range(len(images))]
    for path, pixels in zip(paths, images, strict=True):
        Image.fromarray(pixels).save(path)
    pil = [Image.fromarray(pixels) for pixels in images]
    objects = np.empty(len(pil), dtype=object)
    objects[:] = pil
    for X in (images, list(images), pil, tuple(pil), objects, paths, np.array(paths), np.array(paths)[:, None]):
        assert np.array_equal(EncoderTransformer(encoder).fit_transform(X), expected)
    assert np.array_equal(EncoderTransformer(encoder).fit_transform(images / 255), expected)
    flat = images.reshape(len(images), -1)
    assert np.array_equal(EncoderTransformer(encoder, image_shape=(8, 8, 3)).fit_transform(flat), expected)
    ranged = EncoderTransformer(encoder, pixel_range=(-1, 1)).fit_transform(images / 127.5 - 1)
    assert np.array_equal(ranged, expected)
    grey = EncoderTransformer(encoder).fit_transform(images[..., 0])
    assert np.array_equal(grey, embed(encoder, np.repeat(images[..., :1], 3, axis=-1)))


@pytest.mark.parametrize(
    ("options", "X", "message"),
    [
        ({}, np.zeros((3, 64)), r"image_shape=\(8, 8\)"),
        ({}, np.zeros((3, 8, 8)) + 16, "pixel_range"),
        ({}, np.full((3, 8, 8), np.nan), "pixel_range"),
        ({}, 5, "list or array of images"),
        ({"image_shape": (5, 5)}, np.zeros((3, 64)), "do not fit image_shape"),
        ({"image_shape": (8, 8), "pixel_range": (1, 0)}, np.zeros((3, 64)), "black < white"),
    ],
)
def test_bad_input(encoder, options, X, message):
    with pytest.raises(InputError, match=message):
        EncoderTransformer(encoder, **options).fit(X)


def test_rows_of_another_length_are_refused(encoder):
    transformer = EncoderTransformer(encoder, image_shape=(8, -1)).fit(np.zeros((2, 64)))
    assert transformer.n_features_in_ == 64
    with pytest.raises(ValueError, match="72 features"):
        transformer.transform(np.zeros((2, 72)))


def test_unknown_address_is_refused_by_fit():
    with pytest.raises(ZooError):
        EncoderTransformer("local-dir:/no/such/folder").fit([np.zeros((8, 8), np.uint8)])


def test_grid_search_over_a_pipeline(encoder):
    X, y = load_digits(n_class=3, return_X_y=True)
    X, y = X[:120], y[:120]
    transformer = EncoderTransformer(encoder, image_shape=(8, 8), pixel_range=(0, 16), precision="fp32")
    pipeline = make_pipeline(transformer, StandardScaler(), LogisticRegression())
    search = GridSearchCV(pipeline, {"logisticregression__C": [0.1, 1.0]}, cv=2).fit(X, y)
    features = StandardScaler().fit_transform(embed(encoder, np.round(X.reshape(-1, 8, 8) / 16 * 255).astype(np.uint8)))
    assert search.best_estimator_.score(X, y) == pytest.approx(
        LogisticRegression(C=search.best_params_["logisticregression__C"]).fit(features, y).score(features, y), abs=0.02
    )
    assert search.best_score_ > 0.6  # three balanced classes: chance is 1/3


def test_set_output_and_feature_names(encoder, images):
    pandas = pytest.importorskip("pandas")
    transformer = EncoderTransformer(encoder).set_output(transform="pandas").fit(images)
    names = transformer.get_feature_names_out()
    assert len(names) == encoder.num_features and names[0] == "encodertransformer0"
    frame = transformer.transform(images)
    assert isinstance(frame, pandas.DataFrame) and list(frame.columns) == list(names)


def test_column_of_paths_in_a_column_transformer(encoder, images, tmp_path):
    rows = np.empty((len(images), 2), dtype=object)
    for i, pixels in enumerate(images):
        rows[i] = str(tmp_path / f"{i}.png"), i
        Image.fromarray(pixels).save(rows[i, 0])
    columns = ColumnTransformer([("image", EncoderTransformer(encoder), [0])], remainder="passthrough")
    assert np.array_equal(columns.fit_transform(rows)[:, :-1].astype(np.float32), embed(encoder, images))


def test_column_of_paths_in_a_data_frame(encoder, images, tmp_path):
    pandas = pytest.importorskip("pandas")
    paths = [str(tmp_path / f"{i}.png") for i in range(len(images))]
    for path, pixels in zip(paths, images, strict=True):
        Image.fromarray(pixels).save(path)
    frame = pandas.DataFrame({"file": paths, "weight": np.arange(len(paths))}, index=range(100, 100 + len(paths)))
    for columns in ("file", ["file"]):
        columns = ColumnTransformer([("image", EncoderTransformer(encoder), columns)], remainder="passthrough")
        assert np.array_equal(columns.fit_transform(frame)[:, :-1].astype(np.float32), embed(encoder, images))


def test_pickle_holds_the_address_not_the_weights(address, encoder, images):
    transformer = EncoderTransformer(address).fit(images)
    content = pickle.dumps(transformer)
    assert len(content) < 1000
    assert np.array_equal(pickle.loads(content).transform(images), transformer.transform(images))
    assert np.array_equal(transformer.transform(images), embed(encoder, images))
    assert clone(transformer).get_params() == transformer.get_params()
    whole = pickle.loads(pickle.dumps(EncoderTransformer(encoder).fit(images)))
    assert torch.equal(next(whole.encoder_.parameters()), next(encoder.parameters()))


def test_import_zoo_does_not_load_sklearn():
    code = "import sys, zoo; sys.exit('sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
