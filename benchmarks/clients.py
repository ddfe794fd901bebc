"""Clients that people use, really run against a router: openai (two major versions), LangChain, LiteLLM's SDK, curl.

They live in an environment of their own in the cache (requirements/clients.lock), never in the product's. Writes
docs/results/clients.md; the exit code is 1 when one of them did not get what it should.
Run: make bench-clients
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = ROOT / "tests" / "clients"
sys.path[:0] = [str(ROOT / folder) for folder in ("tests/doubles", "tests/clients")]

from hop.environment import environment, version  # noqa: E402
from policies_made import made  # noqa: E402
from router_running import MODEL_NAME, Running, running  # noqa: E402

from leanmodel_api.policy import Scope  # noqa: E402
from leanmodel_api.router import RouterLimits  # noqa: E402

RESULT = ROOT / "docs" / "results" / "clients.md"
LOCK = ROOT / "requirements" / "clients.lock"
HOME = ROOT / ".venv" / "bin" / "python"
PATIENCE_S = 300
BEAT_S = 0.5
"""Seconds: of a stream whose first token takes 3 s some beats are seen."""
# Nothing but the router is asked: no price list, no telemetry, no hub.
QUIET = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LANGSMITH_TRACING": "false", "HF_HUB_OFFLINE": "1"}


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    client: str
    what: str
    command: str
    wrong: str


def scripted(python: Path, script: str, client: str, router: Running) -> Iterator[Row]:
    """Run one of the scripts of tests/clients."""
    command = [str(python), str(SCRIPTS / script), f"{router.url}/v1", router.key, MODEL_NAME]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=PATIENCE_S, check=False, env=os.environ | QUIET
    )
    shown = f"python tests/clients/{script} $URL/v1 $KEY {MODEL_NAME}"
    for line in done.stdout.splitlines():
        if line.startswith("{"):
            yield Row(client, json.loads(line)["what"], shown, json.loads(line)["wrong"])
    if done.returncode != 0 or not done.stdout.strip():
        yield Row(client, "the script itself", shown, done.stderr.strip()[-300:] or "it said nothing")


def curls(router: Running) -> Iterator[Row]:
    """Run curl as the guide does."""
    said = subprocess.run(["curl", "--version"], capture_output=True, text=True, check=True).stdout
    client, key, chat = (
        f"curl {said.split()[1]}",
        '-H "Authorization: Bearer $KEY"',
        "$URL/v1/chat/completions",
    )
    asked: dict[str, Any] = {"model": MODEL_NAME, "messages": [{"role": "user", "content": "Say something."}]}
    stream = {**asked, "stream": True}
    slow = {**stream, "messages": [{"role": "user", "content": "slowly 3"}]}
    sent = {
        name: f"-d '{json.dumps(body)}'"
        for name, body in (("asked", asked), ("stream", stream), ("slow", slow))
    }
    comments = ": waiting\n: waiting\n: x-leanmodel-route: l"
    for what, words, wanted in (
        ("models", f"curl -sS {key} $URL/v1/models", '"owned_by":"leanmodel"'),
        (
            "chat, with the headers of the answer",
            f"curl -sSi {key} {sent['asked']} {chat}",
            "x-leanmodel-route: l",
        ),
        ("chat streamed", f"curl -sSN {key} {sent['stream']} {chat}", "data: [DONE]"),
        (
            "chat streamed, the first token after 3 s, comments before it",
            f"curl -sSN {key} {sent['slow']} {chat} | grep '^:'",
            comments,
        ),
        ("errors: 401 without a key", f"curl -sS -w '%{{http_code}}' {sent['asked']} {chat}", "401"),
        ("the document", "curl -sS $URL/openapi.json", '"openapi":"3.1.0"'),
    ):
        done = subprocess.run(
            ["bash", "-c", words], capture_output=True, text=True, timeout=PATIENCE_S, check=False,
            env=os.environ | {"URL": router.url, "KEY": router.key},
        )  # fmt: skip
        well = done.returncode == 0 and wanted in done.stdout
        yield Row(
            client, what, words, "" if well else f"{wanted} is not in {(done.stdout + done.stderr)[-300:]!r}"
        )


@contextmanager
def routers() -> Iterator[tuple[Running, Running]]:
    """A router of a cascade, which judges answers and holds them back, and one of a sentence encoder."""
    policy = made("cascade", scope=Scope(), threshold=0.4).model_dump(mode="json")
    cascade: dict[str, Any] = {"strategy": "Cascade", "policy": policy, "overrides": True}
    with (
        tempfile.TemporaryDirectory() as one,
        tempfile.TemporaryDirectory() as two,
        running(Path(one), limits=RouterLimits(heartbeat=BEAT_S), **cascade) as texts,
        running(Path(two), task="text-embedding") as vectors,
    ):
        yield texts, vectors


def rows() -> list[Row]:
    """Run them all."""
    python, found = environment(LOCK, "clients"), list[Row]()
    with routers() as (texts, vectors):
        for home in (HOME, python):
            name = f"openai {version(home, 'openai')}"
            found += scripted(home, "ask_openai.py", name, texts)
            found += scripted(home, "ask_openai_embeddings.py", name, vectors)
        found += scripted(
            python, "ask_langchain.py", f"langchain-openai {version(python, 'langchain-openai')}", texts
        )
        found += scripted(python, "ask_litellm.py", f"litellm {version(python, 'litellm')}", texts)
        found += curls(texts)
        for router in (texts, vectors):
            if "Traceback" in router.log.read_text():
                found.append(Row("the router", "its log", "", router.log.read_text()[-500:]))
    return found


def document(found: list[Row]) -> str:
    """Return the table as a page."""
    lines = [
        "# Clients",
        "",
        "`make bench-clients`: clients that people use, each really run against a router process (keys, a cascade that "
        f"holds answers back, a heartbeat of {BEAT_S:g} s) over HTTP. Behind it is the engine double of `tests/doubles/engine_double.py`, which answers in "
        "vLLM's forms: what is shown is that requests and answers come through the router as the clients want them, not "
        "what a model makes of them. The clients lie in an environment of their own (`requirements/clients.lock`); "
        "LiteLLM wants openai 2, the newest one is the checks' own.",
        "",
        f"{datetime.date.today()}, Python {sys.version.split()[0]}. {sum(not row.wrong for row in found)} of {len(found)} came out as they should.",
        "",
        "| client | what was run | came out |",
        "|---|---|---|",
        *(f"| {row.client} | {row.what} | {cell(row.wrong) if row.wrong else 'right'} |" for row in found),
        "",
        "Run by:",
        "",
        *(f"- {client}: `{command}`" for client, command in dict.fromkeys((row.client, row.command) for row in found)),
        "",
    ]  # fmt: skip
    return "\n".join(lines)


def cell(text: str) -> str:
    """Return text for a table's cell."""
    return "**" + text.replace("|", "\\|").replace("\n", " ") + "**"


def main() -> int:
    """Run it, and write the page."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "").parse_args()
    found = rows()
    text = document(found)
    RESULT.write_text(text, encoding="utf-8")
    print(text)
    wrong: list[Any] = [row for row in found if row.wrong]
    return 1 if wrong or not found else 0


if __name__ == "__main__":
    sys.exit(main())
