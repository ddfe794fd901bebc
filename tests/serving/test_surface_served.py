"""What clients meet through Ray Serve's own server and a real engine: comments before a stream, the document."""

from __future__ import annotations

import json

import openai
from serving_support import LARGE, NAME, Stack

from leanmodel_api.router import RouterLimits

CHAT = [{"role": "user", "content": "Say where you are. " * 20}]
SOONER_THAN_ANY_TOKEN = 0.002


def test_comments_keep_a_stream_alive_and_clients_pass_them_over(stack: Stack) -> None:
    with openai.OpenAI(base_url=f"{stack.url}/v1", api_key="unused", max_retries=0) as client:
        asked = {"model": NAME, "messages": CHAT, "max_tokens": 4, "temperature": 0}
        whole = client.chat.completions.create(**asked)  # type: ignore[call-overload]
        stack.configure(limits=RouterLimits(heartbeat=SOONER_THAN_ANY_TOKEN))
        try:
            reply = stack.post("/v1/chat/completions", {**asked, "stream": True})
            chunks = list(client.chat.completions.create(**asked, stream=True))  # type: ignore[call-overload]
            late = stack.post("/v1/completions", {"prompt": "word " * 3000, "max_tokens": 1, "stream": True})
        finally:
            stack.configure()
    assert reply.headers["x-leanmodel-route"] == "undecided"
    comments = [line for line in reply.text.split("\n") if line.startswith(":")]
    assert comments[0] == ": waiting" and ": x-leanmodel-route: large" in comments
    assert f": x-leanmodel-revision: {LARGE}" in comments
    assert reply.text.endswith("data: [DONE]\n\n")
    said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert said == whole.choices[0].message.content
    # The engine's refusal has its own status, or is an event where a comment was out before it.
    told = late.json() if late.status_code == 400 else json.loads(late.text.split("data: ")[1].split("\n")[0])
    assert late.status_code in (200, 400) and "1024" in told["error"]["message"]


def test_the_document_comes_through(stack: Stack) -> None:
    told = stack.client.get("/openapi.json").json()
    assert set(told["paths"]) >= {"/v1/chat/completions", "/v1/completions", "/v1/models", "/healthz"}
    assert "/v1/embeddings" not in told["paths"] and told["info"]["title"] == f"LeanModel {NAME}"
