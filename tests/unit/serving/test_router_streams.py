"""Events are read wherever the chunks break."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from leanmodel_serving.router.sse import EventReader, event

payloads = st.lists(st.dictionaries(st.text(max_size=5), st.text(max_size=20), max_size=3), max_size=8)


@given(payloads, st.lists(st.integers(1, 30), min_size=1), st.sampled_from([b"\n", b"\r\n"]))
def test_events_survive_any_cut(found: list[dict[str, str]], cuts: list[int], newline: bytes) -> None:
    datas = [json.dumps(item).encode() for item in found]
    wire = b": keep-alive\n\n" + b"".join(event(data) for data in datas)
    wire = wire.replace(b"\n", newline)
    reader, read, at, number = EventReader(), [], 0, 0
    while at < len(wire):
        step = cuts[number % len(cuts)]
        read += reader.feed(wire[at : at + step])
        at, number = at + step, number + 1
    assert read == datas


def test_an_unfinished_event_is_not_given_out() -> None:
    reader = EventReader()
    assert reader.feed(b'data: {"a"') == []
    assert reader.feed(b": 1}\n") == []
    assert reader.feed(b"\n") == [b'{"a": 1}']
