"""A checkpoint folder -> a Hugging Face Hub repository: one commit, never over a newer one, checked afterwards."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from zoo.checkpoint.config import CheckpointConfig, parse_config
from zoo.checkpoint.hub import COMMIT, REPO, explain, open_hub, status
from zoo.checkpoint.sources import Access
from zoo.checkpoint.writing import PICTURE
from zoo.errors import ConfigError, HubError, UnknownNameError
from zoo.publish.check import verify
from zoo.publish.contents import checkpoint_files

_OWN = re.compile(
    rf"config\.json|results\.json|reference\.json|README\.md|[\w.-]+\.safetensors|\.eval_results/[\w.-]+|{PICTURE}"
)
T = TypeVar("T")


@dataclass(frozen=True)
class Pushed:
    """Where a checkpoint went: repository, the full commit that `zoo.load` can pin, and the tag if one was set."""

    repo: str
    commit: str
    tag: str | None

    @property
    def address(self) -> str:
        """`hf-hub:org/name@commit`: always loads these bytes."""
        return f"hf-hub:{self.repo}@{self.commit}"


def push(
    folder: str | Path,
    repo: str,
    *,
    private: bool = True,
    tag: str | None = None,
    replaces: str | None = None,
    token: str | None = None,
) -> Pushed:
    """Upload a checkpoint folder in one commit, download it again by that commit, and verify what came back.

    Args:
        folder: a checkpoint folder, as `zoo publish` writes it.
        repo: `org/name`; created if it does not exist.
        private: visibility of a repository that is created here. An existing one keeps its own, and a
            public one is refused unless `private` is False.
        tag: a new tag for the commit, such as `"v1"`.
        replaces: the full commit whose other weights this push replaces; without it they are kept.
        token: None for the one of `hf auth login` or HF_TOKEN.

    Raises:
        CheckpointError, ConfigError: the folder does not hold what it promises; nothing was sent.
        UnknownNameError: no such form of repository, tag or commit.
        HubError: no access, a newer revision in the repository, an existing tag, or a copy that came back wrong.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    from zoo import __version__

    _check_words(repo, tag, replaces)
    config, content = checkpoint_files(folder)
    api = HfApi(token=token, library_name="encoder-zoo", library_version=__version__)
    head, present = _open_repository(api, repo, private)
    if tag is not None:
        _check_tag(api, repo, tag)
    _check_replaces(repo, head, present, config, replaces, token)
    operations: list[Any] = [CommitOperationAdd(name, data) for name, data in content.items()]
    operations += [CommitOperationDelete(n) for n in sorted(present - set(content)) if _OWN.fullmatch(n)]
    commit = _asked(
        f"{repo}: the checkpoint could not be committed",
        lambda: (
            api.create_commit(
                repo, operations, commit_message=f"{config.name}: {config.weights.sha256[:12]}", parent_commit=head
            ).oid
        ),
    )
    _verify_pushed(repo, commit, config, token)
    if tag is not None:
        _asked(
            f"{repo}: pushed as {commit}, but the tag {tag!r} could not be set",
            lambda: api.create_tag(repo, tag=tag, revision=commit),
        )
    return Pushed(repo, commit, tag)


def _check_words(repo: str, tag: str | None, replaces: str | None) -> None:
    if not REPO.fullmatch(repo):
        raise UnknownNameError(f"{repo!r} is no repository; write org/name")
    if tag is not None and not re.fullmatch(r"[A-Za-z0-9][\w.-]{0,127}", tag):
        raise UnknownNameError(f"{tag!r} is no tag; use letters, digits, '.', '_' and '-', as in v1.0")
    if replaces is not None and not COMMIT.fullmatch(replaces):
        raise UnknownNameError(f"{replaces!r} is no full commit; give all 40 digits of the one that you looked at")


def _asked(what: str, question: Callable[[], T]) -> T:
    try:
        return question()
    except Exception as error:  # huggingface_hub raises its own, httpx's and the system's errors
        if status(error) in (409, 412):
            reason = "it was changed meanwhile; look at what is there and push again"
        else:
            reason = explain(error)
        raise HubError(f"{what}: {reason}") from error


def _open_repository(api: Any, repo: str, private: bool) -> tuple[str, set[str]]:
    """Commit of the main branch and the files in it; creates the repository if need be."""
    from huggingface_hub.errors import RepositoryNotFoundError

    def look() -> Any:
        try:
            return api.repo_info(repo)
        except RepositoryNotFoundError:
            api.create_repo(repo, private=private)
            return api.repo_info(repo)

    info = _asked(f"{repo}: the repository could not be opened for writing", look)
    if private and not info.private:
        raise HubError(f"{repo} is public; push with --public (private=False) if that is what you want")
    return info.sha, {sibling.rfilename for sibling in info.siblings or ()}


def _check_tag(api: Any, repo: str, tag: str) -> None:
    refs = _asked(f"{repo}: its tags could not be read", lambda: api.list_repo_refs(repo))
    for known in refs.tags:
        if known.name == tag:
            raise HubError(
                f"{repo} has a tag {tag!r} already, on {known.target_commit}; tags never move, name a new one"
            )


def _check_replaces(
    repo: str, head: str, present: set[str], config: CheckpointConfig, replaces: str | None, token: str | None
) -> None:
    """Other weights in the repository are replaced only by someone who names the commit that holds them."""
    if replaces is not None and replaces != head:
        raise HubError(f"{repo} is at {head} now, not at {replaces}; look at what is there and push again")
    if replaces is not None or "config.json" not in present:
        return
    with tempfile.TemporaryDirectory(prefix="zoo-push-") as cache:
        text = open_hub(f"{repo}@{head}", Access(Path(cache)), token=token).config
    try:
        same = parse_config(text, repo).weights.sha256 == config.weights.sha256
    except ConfigError:
        same = False
    if not same:
        raise HubError(
            f"{repo} holds other weights at {head}; to replace them pass --replaces {head}, or push elsewhere"
        )


def _verify_pushed(repo: str, commit: str, config: CheckpointConfig, token: str | None) -> None:
    """Load and check the commit from the Hub as a stranger would, through a cache of its own."""
    with tempfile.TemporaryDirectory(prefix="zoo-push-") as cache:
        source = open_hub(f"{repo}@{commit}", Access(Path(cache)), token=token)
        failed = [check.text for check in verify(source, need_results=False) if not check.ok]
        if not failed and parse_config(source.config, repo).weights != config.weights:
            failed = ["it holds other weights"]
    if failed:
        raise HubError(
            f"{repo}@{commit} did not come back as it was sent: {failed[0]}; delete that commit and push again"
        )
