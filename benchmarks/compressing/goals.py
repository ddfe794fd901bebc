"""The goals: what was to be shown, the figure that was found beside it, met or missed. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from leanmodel_api.report import Estimate

from .table import Found

NOT_RUN = "not yet run"
GRIDS = ("rtn w4a16", "gptq w4a16", "awq w4a16", "trained then rtn w4a16", "trained then gptq w4a16")
"""Rounding after training, on the grid that the aware training is held against."""


@dataclass(frozen=True)
class Goal:
    """One goal as the page shows it; ``met`` is None while rows that it needs are missing."""

    text: str
    figure: str
    met: bool | None

    def line(self) -> str:
        """Return it as a row of a table."""
        word = {None: NOT_RUN, True: "met", False: "**missed**"}[self.met]
        return f"| {self.text} | {self.figure} | {word} |"


def goals(found: Found) -> list[Goal]:
    """Return all goals of techniques with what was found."""
    return [
        _limit(
            found, "words/qat w4a16", "W4A16 after healing: perplexity at most +10%", 1.10, _beside(found)
        ),
        _healed_zeros(found),
        _kept(
            found,
            "sms/half depth healed",
            "half the depth, healed on the messages: at least 97% kept",
            0.97,
            "BalancedAccuracy",
        ),
        _aware(found),
        _limit(
            found,
            "words/low rank 20% healed",
            "low rank, 20% fewer parameters: perplexity at most +15%",
            1.15,
            _parameters(found),
        ),
        _half_encoder(found),
        *(_small_encoder(found, name) for name in ("3 layers", "2 layers", "1 layer")),
    ]


def of_estimates(found: Found) -> Goal:
    """Return how close the estimates of memory were to the measured peaks, row by row."""
    ratios = {
        row: line.estimated / line.peak for row, line in found.lines.items() if line.peak and line.own_steps
    }
    text = "estimated peak memory within 15% of the measured (anonymous) one, every row"
    if not ratios:
        return Goal(text, "–", None)
    out = {row: ratio for row, ratio in ratios.items() if abs(ratio - 1) > 0.15}
    worst = max(ratios, key=lambda row: abs(ratios[row] - 1))
    words = f"{len(ratios) - len(out)} of {len(ratios)} rows; the farthest is {worst}: {ratios[worst]:.2f} of the measured"
    return Goal(text, words, not out)


def _limit(found: Found, row: str, text: str, most: float, beside: Callable[[], Iterable[str]]) -> Goal:
    ratio = found.ratio(row)
    if ratio is None:
        return Goal(text, "–", None)
    return Goal(text, "; ".join([f"× {_say(ratio)}", *beside()]), ratio.value <= most)


def _beside(found: Found) -> Callable[[], Iterable[str]]:
    def words() -> Iterable[str]:
        for row, said in (
            ("words/gptq w4a16", "GPTQ unhealed"),
            ("words/trained", "the same training, nothing compressed"),
        ):
            if (ratio := found.ratio(row)) is not None:
                yield f"{said}: × {ratio.value:.3f}"

    return words


def _parameters(found: Found) -> Callable[[], Iterable[str]]:
    def words() -> Iterable[str]:
        line, large = found.lines.get("words/low rank 20% healed"), found.lines.get("words/large")
        if line is not None and large is not None:
            yield f"{100 * (1 - line.parameters / large.parameters):.1f}% fewer parameters"
        if (alone := found.ratio("words/low rank 20%")) is not None:
            yield f"unhealed: × {alone.value:.3f}"
        if (ratio := found.ratio("words/trained")) is not None:
            yield f"the same data, nothing compressed: × {ratio.value:.3f}"

    return words


def _healed_zeros(found: Found) -> Goal:
    text = "SparseGPT 2:4, healed by distillation: perplexity below 45"
    value = found.perplexity("words/sparsegpt 2:4 healed")
    if value is None:
        return Goal(text, "–", None)
    alone = found.perplexity("words/sparsegpt 2:4")
    return Goal(text, _say(value, 1) + (f"; unhealed {alone.value:.1f}" if alone else ""), value.value < 45)


def _aware(found: Found) -> Goal:
    text = "training aware of 4 bits better than every rounding after training on the same grid"
    ours = found.perplexity("words/qat w4a16")
    others = {name: found.perplexity(f"words/{name}") for name in GRIDS}
    known = {name: value for name, value in others.items() if value is not None}
    if ours is None or not known:
        return Goal(text, "–", None)
    words = ", ".join(f"{name} {value.value:.2f}" for name, value in known.items())
    better = all(ours.value < value.value for value in known.values())
    missing = [name for name in GRIDS if name not in known]
    left = f"; not yet run: {', '.join(missing)}" if missing else ""
    return Goal(text, f"perplexity {ours.value:.2f}; {words}{left}", None if missing and better else better)


def _kept(found: Found, row: str, text: str, least: float, metric: str) -> Goal:
    share = found.kept(row, metric)
    return (
        Goal(text, "–", None)
        if share is None
        else Goal(text, f"{_say(share)} of {metric}", share.value >= least)
    )


def _half_encoder(found: Found) -> Goal:
    row, text = (
        "labels/half depth by logits and hidden",
        "MiniLM with half its layers: at least 97% kept, 1.6 × as fast",
    )
    share, speed = found.kept(row, "ChoiceAccuracy"), found.speed(row)
    if share is None:
        return Goal(text, "–", None)
    words = f"{_say(share)} of accuracy; speed " + (f"× {_say(speed, 2)}" if speed else NOT_RUN)
    if share.value < 0.97:
        return Goal(text, words, False)
    return Goal(text, words, None if speed is None else speed.value >= 1.6)


def _small_encoder(found: Found, layers: str) -> Goal:
    row = f"labels/{layers} distilled int8"
    text = f"MiniLM's student of {layers}, int8: at least 98% of accuracy, 4 × the requests/s, at most 25% of the bytes"
    share, speed, line, large = (
        found.kept(row, "ChoiceAccuracy"),
        found.speed(row),
        found.lines.get(row),
        found.lines.get("labels/large"),
    )
    if share is None or line is None or large is None:
        return Goal(text, "–", None)
    size = line.bytes / large.bytes
    words = f"{_say(share)} of accuracy; {size:.3f} of the bytes; speed " + (
        f"× {_say(speed, 2)}" if speed else NOT_RUN
    )
    if share.value < 0.98 or size > 0.25:
        return Goal(text, words, False)
    return Goal(text, words, None if speed is None else speed.value >= 4)


def _say(value: Estimate, digits: int = 3) -> str:
    return f"{value.value:.{digits}f} ({value.low:.{digits}f}–{value.high:.{digits}f})"
