"""The routers' addresses on one real HTTP server: ``/NAMESPACE/NAME`` stands for a LeanModel's Service."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from simulator import Simulator


class SimulatedRouter:
    """Answers the operator's questions as the routers would."""

    def __init__(self, simulator: Simulator) -> None:
        """Listens on a free port of loopback."""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(simulator))
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}/{{namespace}}/{{name}}"

    def close(self) -> None:
        """Stops listening."""
        self._server.shutdown()
        self._server.server_close()


def _handler(simulator: Simulator) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments: Any) -> None:
            pass

        def do_GET(self) -> None:  # noqa: N802 - the base class's name
            _, namespace, name, *rest = self.path.split("/")
            settings = simulator.settings(namespace, name) if rest == ["healthz"] else None
            if rest == ["metrics"]:
                self._say(
                    200,
                    b"ray_leanmodel_cost_usd_total 1.0\nray_leanmodel_counterfactual_cost_usd_total 3.0\n",
                )
            elif settings is None:
                self._say(503, b"{}")
            else:
                self._say(200, json.dumps({"generation": settings["generation"]}).encode())

        def do_POST(self) -> None:  # noqa: N802 - the base class's name
            self.rfile.read(int(self.headers.get("content-length", 0)))
            _, namespace, name, *rest = self.path.split("/")
            if rest[:2] != ["internal", "revisions"] or rest[3:] != ["v1", "chat", "completions"]:
                self._say(404, b"{}")
            elif self.headers.get("authorization") != f"Bearer {simulator.token(namespace, name)}":
                self._say(401, b"{}")
            elif not simulator.answers(namespace, name, rest[2]):
                self._say(503, b"{}")
            else:
                self._say(200, json.dumps({"choices": [{"message": {"content": "Hi"}}]}).encode())

        def _say(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return Handler
