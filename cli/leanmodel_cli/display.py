"""Progress in the terminal: one moving line where there is a terminal, a line per change where there is none."""

from __future__ import annotations

import shutil
import sys
import time
from typing import Any

BAR = 24
QUIET_SECONDS = 15.0
"""Without a terminal, an unchanged step is shown at most this often."""
_LAST_SECONDS = 60.0


class Display:
    """Shows a run's status as it changes."""

    def __init__(self) -> None:
        """Look whether standard error is a terminal."""
        self._terminal = sys.stderr.isatty()
        self._last = ("", 0.0)
        self._said: set[str] = set()
        self._began = time.monotonic()

    def update(self, resource: dict[str, Any]) -> None:
        """Show what changed."""
        status = resource["status"]
        for condition in status["conditions"]:
            words = f"{condition['type']}: {condition['message']}"
            if (
                condition["status"] == "True"
                and condition["type"] in ("Compressed", "Proven", "Serving", "Degraded")
                and words not in self._said
            ):
                self._said.add(words)
                self._line(f"[{self._clock()}] {words}", final=True)
        progress = status.get("progress")
        if progress and not resource.get("settled"):
            self._progress(progress)

    def _progress(self, progress: dict[str, Any]) -> None:
        eta = progress.get("etaSeconds")
        left = _left(eta) if eta is not None else ""
        percent = progress.get("percent", 0)
        if self._terminal:
            bar = "#" * (percent * BAR // 100)
            self._line(
                f"[{self._clock()}] [{bar:<{BAR}}] {percent:3d}%  {progress['step']}  {left}", final=False
            )
            return
        step, shown = self._last
        if progress["step"] != step or time.monotonic() - shown > QUIET_SECONDS:
            self._last = (progress["step"], time.monotonic())
            self._line(f"[{self._clock()}] {percent:3d}%  {progress['step']}  {left}", final=True)

    def end(self) -> None:
        """Leave the moving line."""
        if self._terminal:
            print(file=sys.stderr, flush=True)

    def _line(self, text: str, final: bool) -> None:
        if not self._terminal:
            print(text.rstrip(), file=sys.stderr, flush=True)
            return
        width = shutil.get_terminal_size().columns - 1
        print(f"\r{text[:width]:<{width}}", end="\n" if final else "", file=sys.stderr, flush=True)

    def _clock(self) -> str:
        return _duration(time.monotonic() - self._began)


def _left(seconds: float) -> str:
    """Return what is left in words; of the last minute no more is known than that it is the last."""
    return "under a minute left" if seconds < _LAST_SECONDS else f"about {_duration(seconds)} left"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"
