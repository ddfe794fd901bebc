"""vLLM: its own OpenAI server, built inside a Ray Serve replica.

Nothing of vLLM's protocol is rewritten here: the replica's ASGI app *is* the app that ``vllm serve`` would run,
so streams, log-probs, errors and the ``vllm:*`` metrics (below ``<prefix>/metrics``) are vLLM's.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import time
import uuid
from pathlib import Path
from typing import Any

from ray import serve

from .base import EngineSettings
from .deployment import application
from .guard import guarded
from .hardware import cpu_dtype, cpu_flags, has_cxx_compiler, packed_weights
from .kv_cache import needed_bytes, too_small
from .logs import kept_log

_GENERATION_TIMEOUT_S = 60.0


def environment(settings: EngineSettings) -> dict[str, str]:
    """Return the environment variables that must stand before torch and vLLM are imported.

    Ray sets OMP_NUM_THREADS=1 for actors without CPUs, and torch reads it once, when it is loaded.
    """
    env = {
        "OMP_NUM_THREADS": str(settings.threads),
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": os.environ.get("VLLM_LOGGING_LEVEL", "WARNING"),
        "HF_HUB_OFFLINE": "1",
        # With it vLLM's worker lives in the engine process instead of in a third one of its own:
        # a second import of torch (half a minute on a small machine) and its memory fall away.
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    }
    if not (settings.compile and has_cxx_compiler()):
        env["TORCH_COMPILE_DISABLE"] = "1"
    return env


def server_arguments(settings: EngineSettings, flags: set[str], cpu: bool, packed: bool = False) -> list[str]:
    """Return the command line that ``vllm serve`` would get for these settings.

    Args:
        settings: the engine's settings.
        flags: the processor's feature flags.
        cpu: whether vLLM computes on the CPU.
        packed: whether the weights are packed integers (W4A16).

    Raises:
        ValueError: the weights cannot be computed with in the precision that is asked for; names the field.
    """
    arguments = [
        f"--model={settings.model}",
        f"--served-model-name={settings.revision}",
        f"--max-model-len={settings.max_model_length}",
        f"--max-num-seqs={settings.max_sequences}",
        f"--max-logprobs={settings.max_logprobs}",
        "--no-enable-log-requests",
        "--generation-config=vllm",
        "--disable-fastapi-docs",
    ]
    if cpu:
        try:
            dtype = cpu_dtype(settings.dtype, flags, packed)
        except ValueError as error:
            role = settings.revision.partition("-")[0]
            words = f"spec.serving.{role}.dtype: found {settings.dtype}, but {error}; write Auto or BFloat16"
            raise ValueError(words) from error
        arguments += [
            f"--dtype={dtype}",
            f"--kv-cache-memory-bytes={settings.kv_cache_bytes}",
            "--distributed-executor-backend=uni",
        ]
    else:
        arguments.append(f"--dtype={settings.dtype.lower()}")
    if not (settings.compile and has_cxx_compiler()):
        arguments.append("--enforce-eager")
    return arguments


def _cache_words(config: Any, settings: EngineSettings) -> str:
    """Return what to write when the cache may be why an engine did not start: vLLM's exception only says that it failed.

    Asked after a failure and not before a start: a model whose layers attend to a window needs less than this says.
    """
    model = config.model_config
    needed = needed_bytes(
        model.get_num_layers(config.parallel_config), model.get_num_kv_heads(config.parallel_config),
        model.get_head_size(), model.dtype.itemsize, settings.max_model_length, config.cache_config.block_size or 1,
    )  # fmt: skip
    return too_small(settings.revision, settings.kv_cache_bytes, needed, settings.max_model_length)


@serve.ingress()
class VLLMEngine:
    """One replica of one model; warm before Serve counts it as ready."""

    async def __init__(self, settings: dict[str, Any]) -> None:  # type: ignore[misc]  # Serve awaits it
        """Start the engine, build vLLM's app around it and generate once through it.

        Args:
            settings: an :class:`EngineSettings` as JSON object.
        """
        self.settings = EngineSettings.model_validate(settings)
        os.environ.update(environment(self.settings))
        token = Path(self.settings.token_file).read_text(encoding="utf-8").strip()

        with kept_log():
            await self._start(token)
        self.last_generation = 0.0
        await self._generate(time_limit=self.settings.startup_timeout)

    async def _start(self, token: str) -> None:
        """Start the engine and build vLLM's app around it."""
        # Imported here: the process that only builds the application must not load torch.
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.entrypoints.launchers.api_server.app_state import init_app_state
        from vllm.entrypoints.launchers.app import build_app
        from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
        from vllm.platforms import current_platform
        from vllm.usage.usage_lib import UsageContext
        from vllm.utils.argparse_utils import FlexibleArgumentParser
        from vllm.v1.engine.async_llm import AsyncLLM

        packed = packed_weights(Path(self.settings.model))
        line = server_arguments(self.settings, cpu_flags(), current_platform.is_cpu(), packed)
        args = make_arg_parser(FlexibleArgumentParser()).parse_args(line)
        validate_parsed_serve_args(args)
        engine_args = AsyncEngineArgs.from_cli_args(args)
        config = engine_args.create_engine_config(usage_context=UsageContext.OPENAI_API_SERVER)
        try:
            self.engine = AsyncLLM.from_vllm_config(
                vllm_config=config,
                usage_context=UsageContext.OPENAI_API_SERVER,
                enable_log_requests=False,
                disable_log_stats=engine_args.disable_log_stats,
            )
        except Exception as error:
            words = _cache_words(config, self.settings) if current_platform.is_cpu() else ""
            told = words or f"{type(error).__name__}: {error} (the replica's log has the engine's own words)"
            raise RuntimeError(told) from error
        tasks = await self.engine.get_supported_tasks()
        app = build_app(args, tasks, self.engine.model_config)
        await init_app_state(self.engine, app.state, args, tasks)
        # vLLM's error handler asks the server that it thinks it runs under to stop.
        app.state.server = argparse.Namespace(should_exit=False)
        self.app_state = app.state
        # Not `app`: that name belongs to the wrapper which Serve puts around this class.
        self.guarded_app = guarded(app, token)

    def __serve_build_asgi_app__(self) -> Any:  # noqa: N807 - Serve's hook
        """Return the app that Serve runs for this replica."""
        return self.guarded_app

    async def check_health(self) -> None:
        """Raise when the engine is dead or cannot generate one token; Serve then replaces the replica.

        Under load the requests themselves show that it generates, and a probe would wait behind them.
        """
        if self.engine.errored:
            raise RuntimeError(f"engine {self.settings.revision} died: {self.engine.dead_error}")
        if self.app_state.server.should_exit:
            raise RuntimeError(f"engine {self.settings.revision} asked to be stopped")
        if self.engine.output_processor.has_unfinished_requests():
            return
        if time.monotonic() - self.last_generation >= self.settings.health_period:
            await self._generate(time_limit=_GENERATION_TIMEOUT_S)

    async def _generate(self, time_limit: float) -> None:
        from vllm import SamplingParams

        async def one_token() -> None:
            async for _ in self.engine.generate(
                {"prompt_token_ids": [1]},
                SamplingParams(max_tokens=1, temperature=0.0),
                f"health-{uuid.uuid4()}",
            ):
                pass

        await asyncio.wait_for(one_token(), time_limit)
        self.last_generation = time.monotonic()

    def __del__(self) -> None:
        """Stop the engine's own process with the replica."""
        engine = getattr(self, "engine", None)
        if engine is not None:
            engine.shutdown()


def build(args: dict[str, Any]) -> serve.Application:
    """Return the Serve application of one engine.

    Args:
        args: an :class:`EngineSettings` as JSON object (the ``args`` of serveConfigV2).
    """
    return application(VLLMEngine, args, _GENERATION_TIMEOUT_S)
