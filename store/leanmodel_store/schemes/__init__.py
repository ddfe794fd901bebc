"""Where a source can come from: one file per scheme of its address, entered in :data:`SCHEMES`."""

from __future__ import annotations

from .base import Scheme
from .file import SCHEME as FILE
from .hf import SCHEME as HF
from .pypi import SCHEME as PYPI

SCHEMES: dict[str, Scheme] = {"file": FILE, "hf": HF, "pypi": PYPI}
"""By the part of the address before the first colon."""
