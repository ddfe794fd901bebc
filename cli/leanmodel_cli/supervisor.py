"""The loop of one run: observe, decide (purely, in the operator's room), act; until told to end.

It is a process of its own, so that ``leanmodel up --detach`` can leave. It ends when it is asked to
(SIGTERM), or when the command that started it goes away before detaching; whatever ends it, no process of
the run is left behind.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import select
import signal
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from leanmodel_api.errors import LeanModelError
from leanmodel_api.plan import CompressPlan, CompressResult, ProvePlan
from leanmodel_api.progress import ProgressLine, parse
from leanmodel_api.report import ProveReport
from leanmodel_api.resource import LeanModel
from leanmodel_api.status import Progress, Status
from leanmodel_operator.desired import Desired, desired
from leanmodel_operator.status import Observed, compute, lean_admitted, phase
from leanmodel_serving.host.processes import become_subreaper, end_descendants

from .eta import Timeline
from .jobs import compress_command, describe_failure, early_check, inputs_key, prove_command, store_root
from .processes import Child
from .runs import Run, home, read_json, start_time, write_atomic
from .serve import ServeSide
from .survey import survey
from .trial import trial

PERIOD_SECONDS = 0.25
END_SECONDS = 5.0
JOB_NICENESS = 5
"""Jobs yield to serving, as their priority class does in a cluster."""


@dataclass
class JobRun:
    """A Job under way."""

    stage: str
    key: str
    child: Child
    log: Path
    began: float
    last: ProgressLine | None = None


class Supervisor:
    """Drives one LeanModel on this machine."""

    def __init__(self, run: Run):
        """Read what was applied; nothing is started yet."""
        settings = json.loads(run.resource.read_text())
        self.run_folder = run
        self.model = LeanModel.model_validate(settings["resource"])
        self.base_dir: str = settings["baseDir"]
        self.store = store_root(self.model, self.base_dir)
        self.cores = len(os.sched_getaffinity(0))
        self.serve = ServeSide(self.model, run, self.store, int(settings["port"]), self.cores)
        self.trial = trial(self.model, self.base_dir)
        self.history_file = home() / "history.json"
        self.timeline = Timeline(self.model, history=self._history(), size=survey(self.model, self.base_dir))
        self.began = time.monotonic()
        self.seen = Observed()
        self.status: Status | None = None
        self.job: JobRun | None = None
        self.exit_code = 0
        self.settled = False
        self.served = False
        self.stop = threading.Event()
        self.attached = True
        self._foresee()

    # ------------------------------------------------------------------ the loop

    def run(self) -> int:
        """Loop until told to end; return the exit code of the run."""
        while not self.stop.is_set():
            self._observe()
            wanted = self._decide(self.seen)
            self._apply(wanted)
            if wanted.settled and not self.settled:
                self.settled = True
                self._remember()
            self._publish()
            self.served = self.served or self.seen.large_serves
            if self.settled and self.seen.failure and not self.served:
                break  # nothing serves and nothing will: the command says why
            if self._told_to_end():
                break
            self.stop.wait(PERIOD_SECONDS)
        return self.exit_code

    def _observe(self) -> None:
        """Take in what Jobs and the serve host have done since the last look."""
        self._observe_job()
        side = self.serve.observe()
        seen = replace(
            self.seen, large_serves=side.answers("Large"), lean_serves=side.answers("Lean"), routed=side.routed,
            url=side.url, metrics_url=side.metrics_url, cost=side.cost or self.seen.cost, alarms=side.alarms,
            silent=side.silent,
        )  # fmt: skip
        for stage, role in (("serve-large", "Large"), ("serve-lean", "Lean")):
            result = seen.large if role == "Large" else seen.lean
            if result is not None and stage not in self.timeline.took:
                if side.answers(role):
                    began = self.timeline.running[1] if self.timeline.running else time.monotonic()
                    self.timeline.learn(stage, time.monotonic() - began)
                    self.timeline.running = None
                elif self.timeline.running is None:
                    self.timeline.running = (stage, time.monotonic(), None)
        if side.failure is not None and seen.failure is None:
            seen = replace(seen, failure=side.failure)
            self.exit_code = 5 if seen.large_serves else side.exit_code
        self.seen = replace(seen, progress=self._progress(seen))

    def _observe_job(self) -> None:
        if self.job is None:
            return
        job, code = self.job, self.job.child.poll()
        now = time.monotonic()
        left = job.last.eta_seconds if job.last is not None else None
        self.timeline.running = (job.stage, job.began, left)
        if code is None:
            return
        self.job = None
        self.timeline.running = None
        self.timeline.learn(job.stage, now - job.began)
        if code != 0:
            self.seen = replace(self.seen, failure=(job.stage, describe_failure(job.stage, code, job.log)))
            self.exit_code = 5 if self.seen.large_serves else (code if code in (2, 3) else 1)
            return
        self._take_result(job.stage, job.key)

    def _take_result(self, stage: str, key: str) -> None:
        """Read a Job's result into what is observed."""
        text = self.run_folder.result(key).read_text()
        if stage == "compress-large":
            self.seen = replace(self.seen, large=CompressResult.model_validate_json(text))
        elif stage == "compress-lean":
            self.seen = replace(self.seen, lean=CompressResult.model_validate_json(text))
        else:
            report = ProveReport.model_validate_json(text)
            write_atomic(self.run_folder.report, text)
            page = self.run_folder.result(key).with_suffix(".html")
            write_atomic(self.run_folder.page, page.read_text(encoding="utf-8"))
            self.seen = replace(self.seen, report=report, report_url=f"file://{self.run_folder.page}")
            if not lean_admitted(report):
                self.exit_code = 4

    # ------------------------------------------------------------------ acting

    def _apply(self, wanted: Desired) -> None:
        self.serve.apply(wanted, self.seen.report)
        if wanted.job is not None and self.job is None:
            self._start_job(wanted.job)

    def _decide(self, seen: Observed) -> Desired:
        engine = self.serve.engine_facts
        return desired(self.model, seen, cores=self.cores, base_dir=self.base_dir, engine=engine)

    def _foresee(self) -> None:
        """Leave Jobs out of the estimate that an equal run has left the results of."""
        seen = Observed(large_serves=True, lean_serves=True)
        while (plan := self._decide(seen).job) is not None:
            stage, key = _stage_and_key(plan)
            if not self._reusable(stage, key):
                return
            self.timeline.history[stage] = 0.0
            if isinstance(plan, ProvePlan):
                return
            made = CompressResult.model_validate_json(self.run_folder.result(key).read_text())
            seen = replace(seen, large=made) if plan.role == "Large" else replace(seen, lean=made)

    def _start_job(self, plan: CompressPlan | ProvePlan) -> None:
        """Start a Job, or take the result of an equal one that has ended before."""
        stage, key = _stage_and_key(plan)
        if self._reusable(stage, key):
            self.timeline.learn(stage, 0.0)
            self._take_result(stage, key)
            return
        write_atomic(self.run_folder.plan(key), plan.to_json(indent=2))
        self.run_folder.result(key).parent.mkdir(parents=True, exist_ok=True)
        if isinstance(plan, CompressPlan):
            also = early_check(self.run_folder, self.model, plan, self.cores)
            command = compress_command(self.run_folder, plan, key, self.store, also)
        else:
            command = prove_command(self.run_folder, key, self.store, self.serve.endpoint)
        log = self.run_folder.log(stage)
        log.unlink(missing_ok=True)
        child = Child(command, log, self._listen, nice=JOB_NICENESS if stage == "compress-lean" else 0)
        self.job = JobRun(stage, key, child, log, time.monotonic())

    def _reusable(self, stage: str, key: str) -> bool:
        """Return whether an equal Job's result is there, and what it made still is."""
        result = read_json(self.run_folder.result(key))
        if not isinstance(result, dict):
            return False
        if stage == "prove":
            return self.run_folder.result(key).with_suffix(".html").exists()
        return bool(self.serve.artifact_exists(str(result.get("artifact", ""))))

    def _listen(self, line: str) -> None:
        said = parse(line)
        if said is not None and self.job is not None:
            self.job.last = said

    # ------------------------------------------------------------------ saying

    def _progress(self, seen: Observed) -> Progress | None:
        now = time.monotonic()
        if self.settled:
            return None
        running = self.timeline.running[0] if self.timeline.running else phase(self.model, seen)
        last = self.job.last.step if self.job is not None and self.job.last is not None else ""
        said = last if self.job is not None else seen.silent
        detail = f": {said}" if said else ""
        left = self.timeline.remaining(now)
        return Progress(
            step=running + detail, percent=self.timeline.percent(now - self.began, now), eta_seconds=int(left)
        )

    def _publish(self, stopped: bool = False) -> None:
        """Write the resource with its status when it changed."""
        seen = replace(
            self.seen, stopped=stopped, large_serves=self.seen.large_serves and not stopped,
            progress=None if self.settled or stopped else self.seen.progress,
        )  # fmt: skip
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        status = compute(self.model, seen, now, self.status)
        self.status = status
        document: dict[str, Any] = self.model.model_dump(mode="json", by_alias=True, exclude_none=True)
        document["status"] = status.model_dump(mode="json", by_alias=True, exclude_none=True)
        document |= {"settled": self.settled, "exitCode": self.exit_code, "trial": self.trial}
        text = json.dumps(document, indent=2)
        if text != getattr(self, "_written", None):
            write_atomic(self.run_folder.status, text)
            self._written = text

    def _history(self) -> dict[str, float]:
        known = read_json(self.history_file)
        times = known.get(self._shape(), {}) if isinstance(known, dict) else {}
        return {str(stage): float(value) for stage, value in times.items()}

    def _remember(self) -> None:
        """Keep what the stages took, for the next run's estimate; stages found in the store tell nothing."""
        known = read_json(self.history_file)
        known = known if isinstance(known, dict) else {}
        times = known.get(self._shape(), {})
        times.update({stage: value for stage, value in self.timeline.took.items() if value > 1.0})
        known[self._shape()] = times
        write_atomic(self.history_file, json.dumps(known))

    def _shape(self) -> str:
        return f"{self.run_folder.root.name}"

    # ------------------------------------------------------------------ ending

    def _told_to_end(self) -> bool:
        """Return whether the command that started us has gone; a line on our pipe says it detaches."""
        if not self.attached:
            return False
        ready, _, _ = select.select([sys.stdin], [], [], 0)
        if not ready:
            return False
        if sys.stdin.readline().strip() == "detach":
            self.attached = False
            return False
        return True

    def end(self) -> None:
        """End Job, serving and every other process of the run, and say so in the status."""
        if self.job is not None:
            self.job.child.end(END_SECONDS)
        self.serve.end()
        end_descendants(os.getpid(), END_SECONDS)
        self._publish(stopped=self.seen.failure is None or self.seen.large is not None)


def _stage_and_key(plan: CompressPlan | ProvePlan) -> tuple[str, str]:
    """Return the stage that a Job is, and the key of its inputs."""
    if isinstance(plan, CompressPlan):
        return f"compress-{plan.role.lower()}", inputs_key(plan, plan.data_sets, plan.base_dir)
    return "prove", inputs_key(plan, [plan.data_set], plan.base_dir)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a supervisor for the folder that is named."""
    parser = argparse.ArgumentParser(prog="python -m leanmodel_cli.supervisor", description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="folder of the run")
    run = Run(parser.parse_args(argv).run)
    become_subreaper()
    supervisor: Supervisor | None = None
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: stop.set())
    write_atomic(run.pid, json.dumps({"pid": os.getpid(), "started": start_time(os.getpid())}))
    try:
        supervisor = Supervisor(run)
        supervisor.stop = stop
        return supervisor.run()
    except LeanModelError as error:
        print(f"error: {error}", flush=True)
        return error.exit_code
    except Exception:
        traceback.print_exc()
        return 1
    finally:
        if supervisor is not None:
            supervisor.end()
        end_descendants(os.getpid(), END_SECONDS)
        run.pid.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main())
