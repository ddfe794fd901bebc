"""Everybody but the operator, against a real API server: Jobs and their pods, KubeRay, Ray Serve and the router.

It writes what those would write (a Job's status, its pod with the termination message, a RayService's status), and
serves what the router would answer. It keeps books on the way: which Jobs and which applications were ever started,
and every moment in which a revision that gets requests was not up.
"""

from __future__ import annotations

import json
import threading
import time
from collections import defaultdict
from collections.abc import Callable

import httpx
from behaviour import Behaviour, Books
from kube_client import KubeClient, Object, RefusedError
from simulated_work import keep, made, sweep

from leanmodel_operator.cluster import names
from leanmodel_operator.jobshell import failure, success

RAY = "ray.io/v1"


class Simulator:
    """Plays its parts in all namespaces until it is closed."""

    def __init__(self, client: Callable[[], KubeClient]) -> None:
        """Takes how to make a client with an administrator's rights: one for each thread."""
        self._client = client
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self.behaviours: dict[str, Behaviour] = defaultdict(Behaviour)
        self.books: dict[str, Books] = defaultdict(Books)
        self.defects: list[str] = []
        self._known: set[str] = set()
        self._threads = [
            threading.Thread(target=self._follow, args=(*what, self._client()), daemon=True)
            for what in (("batch/v1", "Job", self._job), (RAY, "RayService", self._rayservice))
        ]
        self._asking = self._client()
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Stops playing; open watches end with the process."""
        self._stop.set()

    def again(self, namespace: str) -> None:
        """Looks at everything in a namespace anew, after a change of how things go there."""
        for item in self._asking.list("batch/v1", "Job", namespace, names.SELECTOR):
            self._known.discard(item["metadata"]["uid"])
            self._job(item, self._asking)
        for item in self._asking.list(RAY, "RayService", namespace, names.SELECTOR):
            self._rayservice(item, self._asking)

    # ------------------------------------------------------------ following

    def _follow(
        self, version: str, kind: str, see: Callable[[Object, KubeClient], None], api: KubeClient
    ) -> None:
        while not self._stop.is_set():
            try:
                page = api.ask("GET", api.path(version, kind), labelSelector=names.SELECTOR)
                for item in page["items"]:
                    self._see(see, {**item, "apiVersion": version, "kind": kind}, api)
                for change, item in api.watch(
                    version, kind, names.SELECTOR, page["metadata"]["resourceVersion"]
                ):
                    if self._stop.is_set():
                        return
                    if change in ("ADDED", "MODIFIED"):
                        self._see(see, item, api)
            except (RefusedError, httpx.HTTPError):
                self._stop.wait(0.1)  # the server is away, or the kind is: asked again
            except Exception as error:  # said at the end; a thread that died of it would hang every test
                self.defects.append(f"{type(error).__name__}: {error}")
                self._stop.wait(0.5)

    def _see(self, see: Callable[[Object, KubeClient], None], item: Object, api: KubeClient) -> None:
        try:
            see(item, api)
        except (RefusedError, httpx.HTTPError):
            # It is gone, or newer than what was seen, or the server is away: it is listed and seen once more.
            with self._lock:
                self._known.discard(item["metadata"]["uid"])
            raise

    # ------------------------------------------------------------ Jobs

    def _job(self, job: Object, api: KubeClient) -> None:
        meta = job["metadata"]
        namespace, uid, name = meta["namespace"], meta["uid"], meta["name"]
        books, how = self.books[namespace], self.behaviours[namespace]
        ended = any(c["type"] in ("Complete", "Failed") for c in job.get("status", {}).get("conditions", ()))
        with self._lock:
            if f"{name}/{uid}" not in books.jobs:
                books.jobs.append(f"{name}/{uid}")
            if meta.get("deletionTimestamp") or ended or uid in self._known:
                return
            self._known.add(uid)
        if meta["labels"].get(names.LABEL_KIND) == "sweep":
            code = sweep(job, how.store)
            self._job_status(job, _over(f"exit code {code}" if code else ""), api)
            return
        stage = meta["labels"][names.LABEL_STAGE]
        pod = self._pod(job, api)
        if stage in how.waiting:
            reason, words = how.waiting[stage]
            self._pod_status(pod, {"waiting": {"reason": reason, "message": words}}, "Pending", api)
            self._job_status(job, {"active": 1}, api)
        elif stage in how.held:
            self._pod_status(pod, {"running": {"startedAt": _now()}}, "Running", api)
            self._job_status(job, {"active": 1}, api)
        elif stage in how.failing:
            code, reason, words = how.failing[stage]
            said = json.dumps(failure(code, [f"error: {words}"], "distil")) if words else ""
            over = {"exitCode": code, "reason": reason, "message": said}
            self._pod_status(pod, {"terminated": over}, "Failed", api)
            self._job_status(job, _over("Job has reached the specified backoff limit"), api)
        else:
            plan = api.get("v1", "ConfigMap", name, namespace)["data"]["plan.json"]
            text = made(stage, plan, how.verdict)
            if how.store is not None and stage != "prove":
                keep(how.store, json.loads(text)["artifact"])
            said, _ = success(text)
            if "packed" not in said:
                raise ValueError("a simulated pod has no log: its result has to fit into the message")
            over = {"exitCode": 0, "reason": "Completed", "message": json.dumps(said)}
            self._pod_status(pod, {"terminated": over}, "Succeeded", api)
            self._job_status(job, _over(""), api)

    def _pod(self, job: Object, api: KubeClient) -> Object:
        """Makes a Job's pod out of its template, as the Job controller does; no node takes it."""
        meta = job["metadata"]
        owner = {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "name": meta["name"],
            "uid": meta["uid"],
            "controller": True,
        }
        name = f"{meta['name'][:52]}-{meta['uid'][:5]}"
        pod = {
            "apiVersion": "v1", "kind": "Pod", "spec": job["spec"]["template"]["spec"],
            "metadata": {"name": name, "labels": job["spec"]["template"]["metadata"]["labels"], "ownerReferences": [owner]},
        }  # fmt: skip
        try:
            return api.create(pod, meta["namespace"])
        except RefusedError as error:
            found = api.get("v1", "Pod", name, meta["namespace"]) if error.code == 409 else None
            if found is None or found["metadata"]["ownerReferences"][0]["uid"] != meta["uid"]:
                raise
            return found

    def _pod_status(self, pod: Object, state: Object, phase: str, api: KubeClient) -> None:
        container = {"name": pod["spec"]["containers"][0]["name"], "image": "x", "imageID": ""}
        status = {**container, "ready": False, "restartCount": 0, "state": state}
        told = {**_what(pod), "status": {"phase": phase, "containerStatuses": [status]}}
        api.merge(told, pod["metadata"]["namespace"], "status")

    def _job_status(self, job: Object, status: Object, api: KubeClient) -> None:
        started = job.get("status", {}).get("startTime") or _now()
        told = {**_what(job), "status": {"startTime": started, **status}}
        api.merge(told, job["metadata"]["namespace"], "status")

    # ------------------------------------------------------------ KubeRay and Ray Serve

    def _rayservice(self, item: Object, api: KubeClient) -> None:
        meta, status = item["metadata"], item.get("status", {})
        namespace, name = meta["namespace"], meta["name"]
        if meta.get("deletionTimestamp"):
            return
        books, how = self.books[namespace], self.behaviours[namespace]
        wanted = [a["name"] for a in json.loads(item["spec"]["serveConfigV2"])["applications"]]
        for revision in serving(books.asked.get(name)) - set(wanted):
            books.dropped.append(f"{name}: {revision} was taken out while it got requests")
        before = (status.get("activeServiceStatus") or {}).get("applicationStatuses") or {}
        apps: Object = {gone: None for gone in before if gone not in wanted}
        for app in wanted:
            if app not in before:
                books.started.append(app)
            bad, slow = (
                app not in how.spared and any(app.startswith(word) for word in words)
                for words in (how.broken, how.hanging)
            )  # fmt: skip
            state = "DEPLOY_FAILED" if bad else "DEPLOYING" if slow else "RUNNING"
            words = "the replica died: weights do not fit" if bad else ""
            apps[app] = {"status": state, **({"message": words} if words else {})}
        if how.down:
            apps = dict.fromkeys(before)
        books.running[name] = {app for app, seen in apps.items() if seen and seen["status"] == "RUNNING"}
        current = status.get("observedGeneration") == meta["generation"]
        if current and all(
            (before.get(a) or {}).get("status") == (s or {}).get("status") for a, s in apps.items()
        ):
            return
        told = {
            "observedGeneration": meta["generation"],
            "activeServiceStatus": {"rayClusterName": f"{name}-abcde", "applicationStatuses": apps},
            "conditions": [
                {
                    "type": "Ready", "status": "True", "reason": "NonZeroServeEndpoints", "message": "",
                    "lastTransitionTime": _now(),
                }
            ],
        }  # fmt: skip
        api.merge({**_what(item), "status": told}, namespace, "status")

    # ------------------------------------------------------------ the router

    def settings(self, namespace: str, name: str) -> Object | None:
        """Has the router of a LeanModel read its file anew; returns the settings that it then has in force."""
        books = self.books[namespace]
        try:
            found = self._asking.get("v1", "ConfigMap", names.child(name, "router"), namespace)
        except (RefusedError, httpx.HTTPError):
            return None
        settings: Object = json.loads(found["data"]["settings.json"])
        books.asked[names.rayservice(name)] = settings
        return settings

    def answers(self, namespace: str, name: str, revision: str) -> bool:
        """Says whether a generation through the router by one revision would succeed."""
        settings = self.settings(namespace, name)
        known = serving(settings) | {b["revision"] for b in (settings or {}).get("dark", ())}
        return revision in known & self.books[namespace].running[names.rayservice(name)]

    def token(self, namespace: str, name: str) -> str:
        """Returns the internal route's token, as it lies in the Secret."""
        from base64 import b64decode

        found = self._asking.get("v1", "Secret", names.child(name, "tokens"), namespace)
        return b64decode(found["data"]["internal"]).decode()


def serving(settings: Object | None) -> set[str]:
    """Returns the revisions that get users' requests by a router's settings."""
    if settings is None:
        return set()
    return {settings["large"]["revision"], *([settings["lean"]["revision"]] if settings.get("lean") else [])}


def _over(failure: str) -> Object:
    """Returns the status of a Job that has ended; the API server checks that its parts fit."""
    if failure:
        kinds = ("FailureTarget", "Failed")
        more: Object = {"failed": 1}
    else:
        kinds = ("SuccessCriteriaMet", "Complete")
        more = {"succeeded": 1, "completionTime": _now()}
    said = {"reason": "BackoffLimitExceeded", "message": failure} if failure else {}
    return {**more, "active": 0, "conditions": [{"type": kind, "status": "True", **said} for kind in kinds]}


def _what(item: Object) -> Object:
    return {
        "apiVersion": item["apiVersion"],
        "kind": item["kind"],
        "metadata": {"name": item["metadata"]["name"]},
    }


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
