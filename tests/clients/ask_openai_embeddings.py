"""OpenAI's own client against a router of a sentence encoder: python ask_openai_embeddings.py URL KEY MODEL."""

from __future__ import annotations

from openai import OpenAI
from reporting import Target, report, same


def vectors(target: Target) -> None:
    """embeddings, as numbers and packed as the client asks by itself"""
    asked = OpenAI(base_url=target.url, api_key=target.key, max_retries=0)
    for form in ({}, {"encoding_format": "float"}):
        found = asked.embeddings.create(model=target.model, input=["a", "b"], **form)  # type: ignore[arg-type]
        same([item.embedding for item in found.data], [[0.25, -0.5, 0.75]] * 2)


if __name__ == "__main__":
    report([vectors])
