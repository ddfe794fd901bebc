"""A lean model joins beside the large one, which is neither restarted nor silent for it."""

from __future__ import annotations

from conftest import Joining
from serving_support import LARGE, LEAN, Stack


def test_the_large_model_is_not_restarted(joined: Joining) -> None:
    assert joined.large_before and joined.large_before == joined.large_after


def test_no_request_fails_meanwhile(joined: Joining) -> None:
    assert len(joined.statuses) > 5
    assert set(joined.statuses) == {200}


def test_both_are_applications_of_their_own(pair: Stack) -> None:
    applications = pair.status()["applications"]
    assert set(applications) == {LARGE, LEAN, "router"}
    assert {item["status"] for item in applications.values()} == {"RUNNING"}
    assert applications[LEAN]["url"] == f"{pair.url}/engines/{LEAN}"
