"""The operator killed after its n-th write: the life ends as if nothing had happened. Here for some n of a seed;
``make bench-crash-points`` does all of them (docs/results/crash-points.md)."""

from __future__ import annotations

import random

import pytest
from crash_lives import live_once

SAMPLE = 6


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_kill_after_any_write_leaves_no_trace(stage):
    unkilled = live_once(stage)
    assert unkilled.wrong == []
    total = len(unkilled.writes)
    assert total > 60, "the whole life is counted"
    dice = random.Random(4)
    # One of each sixth of the life, so that none of its parts is left out.
    for part in range(SAMPLE):
        number = dice.randint(total * part // SAMPLE + 1, total * (part + 1) // SAMPLE)
        lived = live_once(stage, number, unkilled.found)
        assert lived.wrong == [], f"killed after write {number} ({lived.killed_after}): {lived.wrong}"
