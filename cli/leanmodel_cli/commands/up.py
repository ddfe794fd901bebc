"""leanmodel up: one manifest, from nothing to an endpoint that keeps its promise."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import IO, Any

from leanmodel_api.classification import EMBEDDING, TASK
from leanmodel_api.errors import InputError, Issue, LeanModelError
from leanmodel_api.report import ProveReport
from leanmodel_api.resource import LeanModel

from ..display import Display
from ..ports import check_port
from ..processes import compression_python
from ..provider_key import check_provider_key, check_redis_password
from ..runs import Run, read_json, read_manifest, write_atomic
from ..table import report_lines
from .down import end

HELP = "compress, prove, serve and route as the manifest says; Ctrl-C ends it all"


def arguments(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "-f", "--file", type=Path, required=True, metavar="FILE", help="manifest (YAML or JSON)"
    )
    parser.add_argument(
        "--detach", action="store_true", help="return when the work is done, and go on serving"
    )
    parser.add_argument("--port", type=int, help="port of the endpoint (default: spec.serving.router.port)")


def run(arguments: Namespace) -> int:
    """Bring the LeanModel up; return when it is settled (--detach) or ended (Ctrl-C)."""
    model = read_manifest(arguments.file)
    run = Run.of(model.metadata.name, model.metadata.namespace)
    base_dir = arguments.file.resolve().parent
    settings: dict[str, Any] = {
        "resource": model.model_dump(mode="json", by_alias=True, exclude_none=True),
        "baseDir": str(base_dir), "port": arguments.port or model.spec.serving.router.port,
    }  # fmt: skip
    if run.supervisor() is not None:
        return _already_up(run, settings, arguments.detach)
    compression_python_or_error(model)
    check_provider_key(model)
    check_redis_password(model)
    check_port(settings["port"])
    run.root.mkdir(parents=True, exist_ok=True)
    run.root.chmod(0o700)
    write_atomic(run.resource, json_text(settings))
    run.status.unlink(missing_ok=True)
    supervisor = _start(run)
    return _follow(run, supervisor, arguments.detach)


def json_text(value: object) -> str:
    """Return a value as JSON with a line per field."""
    return json.dumps(value, indent=2)


def compression_python_or_error(model: LeanModel) -> None:
    """Check that the compression environment is there.

    Raises:
        InputError: it is not.
    """
    try:
        compression_python()
    except FileNotFoundError as error:
        raise InputError(Issue("environment", str(error), "")) from None


def _already_up(run: Run, settings: dict[str, Any], detach: bool) -> int:
    if read_json(run.resource) != settings:
        raise InputError(
            Issue(run.root.name, "is up with another manifest or port", "end it with `leanmodel down` first")
        )
    if not detach:
        raise InputError(
            Issue(run.root.name, "is up already", "see `leanmodel status`, or end it with `leanmodel down`")
        )
    return _outcome(run, Display())


def _start(run: Run) -> subprocess.Popen[bytes]:
    """Start the supervisor in a session of its own; while it holds our pipe, our end is its end."""
    log = run.log("supervisor")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as out:
        return subprocess.Popen(
            [sys.executable, "-m", "leanmodel_cli.supervisor", "--run", str(run.root)],
            stdin=subprocess.PIPE, stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip


def _follow(run: Run, supervisor: subprocess.Popen[bytes], detach: bool) -> int:
    """Show progress until the run is settled (and detached) or ended."""
    display = Display()
    signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
    settled = False
    pipe: IO[bytes] | None = supervisor.stdin
    assert pipe is not None
    try:
        while supervisor.poll() is None:
            resource = read_json(run.status)
            if resource is not None:
                display.update(resource)
                if not settled and resource.get("settled") and _serves(resource):
                    settled = True
                    code = _outcome(run, display)
                    if detach:
                        pipe.write(b"detach\n")
                        pipe.close()
                        print(next_commands(resource), flush=True)
                        return code
                    print(next_commands(resource), flush=True)
                    print("serving; Ctrl-C ends it", flush=True)
            time.sleep(0.2)
        return _died(run, supervisor.returncode)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        print("\nending …", file=sys.stderr, flush=True)
        with contextlib.suppress(OSError):
            pipe.close()
        end(run)
        with contextlib.suppress(subprocess.TimeoutExpired):
            supervisor.wait(timeout=30)
        return 130


def _serves(resource: dict[str, Any]) -> bool:
    """Say whether something answers; a run that failed before that is settled too, and about to end."""
    return _condition(resource, "Serving").get("status") == "True"


def _condition(resource: dict[str, Any], type_: str) -> dict[str, Any]:
    """Return a condition of a resource, empty where it has none of that type."""
    conditions: list[dict[str, Any]] = resource.get("status", {}).get("conditions", [])
    return next((c for c in conditions if c["type"] == type_), {})


def _died(run: Run, code: int) -> int:
    """Report a supervisor that ended by itself: a failure before anything could serve, or a crash."""
    resource = read_json(run.status) or {}
    degraded = _condition(resource, "Degraded")
    if degraded.get("status") == "True":
        text = degraded["message"]
    elif code == 0:
        text = f"{run.root.name} was taken down by another command (leanmodel down); what was finished is in the store"
    else:
        text = f"the supervisor ended with code {code}; see {run.log('supervisor')}"
    error = LeanModelError(text)
    error.exit_code = code if code in (2, 3, 4, 5, 130) else 1
    raise error


def _outcome(run: Run, display: Display) -> int:
    """Print what was won and return the exit code that says how it ended."""
    resource = read_json(run.status) or {}
    status = resource.get("status", {})
    display.end()
    if status.get("report"):
        report = ProveReport.model_validate_json(run.report.read_text(encoding="utf-8"))
        print(
            "\n".join(["", *report_lines(report), "", f"  page: {run.page}"]),
            flush=True,
        )
    code = int(resource.get("exitCode", 0))
    if code != 0:
        message = _condition(resource, "Degraded").get("message", "")
        print(f"\nthe large model serves, without the lean one: {message}", file=sys.stderr, flush=True)
    return code


def next_commands(resource: dict[str, Any]) -> str:
    """Return what to do with a LeanModel that is up: a request of its own data first."""
    url, name = resource["status"].get("url", ""), resource["metadata"]["name"]
    command = os.environ.get("LEANMODEL_COMMAND", "leanmodel")
    asked = str(resource.get("trial", '{"messages": []}'))
    # vLLM's classification endpoint stands beside /v1, not below it.
    own = {TASK: f"{url.removesuffix('/v1')}/classify", EMBEDDING: f"{url}/embeddings"}
    generated = f"{url}/completions" if "prompt" in json.loads(asked) else f"{url}/chat/completions"
    path = own.get(resource["spec"].get("task"), generated)
    keyed = resource["spec"].get("serving", {}).get("router", {}).get("access") == "Keys"
    key = " -H 'authorization: Bearer KEY'" if keyed else ""
    make = f"  {command} keys create TENANT {name}\n" if keyed else ""
    body = f'{{"model": "{name}", {asked.removeprefix("{")}'
    return (
        f"\nthe endpoint is up: {url}\n\nnext:\n{make}"
        f"  curl -si {path}{key} -H 'content-type: application/json' -d '{body}'\n"
        f"  {command} status {name}\n  {command} report {name}\n  {command} down {name}\n"
    )
