"""What Serve is told of every engine's deployment."""

from __future__ import annotations

from typing import Any

from ray import serve

from .base import EngineSettings


def application(engine: Any, args: dict[str, Any], probe_timeout: float) -> serve.Application:
    """Return the Serve application of one engine.

    Args:
        engine: the class whose replicas answer; made with the settings as JSON object.
        args: an :class:`EngineSettings` as JSON object (the ``args`` of serveConfigV2).
        probe_timeout: seconds that the engine's own health check may take.
    """
    settings = EngineSettings.model_validate(args)
    deployment = serve.deployment(
        engine,
        name="Engine",
        num_replicas=settings.replicas,
        max_ongoing_requests=settings.max_ongoing_requests,
        ray_actor_options={"num_cpus": 0},
        logging_config={"enable_access_log": False},
        health_check_period_s=min(10.0, settings.health_period),
        health_check_timeout_s=probe_timeout + 10.0,
        graceful_shutdown_timeout_s=20.0,
    )
    return deployment.bind(settings.model_dump(mode="json", by_alias=True))
