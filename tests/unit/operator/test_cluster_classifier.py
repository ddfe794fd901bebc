"""An encoder in a cluster: ONNX Runtime's application, the router's task, and a probe that asks for what it answers."""

from __future__ import annotations

import asyncio
import json
import threading
from base64 import b64encode
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
import yaml
from cluster_world import QUICKSTART, World, manifest

from leanmodel_operator.cluster.accept import accept
from leanmodel_operator.cluster.gather import Gatherer
from leanmodel_operator.cluster.observed import Facts, read
from leanmodel_operator.cluster.settings import Settings


def settled() -> World:
    body = manifest()
    body["spec"] = yaml.safe_load((QUICKSTART.parent / "classifier.yaml").read_text())["spec"]
    world = World(body)
    world.settle()
    return world


def test_it_becomes_ready_and_is_served_by_onnx_runtime() -> None:
    world = settled()
    assert world.condition("Ready")["status"] == "True"
    serve = json.loads(world.objects["RayService", "lm-spam-filter"]["spec"]["serveConfigV2"])
    imports = {app["name"]: app["import_path"] for app in serve["applications"]}
    del imports["router"]
    assert len(imports) == 2 and set(imports.values()) == {"leanmodel_serving.engines.onnx:build"}
    router = world.router()
    assert router is not None and router["task"] == "text-classification"


@pytest.mark.parametrize("field", ["data", "choices"])
def test_the_probe_asks_for_a_label(field: str) -> None:
    world = settled()
    world.body["status"] = {}  # nothing is inherited: everything is asked
    asked: list[str] = []

    class Router(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(self.path)
            body = json.dumps({field: [{"label": "ham"}]}).encode()
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    class Server:
        async def get(self, kind: str, namespace: str, name: str) -> dict[str, Any] | None:
            if kind == "Secret":
                return {
                    "metadata": {"ownerReferences": [{"uid": "uid-1"}]},
                    "data": {"internal": b64encode(b"word").decode()},
                }
            return {"data": {"sms.tsv": "x"}}

    server = HTTPServer(("127.0.0.1", 0), Router)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    async def scene() -> frozenset[str]:
        api: Any = Server()
        settings = Settings(endpoint=f"http://127.0.0.1:{server.server_port}")
        told = asyncio.Queue[Any]()
        gatherer = Gatherer(api, settings, told.put_nowait)
        seen = read(world.body, list(world.objects.values()), Facts())
        model, _ = accept(world.body)
        try:
            while len(set(asked)) < 2:  # both revisions
                await gatherer.facts(("ml", "spam-filter"), model, seen, {})
                await asyncio.wait_for(told.get(), 10)
            return (await gatherer.facts(("ml", "spam-filter"), model, seen, {})).answers
        finally:
            await gatherer.close()

    try:
        answers = asyncio.run(scene())
    finally:
        server.shutdown()
        server.server_close()
    assert set(asked) == {f"/internal/revisions/{name}/classify" for name in world.serving()}
    assert bool(answers) == (field == "data"), "what is no label is no answer"
