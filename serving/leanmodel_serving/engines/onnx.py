"""ONNX Runtime: a classifier behind ``/classify`` or a sentence encoder behind ``/v1/embeddings``.

Requests that wait together are computed together.

While one batch is computed the next one fills (:mod:`.gather`). In 8 bits the scale of activations is that of
the whole batch, so a text's answer depends a little on its neighbours: that is why a proof asks at production's
concurrency.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from ray import serve

from leanmodel_api.batching import groups

from .base import EngineSettings
from .classify import BadRequestError, answer, fitted, padded, parse
from .deployment import application
from .embed import embedding_answer, parse_embedding
from .gather import Gatherer
from .guard import guarded

FILE = "model.onnx"
_PROBE = "Hello"
_PROBE_TIMEOUT_S = 60.0


class Encoder:
    """A model, its tokenizer, and its labels where it has any; computes in the calling thread."""

    def __init__(self, folder: Path, threads: int) -> None:
        """Load all of it.

        Args:
            folder: with ``model.onnx``, ``tokenizer.json`` and ``config.json``.
            threads: of computation.

        Raises:
            RuntimeError: the artifact is not for this engine.
        """
        import onnxruntime
        from tokenizers import Tokenizer

        if not (folder / FILE).exists():
            raise RuntimeError(f"the artifact has no {FILE}: it was not made for this engine")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Threads that wait sleep: the large model's and the lean one's share the cores.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        providers = ["CPUExecutionProvider"]
        self.session = onnxruntime.InferenceSession(str(folder / FILE), options, providers=providers)
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        (out,) = self.session.get_outputs()
        self.output, self.width = str(out.name), int(out.shape[-1])
        self.embeds = self.output == "embeddings"
        named = {} if self.embeds else config["id2label"]
        self.labels = tuple(str(named[key]) for key in sorted(named, key=int))
        self.pad = int(config.get("pad_token_id") or 0)
        self.texts = self.batches = 0

    def ids(self, text: str) -> list[int]:
        """Return a text's tokens with the special ones."""
        return list(self.tokenizer.encode(text).ids)

    def answers(self, texts: Sequence[Sequence[int]]) -> list[NDArray[np.float32]]:
        """Return the logits, or the vector, of each text."""
        found: list[Any] = [None] * len(texts)
        for group in groups([len(text) for text in texts]):
            ids, mask = padded([texts[index] for index in group], self.pad)
            rows = self.session.run([self.output], {"input_ids": ids, "attention_mask": mask})[0]
            for index, row in zip(group, rows, strict=True):
                found[index] = row
        self.texts += len(texts)
        self.batches += 1
        return found


@serve.ingress()
class ONNXRuntimeEngine:
    """One replica of one model; warm before Serve counts it as ready."""

    async def __init__(self, settings: dict[str, Any]) -> None:  # type: ignore[misc]  # Serve awaits it
        """Load the model and answer once.

        Args:
            settings: an :class:`EngineSettings` as JSON object.
        """
        self.settings = EngineSettings.model_validate(settings)
        token = Path(self.settings.token_file).read_text(encoding="utf-8").strip()
        self.encoder = await asyncio.to_thread(Encoder, Path(self.settings.model), self.settings.threads)
        self._batch = Gatherer(self._compute, self.settings.max_sequences)
        self.guarded_app = guarded(self._app(), token)
        self.last_answer = 0.0
        await self._probe(self.settings.startup_timeout)

    def _app(self) -> Any:
        from starlette.applications import Starlette
        from starlette.routing import Route

        return Starlette(
            routes=[
                Route("/v1/embeddings", self._embed, methods=["POST"])
                if self.encoder.embeds
                else Route("/classify", self._classify, methods=["POST"]),
                Route("/v1/models", self._models),
                Route("/health", self._health),
                Route("/metrics", self._metrics),
            ]
        )

    def __serve_build_asgi_app__(self) -> Any:  # noqa: N807 - Serve's hook
        """Return the app that Serve runs for this replica."""
        return self.guarded_app

    async def _compute(self, texts: list[tuple[int, ...]]) -> list[NDArray[np.float32]]:
        return await asyncio.to_thread(self.encoder.answers, texts)

    async def _classify(self, request: Any) -> Any:
        from starlette.responses import JSONResponse

        try:
            asked = parse(await request.body(), self.settings.revision)
            logits, tokens = await self._computed(asked.texts, asked.truncate)
        except BadRequestError as error:
            return _refused(error)
        revision, labels = self.settings.revision, self.encoder.labels
        return JSONResponse(answer(revision, labels, logits, tokens, asked.probabilities))

    async def _embed(self, request: Any) -> Any:
        from starlette.responses import JSONResponse

        try:
            asked = parse_embedding(await request.body(), self.settings.revision, self.encoder.width)
            vectors, tokens = await self._computed(asked.texts, asked.truncate)
        except BadRequestError as error:
            return _refused(error)
        return JSONResponse(embedding_answer(self.settings.revision, vectors, tokens, asked.encoding))

    async def _computed(
        self, texts: Sequence[str], truncate: int | None
    ) -> tuple[list[NDArray[np.float32]], int]:
        """Return the answer to each text, and the tokens of all.

        Raises:
            BadRequestError: a text is too long.
        """
        limit = self.settings.max_model_length
        ids = [fitted(self.encoder.ids(text), limit, truncate) for text in texts]
        found = await asyncio.gather(*(self._batch(one) for one in ids))
        self.last_answer = time.monotonic()
        return found, sum(map(len, ids))

    async def _models(self, request: Any) -> Any:
        from starlette.responses import JSONResponse

        own = {"id": self.settings.revision, "object": "model", "created": 0, "owned_by": "leanmodel"}
        return JSONResponse({"object": "list", "data": [own]})

    async def _health(self, request: Any) -> Any:
        from starlette.responses import Response

        return Response()

    async def _metrics(self, request: Any) -> Any:
        from starlette.responses import PlainTextResponse

        lines = {
            "process_resident_memory_bytes": resident_bytes(),
            "leanmodel_engine_texts_total": self.encoder.texts,
            "leanmodel_engine_batches_total": self.encoder.batches,
        }
        return PlainTextResponse("".join(f"{name} {value}\n" for name, value in lines.items()))

    async def check_health(self) -> None:
        """Raise when nothing is answered any more; Serve then replaces the replica."""
        if time.monotonic() - self.last_answer >= self.settings.health_period:
            await self._probe(_PROBE_TIMEOUT_S)

    async def _probe(self, time_limit: float) -> None:
        await asyncio.wait_for(self._batch(tuple(self.encoder.ids(_PROBE))), time_limit)
        self.last_answer = time.monotonic()


def _refused(error: BadRequestError) -> Any:
    from starlette.responses import JSONResponse

    kind = "invalid_request_error" if error.status == 400 else "NotFoundError"
    words = {"message": str(error), "type": kind, "param": error.param, "code": error.status}
    return JSONResponse({"error": words}, status_code=error.status)


def resident_bytes() -> int:
    """Return the resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def build(args: dict[str, Any]) -> serve.Application:
    """Return the Serve application of one engine.

    Args:
        args: an :class:`EngineSettings` as JSON object (the ``args`` of serveConfigV2).
    """
    return application(ONNXRuntimeEngine, args, _PROBE_TIMEOUT_S)
