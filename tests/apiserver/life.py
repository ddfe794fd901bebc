"""The life of one LeanModel in a namespace of its own, and what is left of it at each point."""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import httpx
import yaml
from kube_client import ROOT, KubeClient, Object, RefusedError, until
from simulator import Simulator, serving

from leanmodel_operator.cluster import names

GROUP = "leanmodel.io/v1alpha1"
QUICKSTART = ROOT / "examples" / "quickstart" / "leanmodel.yaml"
CHILDREN = (
    ("batch/v1", "Job"), ("v1", "Pod"), ("v1", "ConfigMap"), ("v1", "Secret"), ("v1", "ServiceAccount"),
    ("v1", "PersistentVolumeClaim"), ("policy/v1", "PodDisruptionBudget"), ("ray.io/v1", "RayService"),
)  # fmt: skip
RECIPE_B = [{"type": "Quantize", "scheme": "W8A8", "algorithm": "RTN"}]
RECIPE_C = [{"type": "Prune", "method": "Depth", "ratio": "0.2"}, *RECIPE_B]
READY_SECONDS = 120.0


def manifest(name: str = "spam") -> Object:
    """Returns the quickstart's LeanModel under another name, in no namespace yet."""
    body: Object = yaml.safe_load(QUICKSTART.read_text())
    return {**body, "metadata": {"name": name}}


RECIPE_A = manifest()["spec"]["lean"]["steps"]


class Life:
    """One LeanModel."""

    def __init__(self, api: KubeClient, simulator: Simulator, namespace: str, name: str = "spam") -> None:
        """Belongs to a namespace that is there already."""
        self.api, self.simulator, self.namespace, self.name = api, simulator, namespace, name

    @property
    def how(self) -> Any:
        """How things go in its namespace."""
        return self.simulator.behaviours[self.namespace]

    @property
    def books(self) -> Any:
        """What was seen in its namespace."""
        return self.simulator.books[self.namespace]

    # ------------------------------------------------------------ doing

    def create(self, body: Object | None = None) -> None:
        """Makes the ConfigMap of its inputs and the LeanModel."""
        inputs = {"name": f"{self.name}-inputs"}
        data = {"sms.tsv": "label\tmsg\nham\thi\n"}
        self.api.create(
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": inputs, "data": data}, self.namespace
        )
        self.api.create(body or manifest(self.name), self.namespace)

    def change(self, **spec: Any) -> None:
        """Merges fields into its spec."""
        what = {"apiVersion": GROUP, "kind": "LeanModel", "metadata": {"name": self.name}, "spec": spec}
        self.api.merge(what, self.namespace)

    def annotate(self, key: str, value: str) -> None:
        """Sets one annotation."""
        meta = {"name": self.name, "annotations": {key: value}}
        self.api.merge({"apiVersion": GROUP, "kind": "LeanModel", "metadata": meta}, self.namespace)

    def delete(self) -> None:
        """Deletes it as `kubectl delete` does."""
        self.api.delete(GROUP, "LeanModel", self.name, self.namespace)

    # ------------------------------------------------------------ looking

    def body(self) -> Object:
        """Returns it as the API server has it."""
        return self.api.get(GROUP, "LeanModel", self.name, self.namespace)

    def condition(self, kind: str) -> Object:
        """Returns one of its conditions; an empty one where there is none."""
        found = self.body().get("status", {}).get("conditions", ())
        return next((c for c in found if c["type"] == kind), {})

    def reach(self, holds: Callable[[Object], Any], what: str, seconds: float = READY_SECONDS) -> Object:
        """Waits until its status, written for its newest generation, fulfils something; returns the status."""
        last: Object = {}

        def there() -> Object | None:
            nonlocal last
            try:
                body = self.body()
            except httpx.TransportError:  # the server is being restarted
                return None
            last = body.get("status", {})
            current = last.get("observedGeneration") == body["metadata"]["generation"]
            return last if current and holds(last) else None

        try:
            return dict(until(there, what, seconds))
        except AssertionError as error:
            rows = [(c["type"], c["status"], c["reason"], c["message"]) for c in last.get("conditions", ())]
            raise AssertionError(f"{error}; it is {last.get('phase')}: {rows}") from None

    def ready(self, seconds: float = READY_SECONDS) -> Object:
        """Waits until this generation is fully out."""
        return self.reach(lambda status: state(status, "Ready") == "True", "it is Ready", seconds)

    def suspended(self) -> Object:
        """Waits until its status says that nothing is started any more."""
        return self.reach(lambda status: status["phase"] == "Suspended", "it is suspended")

    def traffic(self) -> set[str]:
        """Returns the revisions that get users' requests."""
        return serving(self.simulator.settings(self.namespace, self.name))

    def left(self) -> list[str]:
        """Returns what is there of it."""
        found = []
        for version, kind in ((GROUP, "LeanModel"), *CHILDREN):
            selector = "" if kind == "LeanModel" else f"{names.SELECTOR},{names.LABEL_NAME}={self.name}"
            try:
                items = self.api.list(version, kind, self.namespace, selector)
            except RefusedError as error:
                if error.code == 404:  # the kind itself is gone
                    continue
                raise
            found += [
                f"{kind}/{i['metadata']['name']}"
                for i in items
                if kind != "LeanModel" or i["metadata"]["name"] == self.name
            ]
        return found

    def gone(self, seconds: float = 120.0) -> None:
        """Waits until nothing is left of it."""
        last: list[str] = []

        def nothing() -> bool:
            nonlocal last
            last = self.left()
            return not last

        try:
            until(nothing, "nothing is left", seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}; left are {last}") from None

    def doubled(self) -> list[str]:
        """Returns the Jobs that were made more than once."""
        counts = Counter(entry.partition("/")[0] for entry in self.books.jobs)
        return sorted(name for name, count in counts.items() if count > 1)

    def snapshot(self) -> dict[str, Any]:
        """Returns all that is there of it, without what differs between two equal lives."""
        found: dict[str, Any] = {"LeanModel": _plain(self.body(), self.namespace)}
        for version, kind in CHILDREN:
            selector = f"{names.SELECTOR},{names.LABEL_NAME}={self.name}"
            for item in self.api.list(version, kind, self.namespace, selector):
                found[f"{kind}/{item['metadata']['name']}"] = _plain(item, self.namespace)
        return found

    # ------------------------------------------------------------ the whole of it

    def live(self) -> dict[str, Any]:
        """Lives the whole life but its end: create, change, back, suspend, resume; returns what is there then."""
        self.create()
        self.ready()
        self.change(lean={"steps": RECIPE_B})
        self.ready()
        self.change(lean={"steps": RECIPE_A})
        self.ready()
        self.change(suspend=True, lean={"steps": RECIPE_C})
        self.suspended()
        self.change(suspend=False)
        self.ready()
        self.rest()
        self.reach(lambda status: status.get("cost"), "the router's money is in the status")
        return self.snapshot()

    def rest(self) -> None:
        """Waits until what was only needed on the way is gone: Jobs, their pods and plans, dark revisions."""
        last: object = None

        def quiet() -> bool:
            nonlocal last
            if last := [entry for entry in self.left() if entry.startswith(("Job/", "Pod/"))]:
                return False
            serve = self.api.get("ray.io/v1", "RayService", names.rayservice(self.name), self.namespace)
            up = {a["name"] for a in json.loads(serve["spec"]["serveConfigV2"])["applications"]} - {"router"}
            last = f"applications {sorted(up)} where users get {sorted(self.traffic())}"
            return up == self.traffic()

        try:
            until(quiet, "what was only needed on the way is gone", READY_SECONDS)
        except AssertionError as error:
            raise AssertionError(f"{error}; of {self.name}: {last}; status {self.body()['status']}") from None


def state(status: Object, kind: str) -> str:
    """Returns the state of a condition in a status; empty where there is none."""
    return next((str(c["status"]) for c in status.get("conditions", ()) if c["type"] == kind), "")


def _plain(item: Object, namespace: str) -> Any:
    """Returns an object without times, uids, versions and random words, and with one name for every namespace."""
    item = copy.deepcopy(item)
    meta = item["metadata"]
    owners = [
        {key: value for key, value in o.items() if key != "uid"} for o in meta.get("ownerReferences", ())
    ]
    kept = {key: meta[key] for key in ("name", "labels", "annotations", "finalizers") if key in meta}
    item["metadata"] = {**kept, "ownerReferences": owners}
    if item["kind"] == "Secret":
        item["data"] = sorted(item.get("data", {}))
    if item["kind"] == "LeanModel":
        for condition in item["status"]["conditions"]:
            del condition["lastTransitionTime"]
    else:
        item.pop("status", None)
    if "settings.json" in item.get("data", {}):
        # How often traffic changed on the way depends on the way.
        item["data"]["settings.json"] = {**json.loads(item["data"]["settings.json"]), "generation": 0}
    return json.loads(json.dumps(item).replace(namespace, "NAMESPACE"))
