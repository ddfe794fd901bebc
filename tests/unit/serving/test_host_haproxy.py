"""The HAProxy that the host starts: what it says when nobody is behind it."""

from __future__ import annotations

import importlib.util
import json
import re
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from leanmodel_api.router import Backend
from leanmodel_serving import haproxy
from leanmodel_serving.router.upstream import from_engine, refusal
from leanmodel_serving.router.wire import Reply, json_object

CONFIG = """
defaults
    mode http
    timeout connect 1s
    timeout client 5s
    timeout server 5s
    retries 0
{errors}
frontend all
    bind 127.0.0.1:{port}
    default_backend nobody
backend nobody
    server one 127.0.0.1:{other}
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def lines_of_serve() -> str:
    """The lines of Serve's own template that name the page of errors."""
    spec = importlib.util.find_spec("ray")
    assert spec is not None and spec.origin is not None
    template = (Path(spec.origin).parent / "serve" / "_private" / "haproxy_templates.py").read_text()
    found = re.findall(r"^ *errorfile \d+ .*$", template, re.MULTILINE)
    assert found
    return "\n".join(found)


@pytest.mark.parametrize("loopback", [(20000, 20001), ()], ids=["leanmodel up", "image"])
def test_its_own_errors_are_of_openais_form(loopback: tuple[int, ...], tmp_path: Path) -> None:
    plain = tmp_path / "500.http"
    plain.write_text("HTTP/1.1 500 Internal Server Error\r\ncontent-length: 3\r\n\r\nbad", newline="")
    errors = lines_of_serve().replace("{{ config.error_file_path }}", str(plain))
    port, config = free_port(), tmp_path / "haproxy.cfg"
    config.write_text(CONFIG.format(errors=errors, port=port, other=free_port()))
    haproxy.write(tmp_path / "haproxy", loopback)
    process = subprocess.Popen([str(tmp_path / "haproxy"), "-db", "-f", str(config)])
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models", timeout=30)
            except urllib.error.HTTPError as error:
                status, headers, body = error.code, error.headers, error.read()
                break
            except OSError:
                assert process.poll() is None and time.monotonic() < deadline
                time.sleep(0.02)
    finally:
        process.terminate()
        process.wait(30)
    assert (status, headers["content-type"], headers["retry-after"]) == (503, "application/json", "5")
    error = json.loads(body)["error"]
    assert set(error) == {"message", "type", "param", "code"} and error["code"] == "no_replica"
    # Of an engine it is told as that engine's, which somebody else may stand in for.
    reply = Reply(status, body, json_object(body), 0.0)
    told = refusal(Backend(revision="large", url="http://127.0.0.1:1"), reply)
    assert not from_engine(reply) and told is not None and told.code == "engine_unavailable"
