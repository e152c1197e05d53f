"""A loopback stand-in for the writing half of the Hugging Face Hub: repositories, commits, tags, LFS uploads."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.serving import running

Tree = dict[str, bytes]


@dataclass
class Repository:
    """Commits in order, each a whole tree; `main` is the last."""

    private: bool
    commits: dict[str, Tree] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    @property
    def head(self) -> str:
        """The commit of main."""
        return list(self.commits)[-1]

    def commit(self, tree: Tree) -> str:
        """Add a commit and return its hash."""
        text = f"{len(self.commits)}" + "".join(
            f"{name}{hashlib.sha1(tree[name]).hexdigest()}" for name in sorted(tree)
        )
        sha = hashlib.sha1(text.encode()).hexdigest()
        self.commits[sha] = tree
        return sha

    def tree(self, revision: str) -> Tree | None:
        """The tree of a branch, tag or commit."""
        return self.commits.get(self.head if revision == "main" else self.tags.get(revision, revision))


class WritableHub:
    """Repositories by name. `faults` maps a request kind to a status; `before_commit` runs once, as a rival would."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.large: dict[str, bytes] = {}
        self.faults: dict[str, int] = {}
        self.tampered: set[str] = set()
        self.writes: list[str] = []
        self.before_commit: Any = None
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def serve(self) -> None:
                size = int(self.headers.get("Content-Length") or 0)
                hub.answer(self, self.rfile.read(size) if size else b"")

            do_GET = do_HEAD = do_POST = do_PUT = serve

            def log_message(self, *args: object) -> None:
                """Quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def add(self, repo: str, tree: Tree, private: bool = True) -> Repository:
        """A repository with one commit."""
        made = self.repositories[repo] = Repository(private)
        made.commit({".gitattributes": b"*.safetensors filter=lfs\n", **tree})
        return made

    def answer(self, handler: BaseHTTPRequestHandler, body: bytes) -> None:
        """Route one request."""
        path = handler.path.split("?")[0].lstrip("/")
        routes = [
            (r"api/validate-yaml", lambda: (200, {"warnings": [], "errors": []})),
            (r"api/repos/create", lambda: self._create(json.loads(body))),
            (r"api/models/([\w.-]+/[\w.-]+)(?:/revision/([\w.-]+))?", self._info),
            (r"api/models/([\w.-]+/[\w.-]+)/refs", self._refs),
            (r"api/models/([\w.-]+/[\w.-]+)/preupload/[\w.-]+", lambda repo: self._preupload(json.loads(body))),
            (r"api/models/([\w.-]+/[\w.-]+)/commit/main", lambda repo: self._commit(repo, body)),
            (r"api/models/([\w.-]+/[\w.-]+)/tag/(\w+)", lambda repo, at: self._tag(repo, at, json.loads(body))),
            (r"([\w.-]+/[\w.-]+?)\.git/info/lfs/objects/batch", lambda repo: self._batch(json.loads(body))),
            (r"lfs/(\w+)", lambda oid: self._put(oid, body)),
        ]
        resolve = re.fullmatch(r"([\w.-]+/[\w.-]+)/resolve/([\w.-]+)/(.+)", path)
        if resolve:
            self._resolve(handler, *resolve.groups())
            return
        for pattern, action in routes:
            found = re.fullmatch(pattern, path)
            if found:
                kind = re.sub(r"\W", "", pattern.split("/")[-1].split("(")[0]) or "info"
                status, answer = (self.faults[kind], {}) if kind in self.faults else action(*found.groups())
                break
        else:
            status, answer = 404, {"error": f"the stand-in knows no {path}"}
        self._send(handler, status, json.dumps(answer).encode(), {"X-Error-Code": answer.pop("code", "")})

    @staticmethod
    def _send(handler: BaseHTTPRequestHandler, status: int, content: bytes, headers: dict[str, str]) -> None:
        handler.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(content))}.items():
            if value:
                handler.send_header(key, value)
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(content)

    def _create(self, request: dict[str, Any]) -> tuple[int, dict]:
        repo = f"{request['organization']}/{request['name']}"
        private = request.get("private") or request.get("visibility") == "private"
        self.add(repo, {}, bool(private))
        self.writes.append(f"create {repo}")
        return 200, {"url": f"{self.url}/{repo}"}

    def _info(self, repo: str, revision: str | None = None) -> tuple[int, dict]:
        if repo not in self.repositories:
            return 401, {"code": "RepoNotFound"}
        found = self.repositories[repo]
        files = [{"rfilename": name} for name in found.commits[found.head]]
        return 200, {"id": repo, "modelId": repo, "sha": found.head, "private": found.private, "siblings": files}

    def _refs(self, repo: str) -> tuple[int, dict]:
        tags = [
            {"name": name, "ref": f"refs/tags/{name}", "targetCommit": commit}
            for name, commit in self.repositories[repo].tags.items()
        ]
        return 200, {"branches": [], "converts": [], "tags": tags}

    @staticmethod
    def _preupload(request: dict[str, Any]) -> tuple[int, dict]:
        files = [
            {
                "path": f["path"],
                "uploadMode": "lfs" if f["path"].endswith(".safetensors") else "regular",
                "shouldIgnore": False,
            }
            for f in request["files"]
        ]
        return 200, {"files": files}

    def _batch(self, request: dict[str, Any]) -> tuple[int, dict]:
        objects = [
            {"oid": o["oid"], "size": o["size"], "actions": {"upload": {"href": f"{self.url}/lfs/{o['oid']}"}}}
            for o in request["objects"]
        ]
        return 200, {"transfer": "basic", "objects": objects}

    def _put(self, oid: str, body: bytes) -> tuple[int, dict]:
        self.large[oid] = body
        return 200, {}

    def _commit(self, repo: str, body: bytes) -> tuple[int, dict]:
        if self.before_commit is not None:
            self.before_commit(self.repositories[repo])
            self.before_commit = None
        found = self.repositories[repo]
        tree = dict(found.commits[found.head])
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "header" and value.get("parentCommit") not in (None, found.head):
                return 412, {"error": "A commit has happened since. Please refresh and try again."}
            if line["key"] == "file":
                tree[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                tree[value["path"]] = self.large[value["oid"]]
            elif line["key"] == "deletedFile":
                del tree[value["path"]]
        commit = found.commit(tree)
        self.writes.append(f"commit {repo}")
        return 200, {"commitUrl": f"{self.url}/{repo}/commit/{commit}", "commitOid": commit}

    def _tag(self, repo: str, commit: str, request: dict[str, Any]) -> tuple[int, dict]:
        self.repositories[repo].tags[request["tag"]] = commit
        self.writes.append(f"tag {request['tag']}")
        return 200, {}

    def _resolve(self, handler: BaseHTTPRequestHandler, repo: str, revision: str, name: str) -> None:
        found = self.repositories.get(repo)
        tree = found.tree(revision) if found else None
        if tree is None or name not in tree:
            code = "RepoNotFound" if found is None else "RevisionNotFound" if tree is None else "EntryNotFound"
            self._send(handler, 404, b"", {"X-Error-Code": code})
            return
        content, etag = tree[name], hashlib.sha256(tree[name]).hexdigest()
        if name in self.tampered:
            content = content[:-1] + bytes([content[-1] ^ 1])
        commit = found.head if revision == "main" else found.tags.get(revision, revision)
        self._send(handler, 200, content, {"ETag": f'"{etag}"', "X-Repo-Commit": commit})


@contextmanager
def serve_writable() -> Iterator[WritableHub]:
    """A running `WritableHub`."""
    hub = WritableHub()
    with running(hub.server):
        yield hub
