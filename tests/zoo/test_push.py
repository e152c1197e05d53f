"""`zoo publish --push`: one commit, never over a newer one, and what comes back is what was sent."""

from __future__ import annotations

import json
import shutil

import pytest
import yaml

import zoo
from tests.hub_writable import serve_writable
from tests.zoo.checkpoints import results_for, same_weights, write_small
from tests.zoo.test_verification import command
from zoo.errors import CheckpointError, HubError, UnknownNameError
from zoo.publish.contents import eval_result_files
from zoo.publish.push import push

REPO = "zoo-tests/encoder"


@pytest.fixture
def hub(monkeypatch):
    from huggingface_hub import constants, hf_api

    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with serve_writable() as hub:
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(hf_api.constants, "ENDPOINT", hub.url)
        template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield hub


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    folder = tmp_path_factory.mktemp("source") / "c"
    config = write_small(folder)
    write_small(folder, results=cifar(results_for(config)))
    return folder


def cifar(results):
    """The rows as measured on CIFAR-10, which the Hub has."""
    rows = [row.model_copy(update={"test": row.test.model_copy(update={"name": "cifar10"})}) for row in results.rows]
    return results.model_copy(update={"rows": tuple(rows)})


@pytest.fixture
def folder(pristine, tmp_path):
    return shutil.copytree(pristine, tmp_path / "c")


def other(tmp_path):
    write_small(tmp_path / "other", seed=1)
    return tmp_path / "other"


def test_one_private_commit_that_loads_by_its_hash(hub, folder, tmp_path):
    pushed = push(folder, REPO, tag="v1")
    repository = hub.repositories[REPO]
    assert repository.private and hub.writes == [f"create {REPO}", f"commit {REPO}", "tag v1"]
    assert repository.head == pushed.commit and repository.tags == {"v1": pushed.commit}
    own = {
        "config.json",
        "simclr_small_toys_results.svg",
        "model.safetensors",
        "results.json",
        "reference.json",
        "README.md",
    }
    evidence = ".eval_results/cifar10_logistic_v1_seed0.yaml"
    assert repository.commits[pushed.commit].keys() == own | {evidence, ".gitattributes"}
    assert repository.commits[pushed.commit]["simclr_small_toys_results.svg"].startswith(b"<svg")  # the card's picture
    for name in own - {"README.md", "simclr_small_toys_results.svg"}:
        assert repository.commits[pushed.commit][name] == (folder / name).read_bytes()
    for address in (pushed.address, f"hf-hub:{REPO}@v1"):
        encoder = zoo.load(address, cache_dir=tmp_path / "cache")
        assert same_weights(encoder, zoo.load(f"local-dir:{folder}"))


def test_results_stand_in_both_forms(hub, folder):
    commit = push(folder, REPO).commit
    tree = hub.repositories[REPO].commits[commit]
    front = yaml.safe_load(tree["README.md"].decode().split("---")[1])
    assert front["model-index"][0]["results"][0]["metrics"][0]["value"] == 0.8123
    (entry,) = yaml.safe_load(tree[".eval_results/cifar10_logistic_v1_seed0.yaml"])
    assert entry["value"] == 0.8123 and entry["dataset"] == {"id": "uoft-cs/cifar10", "task_id": "top1"}
    assert "logistic_v1" in entry["notes"] and "50 test samples" in entry["notes"]


def test_our_yaml_is_the_librarys(pristine):
    """Where huggingface_hub knows the format, our entries read back as its own."""
    hub = pytest.importorskip("huggingface_hub")
    if not hasattr(hub, "EvalResultEntry"):
        pytest.skip("this huggingface_hub predates EvalResultEntry")
    from zoo.checkpoint.results import read_results

    (text,) = eval_result_files(read_results(pristine / "results.json")).values()
    ours = yaml.safe_load(text)
    entries = [
        hub.EvalResultEntry(e["dataset"]["id"], e["dataset"]["task_id"], e["value"], notes=e["notes"]) for e in ours
    ]
    assert hub.eval_result_entries_to_yaml(entries) == ours


def test_public_only_when_asked(hub, folder):
    push(folder, REPO, private=False)
    assert not hub.repositories[REPO].private
    writes = list(hub.writes)
    with pytest.raises(HubError, match="public"):
        push(folder, REPO)
    assert hub.writes == writes


def test_other_weights_are_kept_unless_named(hub, folder, tmp_path):
    first = push(folder, REPO)
    with pytest.raises(HubError, match=f"--replaces {first.commit}"):
        push(other(tmp_path), REPO)
    with pytest.raises(HubError, match="is at"):
        push(other(tmp_path), REPO, replaces="0" * 40)
    second = push(other(tmp_path), REPO, replaces=first.commit)
    tree = hub.repositories[REPO].commits[second.commit]
    assert "results.json" not in tree and not any(name.startswith(".eval") for name in tree), (
        "evidence of other weights"
    )
    assert ".gitattributes" in tree and hub.repositories[REPO].commits[first.commit]["results.json"]


def test_same_weights_with_new_results_need_no_name(hub, folder):
    push(folder, REPO)
    results = json.loads((folder / "results.json").read_text())
    results["rows"] = results["rows"][:1]
    (folder / "results.json").write_text(json.dumps(results))
    push(folder, REPO)
    tree = hub.repositories[REPO].commits[hub.repositories[REPO].head]
    assert len(json.loads(tree["results.json"])["rows"]) == 1


def test_a_revision_that_moves_during_the_push(hub, folder):
    rival = {"config.json": b"{}"}
    hub.before_commit = lambda repository: repository.commit(rival)
    with pytest.raises(HubError, match="changed meanwhile"):
        push(folder, REPO)
    assert hub.repositories[REPO].commits[hub.repositories[REPO].head] == rival


def test_a_repository_of_something_else_is_not_taken_over(hub, folder):
    hub.add(REPO, {"config.json": b'{"architectures": ["BertModel"]}', "pytorch_model.bin": b"x"})
    with pytest.raises(HubError, match="other weights"):
        push(folder, REPO)
    assert hub.writes == []


def test_tags_never_move(hub, folder):
    push(folder, REPO, tag="v1")
    writes = list(hub.writes)
    with pytest.raises(HubError, match="tag 'v1' already"):
        push(folder, REPO, tag="v1")
    assert hub.writes == writes


def test_what_comes_back_altered_is_told(hub, folder):
    hub.tampered.add("model.safetensors")
    with pytest.raises(HubError, match=r"did not come back as it was sent: .*sha256"):
        push(folder, REPO, tag="v1")
    assert hub.repositories[REPO].tags == {}, "an unverified commit gets no tag"


@pytest.mark.parametrize(
    ("kind", "status", "message"), [("create", 403, "HF_TOKEN"), ("main", 500, "answers 500"), ("batch", 503, "503")]
)
def test_refusals_of_the_hub(hub, folder, kind, status, message):
    hub.faults[kind] = status
    with pytest.raises(HubError, match=message) as caught:
        push(folder, REPO)
    assert "\n" not in str(caught.value)
    assert not any(write.startswith("commit") for write in hub.writes)


def test_a_broken_checkpoint_is_not_sent(hub, folder):
    (folder / "reference.json").unlink()
    with pytest.raises(CheckpointError, match="not ready"):
        push(folder, REPO)
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(CheckpointError, match="truncated"):
        push(folder, REPO)
    assert hub.writes == []


@pytest.mark.parametrize(
    "change", [{"repo": "name"}, {"repo": "../x/y"}, {"tag": "a b"}, {"tag": "../v1"}, {"replaces": "main"}]
)
def test_words_that_are_none(hub, folder, change):
    with pytest.raises(UnknownNameError):
        push(folder, change.pop("repo", REPO), **change)
    assert hub.writes == []


def test_command(hub, folder, monkeypatch, capsys, tmp_path):
    assert command(monkeypatch, "publish", str(folder), "--push", REPO, "--tag", "v2") == 0
    address = f"hf-hub:{REPO}@{hub.repositories[REPO].head}"
    assert address in capsys.readouterr().out
    assert command(monkeypatch, "publish", str(folder), "--tag", "v2") == 2
    assert "--name" in capsys.readouterr().err
    arguments = ["--name", "simclr_small_toys", "--out", str(tmp_path / "zoo"), "--public"]
    assert command(monkeypatch, "publish", str(folder), *arguments) == 2
    assert "--push" in capsys.readouterr().err
