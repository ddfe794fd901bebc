"""The proof's report: the page for people."""

from __future__ import annotations

from .page import render

__all__ = ["render"]
