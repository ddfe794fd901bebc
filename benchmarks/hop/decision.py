"""How long a decision takes: the rules and the policy on prompts and answers of several lengths, nothing else beside it.

Run: python -m hop.decision, prints one JSON object of microseconds.
"""

from __future__ import annotations

import gc
import json
import time

from leanmodel_serving.router.ask import Ask, parse_ask
from leanmodel_serving.router.route import choose
from leanmodel_serving.router.snapshot import Snapshot

from .settings import MODEL, router_settings

WORDS = (10, 40, 100, 400, 1000)
TOKENS = 256
TIMES = 1000


def asked(words: int) -> Ask:
    """Return a chat request of so many words."""
    text = " ".join(f"word{index % 97}" for index in range(words))
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": text}],
        "max_tokens": 64,
        "temperature": 0,
    }
    return parse_ask(json.dumps(body).encode(), "chat", MODEL)


def measured() -> dict[str, dict[str, float]]:
    """Return median and 99th percentile of each decision in microseconds."""
    state = Snapshot.of(router_settings("http://127.0.0.1:9", "combined"))
    decider = state.decider
    assert decider is not None
    requests = [asked(words) for words in WORDS]
    logprobs = [-0.01 * (index % 50) for index in range(TOKENS)]
    top = [[value, value - 2.0] for value in logprobs]
    found: dict[str, list[float]] = {"before generation": [], "on the lean answer": []}
    gc.disable()
    for _ in range(TIMES):
        for request in requests:
            begun = time.perf_counter()
            choose(state, request)
            found["before generation"].append(time.perf_counter() - begun)
            begun = time.perf_counter()
            decider.accept(decider.confidence(logprobs, top, "an answer", "stop", prompt=request.text()))
            found["on the lean answer"].append(time.perf_counter() - begun)
    return {name: percentiles(values) for name, values in found.items()}


def percentiles(values: list[float]) -> dict[str, float]:
    """Return median and 99th percentile in microseconds."""
    ordered = sorted(values)
    return {f"p{share}": 1e6 * ordered[len(ordered) * share // 100] for share in (50, 99)}


if __name__ == "__main__":
    print(json.dumps(measured()))
