"""One host for the whole session: the large model and the router first, the lean model joins live."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from serving_support import LARGE, LAYERS, LEAN, READY_S, Host, Stack, until

HERE = Path(__file__).parent
TIMEOUT_S = 900


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all tests of this folder; the first one waits for the engines."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.serving)
            item.add_marker(pytest.mark.timeout(TIMEOUT_S))


@pytest.fixture(scope="session")
def models() -> dict[str, Path]:
    """The two models, made once and kept in the cache outside the clone."""
    cache = Path(os.environ.get("LEANMODEL_CACHE", Path.home() / ".cache" / "leanmodel")) / "test-models"
    cache.mkdir(parents=True, exist_ok=True)
    found = {name: cache / f"smollm2-{layers}-layers" for name, layers in LAYERS.items()}
    missing = [str(LAYERS[name]) for name, path in found.items() if not path.exists()]
    if missing:
        named = os.environ.get("LEANMODEL_COMPRESSION_PYTHON")
        python = named or str(Path(sys.prefix).parent / ".venv-compression" / "bin" / "python")
        subprocess.run([python, str(HERE / "make_models.py"), str(cache), *missing], check=True)
    return found


@pytest.fixture(scope="session")
def stack(models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A host that answers with the large model."""
    stack = Stack(tmp_path_factory.mktemp("stack"), models)
    stack.write()
    stack.want(LARGE)
    stack.start()
    try:
        until(lambda: stack.ready(LARGE, "router"), READY_S, "the large model answers")
        yield stack
    finally:
        code = stack.stop()
        stack.client.close()
    assert code == 0, stack.log()


@dataclass
class Joining:
    """What was seen while the lean model joined."""

    large_before: list[int]
    large_after: list[int]
    statuses: list[int] = field(default_factory=list)


@pytest.fixture(scope="session")
def joined(stack: Stack) -> Joining:
    """Adds the lean model beside the large one, which is asked all the while."""
    seen = Joining(stack.replica_pids(LARGE), [])
    over = threading.Event()

    def ask() -> None:
        with httpx.Client(base_url=stack.url, timeout=120.0) as client:
            while not over.is_set():
                body = {"model": "support", "prompt": "Hello", "max_tokens": 1, "temperature": 0}
                seen.statuses.append(client.post("/v1/completions", json=body).status_code)
                over.wait(0.2)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        stack.want(LARGE, LEAN)
        until(lambda: stack.ready(LARGE, LEAN, "router"), READY_S, "the lean model has joined")
    finally:
        over.set()
        thread.join()
    seen.large_after = stack.replica_pids(LARGE)
    return seen


@pytest.fixture
def pair(stack: Stack, joined: Joining) -> Iterator[Stack]:
    """The host with both models, all asked of the large one; the router's settings are put back afterwards."""
    stack.configure(lean=stack.backend(LEAN))
    yield stack
    stack.configure()


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[Host]:
    """A host without applications, not started; ended however the test goes."""
    host = Host(tmp_path)
    host.desired.write_text('{"applications": []}')
    yield host
    if host.process is not None and host.process.poll() is None:
        host.stop()
