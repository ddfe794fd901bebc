"""Money: whole numbers, honest bases, and saving = counterfactual - cost."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leanmodel_api.router import Backend
from leanmodel_api.serving import Price
from leanmodel_serving.router.cost import Pace, Tariff, Usage, bill, usd


def backend(rate: str | None = None, **price: str) -> Backend:
    return Backend(
        revision="x", url="http://h/x", price=Price(**price) if price else None, tokens_per_second=rate
    )


@pytest.mark.parametrize(
    ("rate", "price", "basis", "nano"),
    [
        (
            None,
            {"input_usd_per_million_tokens": "0.5", "output_usd_per_million_tokens": "2"},
            "tokens",
            50_000 + 20_000,
        ),
        (None, {"output_usd_per_million_tokens": "2"}, "tokens", 20_000),
        ("100", {"usd_per_hour": "0.36"}, "throughput", 110_000),
        (None, {"usd_per_hour": "0.36"}, "wall-time", 200_000),
        ("100", {}, "none", 0),
    ],
)
def test_a_tariff_by_each_basis(rate: str | None, price: dict[str, str], basis: str, nano: int) -> None:
    tariff = Tariff.of(backend(rate, **price))
    assert tariff.basis == basis
    assert tariff.nano(Usage(100, 10), seconds=2.0) == nano


@given(
    st.integers(0, 10**6), st.integers(0, 10**6), st.decimals("0.000001", "1000", places=6),
    st.decimals("0.000001", "1000", places=6),
)  # fmt: skip
def test_token_prices_are_exact_to_the_nano_dollar(
    prompt: int, completion: int, inward: Decimal, outward: Decimal
) -> None:
    tariff = Tariff.of(
        backend(
            input_usd_per_million_tokens=format(inward, "f"),
            output_usd_per_million_tokens=format(outward, "f"),
        )
    )
    exact = (prompt * inward + completion * outward) / 10**6 * 10**9
    assert abs(tariff.nano(Usage(prompt, completion), 1.0) - exact) <= Decimal("0.5")


tokens = st.builds(Usage, st.integers(0, 5000), st.integers(0, 5000))
rates = st.builds(
    lambda inward, outward: Tariff("tokens", inward, outward), st.integers(0, 10**7), st.integers(0, 10**7)
)
seconds = st.floats(0, 100)


@given(tokens, tokens, rates, rates, seconds)
def test_an_escalation_costs_the_lean_try_more(
    lean: Usage, large: Usage, cheap: Tariff, dear: Tariff, took: float
) -> None:
    found = bill((cheap, lean, took), (dear, large, took), dear, Pace())
    assert found.counterfactual - found.cost == -cheap.nano(lean, took)


@given(tokens, rates, seconds)
def test_the_large_way_saves_nothing(large: Usage, dear: Tariff, took: float) -> None:
    found = bill(None, (dear, large, took), dear, Pace())
    assert found.cost == found.counterfactual


@given(tokens, rates, st.integers(1, 20), seconds)
def test_an_accepted_answer_saves_the_difference(lean: Usage, cheap: Tariff, times: int, took: float) -> None:
    dear = Tariff("tokens", cheap.prompt_pico * times, cheap.completion_pico * times)
    found = bill((cheap, lean, took), None, dear, Pace())
    assert found.counterfactual == dear.nano(lean, took)
    assert found.counterfactual >= found.cost


def test_one_missing_price_makes_the_whole_unknown() -> None:
    priced, usage = Tariff("tokens", 1000, 1000), Usage(10, 10)
    assert not bill((Tariff(), usage, 1.0), (priced, usage, 1.0), priced, Pace()).known
    assert not bill((priced, usage, 1.0), None, Tariff(), Pace()).known


def test_by_wall_time_the_large_models_pace_prices_what_it_was_not_asked() -> None:
    pace = Pace()
    second = Tariff("wall-time", second_pico=10**9)  # a milli-dollar a second
    usage = Usage(50, 50)
    first = bill((second, usage, 0.1), None, second, pace)
    assert first.counterfactual == first.cost  # nothing known of the large model yet
    pace.saw(Usage(100, 100), 4.0)
    found = bill((second, usage, 0.1), None, second, pace)
    assert (found.basis, found.cost, found.counterfactual) == ("wall-time", 100_000, 2_000_000)


@given(st.integers(-(10**15), 10**15))
def test_dollars_are_written_without_loss(nano: int) -> None:
    assert Decimal(usd(nano)) * 10**9 == nano
