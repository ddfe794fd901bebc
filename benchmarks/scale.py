"""Many LeanModels at once until all are Ready, then KubeRay with as many RayClusters on the same control plane.

Needs what `make test-apiserver` needs, and KubeRay's operator (built once). The result is printed as a page for
docs/results/scale.md. Jobs, Ray clusters and routers are played by the tests' simulator and not by kwok: a kwok stage
can set fields, but what a Job leaves (a packed result that names its plan) and what a router answers over HTTP have to
be computed. For KubeRay's part the simulator does what kwok would: it makes pods Running and Ready.
"""

from __future__ import annotations

import argparse
import datetime
import os
import shutil
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "tests" / "apiserver")]

from cluster import binaries  # noqa: E402
from cluster.control_plane import ControlPlane, start_on_free_ports  # noqa: E402
from cluster.servers import Server  # noqa: E402
from kube_client import KubeClient, Object, until  # noqa: E402
from life import GROUP, manifest  # noqa: E402
from operator_process import Operator  # noqa: E402
from simulated_pods import follow_clusters, play_pods  # noqa: E402
from simulated_router import SimulatedRouter  # noqa: E402
from simulator import RAY, Simulator  # noqa: E402
from stage import connect, define, flags_for  # noqa: E402

READY = 'leanmodel_operator_objects{condition="Ready",status="True"}'
CALLS = "leanmodel_operator_api_calls_total"
WRITES = ("create", "apply", "apply_status", "delete")
LEFT = (
    (GROUP, "LeanModel"), (RAY, "RayService"), ("batch/v1", "Job"), ("v1", "Pod"), ("v1", "Secret"),
    ("policy/v1", "PodDisruptionBudget"), ("v1", "PersistentVolumeClaim"), ("v1", "ConfigMap"),
)  # fmt: skip
AT_ONCE = 8


@dataclass
class Found:
    """What was measured; seconds, bytes and counts."""

    models: int
    ready: float = 0.0
    p95: str = ""
    reconciles: float = 0.0
    peak: int = 0
    writes: dict[str, float] = field(default_factory=dict)
    at_rest: dict[str, float] = field(default_factory=dict)
    clusters: float = 0.0
    cpu: dict[str, float] = field(default_factory=dict)
    their_cpu: dict[str, float] = field(default_factory=dict)


class Clock:
    """How much time of the cores the parts use, in seconds: what no operator can go below is the API server's."""

    def __init__(self, plane: ControlPlane, name: str, pid: int) -> None:
        """Begin to count; ``name`` and ``pid`` are the operator's."""
        servers = {name: server.process.pid for name, server in plane.servers.items() if server.process}
        self._pids = {**servers, name: pid, "the simulator": os.getpid()}
        self._before = self._now()

    def used(self) -> dict[str, float]:
        """Return what each part used since the beginning."""
        return {name: spent - self._before[name] for name, spent in self._now().items()}

    def _now(self) -> dict[str, float]:
        tick = os.sysconf("SC_CLK_TCK")
        # After the command's name, which may hold spaces: fields 14 and 15 are the time in user and in kernel mode.
        fields = {
            name: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            for name, pid in self._pids.items()
        }
        return {name: (int(row[11]) + int(row[12])) / tick for name, row in fields.items()}


def main() -> int:
    """Measure; the exit code is 0 when everything became ready."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=1000, help="LeanModels, and RayClusters")
    parser.add_argument("--rest", type=float, default=330.0, help="seconds to watch for writes at rest")
    parser.add_argument("--timeout", type=float, default=3600.0, help="seconds that either part may take")
    parser.add_argument("--alone", action="store_true", help="our part only, without KubeRay's")
    parser.add_argument("--out", type=Path, help="file for the page; none: standard output alone")
    options = parser.parse_args()
    binaries.build([*binaries.SERVERS, "kuberay-operator"])
    folder = Path(tempfile.mkdtemp(prefix="scale-"))
    plane = start_on_free_ports(folder)
    try:
        api = connect(plane)
        define(api, ROOT / "crds" / "leanmodel.yaml")
        for path in sorted(binaries.definitions().glob("ray.io_*.yaml")):
            define(api, path)
        plane.start_controllers()
        until(lambda: api.list("v1", "ServiceAccount", "default"), "the controllers run", 60)
        found = Found(options.models)
        ours(plane, api, folder, found, options)
        if not options.alone:
            theirs(plane, api, folder, found, options)
    finally:
        plane.stop()
        shutil.rmtree(folder)
    text = page(found)
    print(text)
    if options.out is not None:
        options.out.write_text(text, encoding="utf-8")
    return 0


def ours(
    plane: ControlPlane, api: KubeClient, folder: Path, found: Found, options: argparse.Namespace
) -> None:
    """Create all LeanModels at once, wait until all are Ready, and then watch what is written at rest."""
    namespace = new_namespace(api, "models")
    simulator = Simulator(lambda: connect(plane))
    routers = SimulatedRouter(simulator)
    operator = Operator(folder, plane.kubeconfig, *flags_for(namespace, routers)).start()
    until(operator.leads, "the operator leads", 60)
    data = {"sms.tsv": "label\tmsg\nham\thi\n"}
    api.create(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "inputs"}, "data": data}, namespace
    )
    began, clock = time.monotonic(), Clock(plane, "the operator", operator.pid)

    def make(number: int) -> None:
        body = manifest(f"model-{number}")
        body["metadata"]["annotations"] = {"leanmodel.io/inputs": "configmap/inputs"}
        api.create(body, namespace)

    everyone(make, found.models)
    watched(lambda: operator.metrics().get(READY, 0), found.models, "LeanModels Ready", options.timeout)
    found.ready, found.cpu = time.monotonic() - began, clock.used()
    first = operator.metrics()
    found.writes = {verb: calls(first, verb) for verb in WRITES}
    found.p95, found.reconciles = percentile(first, 0.95), first["leanmodel_operator_reconcile_seconds_count"]
    settled = rested(operator)
    time.sleep(options.rest)  # what is measured is what happens in this time
    last = operator.metrics()
    found.at_rest = {verb: calls(last, verb) - calls(settled, verb) for verb in (*WRITES, "replace")}
    found.peak = peak(operator)
    operator.stop()
    routers.close()
    simulator.close()
    if options.alone:
        return
    # The garbage collector would take a quarter of an hour, and KubeRay's part is not to run beside it.
    api.http.timeout = httpx.Timeout(options.timeout)
    for version, kind in LEFT:
        api.ask("DELETE", api.path(version, kind, namespace))
    # A namespace always has one of the cluster's own ConfigMaps.
    until(lambda: not any(api.list(*what, namespace) for what in LEFT[:-1]), "everything is gone", 600)


def theirs(
    plane: ControlPlane, api: KubeClient, folder: Path, found: Found, options: argparse.Namespace
) -> None:
    """Create as many RayClusters at once, and wait until KubeRay says that all are ready."""
    namespace = new_namespace(api, "clusters")
    command = [
        binaries.find("kuberay-operator"), "-enable-leader-election=false", "-metrics-addr=127.0.0.1:0",
        "-health-probe-bind-address=127.0.0.1:0",
    ]  # fmt: skip
    variables = {**os.environ, "KUBECONFIG": str(plane.kubeconfig)}
    server = Server("kuberay-operator", command, folder / "kuberay.log", variables=variables)
    server.start()
    stop = threading.Event()
    kubelet = threading.Thread(target=play_pods, args=(connect(plane), stop), daemon=True)
    kubelet.start()
    ready: set[str] = set()
    threading.Thread(target=follow_clusters, args=(connect(plane), stop, ready), daemon=True).start()
    assert server.process is not None
    began, clock = time.monotonic(), Clock(plane, "KubeRay", server.process.pid)
    everyone(lambda number: api.create(ray_cluster(number), namespace), found.models)
    try:
        watched(lambda: len(ready), found.models, "RayClusters ready", options.timeout)
        found.clusters, found.their_cpu = time.monotonic() - began, clock.used()
    except AssertionError as error:
        raise server.failure(str(error)) from error
    finally:
        stop.set()
        server.stop()


def new_namespace(api: KubeClient, name: str) -> str:
    """Make a namespace that pods can be made in."""
    api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    until(lambda: api.list("v1", "ServiceAccount", name), "the namespace has its service account")
    return name


def everyone(make: Any, count: int) -> None:
    """Call something with 0, 1, … a few at a time."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(make, range(count)))


def watched(count: Any, wanted: int, what: str, seconds: float) -> None:
    """Wait until a count is what it should be, and say now and then what it is."""
    deadline, said = time.monotonic() + seconds, 0.0
    while (now := count()) < wanted:
        if time.monotonic() > deadline:
            raise AssertionError(f"after {seconds:.0f} s {now:.0f} of {wanted} {what}")
        if time.monotonic() - said > 20:
            print(f"{now:.0f} of {wanted} {what}", file=sys.stderr)
            said = time.monotonic()
        time.sleep(0.5)  # between two questions


def rested(operator: Operator) -> dict[str, float]:
    """Return the metrics once two looks, five seconds apart, show no write: cost figures have come, Jobs have gone."""
    before = operator.metrics()
    for _ in range(120):
        time.sleep(5)
        now = operator.metrics()
        if all(calls(now, verb) == calls(before, verb) for verb in WRITES):
            return now
        before = now
    raise AssertionError("the operator still writes ten minutes after everything is Ready")


def calls(metrics: dict[str, float], verb: str) -> float:
    """Return how many calls of a verb there were, whatever their answer."""
    return sum(value for key, value in metrics.items() if key.startswith(CALLS) and f'verb="{verb}"' in key)


def percentile(metrics: dict[str, float], share: float) -> str:
    """Return the bound of the histogram's bucket in which a share of the turns is reached."""
    start = 'leanmodel_operator_reconcile_seconds_bucket{le="'
    buckets = sorted((float(k[len(start) : -2]), v) for k, v in metrics.items() if k.startswith(start))
    total = buckets[-1][1]
    return f"≤ {next(bound for bound, count in buckets if count >= share * total):g} s"


def peak(operator: Operator) -> int:
    """Return the most memory that the operator has had, in bytes."""
    for line in Path(f"/proc/{operator.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("the kernel does not say")


def ray_cluster(number: int) -> Object:
    """Return a cluster of a head and one worker."""
    template = {
        "spec": {
            "containers": [
                {"name": "ray", "image": "ray:none", "resources": {"limits": {"cpu": "1", "memory": "1Gi"}}}
            ]
        }
    }
    group = {
        "groupName": "g",
        "replicas": 1,
        "minReplicas": 1,
        "maxReplicas": 1,
        "rayStartParams": {},
        "template": template,
    }
    spec = {
        "rayVersion": "2.60.0",
        "headGroupSpec": {"rayStartParams": {}, "template": template},
        "workerGroupSpecs": [group],
    }
    return {"apiVersion": RAY, "kind": "RayCluster", "metadata": {"name": f"cluster-{number}"}, "spec": spec}


def _each(cpu: dict[str, float], count: int) -> str:
    parts = sorted(cpu.items(), key=lambda part: -part[1])
    return ", ".join(f"{name} {1000 * spent / count:.0f} ms" for name, spent in parts)


def _beside(found: Found) -> list[str]:
    if not found.clusters:
        return []
    return [
        f"| KubeRay 1.6: the same number of RayClusters (a head and a worker) until ready | {found.clusters:.0f} s |",
        f"| ours by theirs | {found.ready / found.clusters:.2f} |",
        f"| time of the cores per RayCluster | {_each(found.their_cpu, found.models)} |",
    ]


def page(found: Found) -> str:
    """Return the results as Markdown."""
    per = {verb: count / found.models for verb, count in found.writes.items()}
    arguments = " ".join(sys.argv[1:])
    rest = {verb: count for verb, count in found.at_rest.items() if count}
    lines = [
        "# Scale", "",
        f"{datetime.datetime.now(datetime.UTC).date()}, `make bench-scale{f' BENCH_ARGS={arguments!r}' if arguments else ''}`, {os.cpu_count()} cores: "
        "etcd, API server, controllers, the operator, and the simulator of everybody else on the same ones.", "",
        "| figure | value |", "|---|---|",
        f"| LeanModels, created at once | {found.models} |",
        f"| until all are Ready | {found.ready:.0f} s ({found.ready / found.models:.3f} s each) |",
        *_beside(found),
        f"| time of the cores per LeanModel | {_each(found.cpu, found.models)} |",
        f"| turns of the loop | {found.reconciles:.0f} ({found.reconciles / found.models:.1f} each) |",
        f"| 95% of the turns took | {found.p95} |",
        f"| operator's memory at its peak | {found.peak / 1e6:.0f} MB |",
        f"| writes per LeanModel until Ready | {sum(per.values()):.1f} ({', '.join(f'{verb} {count:.1f}' for verb, count in per.items())}) |",
        f"| writes at rest, all LeanModels together | {rest or 'none'} (replace is the Lease) |",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
