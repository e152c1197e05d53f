"""Checkpoints from plain web servers: the same checks, every fault told, mirrors tried in order."""

from __future__ import annotations

import dataclasses
import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import zoo
from tests.static_server import serve_folder
from tests.zoo.checkpoints import results_for, same_weights, write_small
from tests.zoo.test_verification import command
from zoo.checkpoint.config import parse_config, read_config
from zoo.checkpoint.download import check_url
from zoo.checkpoint.opening import fetch_weights, open_source
from zoo.checkpoint.sources import Access, Source
from zoo.checkpoint.web import WebSource
from zoo.errors import CheckpointError, ConfigError, HubError, UnknownNameError
from zoo.network import asking, connection
from zoo.publish.check import verify
from zoo.publish.mirror import write_mirror
from zoo.publish.publishing import publish

HERE = [
    "localhost",
    "LOCALHOST",
    "localhost.",
    "a.localhost",
    "127.0.0.1",
    "127.1",
    "127.0.1",
    "127.255.0.9",
    "0.0.0.0",
]
HERE += [
    "0",
    "2130706433",
    "0x7f000001",
    "0x7f.1",
    "0177.0.0.1",
    "[::1]",
    "[::]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
]
ELSEWHERE = ["example.org", "localhost.example.org", "128.0.0.1", "10.0.0.1", "2130706432.example", "[2001:db8::1]"]


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    folder = tmp_path_factory.mktemp("source") / "simclr_small_toys"
    config = write_small(folder)
    write_small(folder, results=results_for(config))
    return folder


@pytest.fixture
def waits(monkeypatch):
    """Seconds that were waited between attempts; nobody really waits."""
    found = []
    monkeypatch.setattr("zoo.network.asking.time.sleep", found.append)
    return found


@pytest.fixture
def server(pristine, tmp_path, waits):
    shutil.copytree(pristine, tmp_path / "www" / "c")
    with serve_folder(tmp_path / "www") as server:
        yield server


@pytest.fixture
def load(tmp_path, server):
    def load(address="", **arguments):
        return zoo.load(address or f"{server.url}/c", cache_dir=tmp_path / "cache", **arguments)

    load.cache = tmp_path / "cache"
    return load


def test_loads_once_and_then_asks_for_the_config_alone(server, load, pristine):
    expected = zoo.load(f"local-dir:{pristine}")
    encoder = load()
    assert same_weights(encoder, expected) and encoder.config == expected.config
    assert server.requests == ["/c/config.json", "/c/model.safetensors"]
    server.requests.clear()
    assert same_weights(load(), expected)
    assert server.requests == ["/c/config.json"]


def test_pinned_and_cached_makes_no_request(server, load, pristine):
    sha256 = read_config(pristine).weights.sha256
    load(f"{server.url}/c@{sha256}")
    server.requests.clear()
    load(f"{server.url}/c@{sha256}")
    load(revision=sha256)
    assert server.requests == []
    with pytest.raises(CheckpointError, match="not 000000000000"):
        load(f"{server.url}/c@{'0' * 64}")
    with pytest.raises(UnknownNameError, match="sha256"):
        load(revision="main")


def test_weights_need_no_config_first(server, tmp_path, pristine):
    """A source is one value: what it gives does not depend on what was asked for before."""
    source = open_source(f"{server.url}/c", cache_dir=tmp_path / "cache")
    with pytest.raises(dataclasses.FrozenInstanceError):
        source.config = b""
    path = source.weights(read_config(pristine).weights)
    assert path.read_bytes() == (pristine / "model.safetensors").read_bytes()


def test_without_the_network(server, load, monkeypatch):
    with pytest.raises(HubError, match="network is off"):
        load(local_files_only=True)
    load()
    server.requests.clear()
    load(local_files_only=True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    load()
    assert server.requests == []


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
@pytest.mark.parametrize(
    ("fault", "message", "tries"),
    [
        ("404", "does not exist", 1),
        ("403", "answers 403", 1),
        ("500", "answers 500", 3),
        ("429", "answers 429", 3),
        ("429:7", "asks to wait 7 s", 3),
        ("429:9999", "asks to wait 9999 s", 1),
        ("truncated", "bytes", 3),
        ("huge", "is it a checkpoint", 1),
        ("moved", "another host", 1),
        ("garbage", "could not be fetched", 3),
    ],
)
def test_faults(server, load, file, fault, message, tries):
    server.faults[file] = fault
    with pytest.raises(HubError, match=message) as caught:
        load()
    assert "\n" not in str(caught.value) and f"/c/{file}" in str(caught.value)
    assert server.requests.count(f"/c/{file}") == tries
    server.faults.clear()
    assert load().config is not None, "a failed download must not spoil the next one"


def test_retry_after_is_kept(server, load, waits):
    server.faults["model.safetensors"] = "once:429:7"
    load()
    assert waits == [7.0]
    assert asking._retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0 and asking._retry_after("soon") is None


def test_a_passing_fault_is_not_seen(server, load):
    server.faults.update({"config.json": "once:503", "model.safetensors": "once:truncated"})
    assert load().name == "simclr_small_toys"


def test_tampered_weights_never_reach_the_cache(server, load, tmp_path):
    server.faults["model.safetensors"] = "tampered"
    with pytest.raises(CheckpointError, match="sends another file"):
        load()
    assert [path for path in (tmp_path / "cache" / "weights").glob("*") if path.suffix != ".lock"] == []
    server.faults.clear()
    load()


def test_tampered_config(server, load):
    server.faults["config.json"] = "tampered"
    with pytest.raises(ConfigError, match="not valid JSON"):
        load()


@pytest.mark.parametrize("fault", ["silent", "trickle", "slow-headers", "late-trickle"])
def test_slow_hosts_are_given_up(server, load, fault, monkeypatch):
    monkeypatch.setattr(asking, "TIMEOUT", 0.3)
    monkeypatch.setattr(connection, "PATIENCE", 0.3)
    monkeypatch.setattr(asking, "ATTEMPTS", 1)
    server.faults["model.safetensors"] = fault
    with pytest.raises(HubError, match=r"no answer within|no whole answer|slower than"):
        load()


def test_a_cached_checkpoint_loads_while_its_host_is_down(server, load, pristine):
    expected = load()
    for fault in ("500", "503", "429", "garbage"):
        server.faults["config.json"] = fault
        with pytest.warns(UserWarning, match="HF_HUB_OFFLINE=1"):
            assert same_weights(load(), expected)
    for fault in ("404", "403", "huge"):  # the host is there and says something else
        server.faults["config.json"] = fault
        with pytest.raises(HubError):
            load()


def test_a_redirect_without_end_is_not_read(server, load):
    server.faults["model.safetensors"] = "endless-redirect"
    with pytest.raises(HubError, match="before any file"):
        load()


@pytest.mark.parametrize("host", HERE)
def test_every_way_to_write_this_machine(host):
    assert connection.is_loopback(f"http://{host}:80/c")
    check_url(f"http://{host}/c")


@pytest.mark.parametrize("host", ELSEWHERE)
def test_other_machines(host, monkeypatch):
    monkeypatch.delenv("ZOO_ALLOW_HTTP", raising=False)
    assert not connection.is_loopback(f"https://{host}/c")
    with pytest.raises(UnknownNameError, match="not encrypted"):
        check_url(f"http://{host}/c")


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])
def test_a_name_that_leads_here_is_hung_up_before_a_byte_is_sent(server, load, monkeypatch, address):
    """What a config.json from the network names is judged by where it leads, at the moment of connecting."""
    port = int(server.url.rpartition(":")[2])
    real = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *a, **k: real(address, *a, **k))
    monkeypatch.setenv("ZOO_ALLOW_HTTP", "1")
    url = f"http://mirror.example:{port}/c"
    assert not connection.is_loopback(url)
    text = asking.read(f"{url}/config.json", 1 << 20)
    config = parse_config(text, url)
    server.requests.clear()
    source = WebSource("https://x.example/c", text, Access(Path(load.cache)), url, allow_here=False)
    with pytest.raises(HubError, match="may not point to this machine"):
        source.weights(config.weights)
    assert server.requests == []
    assert dataclasses.replace(source, allow_here=True).weights(config.weights).is_file()


def test_down(tmp_path, waits):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    with pytest.raises(HubError, match="could not be fetched"):
        zoo.load(f"http://127.0.0.1:{port}/c", cache_dir=tmp_path)


def test_a_redirect_within_the_host(server, load):
    server.faults["model.safetensors"] = "beside"
    assert load().name == "simclr_small_toys"


def test_a_revision_that_moves_between_the_two_files(server, load, tmp_path):
    """The folder is replaced after config.json was read: the load starts again with the new one."""
    fresh = write_small(tmp_path / "fresh", seed=1)

    def move(path):
        if path.endswith("model.safetensors"):
            server.on_request = lambda path: None
            shutil.rmtree(server.folder / "c")
            shutil.copytree(tmp_path / "fresh", server.folder / "c")

    server.on_request = move
    assert load().config.weights == fresh.weights


def test_damage_in_the_cache_is_told(server, load, tmp_path):
    load()
    (path,) = (tmp_path / "cache" / "weights").glob("*.safetensors")
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(CheckpointError, match=f"delete {path}"):
        load()
    path.unlink()
    path.symlink_to("/etc/passwd")
    load()
    assert not path.is_symlink() and path.read_bytes() == content


def mirrored(pristine, tmp_path, *mirrors):
    """The checkpoint in the catalogue without its weights, with these mirrors."""
    folder = publish(pristine, "simclr_small_toys", out=tmp_path / "zoo", mirrors=mirrors)
    (folder / "model.safetensors").unlink()
    return folder


def test_mirrors_in_order(server, load, pristine, tmp_path, monkeypatch):
    shutil.copytree(pristine, server.folder / "b")
    folder = mirrored(pristine, tmp_path, f"{server.url}/a", f"{server.url}/b", f"{server.url}/c")
    monkeypatch.setenv("ZOO_CHECKPOINTS", str(tmp_path / "zoo"))
    assert load("simclr_small_toys").config == read_config(folder)
    assert server.requests == ["/a/model.safetensors", "/b/model.safetensors"]
    server.requests.clear()
    load(f"local-dir:{folder}")
    assert server.requests == []


def test_a_tampered_mirror_is_passed_over(server, load, pristine, tmp_path):
    with serve_folder(server.folder) as other:
        other.faults["model.safetensors"] = "tampered"
        folder = mirrored(pristine, tmp_path, f"{other.url}/c", f"{server.url}/c")
        assert load(f"local-dir:{folder}").name == "simclr_small_toys"
        assert other.requests and server.requests


def test_no_mirror_has_it(server, load, pristine, tmp_path):
    folder = mirrored(pristine, tmp_path, f"{server.url}/a", "https://127.0.0.1:1/x")
    with pytest.raises(HubError, match=r"no mirror has the weights.*missing.*/a.*does not exist.*127\.0\.0\.1:1"):
        load(f"local-dir:{folder}")
    with pytest.raises(HubError, match="network is off"):
        load(f"local-dir:{folder}", local_files_only=True)


def test_a_server_without_weights_names_others(server, load, pristine):
    config = json.loads((server.folder / "c" / "config.json").read_text())
    shutil.copytree(pristine, server.folder / "b")
    (server.folder / "c" / "config.json").write_text(json.dumps({**config, "mirrors": [f"{server.url}/b"]}))
    server.faults["model.safetensors"] = "once:404"
    assert load().name == "simclr_small_toys"
    assert server.requests[-1] == "/b/model.safetensors"


def test_a_remote_config_may_not_point_to_this_machine(server, pristine, tmp_path):
    class Elsewhere(Source):
        def weights(self, wanted):
            raise HubError("gone")

    config = read_config(mirrored(pristine, tmp_path, f"{server.url}/c"))
    with pytest.raises(HubError, match="may not point to this machine"):
        fetch_weights(Elsewhere("hf-hub:a/b", b"", Access(tmp_path / "cache")), config)
    assert server.requests == []


def test_mirrors_that_are_none(pristine, tmp_path):
    for address in ("http://example.com/c", "local-dir:x", "nonsense://x"):
        with pytest.raises((UnknownNameError, ConfigError)):
            publish(pristine, "simclr_small_toys", out=tmp_path / "zoo", mirrors=[address])
    assert not (tmp_path / "zoo").exists()


def test_http_only_on_this_machine_unless_told(monkeypatch):
    for host in ("example.com", "169.254.169.254", "127.0.0.1.example.com"):
        with pytest.raises(UnknownNameError, match="not encrypted"):
            zoo.load(f"http://{host}/c")
    monkeypatch.setenv("ZOO_ALLOW_HTTP", "1")
    assert check_url("http://example.com/c/") == "http://example.com/c"
    monkeypatch.delenv("ZOO_ALLOW_HTTP")
    assert check_url("http://[::1]:80/c") and check_url("http://localhost/c")


def test_the_tree_of_zoo_mirror_on_a_real_server(pristine, tmp_path, monkeypatch, capsys):
    publish(pristine, "simclr_small_toys", out=tmp_path / "zoo")
    monkeypatch.setenv("ZOO_CHECKPOINTS", str(tmp_path / "zoo"))
    assert command(monkeypatch, "mirror", str(tmp_path / "www")) == 0
    assert "wrote 1 checkpoints" in capsys.readouterr().out
    index = json.loads((tmp_path / "www" / "index.json").read_text())
    assert index["checkpoints"]["simclr_small_toys"]["sha256"] == read_config(pristine).weights.sha256
    arguments = [sys.executable, "-u", "-m", "http.server", "0", "-b", "127.0.0.1", "-d", str(tmp_path / "www")]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            url = process.stdout.readline().split("(")[1].split(")")[0].rstrip("/")
            monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
            address = f"{url}/simclr_small_toys"
            assert same_weights(zoo.load(address), zoo.load(f"local-dir:{pristine}"))
            assert [check.ok for check in verify(address)] == [True] * 4
        finally:
            process.terminate()


def test_mirror_keeps_what_it_is_not_told_and_replaces_the_rest(pristine, tmp_path, monkeypatch):
    for name in ("simclr_small_toys", "clsa_small_toys"):
        publish(pristine, name, out=tmp_path / "zoo")
    monkeypatch.setenv("ZOO_CHECKPOINTS", str(tmp_path / "zoo"))
    assert write_mirror(tmp_path / "www", ["clsa_small_toys"]) == ["clsa_small_toys"]
    write_mirror(tmp_path / "www", ["simclr_small_toys"])
    assert sorted(p.name for p in (tmp_path / "www").iterdir()) == [
        "clsa_small_toys",
        "index.json",
        "simclr_small_toys",
    ]
    assert len(json.loads((tmp_path / "www" / "index.json").read_text())["checkpoints"]) == 2
    (tmp_path / "zoo" / "simclr_small_toys" / "reference.json").unlink()
    before = (tmp_path / "www" / "simclr_small_toys" / "reference.json").read_bytes()
    with pytest.raises(CheckpointError, match="not ready"):
        write_mirror(tmp_path / "www")
    assert (tmp_path / "www" / "simclr_small_toys" / "reference.json").read_bytes() == before
