"""Histories of a ledger: what hypothesis makes up, carried out by books alone or by files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from hypothesis import strategies as st

from leanmodel_serving.ledger.books import MODEL, Books, Hold, Limit, Rates, Refusal
from leanmodel_serving.ledger.file import Operation, Release, Reserve, Result, Settle

NOON = 1_800_000_000 // 86400 * 86400 + 43200
LIMITS = (
    Limit(MODEL, "hour", 1000), Limit(MODEL, "day", 3000), Limit("a", "hour", 400), Limit("b", "day", 700),
)  # fmt: skip


@dataclass(frozen=True)
class Step:
    """One thing that happens: seconds pass, then a request comes, or one under way ends."""

    passed: int
    what: str
    key: str = ""
    nano: int = 0
    share: float = 0.0
    which: int = 0


passing = st.sampled_from([0, 0, 1, 7, 600, 3599, 3600, 20_000, 86_399])
steps = st.one_of(
    st.builds(
        Step,
        passing,
        st.just("reserve"),
        key=st.sampled_from(["", "a", "b"]),
        nano=st.integers(0, 1200),
    ),
    st.builds(
        Step, passing, st.just("settle"), share=st.floats(0, 1, allow_nan=False), which=st.integers(0, 30)
    ),
    st.builds(Step, passing, st.just("release"), which=st.integers(0, 30)),
)
histories = st.lists(steps, max_size=40)


@dataclass
class History:
    """Carries steps out, and keeps account of them in the simplest way there is."""

    do: Callable[[Operation], Result]
    overrun: float = 0.0
    now: float = NOON
    made: int = 0
    open: list[Hold] = field(default_factory=list)
    ended: list[Hold] = field(default_factory=list)
    settled: list[tuple[Hold, int]] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)

    def step(self, step: Step) -> None:
        self.now += step.passed
        if step.what == "reserve":
            self.made += 1
            hold = Hold(f"h{self.made}", "owner", step.key, int(self.now), step.nano)
            limits = tuple(limit for limit in LIMITS if limit.account in (MODEL, step.key))
            result = self.do(Reserve(hold, limits, limits, Rates(), self.now))
            if not isinstance(result, Refusal):
                self.open.append(hold)
        elif self.open:
            hold = self.open.pop(step.which % len(self.open))
            self.ended.append(hold)
            if step.what == "release":
                result = self.do(Release(hold))
            else:
                nano = round(hold.nano * step.share * (1 + self.overrun))
                self.settled.append((hold, nano))
                result = self.do(Settle(hold, nano, 1, LIMITS, None, self.now))
        else:
            return
        self.results.append(result)


def by_books(books: Books) -> Callable[[Operation], Result]:
    """Operations on books that stay in memory."""

    def do(operation: Operation) -> Result:
        if isinstance(operation, Reserve):
            refused = books.reserve(operation.hold, operation.limits, operation.rates, operation.now)
            return refused or books.left(operation.shown, operation.now)
        if isinstance(operation, Settle):
            books.settle(operation.hold, operation.nano, operation.tokens, operation.tokens_per_minute)
            return books.left(operation.limits, operation.now)
        assert isinstance(operation, Release)
        books.release(operation.hold)
        return []

    return do
