"""Training on tar shards: bit for bit that of the folder they were made from, resumed, and shared out over ranks."""

from __future__ import annotations

from collections import Counter
from functools import partial

import pytest

from tests.shard_fixtures import keys_read, shards_of, write_tar
from tests.training.distributed_cases import spawn
from tests.training.test_loop import in_parts, same_state, tiny, trainer_for
from tests.training.test_stream import smooth
from training import distributed
from training.stream import StreamBatches
from zoo.data.addresses import open_dataset
from zoo.data.readers.webdataset import ShardImages
from zoo.errors import DataError

EPOCHS = 2


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """48 JPEGs of several sizes in two classes, and the same in three shards."""
    root = tmp_path_factory.mktemp("photos")
    for number in range(48):
        path = root / "folder" / "ab"[number % 2] / f"{number:02d}.jpg"
        path.parent.mkdir(exist_ok=True, parents=True)
        smooth(number, 90 + number, 70 + number // 2).save(path, quality=92)
    shards_of(open_dataset(root / "folder", "all"), root / "shards", 3)
    return root / "folder", root / "shards"


def recipe_for(place, stream=True, batch_size=16):
    data = {"dataset": str(place), "split": "all", "held_out": 0, "stream": stream, "stream_workers": 2}
    return tiny(epochs=EPOCHS, monitor=None, batch_size=batch_size, data=data)


@pytest.mark.parametrize("stream", [True, False])
def test_shards_train_as_their_folder_and_resume_bit_for_bit(places, tmp_path, stream):
    folder, shards = places
    whole = trainer_for(tmp_path / "folder", recipe_for(folder, stream))
    whole.run()
    parts = in_parts(lambda: trainer_for(tmp_path / "shards", recipe_for(shards, stream)), 2)
    assert isinstance(parts.data.dataset, ShardImages) and isinstance(parts.batches, StreamBatches) is stream
    same_state(whole.state(), parts.state())


def seen(shards: str, folder: str) -> dict:
    """Keys that this rank read in each epoch, in order."""
    trainer = trainer_for(folder, recipe_for(shards, batch_size=8))
    return {"keys": keys_read(trainer), "rank": distributed.rank()}


def test_two_ranks_see_each_sample_once_in_every_epoch(places, tmp_path):
    folder, shards = places
    every = list(open_dataset(folder, "all").keys)
    (tmp_path / "run").mkdir()
    ranks = spawn(partial(seen, str(shards), str(tmp_path / "run")), 2, tmp_path)
    assert [result["rank"] for result in ranks] == [0, 1]
    epochs = []
    for epoch in range(EPOCHS):
        half = len(every) // 2
        read = [result["keys"][epoch * half : (epoch + 1) * half] for result in ranks]
        assert Counter(read[0] + read[1]) == Counter(every)
        epochs.append(read)
    assert epochs[0] != epochs[1], "the order is another in every epoch"
    shard_of = {key: i * 3 // len(every) for i, key in enumerate(every)}
    assert {shard_of[key] for key in epochs[0][0][:4] + epochs[0][1][:4]} == {0, 1, 2}, "all shards are mixed"


def test_a_broken_picture_ends_the_training_with_its_shard_and_name(places, tmp_path):
    data = open_dataset(places[0], "all")
    members = [(key, data.content(i)[: 300 if i == 5 else None]) for i, key in enumerate(data.keys)]
    write_tar(tmp_path / "x" / "0.tar", members)
    trainer = trainer_for(tmp_path / "run", recipe_for(tmp_path / "x"))
    with pytest.raises(DataError, match=r"0\.tar: a/10\.jpg cannot be decoded"):
        trainer.run()
