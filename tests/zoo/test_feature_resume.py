"""Extraction that is interrupted, killed, out of disk or shared by two processes ends in the same table."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.zoo.feature_fixtures import Images, same, tiny_encoder
from zoo.errors import DataError
from zoo.features.extract import extract
from zoo.features.stream import PartFile
from zoo.features.table import FeatureTable

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def encoder():
    return tiny_encoder()


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
        replace = os.replace

        def killed(source, target):
            if str(target).endswith(".json"):
                raise KeyboardInterrupt
            replace(source, target)

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", killed)
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
            with pytest.raises(DataError, match=r"File too large; progress is kept"):
                extract(encoder, Images(), batch_size=16, out=tmp_path / "f.npy")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, old)
        assert not (tmp_path / "f.npy").exists()
        calls = []
        extract(encoder, Images(), batch_size=16, out=tmp_path / "f.npy", progress=lambda *a: calls.append(a))
        assert calls[0] == (48, 70)

    def test_a_second_extraction_into_one_file_is_told_so(self, encoder, tmp_path):
        def second(done, total):
            with pytest.raises(DataError, match=r"another process is extracting into .*f\.npy; wait"):
                extract(encoder, Images(), batch_size=16, out=tmp_path / "f.npy")

        # A lock file of another descriptor is another holder, also within one process.
        table = extract(encoder, Images(), batch_size=16, out=tmp_path / "f.npy", progress=second)
        (tmp_path / "f.npy").chmod(0o444)
        assert same(table, extract(encoder, Images(), batch_size=16, out=tmp_path / "f.npy"))

    def test_too_little_space_is_said_before_the_work(self, tmp_path):
        with pytest.raises(DataError, match="GB free"):
            PartFile(tmp_path / "f.npy", (1 << 40, 2048), 256).start("0" * 64, True)


WORKER = """
import os, sys
import torch
torch.set_num_threads(1)
from tests.zoo.feature_fixtures import Images, tiny_encoder
from zoo.features.extract import extract
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
    assert sorted(p.name for p in tmp_path.iterdir() if "failed" not in p.name) == [".f.npy.lock", "f.json", "f.npy"]
    assert not (tmp_path / "f.npy.failed.npy").exists()
