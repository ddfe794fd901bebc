"""A hub on this machine: speaks the protocol of the model hub's client, for one repository, org/tiny."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "1234567890abcdef1234567890abcdef12345678"


@dataclass
class Hub:
    """What the server gives out, and what it was asked for."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    stated: dict[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def tree(self) -> list[dict[str, Any]]:
        entries = []
        for sibling in self.info()["siblings"]:
            entry = {
                "type": "file",
                "path": sibling["rfilename"],
                "size": sibling["size"],
                "oid": sibling["blobId"],
            }
            if "lfs" in sibling:
                entry["lfs"] = {**sibling["lfs"], "oid": sibling["lfs"]["sha256"]}
            entries.append(entry)
        return entries

    def info(self) -> dict[str, Any]:
        siblings = []
        for name, data in self.files.items():
            sibling: dict[str, Any] = {
                "rfilename": name,
                "size": len(data),
                "blobId": hashlib.sha1(data).hexdigest(),
            }
            if name.endswith(".safetensors"):
                sha = self.stated.get(name, hashlib.sha256(data).hexdigest())
                sibling["lfs"] = {"sha256": sha, "size": len(data), "pointerSize": 134}
            siblings.append(sibling)
        return {
            "id": "org/tiny",
            "modelId": "org/tiny",
            "sha": COMMIT,
            "siblings": siblings,
            "tags": [],
            "private": False,
        }


@contextmanager
def serving(files: dict[str, bytes]) -> Iterator[Hub]:
    """Gives the files out until it is left."""
    hub = Hub(files=dict(files))

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def do_HEAD(self) -> None:  # noqa: N802 (the name that http.server calls)
            self.answer(body=False)

        def do_GET(self) -> None:  # noqa: N802
            self.answer(body=True)

        def answer(self, body: bool) -> None:
            path = self.path.partition("?")[0]
            hub.asked.append(path)
            head: dict[str, str] = {"X-Repo-Commit": COMMIT}
            if path.startswith("/api/models/org/tiny") and "/absent" not in path:
                data = json.dumps(hub.tree() if "/tree/" in path else hub.info()).encode()
            elif (
                path.startswith(f"/org/tiny/resolve/{COMMIT}/")
                and path.rpartition(COMMIT + "/")[2] in hub.files
            ):
                data = hub.files[path.rpartition(COMMIT + "/")[2]]
                head["ETag"] = f'"{hashlib.sha1(data).hexdigest()}"'
            else:
                what = "RevisionNotFound" if path.startswith("/api/models/org/tiny") else "RepoNotFound"
                self.send_response(404)
                self.send_header("X-Error-Code", what)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(200)
            for name, value in head.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if body:
                self.wfile.write(data)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield hub
    server.shutdown()
    server.server_close()
    thread.join()
