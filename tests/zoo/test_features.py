from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from zoo.architectures import build
from zoo.config import Architecture, ImageInput
from zoo.data.base import Dataset
from zoo.errors import DataError, InputError
from zoo.feature_stream import PartFile
from zoo.features import FeatureTable, embed, encoder_fingerprint, extract

ROOT = Path(__file__).parents[2]
TINY = Architecture(family="timm", arguments={"model": "resnet10t", "model_args": {"channels": [8, 8, 8, 16]}})


def tiny_encoder(size: int = 16, crop_fraction: float = 1.0):
    torch.manual_seed(0)
    return build(TINY, ImageInput(size=(size, size), crop_fraction=crop_fraction, mean=(0.5, 0.4, 0.3))).eval()


class Images(Dataset):
    """Labelled random images; `delay` makes a run long enough to be killed."""

    name, split, class_names = "random", "train", ("ant", "bee", "cat")

    def __init__(self, count: int = 70, size: int = 16, delay: float = 0.0) -> None:
        self.pixels = np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)
        self.keys = [f"image {i}.png" for i in range(count)]
        self.labels = np.arange(count) % 3
        self.delay = delay

    def sample(self, index):
        time.sleep(self.delay)
        return Image.fromarray(self.pixels[index])

    @property
    def fingerprint(self):
        return f"{len(self):064x}"


@pytest.fixture(scope="module")
def encoder():
    return tiny_encoder()


def naive(encoder, images, batch_size=32, precision=torch.float32):
    transform, rows = encoder.transform(), []
    for low in range(0, len(images), batch_size):
        x = torch.stack([transform(image) for image in images[low : low + batch_size]])
        with torch.no_grad(), torch.autocast("cpu", precision, enabled=precision != torch.float32):
            rows.append(encoder(x.contiguous(memory_format=torch.channels_last)))
    return torch.cat(rows).numpy()


def same(a: FeatureTable, b: FeatureTable) -> bool:
    arrays = np.array_equal(a.features, b.features) and np.array_equal(a.labels, b.labels)
    return arrays and list(a.keys) == list(b.keys) and a.metadata() == b.metadata()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_extract_equals_a_naive_loop(encoder, precision):
    data = Images()
    table = extract(encoder, data, batch_size=32, precision=precision, workers=3)
    expected = naive(encoder, list(data.pixels), 32, {"fp32": torch.float32, "bf16": torch.bfloat16}[precision])
    np.testing.assert_allclose(table.features, expected, rtol=1e-5, atol=1e-6 if precision == "fp32" else 1e-2)
    assert table.features.dtype == np.float32 and table.precision == precision
    assert table.labels.tolist() == data.labels.tolist() and table.keys == data.keys
    assert (table.dataset, table.split, table.class_names) == ("random", "train", data.class_names)


@pytest.mark.parametrize("crop_fraction", [1.0, 0.875])
def test_all_kinds_of_images_give_the_same_features(crop_fraction, tmp_path):
    encoder = tiny_encoder(crop_fraction=crop_fraction)
    data = Images(6)
    paths = []
    for key, pixels in zip(data.keys, data.pixels, strict=True):
        (tmp_path / "class").mkdir(exist_ok=True)
        paths.append(tmp_path / "class" / key)
        Image.fromarray(pixels).save(paths[-1])
    expected = embed(encoder, data)
    kinds = [
        data.pixels,
        list(data.pixels),
        [Image.fromarray(p) for p in data.pixels],
        paths,
        [str(p) for p in paths],
        data.subset([0, 1, 2, 3, 4, 5]),
        tmp_path,
        str(tmp_path),
        data.pixels.astype(np.float64) / 255,
    ]
    for kind in kinds:
        assert np.array_equal(embed(encoder, kind), expected), type(kind)
    assert extract(encoder, tmp_path).class_names == ("class",)
    assert extract(encoder, paths).keys == [str(p) for p in paths]


def test_subset_of_stored_pixels_takes_its_own_samples(encoder):
    from zoo.data.images import ArrayImages

    data = Images(20)
    stored = ArrayImages("stored", "train", data.pixels, data.labels, data.class_names)
    whole = embed(encoder, stored, batch_size=1)
    assert np.array_equal(embed(encoder, stored.subset([7, 3, 3]), batch_size=1), whole[[7, 3, 3]])


def test_same_call_gives_the_same_bits(encoder):
    runs = [embed(encoder, Images(), batch_size=32, workers=w) for w in (1, 1, 4)]
    assert np.array_equal(runs[0], runs[1]) and np.array_equal(runs[0], runs[2])


def test_a_short_last_batch_changes_nothing(encoder):
    data = Images(33)
    whole = embed(encoder, data, batch_size=33, precision="fp32")
    split = embed(encoder, data, batch_size=32, precision="fp32")
    np.testing.assert_allclose(split, whole, rtol=1e-5, atol=1e-6)


def test_encoder_comes_back_as_it_was(encoder):
    encoder = tiny_encoder()
    encoder.train()
    encoder.backbone.layer1.eval()
    modes = [m.training for m in encoder.modules()]
    pointers = [t.data_ptr() for t in encoder.state_dict().values()]
    before = encoder_fingerprint(encoder)
    with pytest.warns(UserWarning, match="was in training mode"):
        features = embed(encoder, Images(8))
    assert np.array_equal(features, embed(tiny_encoder(), Images(8)))
    assert [m.training for m in encoder.modules()] == modes
    assert [t.data_ptr() for t in encoder.state_dict().values()] == pointers
    assert encoder_fingerprint(encoder) == before and encoder.strict_input
    assert not torch.is_inference_mode_enabled()


def test_fingerprint_follows_the_weights(encoder):
    other = tiny_encoder()
    assert encoder_fingerprint(other) == encoder_fingerprint(encoder)
    with torch.no_grad():
        next(other.parameters())[0, 0, 0, 0] += 1e-6
    assert encoder_fingerprint(other) != encoder_fingerprint(encoder)


def test_progress_counts_samples(encoder):
    calls = []
    extract(encoder, Images(70), batch_size=32, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(32, 70), (64, 70), (70, 70)]


class TestBadInput:
    def test_nan_features_name_the_samples(self):
        encoder = tiny_encoder()
        with torch.no_grad():
            encoder.backbone.layer4[0].conv1.weight.fill_(float("nan"))
        with pytest.raises(InputError, match=r"NaN or infinite features for 'image 0.png', .* and 27 more"):
            extract(encoder, Images(40), batch_size=32)
        assert encoder.strict_input

    def test_broken_file_is_named_and_progress_is_kept(self, encoder, tmp_path):
        paths = []
        for i in range(6):
            paths.append(tmp_path / f"{i}.png")
            Image.fromarray(Images(6).pixels[i]).save(paths[-1])
        good = paths[5].read_bytes()
        paths[5].write_bytes(good[:60])
        with pytest.raises(DataError, match=r"5\.png"):
            extract(encoder, paths, batch_size=2)
        paths[5].unlink()
        with pytest.raises(DataError, match=r"5\.png"):
            extract(encoder, paths, batch_size=2, out=tmp_path / "f.npy")

    @pytest.mark.parametrize(
        ("data", "error", "message"),
        [
            ([], DataError, "no samples"),
            (np.zeros((4, 64)), InputError, "expected an array of images"),
            (3, InputError, "put a single image"),
            ([np.zeros((8, 8), np.uint8), np.full((8, 8), 7.0)], InputError, "sample '1'.*divide"),
            ([np.zeros((8, 8), np.uint8), "no such file.png"], DataError, "no such file.png"),
            ([object()], InputError, "sample '0'.*object"),
        ],
    )
    def test_input_that_is_no_image(self, encoder, data, error, message):
        with pytest.raises(error, match=message):
            embed(encoder, data)

    def test_other_arguments(self, encoder, tmp_path):
        with pytest.raises(InputError, match="precision"):
            extract(encoder, Images(2), precision="int8")
        with pytest.raises(InputError, match="batch_size"):
            extract(encoder, Images(2), batch_size=0)
        with pytest.raises(DataError, match=r"\.csv"):
            extract(encoder, Images(2), out=tmp_path / "features.csv")
        skeletons = Images(2)
        skeletons.modality = "skeleton"
        with pytest.raises(InputError, match="skeleton data"):
            extract(encoder, skeletons)


OUTPUTS = ["features.npy", "features.npz", "features.parquet", "folder"]


@pytest.mark.parametrize("name", OUTPUTS)
def test_out_equals_memory_and_a_finished_file_is_not_computed_again(encoder, tmp_path, name):
    data = Images()
    expected = extract(encoder, data, batch_size=32)
    table = extract(encoder, data, batch_size=32, out=tmp_path / name)
    assert same(table, expected) and same(FeatureTable.load(tmp_path / name), expected)
    files = sorted(p.name for p in tmp_path.rglob("*") if p.is_file())
    assert files == (["features.json", "features.npy"] if name in ("folder", "features.npy") else [name])

    again: list[int] = []
    assert same(extract(encoder, data, batch_size=32, out=tmp_path / name, progress=lambda *x: again.append(1)), table)
    assert not again
    other = extract(encoder, Images(40), batch_size=32, out=tmp_path / name)
    assert len(other) == 40 and len(FeatureTable.load(tmp_path / name)) == 40


@pytest.mark.parametrize("name", OUTPUTS)
@pytest.mark.parametrize("labelled", [True, False])
def test_save_and_load(tmp_path, name, labelled):
    table = FeatureTable(
        np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32),
        np.array([0, 1, 1, 0, 2]) if labelled else None,
        ["ä/1.png", "b", "c", "d", "e e"],
        class_names=("ja", "nein", "vielleicht") if labelled else (),
        dataset="d",
        split="test",
        fingerprint="f",
        encoder="e",
        encoder_sha256="0" * 64,
        precision="bf16",
    )
    path = table.save(tmp_path / "new" / name)
    assert path.is_file()
    loaded = FeatureTable.load(tmp_path / "new" / name)
    assert same(loaded, table) and loaded.features.dtype == np.float32
    assert not [p for p in tmp_path.rglob("*") if p.suffix == ".tmp"]


def test_files_open_without_the_zoo(encoder, tmp_path):
    pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    table = extract(encoder, Images(5))
    rows = parquet.read_table(table.save(tmp_path / "t.parquet")).to_pylist()
    assert rows[4]["key"] == "image 4.png" and rows[4]["label"] == 1 and rows[4]["class"] == "bee"
    np.testing.assert_array_equal(np.array([row["feature"] for row in rows], np.float32), table.features)
    with np.load(table.save(tmp_path / "t.npz"), allow_pickle=False) as file:
        assert set(file.files) == {"features", "labels", "keys", "class_names", "metadata"}
        assert json.loads(str(file["metadata"]))["dataset"] == "random"


def test_damaged_files_are_refused(encoder, tmp_path):
    table = extract(encoder, Images(5))
    for name in ("t.npz", "t.npy", "t.parquet"):
        path = table.save(tmp_path / name)
        content = path.read_bytes()
        for damaged in (b"", content[:50], content[: len(content) // 2]):
            path.write_bytes(damaged)
            with pytest.raises(DataError, match="not a readable feature table"):
                FeatureTable.load(path)
    with pytest.raises(DataError, match="does not exist"):
        FeatureTable.load(tmp_path / "none.npz")
    np.save(tmp_path / "objects.npy", np.array([{}, 1], dtype=object), allow_pickle=True)
    (tmp_path / "objects.json").write_bytes((tmp_path / "t.json").read_bytes())
    with pytest.raises(DataError, match="not a readable"):
        FeatureTable.load(tmp_path / "objects.npy")
    np.save(tmp_path / "plain.npy", np.zeros((2, 2), np.float32))
    with pytest.raises(DataError, match=r"plain\.json"):
        FeatureTable.load(tmp_path / "plain.npy")


def test_parquet_without_pyarrow_names_the_extra(encoder, tmp_path, monkeypatch):
    table = extract(encoder, Images(3))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"encoder-zoo\[parquet\]"):
        table.save(tmp_path / "t.parquet")
    assert not list(tmp_path.iterdir())


class TestResume:
    def interrupt(self, encoder, data, out, after=2):
        """Stop a run after some batches, as an exception of the progress callback would."""
        seen = []

        def progress(done, total):
            seen.append(done)
            if len(seen) == after:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            extract(encoder, data, batch_size=16, out=out, progress=progress)
        assert not torch.is_inference_mode_enabled()

    def test_only_the_rest_is_computed(self, encoder, tmp_path):
        self.interrupt(encoder, Images(), tmp_path / "f.npy")
        assert not (tmp_path / "f.npy").exists()
        with pytest.raises(DataError, match="unfinished"):
            FeatureTable.load(tmp_path / "f.npy")
        calls = []
        table = extract(encoder, Images(), batch_size=16, out=tmp_path / "f.npy", progress=lambda *a: calls.append(a))
        assert calls == [(48, 70), (64, 70), (70, 70)]
        assert same(table, extract(encoder, Images(), batch_size=16))

    def test_torn_rows_are_computed_again(self, encoder, tmp_path):
        self.interrupt(encoder, Images(), tmp_path / "f.npz", after=3)
        with open(tmp_path / "f.npz.part", "rb+") as file:
            file.seek(128 + 4 * 16 * 16 + 40)  # in the second batch
            file.write(bytes(100))
        calls = []
        table = extract(encoder, Images(), batch_size=16, out=tmp_path / "f.npz", progress=lambda *a: calls.append(a))
        assert len(calls) == 3
        assert same(table, extract(encoder, Images(), batch_size=16))

    @pytest.mark.parametrize("change", ["weights", "data", "precision", "resume", "header"])
    def test_what_does_not_fit_starts_over(self, encoder, tmp_path, caplog, change):
        self.interrupt(encoder, Images(), tmp_path / "f.npy")
        other, data, precision = tiny_encoder(), Images(), "auto"
        if change == "weights":
            with torch.no_grad():
                next(other.parameters()).mul_(1.01)
        elif change == "data":
            data = Images(71)
        elif change == "precision":
            precision = "fp16"
        elif change == "header":
            with open(tmp_path / "f.npy.part", "rb+") as file:
                file.write(bytes(20))
        calls = []
        options = {"batch_size": 16, "precision": precision}
        table = extract(
            other,
            data,
            out=tmp_path / "f.npy",
            resume=change != "resume",
            progress=lambda *a: calls.append(a),
            **options,
        )
        assert calls[0][0] == 16
        assert ("starting over" in caplog.text) == (change != "resume")
        assert same(table, extract(other, data, **options))

    def test_kill_between_renaming_and_sidecar(self, encoder, tmp_path, monkeypatch):
        data, out = Images(), tmp_path / "f.npy"
        with monkeypatch.context() as patch:
            patch.setattr("zoo.feature_stream.save_sidecar", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                extract(encoder, data, batch_size=16, out=out)
        assert out.exists()
        with pytest.raises(DataError):
            FeatureTable.load(out)
        calls = []
        table = extract(encoder, data, batch_size=16, out=out, progress=lambda *a: calls.append(a))
        assert not calls and same(table, extract(encoder, data, batch_size=16))

    @pytest.mark.skipif(sys.platform == "win32", reason="needs file size limits")
    def test_full_disk_keeps_progress(self, encoder, tmp_path):
        import resource

        old = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (128 + 4 * 16 * 40, old[1]))
        try:
            with pytest.raises(DataError, match=r"the disk is full; progress is kept"):
                extract(encoder, Images(), batch_size=16, out=tmp_path / "f.npy")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, old)
        assert not (tmp_path / "f.npy").exists()
        calls = []
        extract(encoder, Images(), batch_size=16, out=tmp_path / "f.npy", progress=lambda *a: calls.append(a))
        assert calls[0] == (48, 70)

    def test_too_little_space_is_said_before_the_work(self, tmp_path):
        with pytest.raises(DataError, match="GB free"):
            PartFile(tmp_path / "f.npy", (1 << 40, 2048), 256).start("0" * 64, True)


WORKER = """
import os, sys
import torch
torch.set_num_threads(1)
from tests.zoo.test_features import Images, tiny_encoder
from zoo.features import extract
delay, out = float(sys.argv[1]), sys.argv[2]
extract(tiny_encoder(), Images(delay=delay), batch_size=16, out=out)
if "RANK" in os.environ:
    # One rank fails: both must raise, and neither wait for the other.
    encoder = tiny_encoder()
    if os.environ["RANK"] == "1":
        torch.nn.init.constant_(next(encoder.parameters()), float("nan"))
    try:
        extract(encoder, Images(), batch_size=16, out=out + ".failed.npy")
    except ValueError as error:
        print(type(error).__name__, error)
"""


def start_worker(delay: float, out: Path, **env: str) -> subprocess.Popen:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **env}
    arguments = [sys.executable, "-c", WORKER, str(delay), str(out)]
    return subprocess.Popen(
        arguments, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def done_batches(out: Path) -> int:
    journal = out.with_name(out.name + ".journal")
    marks = np.frombuffer(journal.read_bytes()[32:], dtype=np.uint64) if journal.exists() else np.zeros(0)
    return int((marks != 0).sum())


def test_killed_process_resumes(encoder, tmp_path):
    out = tmp_path / "f.npy"
    process = start_worker(0.03, out)
    deadline = time.monotonic() + 120
    while done_batches(out) < 2 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL and not out.exists()
    calls = []
    table = extract(encoder, Images(), batch_size=16, out=out, progress=lambda *a: calls.append(a))
    assert 0 < len(calls) <= 3
    assert same(table, extract(encoder, Images(), batch_size=16))


def test_two_processes_give_the_table_of_one(encoder, tmp_path):
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    workers = [start_worker(0, tmp_path / "f.npy", RANK=str(r), LOCAL_RANK=str(r), **shared) for r in range(2)]
    said = []
    for worker in workers:
        output, errors = worker.communicate(timeout=120)
        assert worker.returncode == 0, errors
        said.append(output)
    assert same(FeatureTable.load(tmp_path / "f.npy"), extract(encoder, Images(), batch_size=16))
    assert said[0].startswith("DataError another rank failed") and "InputError ImageEncoder gave NaN" in said[1]
    assert sorted(p.name for p in tmp_path.iterdir() if "failed" not in p.name) == ["f.json", "f.npy"]
    assert not (tmp_path / "f.npy.failed.npy").exists()


@pytest.mark.gpu
def test_gpu_agrees_with_cpu(tmp_path):
    encoder, data = tiny_encoder(), Images()
    cpu = embed(encoder, data, device="cpu", precision="fp32")
    tf32 = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        np.testing.assert_allclose(embed(encoder, data, device="cuda", precision="fp32"), cpu, rtol=1e-3, atol=1e-4)
    finally:
        torch.backends.cudnn.allow_tf32 = tf32
    table = extract(encoder, data, batch_size=16, out=tmp_path / "f.npy")
    assert table.precision == "bf16" and np.array_equal(table.features, embed(encoder, data, batch_size=16))
    np.testing.assert_allclose(table.features, cpu, rtol=0.1, atol=0.05)
    assert next(encoder.parameters()).device.type == "cpu"
