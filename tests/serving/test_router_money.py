"""Keys and budgets through Ray Serve and HAProxy: what a client sees, and what the ledger keeps."""

from __future__ import annotations

import pytest
from serving_support import LEAN, Stack, events, issue_to, policy, until

from leanmodel_api.budget import Budget
from leanmodel_serving.ledger.books import MODEL, Line
from leanmodel_serving.ledger.file import spent_ever

BODY = {"prompt": "Hello", "max_tokens": 3}


def spent(stack: Stack, account: str = MODEL) -> Line:
    path = stack.folder / "ledger.db"
    return spent_ever(path).get(account, Line()) if path.exists() else Line()


def test_a_key_opens_and_is_billed_and_a_revoked_one_is_refused(pair: Stack) -> None:
    key = issue_to(pair, "team-a", budget=Budget(usd_per_day="100"))
    headers = {"authorization": f"Bearer {key}"}
    pair.configure(access="Keys")
    refused = pair.post("/v1/completions", BODY)
    assert refused.status_code == 401 and refused.json()["error"]["code"] == "invalid_api_key"
    until(lambda: pair.client.get("/v1/models", headers=headers).status_code == 200, 20.0, "the key is known")
    whole = pair.post("/v1/completions", BODY, headers=headers)
    assert whole.status_code == 200 and float(whole.headers["x-leanmodel-budget-left-usd"]) < 100
    streamed = pair.post(
        "/v1/completions",
        {**BODY, "stream": True, "stream_options": {"include_usage": True}},
        headers=headers,
    )
    cost = float(whole.headers["x-leanmodel-cost-usd"]) + float(
        events(streamed.text)[-1]["usage"]["cost_usd"]
    )
    assert spent(pair, key[3:13]) == Line(spent=round(cost * 1e9), requests=2)
    (pair.keys / f"{key[3:13]}.json").unlink()
    until(
        lambda: pair.post("/v1/completions", BODY, headers=headers).status_code == 401, 20.0, "it is revoked"
    )


@pytest.mark.parametrize("end", ["Reject", "LeanOnly"])
def test_over_budget_as_declared(pair: Stack, end: str) -> None:
    left = Budget(usd_per_day=f"{spent(pair).spent / 1e9 + 1e-9:.9f}", when_exceeded=end)
    pair.configure(lean=pair.backend(LEAN), strategy="Cascade", policy=policy(1.0), budget=left)
    reply = pair.post("/v1/completions", BODY)
    if end == "Reject":
        assert reply.status_code in (400, 429) and reply.json()["error"]["code"] in (
            "insufficient_quota", "budget_too_small",
        )  # fmt: skip
    else:
        assert reply.status_code == 200 and reply.headers["x-leanmodel-route"] == "lean"
        assert reply.headers["x-leanmodel-promise"] == "suspended"
        assert reply.headers["x-leanmodel-reason"] == "budget"
