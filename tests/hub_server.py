"""A small stand-in for the Hugging Face Hub and ModelScope on loopback, for their real clients to speak to.

`with hub_server(monkeypatch) as hub:` serves until the block ends. Repositories live in memory; `hub.faults` maps part
of "GET /path" to what the next requests for it meet: a status, "hang up", or seconds to wait.
"""

import base64
import hashlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from huggingface_hub import constants

TOKEN, READ_ONLY = "hf_" + "w" * 34, "hf_" + "r" * 34
LARGE = (".safetensors", ".gguf", ".png")  # what goes to large-file storage


@dataclass
class Repo:
    private: bool = False
    files: dict[str, bytes] = field(default_factory=dict)
    commits: list[str] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)  # of a Space
    gated: bool = False
    history: dict[str, dict[str, bytes]] = field(default_factory=dict)  # files by commit

    def at(self, revision: str) -> dict[str, bytes] | None:
        """Its files at a commit, None where it has none such; those of the newest may have been changed by hand."""
        return self.files if revision in ("main", self.commits[-1]) else self.history.get(revision)

    def commit(self) -> str:
        state = json.dumps([[name, hashlib.sha1(data).hexdigest()] for name, data in sorted(self.files.items())])
        self.commits.append(hashlib.sha1(f"{len(self.commits)}{state}".encode()).hexdigest())
        self.history[self.commits[-1]] = dict(self.files)
        return self.commits[-1]


class Hub(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.repos: dict[str, Repo] = {}  # "models/user/name"
        self.stored: dict[str, bytes] = {}  # large files by SHA-256
        self.faults: dict[str, list[int | float | str]] = {}
        self.storage = ""  # address of a Xet storage that holds the large files, "" for none
        self.licences = ["gemma", "other"]  # that ModelScope knows
        self.log: list[str] = []  # "PUT /store/..."
        self.corrupt: Callable[[bytes], bytes] = lambda data: data  # what storage does to a file
        self.spoil: Callable[[bytes], bytes] = lambda data: data  # what a commit does to a small one

    def add(self, name: str, files: dict[str, bytes], private: bool = True) -> Repo:
        repo = self.repos[name] = Repo(private, dict(files))
        repo.commit()
        return repo


@contextmanager
def hub_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A running server that this process's clients take for both hubs, with a token that may write."""
    with Hub() as hub, monkeypatch.context() as patch:
        threading.Thread(target=hub.serve_forever, args=(0.02,), daemon=True).start()
        patch.setattr(constants, "ENDPOINT", hub.url)
        patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}")
        patch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # it speaks the LFS protocol
        for name in ("HF_TOKEN", "MODELSCOPE_API_TOKEN"):
            patch.setenv(name, TOKEN)
        patch.setenv("MODELSCOPE_ENDPOINT", hub.url)
        try:
            yield hub
        finally:
            hub.shutdown()


def entry(path: str, data: bytes) -> dict[str, Any]:
    blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    value: dict[str, Any] = {"type": "file", "path": path, "size": len(data), "oid": blob}
    if path.endswith(LARGE):
        value["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
    return value


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def handle_any(self) -> None:
        parts = urlsplit(self.path)
        path, self.query = unquote(parts.path), parse_qs(parts.query)
        self.server.log.append(f"{self.command} {path}")
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        for piece, faults in self.server.faults.items():
            if piece in f"{self.command} {path}" and faults:
                fault = faults.pop(0)
                if isinstance(fault, float):
                    time.sleep(fault)
                    continue
                if fault == "hang up":
                    self.close_connection = True
                    return self.connection.close()
                return self.answer(int(fault), {"error": f"made to fail with {fault}"})
        for method, pattern, action in ROUTES:
            if method == self.command and (match := re.fullmatch(pattern, path)):
                return action(self, *match.groups())
        self.answer(404, {"error": f"no route for {self.command} {path}"})

    do_GET = do_HEAD = do_POST = do_PUT = handle_any

    def answer(self, status: int, value: Any = b"", headers: dict[str, str] | None = None) -> None:
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        for key, text in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(key, text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def json(self) -> Any:
        return json.loads(self.body)

    def token(self) -> str:
        return self.headers.get("Authorization", "").removeprefix("Bearer ")

    def may_write(self) -> bool:
        if self.token() == TOKEN:
            return True
        status = 403 if self.token() == READ_ONLY else 401
        self.answer(status, {"error": "not permitted"}, {"X-Error-Message": "not permitted"})
        return False

    def repo(self, name: str) -> Repo | None:
        repo = self.server.repos.get(name)
        if repo is None or (repo.private and self.token() not in (TOKEN, READ_ONLY)):
            self.answer(404, {"error": "no such repository"}, {"X-Error-Code": "RepoNotFound"})
            return None
        if repo.gated:
            self.answer(403, {"error": "gated"}, {"X-Error-Code": "GatedRepo"})
            return None
        return repo

    # The Hugging Face Hub

    def create(self) -> None:
        if self.may_write():
            asked = self.json()
            name = f"{asked.get('type') or 'model'}s/{asked['organization']}/{asked['name']}"
            url = f"{self.server.url}/{name.removeprefix('models/')}"
            if name in self.server.repos or asked["organization"] != "me":
                status = 409 if name in self.server.repos else 403
                return self.answer(status, {"error": "name taken or not yours", "url": url})
            repo = self.server.repos[name] = Repo(asked.get("visibility") == "private")
            for what in asked.keys() & {"variables", "secrets"}:
                repo.settings[what] = {entry["key"]: entry["value"] for entry in asked[what]}
            repo.settings |= {what: asked[what] for what in asked.keys() & {"hardware", "volumes"}}
            repo.commit()
            self.answer(200, {"url": url})

    def info(self, name: str, revision: str | None = None) -> None:
        if repo := self.repo(name):
            held = repo.at(revision or "main")
            if held is None:
                return self.answer(404, {"error": "no such revision"}, {"X-Error-Code": "RevisionNotFound"})
            files = [{"rfilename": path, "size": len(data)} for path, data in held.items()]
            sha = revision if revision in repo.history else repo.commits[-1]
            about = {"id": name.split("/", 1)[1], "sha": sha, "private": repo.private}
            self.answer(200, about | {"siblings": files})

    def auth_check(self, name: str) -> None:
        if self.repo(name):
            self.answer(200, {})

    def search(self) -> None:
        wanted = [tag.encode() for tag in self.query["filter"]]
        models = [name for name in self.server.repos if name.startswith("models/")]
        tags = {name: self.server.repos[name].files.get("tags", b"").split() for name in models}
        tagged = [name for name in models if set(wanted) <= set(tags[name])]
        self.answer(200, [{"id": name.removeprefix("models/")} for name in tagged])

    def tree(self, name: str, revision: str) -> None:
        if repo := self.repo(name):
            self.answer(200, [entry(path, data) for path, data in (repo.at(revision) or {}).items()])

    def paths_info(self, name: str) -> None:
        if repo := self.repo(name):
            paths = parse_qs(self.body.decode())["paths"]
            self.answer(200, [entry(path, repo.files[path]) for path in paths if path in repo.files])

    def validate(self) -> None:
        content = self.json()["content"]
        good = content.startswith("---\n") and "\n---\n" in content[4:]
        self.answer(200 if good else 400, {"errors": [] if good else [{"message": "no metadata"}], "warnings": []})

    def preupload(self, name: str) -> None:
        if self.may_write() and (repo := self.repo(name)):
            files = []
            for file in self.json()["files"]:
                path = file["path"]
                about = entry(path, repo.files[path]) if path in repo.files else {}
                mode, oid = "lfs" if path.endswith(LARGE) else "regular", about.get("lfs", about).get("oid")
                files.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
            self.answer(200, {"files": files})

    def batch(self) -> None:
        if self.may_write():
            objects = []
            for item in self.json()["objects"]:
                href = {"href": f"{self.server.url}/store/{item['oid']}"}
                actions = {} if item["oid"] in self.server.stored else {"actions": {"upload": href}}
                objects.append({"oid": item["oid"], "size": item["size"], **actions})
            self.answer(200, {"transfer": "basic", "objects": objects, "Data": {"objects": objects}})

    def store(self, oid: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != oid:
            return self.answer(400, {"error": "hash differs"})
        self.server.stored[oid] = self.server.corrupt(self.body)
        self.answer(200, {})

    def commit(self, name: str) -> None:
        if not self.may_write() or not (repo := self.repo(name)):
            return
        files = dict(repo.files)
        for line in self.body.splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "file":
                files[value["path"]] = self.server.spoil(base64.b64decode(value["content"]))
            elif item["key"] == "lfsFile":
                files[value["path"]] = self.server.stored[value["oid"]]
            elif item["key"] == "deletedFile":
                del files[value["path"]]
        repo.files = files
        oid = repo.commit()
        self.answer(200, {"commitUrl": f"{self.server.url}/{name}/commit/{oid}", "commitOid": oid})

    def resolve(self, name: str, revision: str, path: str) -> None:
        if repo := self.repo(name if name.startswith("datasets/") else f"models/{name}"):
            files = repo.at(revision) or {}
            if path not in files:
                return self.answer(404, {"error": "no such file"}, {"X-Error-Code": "EntryNotFound"})
            about = entry(path, files[path])
            commit = revision if revision in repo.history else repo.commits[-1]
            headers = {"X-Repo-Commit": commit, "ETag": f'"{about.get("lfs", about)["oid"]}"'}
            if self.server.storage and "lfs" in about:
                headers |= {"X-Xet-Hash": about["lfs"]["oid"], "X-Xet-Refresh-Route": f"{self.server.url}/xet-token"}
            self.answer(200, files[path], headers)

    def storage_token(self) -> None:
        names = ("X-Xet-Cas-Url", "X-Xet-Access-Token", "X-Xet-Token-Expiration")
        self.answer(200, b"", dict(zip(names, (self.server.storage, "token", str(2**32)), strict=True)))

    def storage_fails(self) -> None:
        self.answer(503, {"error": "out of order"})

    def space(self, name: str, what: str) -> None:
        if self.may_write() and (repo := self.repo(f"spaces/{name}")):
            asked = self.json()
            if what == "hardware":
                repo.settings["hardware"] = asked["flavor"]
                return self.answer(
                    200, {"stage": "BUILDING", "hardware": {"current": None, "requested": asked["flavor"]}}
                )
            repo.settings.setdefault(what, {})[asked["key"]] = asked["value"]
            self.answer(200, {})

    def mount(self, name: str) -> None:
        if self.may_write() and (repo := self.repo(f"spaces/{name}")):
            repo.settings["volumes"] = self.json()["volumes"]
            self.answer(200, {})

    def runtime(self, name: str) -> None:
        if repo := self.repo(f"spaces/{name}"):
            hardware = {"current": None, "requested": repo.settings.get("hardware", "cpu-basic")}  # as one that sleeps
            self.answer(200, {"stage": "RUNNING", "volumes": repo.settings.get("volumes"), "hardware": hardware})

    def create_bucket(self, name: str) -> None:
        if self.may_write():
            status = 409 if f"buckets/{name}" in self.server.repos else 200
            self.server.repos.setdefault(f"buckets/{name}", Repo(self.json().get("visibility") == "private"))
            self.answer(status, {"url": f"{self.server.url}/buckets/{name}"})

    # ModelScope

    def scope_may_write(self) -> bool:
        if TOKEN in (self.token(), self.headers.get("Cookie", "").partition("m_session_id=")[2][: len(TOKEN)]):
            return True
        self.answer(401, {"Code": 401, "Message": "not logged in", "Success": False})
        return False

    def scope_info(self, name: str) -> None:
        repo = self.server.repos.get(f"scope/{name}")
        if repo is None:
            return self.answer(404, {"Code": 404, "Message": "not found", "Success": False})
        self.answer(
            200, {"data": {"id": name, "private": repo.private}, "Data": {"Visibility": 1 if repo.private else 5}}
        )

    def scope_create(self) -> None:
        if self.scope_may_write():
            asked = self.json()
            name = f"scope/{asked['Path']}/{asked['Name']}"
            if name in self.server.repos:
                return self.answer(400, {"Code": 10010, "Message": "repository already exists", "Success": False})
            if asked["License"] not in self.server.licences:
                return self.answer(400, {"Code": 10010, "Message": "the license is not valid", "Success": False})
            self.server.repos[name] = Repo(asked["Visibility"] == 1, settings={"licence": asked["License"]})
            self.answer(200, {"Code": 200, "Data": {"Id": 1}, "Success": True})

    def scope_file(self, name: str) -> None:
        if self.scope_may_write():
            path = self.query["FilePath"][0]
            self.answer(200, self.server.repos[f"scope/{name}"].files[path])

    def scope_files(self, name: str) -> None:
        if f"scope/{name}" not in self.server.repos:
            return self.answer(404, {"Code": 404, "Message": "not found", "Success": False})
        files = self.server.repos[f"scope/{name}"].files
        rows = [{"Path": p, "Size": len(d), "Sha256": hashlib.sha256(d).hexdigest()} for p, d in files.items()]
        self.answer(200, {"Code": 200, "Data": {"Files": [row | {"Type": "blob"} for row in rows]}, "Success": True})

    def scope_commit(self, name: str) -> None:
        if self.scope_may_write():
            repo = self.server.repos[f"scope/{name}"]
            for action in self.json()["actions"]:
                large = action["type"] == "lfs"
                data = self.server.stored[action["sha256"]] if large else base64.b64decode(action["content"])
                repo.files[action["path"]] = data
            self.answer(200, {"Code": 200, "Data": {"oid": repo.commit()}, "Success": True})


NAME = r"[\w.-]+/[\w.-]+"
ROUTES: list[tuple[str, str, Callable[..., None]]] = [
    ("POST", "/api/repos/create", Handler.create),
    ("POST", "/api/validate-yaml", Handler.validate),
    ("GET", "/xet-token", Handler.storage_token),
    ("GET", "/broken-storage/.*", Handler.storage_fails),
    ("GET", "/api/models", Handler.search),
    ("GET", rf"/api/((?:models|datasets|spaces)/{NAME})(?:/revision/(\w+))?", Handler.info),
    ("GET", rf"/api/(models/{NAME})/auth-check", Handler.auth_check),
    ("GET", rf"/api/((?:models|datasets|spaces)/{NAME})/tree/(\w+)", Handler.tree),
    ("POST", rf"/api/((?:models|datasets|spaces)/{NAME})/paths-info/\w+", Handler.paths_info),
    ("POST", rf"/api/((?:models|datasets|spaces)/{NAME})/preupload/main", Handler.preupload),
    ("POST", rf"/api/((?:models|datasets|spaces)/{NAME})/commit/main", Handler.commit),
    ("POST", rf"/(?:spaces/)?{NAME}\.git/info/lfs/objects/batch", Handler.batch),
    ("PUT", r"/store/(\w+)", Handler.store),
    ("GET", rf"/((?:datasets/)?{NAME})/resolve/(\w+)/(.+)", Handler.resolve),
    ("HEAD", rf"/((?:datasets/)?{NAME})/resolve/(\w+)/(.+)", Handler.resolve),
    ("POST", rf"/api/spaces/({NAME})/(variables|secrets|hardware)", Handler.space),
    ("PUT", rf"/api/spaces/({NAME})/volumes", Handler.mount),
    ("GET", rf"/api/spaces/({NAME})/runtime", Handler.runtime),
    ("POST", rf"/api/buckets/({NAME})", Handler.create_bucket),
    ("GET", rf"/(?:openapi/v1|api/v1)/models/({NAME})", Handler.scope_info),
    ("POST", "/api/v1/models", Handler.scope_create),
    ("POST", rf"/api/v1/repos/models/{NAME}/info/lfs/objects/batch", Handler.batch),
    ("GET", rf"/api/v1/models/({NAME})/repo/files", Handler.scope_files),
    ("GET", rf"/api/v1/models/({NAME})/repo", Handler.scope_file),
    ("HEAD", rf"/api/v1/models/({NAME})/repo", Handler.scope_file),
    ("POST", rf"/api/v1/repos/models/({NAME})/commit/master", Handler.scope_commit),
]
