"""What our router is told: keys, a budget, prices, and a policy that decides each request, all in force."""

from __future__ import annotations

import itertools
import sys
from typing import Any, Literal

from leanmodel_api.budget import Budget
from leanmodel_api.keys import KeyLimits
from leanmodel_api.policy import Scope
from leanmodel_api.router import Backend, RouterSettings
from leanmodel_api.serving import Price

from .environment import ROOT

sys.path.append(str(ROOT / "tests" / "doubles"))

from policies_made import made  # noqa: E402

MODEL = "bench"
PRICE = Price(input_usd_per_million_tokens="0.3", output_usd_per_million_tokens="1.2")
BUDGET = Budget(usd_per_hour="100000", usd_per_day="1000000")
GENEROUS = KeyLimits(requests_per_minute=10**7, tokens_per_minute=10**10, concurrency=10**5, budget=BUDGET)
"""Limits of all kinds, each counted for each request, none ever reached."""
Kind = Literal["predictive", "combined"]
KINDS: tuple[Kind, ...] = ("predictive", "combined")
_generations = itertools.count(1)


def router_settings(engine: str, kind: Kind) -> RouterSettings:
    """Return settings that decide by a policy.

    Args:
        engine: address of the engine, which is the large model and the lean one.
        kind: predictive decides by the prompt; combined also judges the lean answer's first 16 tokens.
    """
    scope = Scope(decision="first-16-tokens") if kind == "combined" else Scope()
    policy: dict[str, Any] = made(kind, scope=scope).model_dump(mode="json")
    large, lean = (Backend(revision=name, url=engine, price=PRICE) for name in ("large", "lean"))
    return RouterSettings.model_validate({
        "generation": next(_generations), "model": MODEL, "large": large, "lean": lean, "strategy": "Cascade",
        "policy": policy, "access": "Keys", "budget": BUDGET,
    })  # fmt: skip
