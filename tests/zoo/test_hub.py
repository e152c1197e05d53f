"""hf-hub: addresses against a loopback hub: requests counted, each fault told with its fix."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

import zoo
from tests.hub_stub import COMMIT, REPO, serve
from tests.zoo.checkpoints import same_weights, write_small
from zoo.errors import CheckpointError, ConfigError, HubError


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    folder = tmp_path_factory.mktemp("source") / "c"
    write_small(folder)
    return zoo.load(f"local-dir:{folder}")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub with one checkpoint; huggingface_hub asks it, and waits for nothing between retries."""
    from huggingface_hub import constants

    write_small(tmp_path / "remote")
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with serve(tmp_path / "remote") as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        yield hub


@pytest.fixture
def load(tmp_path):
    return lambda address=f"hf-hub:{REPO}", **arguments: zoo.load(address, cache_dir=tmp_path / "cache", **arguments)


def test_first_load(hub, load, expected):
    encoder = load()
    assert same_weights(encoder, expected) and encoder.config == expected.config
    assert [method for method, path in hub.requests if "/resolve/" in path] == ["HEAD", "GET", "HEAD", "GET"]
    weights = [path for _, path in hub.requests if path.endswith(".safetensors")]
    assert all(COMMIT in path for path in weights), "weights must come from the commit of config.json"


def test_pinned_and_cached_makes_no_request(hub, load, expected):
    load(f"hf-hub:{REPO}@{COMMIT}")
    hub.requests.clear()
    assert same_weights(load(f"hf-hub:{REPO}@{COMMIT}"), expected)
    assert same_weights(load(revision=COMMIT), expected)
    assert hub.requests == []


def test_cached_branch_asks_once(hub, load):
    load()
    hub.requests.clear()
    load()
    assert [request[0] for request in hub.requests] == ["HEAD"]


def test_cached_loads_survive_a_hub_that_is_down(hub, load, expected):
    load()
    hub.faults["*"] = "500"
    assert same_weights(load(), expected)
    hub.requests.clear()
    assert same_weights(load(local_files_only=True), expected)
    assert hub.requests == []


def test_untrained_needs_no_weights(hub, load):
    load(pretrained=False)
    assert not any(path.endswith(".safetensors") for _, path in hub.requests)


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
@pytest.mark.parametrize(
    ("fault", "fix"),
    [
        ("404", "no such file"),
        ("no-repository", "check the name"),
        ("401", "HF_TOKEN"),
        ("gated", "ask for access"),
        ("403", "ask for access"),
        ("429", "wait some minutes"),
        ("500", "answers 500"),
        ("503", "answers 503"),
        ("truncated", "try again"),
    ],
)
def test_faults(hub, load, file, fault, fix):
    hub.faults[file] = fault
    with pytest.raises(HubError) as caught:
        load()
    message = str(caught.value)
    assert fix in message and file in message and REPO in message and "\n" not in message
    hub.faults.clear()
    assert load().config is not None, "a failed download must not spoil the next one"


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_a_hub_that_does_not_answer(hub, load, file, monkeypatch):
    from huggingface_hub import constants

    for name in ("HF_HUB_DOWNLOAD_TIMEOUT", "HF_HUB_ETAG_TIMEOUT"):
        monkeypatch.setattr(constants, name, 0.2)
    hub.faults[file] = "silent"
    with pytest.raises(HubError, match=r"cannot be reached|try again"):
        load()


def test_a_branch_that_moves_between_the_two_files(hub, load, expected, tmp_path):
    """The weights come from the commit of config.json although main is elsewhere by then."""
    old = hub.folder
    answer = hub.answer

    def move(handler, body):
        answer(handler, body)
        if body and handler.path.endswith("config.json"):
            hub.older[hub.commit], hub.folder, hub.commit = old, tmp_path / "newer", "2e" * 20

    write_small(tmp_path / "newer", seed=1)
    hub.answer = move
    assert same_weights(load(), expected)
    hub.answer = answer
    assert not same_weights(load(), expected), "the next load of the branch takes the new commit"


def test_unknown_repository_and_revision(hub, load):
    with pytest.raises(HubError, match="no such repository"):
        load("hf-hub:zoo-tests/other")
    with pytest.raises(HubError, match="no such revision"):
        load(f"hf-hub:{REPO}@v9")


def test_a_repository_without_weights(hub, load):
    (hub.folder / "model.safetensors").unlink()
    with pytest.raises(HubError, match="no such file"):
        load()


def test_not_a_checkpoint_of_the_zoo(hub, load):
    (hub.folder / "config.json").write_text('{"architectures": ["BertModel"]}')
    with pytest.raises(ConfigError, match="format_version"):
        load()


def test_a_repository_that_offers_a_pickle(hub, load):
    path = hub.folder / "config.json"
    config = json.loads(path.read_text())
    config["weights"]["file"] = "pytorch_model.bin"
    path.write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="never unpickles"):
        load()
    assert not any(name.endswith(".bin") for _, name in hub.requests)


def test_tampered_download_names_the_file_to_delete(hub, load, expected):
    hub.faults["model.safetensors"] = "tampered"
    with pytest.raises(CheckpointError, match=r"sha256.*delete .*/blobs/\w+ and load again") as caught:
        load()
    hub.faults.clear()
    with pytest.raises(CheckpointError):
        load()
    os.remove(str(caught.value).split("delete ")[1].split(" and load")[0])
    assert same_weights(load(), expected)


def test_unreachable(hub, load, monkeypatch):
    hub.server.shutdown()
    hub.server.server_close()
    with pytest.raises(HubError, match="cannot be reached"):
        load()
    with pytest.raises(HubError, match="network is off"):
        load(local_files_only=True)


def test_offline_mode(hub, load, expected, monkeypatch):
    from huggingface_hub import constants

    load()
    hub.requests.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert same_weights(load(), expected)
    with pytest.raises(HubError, match="network is off"):
        load("hf-hub:zoo-tests/missing")
    assert hub.requests == []


def test_fresh_processes(hub, tmp_path, expected):
    """Two download at once, with the environment as users set it; a third then makes no request of any kind."""
    address = f"hf-hub:{REPO}@{COMMIT}"
    script = f"import zoo; print(zoo.load({address!r}).config.weights.sha256)"
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home")}

    def start():
        return subprocess.Popen([sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE, text=True)

    digests = [process.communicate(timeout=180)[0].strip() for process in (start(), start())]
    hub.requests.clear()
    digests.append(start().communicate(timeout=180)[0].strip())
    assert digests == [expected.config.weights.sha256] * 3
    assert hub.requests == []
