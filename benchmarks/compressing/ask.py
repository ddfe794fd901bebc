"""Asks a decoder, under the compression environment: ``ask.py INPUT OUTPUT``, both JSON.

The input names a ``model`` folder and ``threads``, and has either ``windows`` (ids and text; the output gives each
one's negative log-likelihood) or ``examples`` with ``choices`` (the output gives each one's greedy answer, where it is
a choice and nothing else follows).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

BATCH_TOKENS = 2048


def main(source: Path, target: Path) -> None:
    """Answer what the input asks."""
    from leanmodel_compression.__main__ import settle

    asked = json.loads(source.read_text(encoding="utf-8"))
    settle(int(asked["threads"]))
    from leanmodel_compression import hf

    folder = Path(asked["model"])
    model, tokenizer = hf.load_model(folder), hf.load_tokenizer(folder)
    if "windows" in asked:
        found = surprise(model, tokenizer, asked["windows"], int(asked["vocabulary"]))
    else:
        found = choose(model, tokenizer, asked["examples"], asked["choices"])
    target.write_text(json.dumps(found), encoding="utf-8")


def surprise(model: Any, tokenizer: Any, windows: list[dict[str, Any]], vocabulary: int) -> dict[str, Any]:
    """Return for each window the nats of its tokens after the first, each from those before it in the window.

    A model with another vocabulary is given the window's text; its nats are for the same text, so that they can be
    spread over the tokens that the untrimmed tokenizer makes of it.
    """
    import torch

    nats = []
    with torch.no_grad():
        for window in windows:
            ids = (
                window["ids"]
                if len(tokenizer) == vocabulary
                else tokenizer.encode(window["text"], add_special_tokens=False)
            )
            row = torch.tensor([ids])
            logits = model(input_ids=row, use_cache=False).logits[0, :-1].float()
            loss = torch.nn.functional.cross_entropy(logits, row[0, 1:], reduction="sum")
            nats.append(float(loss))
    return {"nats": nats, "tokens": [len(window["ids"]) - 1 for window in windows]}


def choose(model: Any, tokenizer: Any, examples: list[dict[str, Any]], choices: list[str]) -> dict[str, Any]:
    """Return the greedy answers: a choice where every token of it, and the end after it, is the likeliest; else empty."""
    from leanmodel_api.parts import Example
    from leanmodel_compression import encode

    asked = [Example.model_validate(example) for example in examples]
    given = [""] * len(asked)
    left = list(range(len(asked)))
    for choice in choices:
        rows = encode.encode_all(tokenizer, [asked[at].model_copy(update={"answer": choice}) for at in left])
        said = greedy(model, rows, int(tokenizer.eos_token_id))
        for at, same in zip(left, said, strict=True):
            if same:
                given[at] = choice
        left = [at for at in left if not given[at]]
    return {"given": given}


def greedy(model: Any, rows: Any, pad: int) -> list[bool]:
    """Return for each row whether greedy decoding of its prompt gives its answer."""
    import torch

    from leanmodel_compression.batches import by_length
    from leanmodel_compression.steps import training

    found = [False] * len(rows)
    with torch.no_grad():
        for part in by_length(rows, BATCH_TOKENS):
            ids, where, columns, wanted = training.collate(rows, part, pad)
            hit = training.answer_logits(model, ids, where, columns).argmax(-1) == wanted
            for line, index in enumerate(part):
                found[index] = bool(hit[where == line].all())
    return found


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
