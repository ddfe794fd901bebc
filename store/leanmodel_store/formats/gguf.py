"""The head of a GGUF file (llama.cpp's format, specified in ggml's docs/gguf.md): magic, version, counts."""

from __future__ import annotations

import struct
from pathlib import Path

MAGIC = b"GGUF"
VERSIONS = (2, 3)


def fault(path: Path) -> str | None:
    """Return in words what is wrong with a GGUF file, or None; the tensors' bytes are not read."""
    size = path.stat().st_size
    with open(path, "rb") as handle:
        head = handle.read(24)
    if head[:4] != MAGIC:
        return f"it does not begin with {MAGIC.decode()}"
    if len(head) < 24:
        return "it ends within its header"
    version, tensors, values = struct.unpack("<IQQ", head[4:])
    if version not in VERSIONS:
        return f"its version is {version}, and {' and '.join(map(str, VERSIONS))} can be read"
    # A tensor's entry takes at least 8 (name) + 4 (dimensions) + 8 + 4 + 8 bytes, a value's at least 13.
    if tensors < 1 or 32 * tensors + 13 * values > size:
        return f"it promises {tensors} tensors and {values} values in {size} bytes"
    return None
