"""Many processes at once, and processes killed at any moment: nothing corrupt is ever found afterwards."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import signal
import time

import pytest
import torch

import zoo
from tests.data_fixtures import make_folder
from tests.hub_stub import COMMIT, REPO
from tests.hub_stub import serve as serve_hub
from tests.static_server import serve_folder
from tests.zoo.checkpoints import same_weights, small_encoder, write_small
from zoo.data.addresses import open_dataset
from zoo.errors import ZooError
from zoo.publish.publishing import publish

#: Forked children share the imports of the test; starting sixteen interpreters would take a minute.
FORK = multiprocessing.get_context("fork") if hasattr(os, "fork") else None
pytestmark = pytest.mark.skipif(FORK is None, reason="needs fork")


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    folder = tmp_path_factory.mktemp("source") / "c"
    write_small(folder)
    return folder


def _load(address, cache, barrier, answers):
    torch.set_num_threads(1)
    barrier.wait(60)
    try:
        encoder = zoo.load(address, cache_dir=cache)
        answers.put(str(encoder(torch.ones(1, 3, 16, 16)).sum().item()))
    except BaseException as error:
        answers.put(repr(error))


def load_at_once(address, cache, count=16):
    """What `count` processes get that load `address` at the same moment."""
    barrier, answers = FORK.Barrier(count), FORK.Queue()
    processes = [FORK.Process(target=_load, args=(address, cache, barrier, answers)) for _ in range(count)]
    for process in processes:
        process.start()
    found = [answers.get(timeout=120) for _ in processes]
    for process in processes:
        process.join(60)
    return found


def expected(folder):
    return str(zoo.load(f"local-dir:{folder}")(torch.ones(1, 3, 16, 16)).sum().item())


def test_sixteen_processes_load_and_download_one_model(pristine, tmp_path):
    shutil.copytree(pristine, tmp_path / "www" / "c")
    with serve_folder(tmp_path / "www") as server:
        found = load_at_once(f"{server.url}/c", tmp_path / "cache")
        assert found == [expected(pristine)] * 16
        assert server.requests.count("/c/model.safetensors") == 1, "one process downloads, the others wait"
    names = [path.name for path in (tmp_path / "cache" / "weights").iterdir()]
    assert not any(name.endswith(".tmp") for name in names)


def test_sixteen_processes_and_the_hub(pristine, tmp_path, monkeypatch):
    from huggingface_hub import constants

    with serve_hub(pristine) as hub:
        template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        assert load_at_once(f"hf-hub:{REPO}@{COMMIT}", tmp_path / "cache") == [expected(pristine)] * 16


def killed(target, *args, after):
    """Run `target` in a process of its own and kill it after `after` seconds or when the event `after` is set."""
    process = FORK.Process(target=target, args=args)
    process.start()
    if isinstance(after, float):
        time.sleep(after)
    else:
        assert after.wait(60)
    os.kill(process.pid, signal.SIGKILL)
    process.join(60)
    assert process.exitcode == -signal.SIGKILL


def _load_once(address, cache):
    zoo.load(address, cache_dir=cache)


def test_killed_while_downloading(pristine, tmp_path):
    shutil.copytree(pristine, tmp_path / "www" / "c")
    with serve_folder(tmp_path / "www") as server:
        reached = FORK.Event()
        server.on_request = lambda path: reached.set() if path.endswith(".safetensors") else None
        server.faults["model.safetensors"] = "trickle"
        killed(_load_once, f"{server.url}/c", tmp_path / "cache", after=reached)
        assert not list((tmp_path / "cache" / "weights").glob("*.safetensors"))
        server.faults.clear()
        encoder = zoo.load(f"{server.url}/c", cache_dir=tmp_path / "cache")
    assert same_weights(encoder, zoo.load(f"local-dir:{pristine}"))
    left = [path.name for path in (tmp_path / "cache" / "weights").iterdir() if not path.name.endswith(".lock")]
    assert left == [f"{encoder.config.weights.sha256}.safetensors"], "the killed process's rest is cleaned up"


def _publish_for_ever(runs, out):
    while True:
        for run in runs:
            publish(run, "simclr_small_toys", out=out, overwrite=True)


def kill_while_publishing(tmp_path, times):
    runs = [tmp_path / "a", tmp_path / "b"]
    for seed, run in enumerate(runs):
        write_small(run, seed=seed, dtype="float32")
    out, chance = tmp_path / "zoo", random.Random(0)
    publish(runs[0], "simclr_small_toys", out=out)
    whole = [small_encoder(0), small_encoder(1)]
    for _ in range(times):
        killed(_publish_for_ever, runs, out, after=chance.uniform(0.02, 0.25))
        encoder = zoo.load(f"local-dir:{out / 'simclr_small_toys'}")
        assert any(same_weights(encoder, other) for other in whole)
    for leftover in out.glob(".simclr*"):
        os.utime(leftover, (0, 0))
    publish(runs[1], "simclr_small_toys", out=out, overwrite=True)
    assert not list(out.glob(".simclr*")), "old leftovers of killed writers are removed"
    assert same_weights(zoo.load(f"local-dir:{out / 'simclr_small_toys'}"), whole[1])


def test_killed_while_publishing(tmp_path):
    kill_while_publishing(tmp_path, 4)


@pytest.mark.slow
def test_killed_while_publishing_often(tmp_path):
    kill_while_publishing(tmp_path, 150)


def _save_for_ever(folder):
    from training.state import save_state

    step = 0
    while True:
        save_state(folder, {"step": step, "weights": torch.full((20_000,), float(step))})
        step += 1


def kill_while_saving(folder, times):
    from training.state import load_state

    chance = random.Random(0)
    for _ in range(times):
        killed(_save_for_ever, folder, after=chance.uniform(0.02, 0.1))
        loaded = load_state(folder, torch.device("cpu"))
        if loaded is not None:
            state, _ = loaded
            assert bool((state["weights"] == state["step"]).all())


def test_killed_while_saving_a_training_state(tmp_path):
    kill_while_saving(tmp_path / "state", 5)


@pytest.mark.slow
def test_killed_while_saving_often(tmp_path):
    kill_while_saving(tmp_path / "state", 300)


def test_eight_processes_and_a_slow_hub(pristine, tmp_path, monkeypatch):
    """Every answer takes its time, so that all processes find the cache half-filled by the others."""
    from huggingface_hub import constants

    with serve_hub(pristine) as hub:
        answer = hub.answer

        def slowly(handler, body):
            time.sleep(0.1)
            answer(handler, body)

        hub.answer = slowly
        template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        assert load_at_once(f"hf-hub:{REPO}", tmp_path / "cache", 8) == [expected(pristine)] * 8
    assert not list((tmp_path / "cache").rglob("*.incomplete"))


def everything(folder):
    return {str(p): (p.stat().st_mtime_ns, p.stat().st_size) for p in sorted(folder.rglob("*"))}


def test_a_load_from_a_full_cache_writes_nothing_to_it(pristine, tmp_path):
    """So a cache that only an administrator may write to serves everybody."""
    shutil.copytree(pristine, tmp_path / "www" / "c")
    cache = tmp_path / "cache"
    with serve_folder(tmp_path / "www") as server:
        zoo.load(f"{server.url}/c", cache_dir=cache)
        before = everything(cache)
        for path in [*cache.rglob("*"), cache]:
            path.chmod(0o555 if path.is_dir() else 0o444)
        zoo.load(f"{server.url}/c", cache_dir=cache)
        zoo.load(f"{server.url}/c", cache_dir=cache, local_files_only=True)
        assert everything(cache) == before
        for path in [cache, *cache.rglob("*")]:
            path.chmod(0o755 if path.is_dir() else 0o644)


def test_a_cache_that_cannot_be_written_to_is_one_clear_error(pristine, tmp_path):
    shutil.copytree(pristine, tmp_path / "www" / "c")
    (tmp_path / "cache").write_text("a file stands where the folder should be")
    with serve_folder(tmp_path / "www") as server, pytest.raises(ZooError, match="cannot write"):
        zoo.load(f"{server.url}/c", cache_dir=tmp_path / "cache")
    assert same_weights(zoo.load(f"local-dir:{pristine}", cache_dir=tmp_path / "cache"), small_encoder_of(pristine))


def small_encoder_of(folder):
    return zoo.load(f"local-dir:{folder}")


def test_a_cache_that_cannot_be_written_to_costs_a_dataset_nothing_but_time(tmp_path, monkeypatch):
    (tmp_path / "cache").write_text("a file stands where the folder should be")
    data = make_folder(tmp_path / "images", splits=("train",))
    first = open_dataset(data, "train").fingerprint
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    assert open_dataset(data, "train").fingerprint == first
