from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest

from tests.data_fixtures import make_folder, noise
from zoo import device
from zoo.data.addresses import open_dataset
from zoo.data.images import ArrayImages
from zoo.data.stores.pixels import pixel_cache, pixel_view
from zoo.errors import DataError


@pytest.fixture
def data(tmp_path):
    return open_dataset(make_folder(tmp_path / "data"), "train")


def cache_files(folder):
    return sorted(path for path in (folder / "pixels").iterdir() if not path.name.endswith(".lock"))


def many(count=300):
    images = np.random.default_rng(0).integers(0, 256, (count, 10, 10, 3), dtype=np.uint8)
    return ArrayImages("many", "all", images, np.arange(count) % 3, "abc")


def test_pixels_shape_and_order(tmp_path):
    data = many()
    pixels = pixel_cache(data, 10, cache_dir=tmp_path)
    assert isinstance(pixels, np.memmap) and pixels.dtype == np.uint8
    assert np.array_equal(pixels, data.images)


def test_threads_keep_the_order(tmp_path, monkeypatch):
    monkeypatch.setattr(device, "WORTH_THREADS", 0.0)
    monkeypatch.setattr(device, "workers", lambda: 4)
    data = many(1000)
    assert np.array_equal(pixel_cache(data, 10, cache_dir=tmp_path), data.images)


def test_decoded_once(tmp_path, data, monkeypatch):
    first = np.array(pixel_cache(data, 8, cache_dir=tmp_path))
    monkeypatch.setattr(data, "sample", lambda index: pytest.fail("decoded again"))
    assert np.array_equal(pixel_cache(data, 8, cache_dir=tmp_path), first)


def test_writing_to_the_array_leaves_the_file_alone(tmp_path, data):
    first = pixel_cache(data, 8, cache_dir=tmp_path)
    before = np.array(first)
    first[:] = 0
    assert np.array_equal(pixel_cache(data, 8, cache_dir=tmp_path), before)


def test_progress_counts_every_image(tmp_path):
    calls = []
    pixel_cache(many(), 10, cache_dir=tmp_path, progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (300, 300) and calls == sorted(calls)


def test_changed_data_gets_another_cache(tmp_path):
    a, b = many(), many()
    b.images[0, 0, 0, 0] ^= 1
    assert not np.array_equal(pixel_cache(a, 10, cache_dir=tmp_path), pixel_cache(b, 10, cache_dir=tmp_path))


@pytest.mark.parametrize("damage", ["truncate", "extend", "empty", "text", "other_shape", "other_dtype", "zip"])
def test_damaged_cache_is_rebuilt(tmp_path, data, damage):
    expected = np.array(pixel_cache(data, 8, cache_dir=tmp_path))
    (path,) = cache_files(tmp_path)
    content = path.read_bytes()
    if damage == "other_shape":
        np.save(path, np.zeros((3, 8, 8, 3), dtype=np.uint8))
    elif damage == "other_dtype":
        np.save(path, np.zeros(expected.shape, dtype=np.float32))
    elif damage == "zip":
        with open(path, "wb") as file:
            np.savez(file, expected)
    else:
        path.write_bytes(
            {"truncate": content[:-100], "extend": content + b"x", "empty": b"", "text": b"hello" * 99}[damage]
        )
    assert np.array_equal(pixel_cache(data, 8, cache_dir=tmp_path), expected)
    assert path.read_bytes() == content


def test_leftover_of_a_killed_build_is_removed(tmp_path, data):
    pixel_cache(data, 8, cache_dir=tmp_path)
    (path,) = cache_files(tmp_path)
    path.unlink()
    leftover = path.with_name(f".{path.name}.123-abcd.tmp")
    leftover.write_bytes(b"half")
    pixel_cache(data, 8, cache_dir=tmp_path)
    assert cache_files(tmp_path) == [path]


def test_all_corrupt_images_in_one_error(tmp_path, data):
    for name in ("cat/1.png", "dog/3.png"):
        (tmp_path / "data" / "train" / name).write_bytes(b"broken")
    with pytest.raises(DataError, match=r"2 of 10 samples of data cannot be read") as error:
        pixel_cache(data, 8, cache_dir=tmp_path / "cache")
    assert "1.png" in str(error.value) and "3.png" in str(error.value)
    assert cache_files(tmp_path / "cache") == []


def test_disk_too_small_is_told_before_the_work(tmp_path, data, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=5))
    with pytest.raises(DataError, match=r"1,920 bytes needed, 5 free"):
        pixel_cache(data, 8, cache_dir=tmp_path / "cache")


def test_disk_that_fills_up_leaves_no_half_file(tmp_path, data):
    def full(done, total):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(DataError, match=r"the disk is full.*set ZOO_CACHE to another disk"):
        pixel_cache(data, 8, cache_dir=tmp_path / "cache", progress=full)
    assert cache_files(tmp_path / "cache") == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_write_to_a_full_device(tmp_path, data, monkeypatch):
    real = open
    monkeypatch.setattr(
        "builtins.open", lambda path, *mode: real("/dev/full" if str(path).endswith(".tmp") else path, *mode)
    )
    with pytest.raises(DataError, match=r"the disk is full.*set ZOO_CACHE to another disk"):
        pixel_cache(data, 8, cache_dir=tmp_path / "cache")


def test_cache_folder_that_is_a_file(tmp_path, data):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="set ZOO_CACHE"):
        pixel_cache(data, 8, cache_dir=tmp_path / "file")


@pytest.mark.parametrize("size", [0, -1, 5000])
def test_size_out_of_range(tmp_path, data, size):
    with pytest.raises(DataError, match=r"must lie in 1\.\.4096"):
        pixel_cache(data, size, cache_dir=tmp_path)


def test_large_subset_uses_the_parents_cache(tmp_path):
    data = many()
    indices = np.arange(0, 300, 2)
    array, rows = pixel_view(data.subset(indices), 10, cache_dir=tmp_path)
    assert len(array) == 300 and np.array_equal(rows, indices)
    assert np.array_equal(pixel_cache(data.subset(indices), 10, cache_dir=tmp_path), data.images[indices])
    assert len(cache_files(tmp_path)) == 1


def test_small_subset_is_decoded_alone_unless_the_parent_is_there(tmp_path):
    data = many()
    subset = data.subset([7, 3, 3])
    array, rows = pixel_view(subset, 10, cache_dir=tmp_path)
    assert rows is None and np.array_equal(array, data.images[[7, 3, 3]])
    pixel_cache(data, 10, cache_dir=tmp_path)
    array, rows = pixel_view(subset, 10, cache_dir=tmp_path)
    assert len(array) == 300 and rows.tolist() == [7, 3, 3]


def test_skeletons_have_no_pixels(tmp_path):
    data = many()
    data.modality = "skeleton"
    with pytest.raises(DataError, match="only images have a pixel cache"):
        pixel_cache(data, 8, cache_dir=tmp_path)


BUILDER = """
import sys, time
import numpy as np
from zoo.data import open_dataset
from zoo.data.stores.pixels import pixel_cache
data = open_dataset(sys.argv[1], "train")
decode, builds = data.sample, []
def slow(index):
    builds.append(index)
    print("decoding", flush=True) if len(builds) == 1 else None
    time.sleep(float(sys.argv[3]))
    return decode(index)
data.sample = slow
pixels = pixel_cache(data, 8, cache_dir=sys.argv[2])
print(len(builds), int(np.asarray(pixels, dtype=np.int64).sum()))
"""


def start(data_folder, cache, delay):
    command = [sys.executable, "-c", BUILDER, str(data_folder), str(cache), str(delay)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_two_processes_build_one_cache(tmp_path, data):
    processes = [start(tmp_path / "data", tmp_path / "cache", 0.1) for _ in range(2)]
    outputs = [process.communicate(timeout=120)[0].split()[-2:] for process in processes]
    assert sorted(int(builds) for builds, _ in outputs) == [0, 10]
    total = str(int(np.asarray(pixel_cache(data, 8, cache_dir=tmp_path / "cache"), dtype=np.int64).sum()))
    assert [sums for _, sums in outputs] == [total, total]
    assert len(cache_files(tmp_path / "cache")) == 1


def test_killed_build_blocks_nobody(tmp_path, data):
    process = start(tmp_path / "data", tmp_path / "cache", 1.0)
    assert process.stdout.readline().strip() == "decoding"
    time.sleep(0.2)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    pixels = pixel_cache(data, 8, cache_dir=tmp_path / "cache")
    assert np.array_equal(pixels, pixel_cache(data, 8, cache_dir=tmp_path / "fresh"))
    assert len(cache_files(tmp_path / "cache")) == 1


def test_resized_then_centre_cropped(tmp_path):
    wide = np.zeros((8, 24, 3), dtype=np.uint8)
    wide[:, 8:16] = 200
    data = ArrayImages("wide", "all", wide[None], None)
    assert (pixel_cache(data, 8, cache_dir=tmp_path) == 200).all()
    grey = ArrayImages("grey", "all", noise(0)[None, ..., 0], None)
    pixels = pixel_cache(grey, 12, cache_dir=tmp_path)
    assert np.array_equal(pixels[..., 0], pixels[..., 2]) and np.array_equal(pixels[0, ..., 0], noise(0)[:, 2:14, 0])
