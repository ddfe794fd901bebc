"""What the host says about itself, for the supervisor: one JSON file, replaced as a whole."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import Field

from leanmodel_api.base import Part

Phase = Literal["Starting", "Running", "Stopping", "Stopped", "Failed"]


class ApplicationStatus(Part):
    """One Serve application."""

    status: str = Field(
        description="Serve's word: DEPLOYING, RUNNING, DEPLOY_FAILED, UNHEALTHY, DELETING, NOT_STARTED."
    )
    ready: bool = Field(False, description="RUNNING, and its address answered through the public port.")
    message: str = Field(
        "", description="What Serve says about it, such as the last lines of a failed start."
    )
    url: str = Field("", description="Address of the application.")
    since: float = Field(0.0, description="When this status was reached, Unix seconds.")
    replicas: dict[str, int] = Field(default_factory=dict, description="Replicas by state.")


class HostStatus(Part):
    """The whole host."""

    phase: Phase = Field(description="Where the host stands.")
    message: str = Field("", description="In words; when Failed, what to do.")
    pid: int = Field(description="The process to send SIGTERM to.")
    pids: list[int] = Field(default_factory=list, description="All processes of the host.")
    endpoint: str = Field("", description="Address of the OpenAI-compatible endpoint, without /v1.")
    metrics: str = Field("", description="Address that Prometheus scrapes.")
    desired_digest: str = Field("", description="sha256 of the desired-state file that was applied last.")
    errors: list[str] = Field(
        default_factory=list, description="What is wrong with the desired state, in words."
    )
    applications: dict[str, ApplicationStatus] = Field(
        default_factory=dict, description="By application name."
    )
    started: float = Field(0.0, description="When the host started, Unix seconds.")
    updated: float = Field(0.0, description="When this was written, Unix seconds.")

    def write(self, path: Path) -> None:
        """Replace the file at once: a reader sees the old or the new status, never half of one."""
        replace_file(path, self.model_dump_json(by_alias=True, indent=1))


def replace_file(path: Path, text: str) -> None:
    """Write a text file under a temporary name and rename it over ``path``."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
