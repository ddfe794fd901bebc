"""Progress: never backwards, 100 only at the end, an ETA that follows the speed, few lines; memory and limits read."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leanmodel_api.progress import ProgressLine, parse
from leanmodel_compression import machine, memory, schedule
from leanmodel_compression.progress import INTERVAL_SECONDS, Reporter
from leanmodel_compression.steps.protocol import Work


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def drive(
    estimates: list[float], factor: float, units: int = 50
) -> tuple[list[tuple[float, ProgressLine]], float]:
    """Run steps that take ``factor`` times their estimates; return the lines with their times, and the end."""
    clock, lines = Clock(), []
    reporter = Reporter("compress-lean", emit=lambda line: lines.append((clock.now, line)), clock=clock)
    reporter.plan([f"step{index}" for index in range(len(estimates))], estimates)
    for index, estimate in enumerate(estimates):
        reporter.start(index)
        reporter.update(0, units)
        for unit in range(units):
            clock.now += estimate * factor / units
            reporter.update(unit + 1, units)
        reporter.end()
    return lines, clock.now


@given(st.lists(st.floats(0.5, 300), min_size=1, max_size=5), st.floats(0.3, 4))
def test_percent_never_falls_and_is_100_only_at_the_end(estimates: list[float], factor: float) -> None:
    lines, _ = drive(estimates, factor)
    percents = [line.percent for _, line in lines]
    assert percents == sorted(percents)
    assert percents[-1] == 100 and all(percent < 100 for percent in percents[:-1])
    assert all(line.eta_seconds is not None and line.eta_seconds >= 0 for _, line in lines)


@given(st.lists(st.floats(20, 300), min_size=2, max_size=4), st.floats(0.5, 3))
def test_the_eta_is_right_once_a_third_is_done(estimates: list[float], factor: float) -> None:
    lines, end = drive(estimates, factor)
    for at, line in lines:
        if end / 3 < at < 0.95 * end:
            assert line.eta_seconds == pytest.approx(end - at, rel=0.5, abs=3)


def test_a_new_plan_is_believed_as_it_is() -> None:
    clock, lines = Clock(), []
    reporter = Reporter("compress-large", emit=lines.append, clock=clock)
    reporter.plan(["fetch", "finetune"], [1, 300])
    reporter.start(0)
    clock.now += 60  # a slow line
    reporter.end()
    reporter.plan(["fetch", "finetune"], [0, 100])
    reporter.start(1)
    assert lines[-1].eta_seconds == pytest.approx(100)
    assert lines[-1].percent == pytest.approx(100 * 60 / 160, abs=1)


def test_the_first_eta_is_the_estimate() -> None:
    lines, _ = drive([30, 70], 1)
    assert lines[0][1].eta_seconds == pytest.approx(100)


def test_running_lines_are_throttled() -> None:
    lines, end = drive([10], 1, units=10_000)
    running = [at for at, line in lines if line.state == "running"]
    assert len(running) <= end / INTERVAL_SECONDS + 1


def test_a_resumed_step_reckons_from_where_it_began() -> None:
    clock, lines = Clock(), []
    reporter = Reporter("compress-large", emit=lines.append, clock=clock)
    reporter.plan(["finetune"], [100])
    reporter.start(0)
    reporter.update(80, 100)
    clock.now = 10
    reporter.update(90, 100)
    assert lines[-1].eta_seconds == pytest.approx(10, rel=0.2)


def test_a_line_is_read_back() -> None:
    lines, _ = drive([5], 1)
    assert parse(lines[-1][1].line()) == lines[-1][1]


def test_an_estimate_adds_up() -> None:
    assert schedule.seconds(Work(), 10) == schedule.FINISH_SECONDS
    slow, fast = (schedule.seconds(Work(flops=1e12), gflops) for gflops in (10, 20))
    assert slow - schedule.FINISH_SECONDS == pytest.approx(2 * (fast - schedule.FINISH_SECONDS))


def test_free_memory_is_what_a_limit_leaves_and_the_systems_where_there_is_none(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 4000 kB\nMemAvailable: 3000 kB\n")
    group = tmp_path / "cgroup"
    group.mkdir()
    assert machine.free_memory(meminfo, group) == 3000 * 1024
    (group / "memory.max").write_text("2000000\n")
    (group / "memory.current").write_text("1500000\n")
    (group / "memory.stat").write_text("anon 1\ninactive_file 100000\n")
    assert machine.free_memory(meminfo, group) == 600_000
    meminfo.write_text("MemTotal: 4000 kB\nMemAvailable: 300 kB\n")
    assert machine.free_memory(meminfo, group) == 600_000, "a pod's neighbours may come and go"
    (group / "memory.max").write_text("max\n")
    assert machine.free_memory(meminfo, group) == 300 * 1024
    assert machine.free_memory(tmp_path / "none", tmp_path / "none") == 2**62


def test_what_this_process_holds_already_is_not_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "free_memory", lambda: 1000 * memory.MIB)
    before = machine.look(tmp_path).memory_bytes
    held = bytearray(200 * memory.MIB)
    held[::4096] = b"x" * len(held[::4096])
    assert machine.look(tmp_path / "not there yet").memory_bytes > before + 150 * memory.MIB
    assert before >= 1000 * memory.MIB


def test_the_meter_sees_what_was_held() -> None:
    with memory.Meter() as before:
        pass
    with memory.Meter() as meter:
        held = bytearray(80 * memory.MIB)
        held[::4096] = b"x" * len(held[::4096])
    assert (
        meter.peak >= before.peak + 60 * memory.MIB or meter.anonymous >= before.anonymous + 60 * memory.MIB
    )
