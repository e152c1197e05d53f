"""Checkpoint files from the Hugging Face Hub, with every failure told as one sentence and its fix."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from zoo.checkpoint.config import Weights
from zoo.checkpoint.sources import Access, Source
from zoo.errors import HubError, UnknownNameError
from zoo.text import clipped

COMMIT = re.compile(r"[0-9a-f]{40}")
REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True)
class HubSource(Source):
    """A checkpoint in a Hub repository; every file comes from the commit that config.json came from."""

    repo: str
    commit: str
    token: str | None = None

    def weights(self, wanted: Weights) -> Path:
        """The weights file in the cache. Raises HubError."""
        return self.file(wanted.file)

    def extra(self, name: str) -> bytes | None:
        """A small file, None if the repository has none. Raises HubError."""
        from huggingface_hub.errors import EntryNotFoundError

        try:
            return self.file(name).read_bytes()
        except HubError as error:
            if isinstance(error.__cause__, EntryNotFoundError) and status(error.__cause__) == 404:
                return None
            raise

    def file(self, name: str) -> Path:
        """Any file of the commit, in the cache. Raises HubError."""
        return _fetch(self.label, self.repo, name, self.commit, self.access, self.token)

    def advice(self, path: Path) -> str:
        return f"if the cached copy is damaged, delete {path.resolve()} and load again"


def parse_hub(address: str, revision: str | None = None) -> tuple[str, str | None]:
    """`org/name[@revision]` -> repository and revision, None for its main branch. Raises UnknownNameError."""
    repo, at, pinned = address.partition("@")
    if not REPO.fullmatch(repo) or (at and not pinned):
        raise UnknownNameError(f"'hf-hub:{address}' is no hub address; write 'hf-hub:org/name[@revision]'")
    if pinned and revision is not None and revision != pinned:
        raise UnknownNameError(f"'hf-hub:{address}' and revision={revision!r} name two revisions; keep one of them")
    return repo, pinned or revision


def open_hub(
    address: str, access: Access, *, revision: str | None = None, token: str | None = None, label: str = ""
) -> HubSource:
    """Open what follows `hf-hub:`, as in `org/name` or `org/name@revision`. Raises UnknownNameError, HubError."""
    repo, wanted = parse_hub(address, revision)
    label = (label or f"hf-hub:{repo}") + (f"@{wanted}" if wanted else "")
    path = _fetch(label, repo, "config.json", wanted, access, token)
    # The cache keeps files under snapshots/COMMIT/; a branch may move before the weights are fetched.
    return HubSource(label, path.read_bytes(), access, repo, path.parent.name, token)


def _fetch(label: str, repo: str, name: str, revision: str | None, access: Access, token: str | None) -> Path:
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    from zoo import __version__

    cache_dir = None if access.cache_dir is None else str(access.cache_dir)
    try:
        if revision is not None and COMMIT.fullmatch(revision):
            # hf_hub_download makes no request for the file here either, but may make others of its own.
            cached = try_to_load_from_cache(repo, name, cache_dir=cache_dir, revision=revision)
            if isinstance(cached, str):
                return Path(cached)
        path = hf_hub_download(
            repo,
            name,
            revision=revision,
            cache_dir=cache_dir,
            local_files_only=access.local_files_only,
            token=token,
            library_name="encoder-zoo",
            library_version=__version__,
        )
    except Exception as error:  # huggingface_hub raises its own, httpx's and the system's errors
        raise HubError(f"{label}: {name} could not be fetched: {explain(error)}") from error
    return Path(path)


def explain(error: Exception) -> str:
    """An error of huggingface_hub or below it as one clause with its fix."""
    from huggingface_hub import errors

    code = status(error)
    if isinstance(error, errors.GatedRepoError) or code == 403:
        return "access is restricted (403); ask for access on its page, then `hf auth login` or set HF_TOKEN"
    if isinstance(error, errors.RepositoryNotFoundError) or code == 401:
        return "no such repository, or a private one; check the name, or `hf auth login` or set HF_TOKEN"
    if isinstance(error, errors.RevisionNotFoundError):
        return "no such revision; name an existing branch, tag or full commit"
    if code == 404:
        return "the repository has no such file (404); is it an Encoder Zoo checkpoint?"
    if code == 429:
        return (
            "too many requests (429); wait some minutes, set HF_TOKEN, or pin a full commit so that the cache is enough"
        )
    if code is not None and code >= 500:
        return f"the hub answers {code}; try again later, or use a cached copy with HF_HUB_OFFLINE=1"
    if _offline(error):
        return "not in the cache, and the network is off; load it once without HF_HUB_OFFLINE and local_files_only"
    if isinstance(error, errors.LocalEntryNotFoundError):
        return (
            "the hub cannot be reached and the cache does not hold it; check the network, or HF_ENDPOINT for a mirror"
        )
    first = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {clipped(first, 300)}; try again, or check the network and the disk"


def _chain(error: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


def status(error: Exception) -> int | None:
    """HTTP status behind an error: huggingface_hub wraps most in 'not found in the cache'."""
    for link in _chain(error):
        response = getattr(link, "response", None)
        if isinstance(getattr(response, "status_code", None), int):
            return response.status_code
    return None


def _offline(error: Exception) -> bool:
    from huggingface_hub import errors

    chain = _chain(error)
    if any(isinstance(link, errors.OfflineModeIsEnabled) for link in chain):
        return True
    return isinstance(error, errors.LocalEntryNotFoundError) and len(chain) == 1
