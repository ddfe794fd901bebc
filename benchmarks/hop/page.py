"""The page of what the rounds found. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from .rounds import BARE, CLIENTS, LITELLM, OURS, Round

ROUTERS = (*OURS.values(), LITELLM)
ADDED_GOAL, RATE_GOAL, BURST_GOAL = 0.1, 20.0, 2.0


@dataclass(frozen=True)
class Spread:
    """One figure over the rounds."""

    values: tuple[float, ...]

    def __str__(self) -> str:
        """Return the median, and the least and the most beside it."""
        low, high = min(self.values), max(self.values)
        return f"{short(median(self.values))} ({short(low)}–{short(high)})"

    @property
    def middle(self) -> float:
        """The median."""
        return median(self.values)


def short(value: float) -> str:
    """Return a number with three digits that count."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def over(rounds: Sequence[Round], figure: Callable[[Round], float]) -> Spread:
    """Return a figure of each round."""
    return Spread(tuple(figure(one) for one in rounds))


def added(rounds: Sequence[Round], name: str, clients: int, share: int) -> Spread:
    """Return how many milliseconds a router adds to the engine alone of the same round."""
    key = f"took_p{share}"
    return over(rounds, lambda one: one.whole[name][clients][key] - one.whole[BARE][clients][key])


def rate(rounds: Sequence[Round], name: str) -> Spread:
    """Return answers per second, of each round's best load."""
    return over(rounds, lambda one: _rate(one, name))


def goals(rounds: Sequence[Round]) -> list[tuple[str, str, str, bool]]:
    """Return each goal: what, wanted, found, whether it was reached, each as ratios within the rounds."""
    found = []
    for name in OURS.values():
        for clients in CLIENTS:
            share = over(
                rounds,
                lambda one, name=name, clients=clients: (
                    _added(one, name, clients) / _added(one, LITELLM, clients)
                ),  # type: ignore[misc]
            )
            what = f"{name}: added p50 at {clients} clients, of LiteLLM's"
            found.append((what, f"≤ {ADDED_GOAL:g}", str(share), share.middle <= ADDED_GOAL))
        times = over(rounds, lambda one, name=name: _rate(one, name) / _rate(one, LITELLM))  # type: ignore[misc]
        found.append(
            (
                f"{name}: answers/s of the core at the best load, times LiteLLM's",
                f"≥ {RATE_GOAL:g}",
                str(times),
                times.middle >= RATE_GOAL,
            )
        )
        wrong = sum(faults(one.streams[name]) for one in rounds)
        found.append((f"{name}: wrong or missing streams", "0", str(wrong), wrong == 0))
    name = OURS["predictive"]
    for key, what in (("first_p99", "first event"), ("last_p99", "end")):
        burst = over(
            rounds, lambda one, key=key: one.streams[name]["first"][key] / one.streams[BARE]["first"][key]  # type: ignore[misc]
        )  # fmt: skip
        found.append(
            (
                f"{name}: first burst's p99 of the {what}, times the engine's",
                f"≤ {BURST_GOAL:g}",
                str(burst),
                burst.middle <= BURST_GOAL,
            )
        )
    return found


def _added(one: Round, name: str, clients: int) -> float:
    return float(one.whole[name][clients]["took_p50"] - one.whole[BARE][clients]["took_p50"])


def _rate(one: Round, name: str) -> float:
    """Answers that come all together fall into a load's window or not, where it is short: the best load counts."""
    return max(float(found["per_second"]) for found in one.whole[name].values()) or float("nan")


def faults(found: dict[str, Any]) -> int:
    """Return how many streams of all bursts were wrong."""
    return sum(sum(burst["wrong"].values()) for name, burst in found.items() if name in ("first", "second"))


def tables(rounds: Sequence[Round], decision: dict[str, dict[str, float]]) -> list[str]:
    """Return the tables as lines."""
    lines = ["## Goals", "", "| | wanted | found | |", "|---|---|---|---|"]
    lines += [
        f"| {what} | {wanted} | {was} | {'reached' if well else '**not reached**'} |"
        for what, wanted, was, well in goals(rounds)
    ]
    for name, took in decision.items():
        lines.append(
            f"| a decision {name}, p99 | ≤ 1 ms | {took['p99'] / 1e3:.3f} ms (p50 {took['p50'] / 1e3:.3f}) | {'reached' if took['p99'] < 1e3 else '**not reached**'} |"
        )
    lines += ["", "## Whole answers", "", "| | " + " | ".join(f"added p50 / p99 at {clients}, ms" for clients in CLIENTS)
              + " | answers/s, best load | core's time per answer, ms | wrong |", "|---" * (len(CLIENTS) + 4) + "|"]  # fmt: skip
    lines.append(f"| {BARE} (its own p50 / p99) | " + " | ".join(
        f"{over(rounds, lambda one, c=clients: one.whole[BARE][c]['took_p50'])} / {over(rounds, lambda one, c=clients: one.whole[BARE][c]['took_p99'])}"  # type: ignore[misc]
        for clients in CLIENTS) + f" | {rate(rounds, BARE)} | | {_wrong(rounds, BARE)} |")  # fmt: skip
    for name in ROUTERS:
        cells = [
            f"{added(rounds, name, clients, 50)} / {added(rounds, name, clients, 99)}" for clients in CLIENTS
        ]
        core = over(rounds, lambda one, name=name: _core_ms(one.whole[name][CLIENTS[-1]]))  # type: ignore[misc]
        lines.append(
            f"| {name} | {' | '.join(cells)} | {rate(rounds, name)} | {core} | {_wrong(rounds, name)} |"
        )
    lines += [
        "",
        "## Streams",
        "",
        "| | streams right | first event p50 / p99, ms | end p50 / p99, ms |",
        "|---|---|---|---|",
    ]
    for name in (BARE, *ROUTERS):
        for burst in ("first", "second"):
            bursts = [one.streams[name][burst] for one in rounds if burst in one.streams[name]]
            if bursts:
                right = f"{sum(one['asked'] - sum(one['wrong'].values()) for one in bursts)} of {sum(one['asked'] for one in bursts)}"
                first, last = (
                    f"{Spread(tuple(one[f'{key}_p50'] for one in bursts))} / {Spread(tuple(one[f'{key}_p99'] for one in bursts))}"
                    for key in ("first", "last")
                )
                lines.append(f"| {name}, {burst} burst | {right} | {first} | {last} |")
    return lines


def _core_ms(found: dict[str, Any]) -> float:
    """Return milliseconds of processor time per answer, those of the warm-up with the others."""
    return 1e3 * float(found["cpu_seconds"]) / max(1, int(found["all_answers"]))


def _wrong(rounds: Sequence[Round], name: str) -> int:
    return sum(sum(found["wrong"].values()) for one in rounds for found in one.whole[name].values())
