"""What each answer costs, in US dollars, from the prices and what was measured."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from leanmodel_api.base import number
from leanmodel_api.serving import Price

from .answers import Answer
from .intervals import Floats


def request_costs(
    price: Price | None, answers: Sequence[Answer], requests_per_second: float
) -> Floats | None:
    """Return the cost of each answer, shape (answers,), or None without a price.

    Per million tokens: by the tokens of each. Per replica-hour: every request has the same share, an
    hour's price by the requests an hour that were measured at the proof's concurrency.
    """
    if price is None:
        return None
    if price.usd_per_hour is not None:
        if requests_per_second <= 0:
            return None
        return np.full(len(answers), number(price.usd_per_hour) / 3600 / requests_per_second)
    if price.input_usd_per_million_tokens is None and price.output_usd_per_million_tokens is None:
        return None
    per_input = number(price.input_usd_per_million_tokens or "0") / 1e6
    per_output = number(price.output_usd_per_million_tokens or "0") / 1e6
    return np.array(
        [answer.prompt_tokens * per_input + answer.completion_tokens * per_output for answer in answers]
    )
