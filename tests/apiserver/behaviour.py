"""How things go in one namespace of the simulator, and what was seen of it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Behaviour:
    """How things go in one namespace; changed by tests while it goes on.

    Attributes:
        verdict: of proofs.
        held: stages whose Jobs run on and do not end.
        failing: stage -> (exit code, reason of the container's end, last words).
        waiting: stage -> (reason, message) why its pod's container cannot start.
        broken: beginnings of names of applications that do not start (DEPLOY_FAILED).
        hanging: beginnings of names of applications that stay DEPLOYING.
        spared: applications that start whatever their names begin with.
        down: whether the Ray cluster has lost all its applications.
        store: a folder that stands for the volume: compress Jobs leave artifacts in it, and sweeps are carried out.
    """

    verdict: str = "Routed"
    held: set[str] = field(default_factory=set)
    failing: dict[str, tuple[int, str, str]] = field(default_factory=dict)
    waiting: dict[str, tuple[str, str]] = field(default_factory=dict)
    broken: set[str] = field(default_factory=set)
    hanging: set[str] = field(default_factory=set)
    spared: set[str] = field(default_factory=set)
    down: bool = False
    store: Path | None = None


class Books:
    """What was seen of one namespace."""

    def __init__(self) -> None:
        self.jobs: list[str] = []
        self.started: list[str] = []
        self.running: dict[str, set[str]] = defaultdict(set)
        self.dropped: list[str] = []
        self.asked: dict[str, dict[str, Any]] = {}
