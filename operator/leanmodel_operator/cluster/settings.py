"""How the operator is set up: one documented dataclass, from flags and the environment."""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


def _option(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class Settings:
    """Everything that may be set; ``--flag-name`` or ``LEANMODEL_FLAG_NAME``, the flag wins.

    Lists are written with commas; booleans as true or false.
    """

    namespaces: tuple[str, ...] = _option((), "namespaces to look after; none: all of them")
    lease_namespace: str = _option("leanmodel-system", "namespace of the Lease by which one replica leads")
    lease_name: str = _option("leanmodel-operator", "name of that Lease")
    identity: str = _option("", "this replica's name in the Lease; default: host name and process id")
    leader_election: bool = _option(True, "elect a leader by a Lease; false only for a single replica")
    lease_seconds: float = _option(15.0, "seconds after which a silent leader is replaced")
    renew_seconds: float = _option(10.0, "seconds after which a leader that cannot renew ends itself")
    retry_seconds: float = _option(2.0, "seconds between two attempts to take or renew the Lease")
    http_host: str = _option("0.0.0.0", "interface of /healthz, /readyz and /metrics")
    http_port: int = _option(8081, "port of /healthz, /readyz and /metrics; 0 takes a free one")
    workers: int = _option(8, "LeanModels that are worked on at once")
    resync_seconds: float = _option(600.0, "seconds between two looks at a LeanModel that nothing happens to")
    log_level: str = _option("INFO", "DEBUG, INFO, WARNING or ERROR")
    api_timeout_seconds: float = _option(30.0, "seconds that one call of the Kubernetes API may take")
    endpoint: str = _option(
        "http://{service}.{namespace}.svc:{port}",
        "how the operator reaches a LeanModel's Service; {service}, {namespace}, {name} and {port} are filled in",
    )
    metrics_endpoint: str = _option(
        "http://{service}-head-svc.{namespace}.svc:8080/metrics",
        "where the metrics of a LeanModel's Ray head are; the same words are filled in",
    )
    compressor_image: str = _option("leanmodel/compressor:0.1.0", "image of compress Jobs")
    prover_image: str = _option("leanmodel/server:0.1.0", "image of prove Jobs")
    server_image: str = _option("leanmodel/server:0.1.0", "image of the Ray cluster of new LeanModels")
    image_pull_policy: str = _option("IfNotPresent", "Always, IfNotPresent or Never")
    job_pull_secrets: tuple[str, ...] = _option((), "pull secrets of the Jobs")
    serving_pull_secrets: tuple[str, ...] = _option((), "pull secrets of the Ray cluster")
    job_priority_class: str = _option("", "priority class of the Jobs; best one below the serving pods'")
    serving_priority_class: str = _option("", "priority class of the Ray cluster's pods")
    ray_version: str = _option("2.60.0", "Ray's version in the server image")
    head_cpu: str = _option("1", "cores of the Ray head beside the router's own")
    head_memory: str = _option("3Gi", "memory of the Ray head beside the router's own")
    autoscaler_cpu: str = _option("100m", "cores requested for Ray's autoscaler in the head's pod")
    autoscaler_memory: str = _option("512Mi", "memory of Ray's autoscaler in the head's pod")
    redis_address: str = _option(
        "", "Redis of Ray's control store, such as redis:6379; none: a dead head interrupts"
    )
    redis_secret: str = _option("", "secret (key password) of that Redis, in the LeanModel's namespace")
    store: str = _option(
        "", "store of LeanModels that name none: pvc://CLAIM[/FOLDER]; none: each gets a claim of its own"
    )
    store_size: str = _option("20Gi", "size of such a claim")
    store_class: str = _option("", "storage class of such a claim; none: the cluster's default")
    store_access: str = _option(
        "ReadWriteOnce", "access mode of such a claim; ReadWriteMany on several nodes"
    )
    sweep_seconds: float = _option(
        3600.0, "seconds between two looks at the stores for what nobody needs any more"
    )
    sweep_grace_seconds: float = _option(
        3600.0, "seconds that an artifact stays in its store after it was last needed"
    )
    start_deadline_seconds: float = _option(
        3600.0, "seconds that a new revision may take until it answers; then it is taken out again"
    )
    job_retries: int = _option(3, "times that a Job's pod is tried again; bad input is not")
    job_deadline_seconds: int = _option(86400, "seconds that a Job may take in all")
    keep_results: int = _option(10, "recorded results that are kept per stage beside those in use")
    run_as: int = _option(10001, "user and group that all pods run as")

    @classmethod
    def read(cls, arguments: Sequence[str] = (), environment: Mapping[str, str] | None = None) -> Settings:
        """Return the settings of a command line and an environment.

        Raises:
            SystemExit: a flag is unknown, or a value is not of its kind (argparse says which).
        """
        environment = os.environ if environment is None else environment
        parser = cls.parser(environment)
        return cls(**vars(parser.parse_args(list(arguments))))

    @classmethod
    def parser(cls, environment: Mapping[str, str]) -> argparse.ArgumentParser:
        """Return the parser of the command line, with the environment's values as defaults."""
        parser = argparse.ArgumentParser(
            prog="python -m leanmodel_operator",
            description="The operator of LeanModels. Each flag may also be given as LEANMODEL_FLAG_NAME.",
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        )
        for item in dataclasses.fields(cls):
            convert = _converter(item.default)
            default: Any = item.default
            given = environment.get(f"LEANMODEL_{item.name.upper()}")
            if given is not None:
                try:
                    default = convert(given)
                except (ValueError, argparse.ArgumentTypeError) as error:
                    parser.error(f"LEANMODEL_{item.name.upper()}: {error}")
            flag = f"--{item.name.replace('_', '-')}"
            parser.add_argument(flag, type=convert, default=default, help=item.metadata["help"])
        return parser


def _converter(default: Any) -> Any:
    if isinstance(default, bool):
        return _boolean
    if isinstance(default, tuple):
        return _list
    return type(default)


def _boolean(text: str) -> bool:
    if text.lower() in ("true", "1", "yes"):
        return True
    if text.lower() in ("false", "0", "no"):
        return False
    raise argparse.ArgumentTypeError(f"found {text!r}; write true or false")


def _list(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())
