"""The seam between the data plane and whatever runs a model.

An engine is a module that offers ``build(args) -> Application`` for Ray Serve; it answers vLLM's dialect of the
OpenAI API (log-probs included; a classifier: vLLM's ``/classify``) below its route prefix, refuses requests without the engines' token, and takes
traffic only after a generation went through it. To add one: a file here, an entry in ``ENGINES``, a test.
"""

from __future__ import annotations

from pydantic import Field

from leanmodel_api.base import Name, Part
from leanmodel_api.batching import MAX_SEQUENCES
from leanmodel_api.serving import Dtype

ENGINES: dict[str, str] = {
    "vLLM": "leanmodel_serving.engines.vllm:build",
    "ONNXRuntime": "leanmodel_serving.engines.onnx:build",
}
"""Engine's name in the manifest -> import path of its builder, as serveConfigV2 writes it."""

PROCESS_TITLES = ("VLLM::",)
"""How processes that engines start of their own begin their titles; the host ends those whose replica is gone."""


class EngineSettings(Part):
    """What one engine application is started with; a change of any of them restarts that application alone."""

    revision: Name = Field(description="Name under which the model is served, such as lean-1a2b3c4d.")
    model: str = Field(min_length=1, description="Folder of the weights, tokenizer and chat template.")
    token_file: str = Field(min_length=1, description="File that holds the token between router and engines.")
    dtype: Dtype = Field(
        "Auto", description="Precision of computation; Auto asks the hardware. Default Auto."
    )
    max_model_length: int = Field(
        1024, ge=16, description="Tokens of prompt and answer at most. Default 1024."
    )
    kv_cache_bytes: int = Field(
        512 * 2**20, ge=2**20, description="Key-value cache of a replica on CPU, bytes. Default 512 MiB."
    )
    threads: int = Field(1, ge=1, description="Threads of computation of a replica on CPU. Default 1.")
    max_sequences: int = Field(
        MAX_SEQUENCES, ge=1, description="Requests that are computed at once. Default 64."
    )
    max_ongoing_requests: int = Field(
        256, ge=1, description="Requests a replica holds, waiting ones included. Default 256."
    )
    max_logprobs: int = Field(
        20, ge=0, le=100, description="Log-probs per token that may be asked. Default 20."
    )
    compile: bool = Field(
        False,
        description="Compile the model with torch (needs a C++ compiler; a slower start). Default false.",
    )
    replicas: int = Field(1, ge=1, description="Replicas. Default 1.")
    health_period: float = Field(30.0, gt=0, description="Seconds between health checks. Default 30.")
    startup_timeout: float = Field(
        900.0, gt=0, description="Seconds a replica may take to be ready. Default 900."
    )
