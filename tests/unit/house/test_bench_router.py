"""The benchmark of the hop sees what it must see: wrong answers, torn streams, goals that are missed."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
from house import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))

from hop.engine import TOKENS, WRITTEN, tokens  # noqa: E402
from hop.load import stream_fault, told, whole_fault  # noqa: E402
from hop.page import faults, goals, tables  # noqa: E402
from hop.rounds import BARE, CLIENTS, LITELLM, OURS, Round  # noqa: E402


def stream(number: int, judged: bool = False) -> list[bytes]:
    """The events of the engine's answer to a number."""
    written = WRITTEN[judged]
    texts = [written.filled(text, str(number).encode(), b"m") for text in (*written.chunks, written.last)]
    return [b"data: " + text for text in (*texts, b"[DONE]")]


@pytest.mark.parametrize("judged", [False, True])
def test_the_engines_own_answers_are_right_and_another_numbers_are_not(judged: bool) -> None:
    body = WRITTEN[judged].filled(WRITTEN[judged].whole, b"17", b"m")
    assert json.loads(body)["choices"][0]["message"]["content"] == "".join(tokens(17))
    assert not whole_fault(200, bytearray(body), 17)
    assert whole_fault(200, bytearray(body), 7) and whole_fault(503, bytearray(body), 17)
    assert not stream_fault(200, b"\n\n".join(stream(17, judged)), 17)
    assert stream_fault(200, b"\n\n".join(stream(17, judged)), 7)


@pytest.mark.parametrize("lost", range(TOKENS + 2))
def test_a_stream_that_has_lost_or_doubled_any_event_is_wrong(lost: int) -> None:
    events = stream(17)
    assert stream_fault(200, b"\n\n".join(events[:lost] + events[lost + 1 :]), 17)
    if lost < TOKENS:
        assert stream_fault(200, b"\n\n".join(events[: lost + 1] + events[lost:]), 17)


def test_percentiles() -> None:
    assert told("took", [index / 1000 for index in range(100)]) == {"took_p50": 50.0, "took_p99": 99.0}


def made(p50: dict[str, float], rates: dict[str, float], wrong: int = 0) -> Round:
    def whole(name: str) -> dict[str, Any]:
        return {"took_p50": p50[name], "took_p99": 2 * p50[name], "per_second": rates[name], "wrong": {},
                "cpu_seconds": 1.0, "all_answers": 1000}  # fmt: skip

    def burst(name: str) -> dict[str, Any]:
        return {"asked": 10, "first_p50": p50[name], "first_p99": p50[name], "last_p50": p50[name], "last_p99": p50[name],
                "wrong": {"torn": wrong} if wrong else {}}  # fmt: skip

    names = (BARE, *OURS.values(), LITELLM)
    return Round(
        {name: {clients: whole(name) for clients in CLIENTS} for name in names},
        {name: {"first": burst(name)} for name in names},
    )


def test_goals_are_ratios_within_a_round_and_their_median_decides() -> None:
    quick = {BARE: 1.0, **dict.fromkeys(OURS.values(), 1.9), LITELLM: 11.0}
    slow = {BARE: 1.0, **dict.fromkeys(OURS.values(), 3.0), LITELLM: 11.0}
    rates = {BARE: 9000.0, **dict.fromkeys(OURS.values(), 2000.0), LITELLM: 100.0}
    found = goals([made(quick, rates), made(slow, rates), made(quick, rates)])
    assert all(well for *_, well in found)
    by_name = {what: well for what, _, _, well in goals([made(slow, {**rates, LITELLM: 101.0}, wrong=1)])}
    assert [well for what, well in by_name.items() if "added p50" in what] == [False] * len(OURS) * len(
        CLIENTS
    )
    assert not any(
        well for what, well in by_name.items() if "of the core" in what or "wrong" in what or "burst" in what
    )
    assert faults(made(slow, rates, wrong=2).streams[BARE]) == 2
    page = "\n".join(tables([made(slow, rates)], {"before generation": {"p50": 10.0, "p99": 20.0}}))
    assert "**not reached**" in page and "p99 | ≤ 1 ms | 0.020 ms" in page
