"""``python -m leanmodel_serving.host``: the process that the supervisor starts, and stops with SIGTERM.

Two processes: a guard, which loads nothing and so cannot crash with Ray, and below it the one that runs Ray. The
guard adopts every orphan and ends all that is left when the other is gone; when the guard itself is killed, the
kernel tells the other to shut down. So no kill of either leaves a process behind.
"""

from __future__ import annotations

import argparse
import os
import secrets
import shutil
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

from leanmodel_api.errors import LeanModelError

from .ports import HIDDEN_RANGE, require_free
from .processes import become_subreaper, die_with_parent, end_descendants, reap
from .status import HostStatus

_CHILD_GRACE_S = 20.0
_END_GRACE_S = 5.0
_TELL_AGAIN_S = 2.0


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m leanmodel_serving.host", description=__doc__)
    parser.add_argument(
        "--desired", type=Path, required=True, help="desired state: serveConfigV2 as JSON, watched"
    )
    parser.add_argument(
        "--run-dir", type=Path, required=True, help="folder for status.json, the tokens and logs"
    )
    parser.add_argument("--port", type=int, default=8000, help="public port (default 8000)")
    parser.add_argument(
        "--host", default="127.0.0.1", help="interface of the public port (default 127.0.0.1)"
    )
    parser.add_argument(
        "--hidden-ports",
        default="{}-{}".format(*HIDDEN_RANGE),
        help="range in which ports of Ray and HAProxy are chosen",
    )
    parser.add_argument(
        "--die-with-parent", action="store_true", help="shut down when the starting process ends"
    )
    return parser.parse_args(argv)


def ensure_token(path: Path) -> str:
    """Return the token in a file that only its owner reads, made at the first call."""
    if not path.exists():
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(32))
    return path.read_text(encoding="utf-8").strip()


def _serve(options: argparse.Namespace, temp_dir: Path, guard: int, started: float) -> int:
    """Run Ray and the loop until SIGTERM; the exit code."""
    from .local_ray import HiddenPorts, start
    from .reconcile import Reconciler

    status_file = options.run_dir / "status.json"
    low, _, high = options.hidden_ports.partition("-")
    ports = HiddenPorts.find((int(low), int(high)))
    public = "127.0.0.1" if options.host in ("", "0.0.0.0", "::") else options.host
    status = HostStatus(
        phase="Starting",
        message="starting Ray and Serve",
        pid=guard,
        endpoint=f"http://{public}:{options.port}",
        metrics=f"http://127.0.0.1:{ports.metrics}/metrics",
        started=started,
        updated=time.time(),
    )
    status.write(status_file)
    token = ensure_token(options.run_dir / "engine-token")
    client = start(options.port, options.host, ports, temp_dir)
    loop = Reconciler(client, options.desired, status_file, status, token)
    signal.signal(signal.SIGTERM, lambda *_: loop.stop.set())
    loop.run()
    loop.status.model_copy(update={"phase": "Stopping", "message": "shutting down"}).write(status_file)
    return 0


def _child(options: argparse.Namespace, temp_dir: Path, guard: int, started: float) -> int:
    """The process below the guard: serve, then take everything down again."""
    os.setsid()  # Ctrl-C in a terminal reaches the guard alone, which ends the rest in order.
    become_subreaper()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with_parent(signal.SIGTERM, guard)
    code = 1
    try:
        code = _serve(options, temp_dir, guard, started)
    except LeanModelError as error:
        print(error, file=sys.stderr)
        _fail(options, guard, started, str(error))
        code = error.exit_code
    except SystemExit:
        code = 0
    except Exception as error:  # Ray raises what it likes; the guard would tell nothing but the exit code
        traceback.print_exc()
        first = (str(error).strip().splitlines() or [""])[0]
        _fail(options, guard, started, f"the serving process failed: {type(error).__name__}: {first}")
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        end_descendants(os.getpid(), _END_GRACE_S)
    return code


def _fail(options: argparse.Namespace, pid: int, started: float, words: str) -> None:
    """Say in the status that the host has failed, and why."""
    status = HostStatus(phase="Failed", message=words, pid=pid, started=started, updated=time.time())
    status.write(options.run_dir / "status.json")


def ending(run_dir: Path, code: int) -> str:
    """Return why the serving process ended badly: its own words where it left any, and where its logs are."""
    try:
        told = HostStatus.model_validate_json((run_dir / "status.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        told = None
    words = told.message if told is not None and told.phase == "Failed" else ""
    if not words and code == -signal.SIGKILL:
        words = "the serving process was killed (SIGKILL), most likely for memory: give it more, or serve smaller models"
    words = words or f"the serving process ended with code {code}"
    return f"{words}; logs: {run_dir / 'logs'}"


def main(argv: list[str] | None = None) -> int:
    """Guard a serving process; return its exit code (3 when the port is taken)."""
    options = arguments(argv)
    options.run_dir = options.run_dir.resolve()
    options.run_dir.mkdir(parents=True, exist_ok=True)
    started = time.time()
    try:
        require_free(options.port, options.host)
    except LeanModelError as error:
        print(error, file=sys.stderr)
        _fail(options, os.getpid(), started, str(error))
        return error.exit_code
    parent = os.getppid()
    become_subreaper()
    # Ray's sockets need a short path, which a run folder need not have.
    temp_dir = Path(tempfile.mkdtemp(prefix="lm-"))
    asked: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda got, _: asked.append(got))
    guard = os.getpid()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = _child(options, temp_dir, guard, started)
        except SystemExit:  # a stop told again just before the child's end; the guard ends what is left
            code = 0
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    if options.die_with_parent:
        die_with_parent(signal.SIGTERM, parent)
    code = _guard(child, asked)
    end_descendants(guard, _END_GRACE_S)
    _keep_logs(temp_dir, options.run_dir)
    if code != 0:
        _fail(options, guard, started, ending(options.run_dir, code))
        return code
    stopped = HostStatus(phase="Stopped", message="stopped", pid=guard, started=started, updated=time.time())
    stopped.write(options.run_dir / "status.json")
    return code


def _guard(child: int, asked: list[int]) -> int:
    """Wait for the child, pass a stop on to it, and kill it when it takes too long; its exit code.

    A stop is passed on more than once: while Ray starts, the exception that a signal raises can come up where Python
    drops it (a destructor, a callback from C). A child that was asked to stop and had to be killed has stopped: 0.
    """
    told_at: float | None = None
    deadline = float("inf")
    killed = False
    while True:
        pid, state = os.waitpid(child, os.WNOHANG)
        if pid == child:
            return 0 if killed else os.waitstatus_to_exitcode(state)
        now = time.monotonic()
        if asked and (told_at is None or now - told_at > _TELL_AGAIN_S):
            deadline = min(deadline, now + _CHILD_GRACE_S)
            told_at = now
            os.kill(child, signal.SIGTERM)
        if now > deadline and not killed:
            killed = True
            print(
                f"the serving process did not end within {_CHILD_GRACE_S:g} s of SIGTERM: killed",
                file=sys.stderr,
            )
            os.kill(child, signal.SIGKILL)
        time.sleep(0.1)


def _keep_logs(temp_dir: Path, run_dir: Path) -> None:
    """Move Ray's logs into the run folder and remove what else Ray left."""
    reap()
    logs = next((temp_dir / "ray").glob("session_2*/logs"), None) if (temp_dir / "ray").exists() else None
    if logs is not None:
        shutil.rmtree(run_dir / "logs", ignore_errors=True)
        shutil.move(str(logs), run_dir / "logs")
    shutil.rmtree(temp_dir, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
