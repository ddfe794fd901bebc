"""Questions over HTTP to a LeanModel's router: does a revision generate, which settings are in force, what did it cost.

Blocking, standard library alone: the local runner asks between two looks, the cluster's loop from threads beside it.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterable, Sequence

from leanmodel_api.base import fmt
from leanmodel_api.classification import TASK, Task
from leanmodel_api.router import Broken
from leanmodel_api.status import CostSummary

GENERATION_SECONDS = 60.0
QUESTION_SECONDS = 5.0
REFUSED = 400
MOST_BYTES, MOST_WORDS = 64 * 1024, 300
"""Of an error: bytes that are read, and characters that go into a status."""
COST = "ray_leanmodel_cost_usd_total"
COUNTERFACTUAL = "ray_leanmodel_counterfactual_cost_usd_total"


def refusal(endpoint: str, model: str, revision: str, token: str, task: Task | None = None) -> str:
    """Return why no token (a classifier: no label) came out of a revision, asked through the router; empty when one did.

    A fact no status can stand in for. A model that refuses a chat, as one without a chat template does, is asked to go
    on with a text.
    """
    chat = {"model": model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}
    text = {"model": model, "prompt": "Hello", "max_tokens": 1}
    questions = [("/v1/chat/completions", "choices", chat), ("/v1/completions", "choices", text)]
    if task is not None:
        own = "/classify" if task == TASK else "/v1/embeddings"
        questions = [(own, "data", {"model": model, "input": "Hello"})]
    words = ""
    for path, field, body in questions:
        request = urllib.request.Request(
            f"{endpoint}/internal/revisions/{revision}{path}", data=json.dumps(body).encode(),
            headers={"authorization": f"Bearer {token}", "content-type": "application/json"},
        )  # fmt: skip
        try:
            with urllib.request.urlopen(request, timeout=GENERATION_SECONDS) as answer:
                return "" if json.load(answer).get(field) else f"{path}: an answer without {field}"
        except urllib.error.HTTPError as error:
            words = f"{path}: {_said(error)}"
            if error.code != REFUSED:
                return words
        except (OSError, ValueError, AttributeError) as error:
            return f"{path}: {error}"
    return words


def _said(error: urllib.error.HTTPError) -> str:
    """Return an answer's status and the message of its error, where it is of OpenAI's form."""
    try:
        message = str(json.loads(error.read(MOST_BYTES))["error"]["message"])
    except (OSError, ValueError, KeyError, TypeError):
        message = str(error.reason)
    return f"{error.code} {' '.join(message.split())[:MOST_WORDS]}"


def settings_in_force(endpoint: str) -> int | None:
    """Return the generation of the router's settings in force; None when the router does not say."""
    try:
        with urllib.request.urlopen(f"{endpoint}/healthz", timeout=QUESTION_SECONDS) as answer:
            return int(json.load(answer)["generation"])
    except (urllib.error.URLError, OSError, ValueError, KeyError, TypeError):
        return None


def broken(endpoint: str) -> Broken | None:
    """Return what the router's monitors have found broken, which may be nothing; None when it does not say."""
    try:
        with urllib.request.urlopen(f"{endpoint}/healthz", timeout=QUESTION_SECONDS) as answer:
            return Broken.model_validate(json.load(answer)["broken"])
    except (urllib.error.URLError, OSError, ValueError, KeyError, TypeError):
        return None


def costs(address: str, digits: int) -> CostSummary | None:
    """Return the money that a router's metrics show; None when they are not to be had (yet).

    Args:
        address: of the metrics.
        digits: places behind the point; two keep a status that is written elsewhere from changing all the time.
    """
    try:
        with urllib.request.urlopen(address, timeout=QUESTION_SECONDS) as answer:
            lines = answer.read().decode("utf-8", "replace").splitlines()
    except (urllib.error.URLError, OSError):
        return None
    return summary(lines, digits)


def summary(lines: Sequence[str], digits: int) -> CostSummary | None:
    """Return the money in metrics of Prometheus' text format, rounded."""
    spent, instead = total(lines, COST), total(lines, COUNTERFACTUAL)
    if spent is None or instead is None:
        return None
    saving = instead - spent
    sign = "-" if saving < 0 and fmt(-saving, digits) != "0" else ""
    return CostSummary(
        usd=fmt(spent, digits),
        counterfactual_usd=fmt(instead, digits),
        saving_usd=f"{sign}{fmt(abs(saving), digits)}",
    )


def total(lines: Iterable[str], name: str) -> float | None:
    """Return the sum of a metric over its labels in Prometheus' text format; None when it is not exposed."""
    values = [float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((name + "{", name + " "))]
    return sum(values) if values else None
