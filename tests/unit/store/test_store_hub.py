"""The hub's real client against a server on this machine that speaks the hub's protocol, and against its cache."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hub_server import COMMIT, Hub, serving
from store_making import safetensors_bytes, write_model

from leanmodel_api.errors import InputError
from leanmodel_api.sources import Source
from leanmodel_store import sources
from leanmodel_store.artifacts import Store
from leanmodel_store.schemes import hf

FILES = {
    "config.json": b'{"model_type": "llama"}',
    "tokenizer.json": b"{}",
    "model.safetensors": safetensors_bytes(),
    "pytorch_model.bin": b"\x80\x04pickle",
    "modeling_own.py": b"1/0",
    "onnx/model.onnx": b"onnx",
}


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serving(FILES) as found:
        yield found


SCRIPT = """
import json, sys
from pathlib import Path
from leanmodel_api.errors import InputError
from leanmodel_api.sources import Source
from leanmodel_store.artifacts import Store
from leanmodel_store.sources import fetch
told = []
try:
    entry = fetch(Source(**json.loads(sys.argv[1])), Path(), Store(Path(sys.argv[2])),
                  lambda done, total: told.append([done, total]), field="spec.large.source")
    print(json.dumps({"names": [f.name for f in entry.files], "meta": entry.meta, "told": told,
                      "digest": entry.digest}))
except InputError as error:
    print(json.dumps({"error": str(error)}))
"""


CACHING = """
import sys
from huggingface_hub import snapshot_download
snapshot_download("org/tiny", allow_patterns=["config.json", "tokenizer.json", "model.safetensors"])
"""


def client(tmp_path: Path, url: str, *command: str) -> str:
    """Run Python in a process of its own: the hub's client reads its settings when it is imported."""
    env = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "TRANSFORMERS_"))}
    env |= {
        "HF_ENDPOINT": url, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1", "HF_HUB_DOWNLOAD_TIMEOUT": "10",
        "HF_HUB_DISABLE_TELEMETRY": "1", "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry),
    }  # fmt: skip
    if not url:
        env |= {"HF_HUB_OFFLINE": "1", "HF_ENDPOINT": "http://127.0.0.1:1"}
    done = subprocess.run(
        [sys.executable, "-c", *command], env=env, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def ask(tmp_path: Path, url: str, **source: str) -> dict[str, Any]:
    """Fetch, and return what came out."""
    said = client(tmp_path, url, SCRIPT, json.dumps(source), str(tmp_path / "store"))
    answer: dict[str, Any] = json.loads(said.splitlines()[-1])
    return answer


def test_a_repository_is_fetched_at_its_commit_without_pickles_or_code(hub: Hub, tmp_path: Path) -> None:
    first = ask(tmp_path, hub.url, uri="hf://org/tiny")
    assert first.get("names") == ["config.json", "model.safetensors", "tokenizer.json"], first
    assert first["meta"]["commit"] == COMMIT
    fetched = {path.rpartition("/")[2] for path in hub.asked if "/resolve/" in path}
    assert fetched == {"config.json", "model.safetensors", "tokenizer.json"}
    assert first["told"][-1][0] == first["told"][-1][1] > 0
    # The hub is gone, and so is its cache: the store answers.
    assert ask(tmp_path, "", uri="hf://org/tiny")["digest"] == first["digest"]
    assert list((tmp_path / "store" / "scratch").iterdir()) == []


def test_what_another_program_left_in_the_cache_is_enough_offline(hub: Hub, tmp_path: Path) -> None:
    client(tmp_path, hub.url, CACHING)
    found = ask(tmp_path, "", uri="hf://org/tiny")
    assert found.get("names") == ["config.json", "model.safetensors", "tokenizer.json"], found
    assert found["meta"]["commit"] == COMMIT


def test_a_file_with_another_sha256_than_the_hub_states_is_refused(hub: Hub, tmp_path: Path) -> None:
    hub.stated["model.safetensors"] = "0" * 64
    error = ask(tmp_path, hub.url, uri="hf://org/tiny")["error"]
    assert "model.safetensors" in error and "spec.large.source" in error


def test_what_the_hub_does_not_have_is_said(hub: Hub, tmp_path: Path) -> None:
    assert "org/absent at main could not be fetched" in ask(tmp_path, hub.url, uri="hf://org/absent")["error"]
    error = ask(tmp_path, hub.url, uri="hf://org/tiny", revision="absent")["error"]
    assert "org/tiny at absent could not be fetched (RevisionNotFoundError)" in error


def test_an_unreachable_hub_is_said(tmp_path: Path) -> None:
    error = ask(tmp_path, "http://127.0.0.1:1", uri="hf://org/tiny")["error"]
    assert "could not be fetched" in error and "the network" in error


def cached(cache: Path, revision: str = "main") -> Path:
    """Lay out a snapshot as the hub's client keeps it."""
    repo = cache / "models--org--tiny"
    write_model(repo / "snapshots" / COMMIT)
    (repo / "refs").mkdir()
    (repo / "refs" / revision).write_text(COMMIT)
    return repo


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize("revision", [None, "main", COMMIT])
def test_offline_the_cached_snapshot_is_used(store: Store, offline: Path, revision: str | None) -> None:
    cached(offline)
    entry = sources.fetch(Source(uri="hf://org/tiny", revision=revision), Path(), store)
    assert [record.name for record in entry.files] == ["config.json", "model.safetensors", "tokenizer.json"]
    assert entry.meta["commit"] == COMMIT


def test_offline_without_a_snapshot_the_message_says_what_to_do(store: Store, offline: Path) -> None:
    with pytest.raises(InputError, match="HF_HUB_OFFLINE.*no snapshot of org/tiny at main; fetch it once"):
        sources.fetch(Source(uri="hf://org/tiny"), Path(), store)


@pytest.mark.parametrize(
    "uri", ["hf://tiny", "hf://a/b/c", "hf://../x/y", "hf://a/..", "hf:", "hf://a/b@main", "hf://a--b/c"]
)
def test_only_repositories_are_accepted(store: Store, uri: str) -> None:
    with pytest.raises(InputError, match="names no repository"):
        sources.fetch(Source(uri=uri), Path(), store)


def test_patterns_match_their_own_name_alone() -> None:
    from fnmatch import fnmatch

    for name in ("a*.json", "a[1].json", "a?.json", "plain.json"):
        assert fnmatch(name, hf._literal(name))
        assert not fnmatch("ab1.json", hf._literal(name)) and not fnmatch("a1.json", hf._literal(name))


LOOK = """
import json, sys
from pathlib import Path
from leanmodel_api.errors import InputError
from leanmodel_api.sources import Source
from leanmodel_store import peek
from leanmodel_store.artifacts import Store
try:
    also = sys.argv[3:]
    folder = peek.look(Source(**json.loads(sys.argv[1])), Path(), Store(Path(sys.argv[2])), "spec.large.source", also)
    print(json.dumps({"config": (folder / "config.json").read_text(), "names": sorted(p.name for p in folder.iterdir())}))
except InputError as error:
    print(json.dumps({"error": str(error)}))
"""


def test_a_look_asks_for_the_configuration_alone(hub: Hub, tmp_path: Path) -> None:
    def look(url: str, uri: str) -> dict[str, Any]:
        source = json.dumps({"uri": uri})
        said: dict[str, Any] = json.loads(client(tmp_path, url, LOOK, source, str(tmp_path / "store")))
        return said

    assert look(hub.url, "hf://org/tiny")["names"] == ["config.json"]
    assert {path.rpartition("/")[2] for path in hub.asked if "/resolve/" in path} == {"config.json"}
    assert (
        "spec.large.source.uri: config.json of org/gone cannot be had"
        in look(hub.url, "hf://org/gone")["error"]
    )
    # Small files beside it are asked for where they are wanted; that one is not there is no error.
    said = json.loads(client(tmp_path, hub.url, LOOK, json.dumps({"uri": "hf://org/tiny"}), str(tmp_path / "store"), "modules.json", "tokenizer.json"))  # fmt: skip
    assert said["names"] == ["config.json", "tokenizer.json"]
    # Fetched since, with its weights: the store's copy is looked at, and no hub is needed.
    ask(tmp_path, hub.url, uri="hf://org/tiny")
    assert "model.safetensors" in look("", "hf://org/tiny")["names"]
