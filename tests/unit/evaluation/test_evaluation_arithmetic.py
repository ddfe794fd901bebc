"""Costs, blocks of speed, scope, progress and looks: the small decisions."""

import asyncio
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leanmodel_api.base import fmt
from leanmodel_api.datasets import Prompt
from leanmodel_api.parts import Example, Message
from leanmodel_api.progress import parse
from leanmodel_api.router import Backend
from leanmodel_api.serving import Price
from leanmodel_evaluation.answers import Answer
from leanmodel_evaluation.costs import request_costs
from leanmodel_evaluation.looks import count_look
from leanmodel_evaluation.progress import Phase, Progress
from leanmodel_evaluation.scope import prompt_scope
from leanmodel_evaluation.speed import Block, block_sizes, compare_speed, measure, memory_of, speed_prompts
from leanmodel_serving.router.cost import Tariff, Usage

ANSWERS = [Answer(request="a", text="", prompt_tokens=1000, completion_tokens=10),
           Answer(request="b", text="", prompt_tokens=0, completion_tokens=1)]  # fmt: skip


def test_costs() -> None:
    assert request_costs(None, ANSWERS, 5) is None
    assert request_costs(Price(), ANSWERS, 5) is None
    hourly = request_costs(Price(usd_per_hour="3.6"), ANSWERS, 10)
    assert hourly is not None and hourly.tolist() == pytest.approx([0.0001, 0.0001])
    price = Price(input_usd_per_million_tokens="2", output_usd_per_million_tokens="10")
    tokens = request_costs(price, ANSWERS, 10)
    assert tokens is not None and tokens.tolist() == pytest.approx([0.0021, 0.00001])
    assert request_costs(Price(usd_per_hour="3.6"), ANSWERS, 0) is None


@given(st.integers(10, 5000), st.integers(1, 512))
def test_blocks_add_up(requests: int, concurrency: int) -> None:
    sizes = block_sizes(requests, concurrency)
    assert sum(sizes) == requests
    assert 4 <= len(sizes) <= 10
    assert max(sizes) - min(sizes) <= 1


def test_speed_is_measured_on_prompts_that_nobody_was_asked() -> None:
    unasked = [Example(id=str(i), text=f"new {i}") for i in range(30)]
    asked = [Example(id=str(i), text=f"old {i}") for i in range(30)]
    assert {item.text for item in speed_prompts(unasked, asked, 30, "s")} == {item.text for item in unasked}
    assert len(speed_prompts(unasked, asked, 100, "s")) == 100
    assert speed_prompts(unasked, asked, 20, "s") == speed_prompts(unasked, asked, 20, "s")
    assert speed_prompts(unasked, asked, 20, "s") != speed_prompts(unasked, asked, 20, "t")


def block(rate: float) -> Block:
    return Block(requests=20, tokens=40, seconds=20 / rate, latencies=tuple(np.full(20, 1 / rate)))


def test_ratio_of_speeds_compares_within_pairs() -> None:
    # The machine halves its speed midway; the ratio does not care.
    found = compare_speed([block(10), block(5), block(10), block(5)], [block(30), block(15), block(30), block(15)],
                          (100, 50), 0)  # fmt: skip
    assert found.ratio.value == pytest.approx(3)
    assert found.ratio.low == pytest.approx(3) and found.ratio.high == pytest.approx(3)
    assert found.large.requests_per_second.value == pytest.approx(7.5)
    assert found.large.requests_per_second.low < 7.5 < found.large.requests_per_second.high
    assert found.lean.memory_bytes == 50
    assert found.lean.tokens_per_second == pytest.approx(160 / (40 / 30 + 40 / 15))


def test_ratio_of_speeds_favours_nobody_where_they_are_equal() -> None:
    # Each is once disturbed while the other is not: the mean of 4 and 1/4 would call the lean model twice as fast.
    calm, disturbed = block(20), block(5)
    found = compare_speed([calm, disturbed], [disturbed, calm], (None, None), 0)
    turned = compare_speed([disturbed, calm], [calm, disturbed], (None, None), 0)
    assert found.ratio.value == pytest.approx(1) == turned.ratio.value
    assert found.ratio.low == pytest.approx(1 / 4) and found.ratio.high == pytest.approx(4)


class Paced:
    """Answers with the same number of tokens each time, long prompt and short answer."""

    async def answer(self, revision: str, example: Example, max_tokens: int) -> Answer:
        return Answer(request=example.id, text="ham", prompt_tokens=58, completion_tokens=2)


def test_tokens_a_second_are_those_that_a_bill_counts() -> None:
    prompts = [Example(id=str(i), text=f"text {i}") for i in range(24)]
    large, lean = asyncio.run(measure(Paced(), "large", "lean", prompts, 8, 4, 20, lambda *_: None))  # type: ignore[arg-type]
    assert [block.tokens for block in large] == [60 * block.requests for block in large]
    found = compare_speed(large, lean, (None, None), 0).large
    seconds = sum(block.seconds for block in large)
    hourly = Backend(
        revision="large-0e8c220a", url="http://localhost:8000", price=Price(usd_per_hour="3600000"),
        tokens_per_second=fmt(found.tokens_per_second, 3),
    )  # fmt: skip
    billed = 20 * Tariff.of(hourly).nano(Usage(58, 2), seconds=99.0)
    assert billed == pytest.approx(seconds * 1e12, rel=1e-3)


def test_memory_of_metrics() -> None:
    text = "# HELP x\nprocess_resident_memory_bytes 1.5e+09\nother 3\n"
    assert memory_of(text) == 1_500_000_000
    assert (
        memory_of('process_resident_memory_bytes{pid="1"} 10\nprocess_resident_memory_bytes{pid="2"} 5\n')
        == 15
    )
    assert memory_of("vllm:num_requests_running 0\n") is None
    assert memory_of(None) is None


def test_scope_has_the_templates_fixed_ends() -> None:
    texts = [Example(id="a", text="SMS: hi {x}\nLabel:"), Example(id="b", text="SMS: \nLabel:")]
    found = prompt_scope(Prompt(text="SMS: {msg}\nLabel:"), texts)
    assert (found.roles, found.prefixes, found.suffixes) == ((), ("SMS: ",), ("\nLabel:",))
    chat = [
        Example(
            id="a",
            messages=[Message(role="system", content="Be {kind}."), Message(role="user", content="hi")],
        )
    ]
    found = prompt_scope(Prompt(system="Be {kind}.", user="{msg}"), chat)
    assert found.roles == ("system", "user")
    assert found.prefixes == ("Be {kind}.", "") and found.suffixes == ("Be {kind}.", "")


def test_scope_fits_every_prompt_that_was_asked() -> None:
    found = prompt_scope(Prompt(text="A {{b}} {x} and {y} end"), [Example(id="a", text="A {b} 1 and 2 end")])
    assert found.prefixes == ("A {b} ",) and found.suffixes == (" end",)


def test_eta_follows_the_measured_speed() -> None:
    now = [0.0]
    lines: list[str] = []
    progress = Progress(
        [Phase("ask-large", 100), Phase("ask-lean", 100, like="ask-large"), Phase("report", 1, unit_seconds=5)],
        clock=lambda: now[0], out=lines.append,
    )  # fmt: skip
    report = progress.start("ask-large", 100)
    report(0, 100)
    now[0] = 20
    report(10, 100)
    assert progress.eta() == pytest.approx(90 * 2 + 100 * 2 + 5)
    progress.finish("ask-large")
    report = progress.start("ask-lean", 100)
    report(50, 100)
    now[0] = 30
    report(60, 100)
    assert progress.eta() == pytest.approx(40 * 1 + 5)
    progress.finish("ask-lean")
    progress.finish("report")
    found = [parse(line) for line in lines]
    assert all(item is not None and item.job == "prove" for item in found)
    last = found[-1]
    assert last is not None and last.percent == 100 and last.eta_seconds == 0 and last.state == "finished"


def test_answers_from_the_store_do_not_make_the_eta_hopeful() -> None:
    now = [0.0]
    progress = Progress([Phase("ask-large", 100)], clock=lambda: now[0], out=lambda line: None)
    report = progress.start("ask-large", 100)
    report(90, 100)
    now[0] = 10
    report(95, 100)
    assert progress.eta() == pytest.approx(5 * 2)


def test_looks_count_proofs_and_not_runs(tmp_path: Path) -> None:
    assert [count_look(tmp_path, "sha256:a", proof) for proof in ("x", "x", "y", "x", "z")] == [1, 1, 2, 1, 3]
    assert count_look(tmp_path, "sha256:b", "y") == 1
