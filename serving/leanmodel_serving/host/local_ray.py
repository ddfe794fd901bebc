"""A Ray of our own on this machine: no dashboard, no usage statistics, loopback wherever Ray allows it."""

from __future__ import annotations

import logging
import os
import secrets
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from .. import haproxy
from .ports import free_block

_INGRESS_PORTS = 64
_PROXY_S = 240


@dataclass(frozen=True)
class HiddenPorts:
    """Ports that no user asks for: one block, cut up."""

    first: int

    @property
    def metrics(self) -> int:
        """Where Ray's agent shows all metrics of the node."""
        return self.first

    @property
    def haproxy_stats(self) -> int:
        """HAProxy's statistics page."""
        return self.first + 1

    @property
    def haproxy_metrics(self) -> int:
        """HAProxy's own exporter."""
        return self.first + 2

    @property
    def fallback_proxy(self) -> int:
        """Serve's own proxy, to which HAProxy turns while no replica is up."""
        return self.first + 3

    @property
    def ingress(self) -> tuple[int, int]:
        """Ports of the replicas behind HAProxy, both ends included."""
        return self.first + 4, self.first + 3 + _INGRESS_PORTS

    @property
    def grpc_ingress(self) -> tuple[int, int]:
        """Reserved by Serve beside the HTTP ones; nothing listens there."""
        return self.first + 4 + _INGRESS_PORTS, self.first + 3 + 2 * _INGRESS_PORTS

    @classmethod
    def find(cls, bounds: tuple[int, int]) -> HiddenPorts:
        """Return a free block within ``bounds``."""
        return cls(free_block(4 + 2 * _INGRESS_PORTS, bounds))


def environment(ports: HiddenPorts, temp_dir: Path) -> dict[str, str]:
    """Return the environment that Ray and Serve must find when they are imported, here and in every worker."""
    folder = temp_dir / "haproxy"
    return {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_TOKEN_PATH": str(temp_dir / "ray-token"),
        "RAY_metrics_report_interval_ms": "1000",
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        # It would keep a thousand lines back, and lose them with the process: a line is to be found by its request.
        "RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE": "1",
        "RAY_SERVE_HAPROXY_NBTHREAD": "1",
        # Its process imports for many seconds on a busy machine; by default Serve gives it up after three times five.
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "30",
        # A reload (a model joins) must not cut streams that are being answered.
        "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": "3600",
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / "metrics.sock"),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(ports.haproxy_metrics),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(ports.haproxy_stats),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(ports.fallback_proxy),
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(folder / "haproxy"),
        # vLLM leaves the sockets between its processes behind; here they go with the folder.
        "VLLM_RPC_BASE_PATH": str(temp_dir),
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(ports.ingress[0]),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(ports.ingress[1]),
        "RAY_SERVE_DIRECT_INGRESS_MIN_GRPC_PORT": str(ports.grpc_ingress[0]),
        "RAY_SERVE_DIRECT_INGRESS_MAX_GRPC_PORT": str(ports.grpc_ingress[1]),
    }


def start(port: int, host: str, ports: HiddenPorts, temp_dir: Path) -> Any:
    """Start Ray and Serve in this process's care; return Serve's client, which deploys configurations.

    Args:
        port: the public port.
        host: interface of the public port.
        ports: the hidden ones.
        temp_dir: folder for sockets and logs; its path must be short (Unix sockets end at 107 characters).
    """
    (temp_dir / "haproxy").mkdir(parents=True, exist_ok=True)
    haproxy.write(temp_dir / "haproxy" / "haproxy", (ports.haproxy_stats, ports.haproxy_metrics))
    token = temp_dir / "ray-token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32), encoding="utf-8")
    os.environ.update(environment(ports, temp_dir))

    import ray
    from ray import serve
    from ray._private import parameter, services
    from ray.serve._private import api

    # Ray replaces a loopback address by the machine's outer one; here nothing outside has business with it,
    # and an outer address breaks when a laptop changes its network.
    services.resolve_ip_for_localhost = lambda name: name
    # A fixed port otherwise, and so at most one Ray on a machine.
    parameter.RayParams = partial(parameter.RayParams, dashboard_agent_listen_port=0)
    # Serve gives up its start after 60 s, which its proxy's imports alone can take on a busy machine.
    api.HTTP_PROXY_TIMEOUT = _PROXY_S
    ray.init(
        address="local",
        num_cpus=2,
        object_store_memory=100 * 2**20,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.WARNING,
        namespace="serve",
        _node_ip_address="127.0.0.1",
        _temp_dir=str(temp_dir / "ray"),
        _metrics_export_port=ports.metrics,
    )
    serve.start(
        proxy_location="HeadOnly",
        http_options={"host": host, "port": port, "keep_alive_timeout_s": 90},
        logging_config={"log_level": "WARNING", "enable_access_log": False},
    )
    from ray.serve.context import _get_global_client

    return _get_global_client()
