"""A disk that fills up at any write of features, caches, checkpoints or states: the old is kept, one error says so."""

from __future__ import annotations

import hashlib
import os

import numpy as np
import pytest
import torch

import zoo
from tests.data_fixtures import make_folder
from tests.static_server import serve_folder
from tests.zoo.checkpoints import same_weights, small_encoder, write_small
from tests.zoo.feature_fixtures import Images, same, tiny_encoder
from training.state import load_state, save_state
from zoo.data.addresses import open_dataset
from zoo.data.stores.pixels import pixel_cache
from zoo.data.stores.sequences import sequence_store
from zoo.errors import CheckpointError, DataError, HubError, TrainingError
from zoo.features.extract import extract
from zoo.features.table import FeatureTable
from zoo.preprocessing.skeleton import SkeletonInput
from zoo.publish.publishing import publish

CPU = torch.device("cpu")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_training_state(tmp_path, full_disk):
    def state(step):
        return {"step": step, "method": {"queue": torch.full((64, 8), float(step))}}

    folder = tmp_path / "state"
    save_state(folder, state(1))
    save_state(folder, state(2))
    found = set()

    def check():
        loaded, name = load_state(folder, CPU)
        assert name == "last.pt" and torch.equal(loaded["method"]["queue"], state(loaded["step"])["method"]["queue"])
        assert names(folder) == ["last.pt", "previous.pt"]
        found.add(loaded["step"])

    assert full_disk.at_each_moment(lambda: save_state(folder, state(3)), TrainingError, check) > 4
    # 3 only where the file had its name, and just the folder could not be synchronised.
    assert 2 in found and found <= {2, 3}
    assert load_state(folder, CPU)[0]["step"] == 3


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".parquet"])
def test_features_that_are_saved(tmp_path, full_disk, suffix):
    old = FeatureTable(np.zeros((50, 8), np.float32), np.arange(50) % 2, [str(i) for i in range(50)])
    new = FeatureTable(np.ones((50, 8), np.float32), np.arange(50) % 2, [str(i) for i in range(50)])
    folder = tmp_path / "features"
    path = old.save(folder / f"f{suffix}")
    files = names(folder)

    def check():
        left = FeatureTable.load(path)
        assert same(left, old) or (same(left, new) and full_disk.calls == full_disk.fails_at)
        assert names(folder) == files

    assert full_disk.at_each_moment(lambda: new.save(path), DataError, check) >= 3
    assert same(FeatureTable.load(path), new)


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_features_that_are_extracted(tmp_path, full_disk, suffix):
    """A run over old features keeps them until its own are whole; what it had done is not done again."""
    data, path = Images(40), tmp_path / "features" / f"f{suffix}"
    first, second = tiny_encoder(), tiny_encoder(crop_fraction=0.9)
    old, new = extract(first, data, batch_size=16, out=path), extract(second, data, batch_size=16)

    def check():
        left = FeatureTable.load(path)
        assert same(left, old) or same(left, new)

    def again():
        return extract(second, data, batch_size=16, out=path)

    assert full_disk.at_each_moment(again, DataError, check) > 3
    assert same(FeatureTable.load(path), new)


def of_images(tmp_path):
    data = open_dataset(make_folder(tmp_path / "images", splits=("train",)), "train")
    return lambda cache: pixel_cache(data, 8, cache_dir=cache)


def of_skeletons(tmp_path):
    data, transform = open_dataset("synthetic:motion?n=8", "train"), SkeletonInput(steps=("align_mean",)).transform()
    return lambda cache: sequence_store(data, transform, cache_dir=cache)


@pytest.mark.parametrize("store", [of_images, of_skeletons])
def test_a_store_of_samples(tmp_path, full_disk, store):
    make, cache = store(tmp_path), tmp_path / "cache"
    expected = len(make(tmp_path / "other"))

    def check():
        """No half file, and the same call on a disk with room makes a whole store."""
        assert not list(cache.rglob("*.tmp"))

    assert full_disk.at_each_moment(lambda: make(cache), DataError, check) >= 3
    assert len(make(cache)) == expected and not list(cache.rglob("*.tmp"))


def test_what_is_remembered_only_to_save_time(tmp_path, full_disk, monkeypatch):
    """Fingerprints are right on a full disk; they are just not remembered."""
    root = make_folder(tmp_path / "images", splits=("train",))
    expected = open_dataset(root, "train").fingerprint
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    found = []
    full_disk.run(1, lambda: found.append(open_dataset(root, "train").fingerprint))
    assert found == [expected] and full_disk.calls and not [p for p in (tmp_path / "cache").rglob("*") if p.is_file()]


def test_a_download(tmp_path, full_disk):
    """The weights of a host: nothing half in the cache, and the next load fetches them."""
    write_small(tmp_path / "www" / "c")
    cache = tmp_path / "cache"
    with serve_folder(tmp_path / "www") as server:
        failed = full_disk.at_each_moment(
            lambda: zoo.load(f"{server.url}/c", cache_dir=cache),
            HubError,
            lambda: None if not list(cache.rglob("*.safetensors")) else whole(cache),
        )
        assert failed >= 3 and not list(cache.rglob("*.tmp"))
        whole(cache)


def whole(cache):
    """The one file of weights in the cache is named after what it holds."""
    (path,) = cache.rglob("*.safetensors")
    assert hashlib.sha256(path.read_bytes()).hexdigest() == path.stem


def test_a_checkpoint(tmp_path, full_disk):
    folder = tmp_path / "zoo" / "c"
    write_small(folder)
    old, new = small_encoder(0), small_encoder(1)
    left = []

    def check():
        found = zoo.load(f"local-dir:{folder}")
        left.append("old" if same_weights(found, zoo.load(f"local-dir:{old_copy}")) else "new")
        assert left[-1] == "old" or same_weights(found, zoo.load(f"local-dir:{new_copy}"))
        assert os.listdir(tmp_path / "zoo") == ["c"]

    old_copy, new_copy = tmp_path / "old", tmp_path / "new"
    write_small(old_copy, encoder=old)
    write_small(new_copy, encoder=new)
    failed = full_disk.at_each_moment(lambda: write_small(folder, encoder=new), CheckpointError, check)
    assert failed > 6 and left.count("new") <= 1


def test_a_publication(tmp_path, full_disk):
    """A model that is published again keeps its folder, or gets the new one; the card is of the one or the other."""
    write_small(tmp_path / "run", dtype="float32")
    out, cards = tmp_path / "zoo", tmp_path / "cards"

    def action():
        publish(tmp_path / "run", "simclr_small_toys", out=out, cards_dir=cards, overwrite=True)

    publish(tmp_path / "run", "simclr_small_toys", out=out, cards_dir=cards)
    expected = zoo.load(f"local-dir:{out / 'simclr_small_toys'}")
    kept = names(cards)

    def check():
        assert same_weights(zoo.load(f"local-dir:{out / 'simclr_small_toys'}"), expected)
        assert names(out) == ["simclr_small_toys"] and names(cards) == kept

    assert full_disk.at_each_moment(action, CheckpointError, check) > 6
