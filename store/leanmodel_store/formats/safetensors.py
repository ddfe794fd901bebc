"""The head of a safetensors file: eight bytes of length, a JSON object of tensors, then their bytes.

The layout is the one documented with the safetensors library; checked here without it, so that a cut or
crafted file is refused before anything maps it.
"""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

LONGEST_HEADER = 100_000_000
"""The library's own bound."""

BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "I64": 64, "U64": 64,
    "F64": 64, "C64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip


def fault(path: Path) -> str | None:
    """Return in words what is wrong with a safetensors file, or None; the tensors' bytes are not read."""
    size = path.stat().st_size
    with open(path, "rb") as handle:
        start = handle.read(8)
        if len(start) < 8:
            return f"it has {size} bytes, too few for a safetensors file"
        (length,) = struct.unpack("<Q", start)
        if length > LONGEST_HEADER or length + 8 > size:
            return f"its first eight bytes promise a header of {length} bytes, and the file has {size}"
        raw = handle.read(length)
    try:
        header = json.loads(raw)
    except (ValueError, RecursionError):
        return "its header is not JSON"
    if not isinstance(header, dict):
        return "its header is not a JSON object"
    header.pop("__metadata__", None)
    return _tensors(header, size - 8 - length)


def _tensors(tensors: dict[str, Any], room: int) -> str | None:
    """Hold the tensors' ranges against each other and against the bytes that follow the header."""
    if not tensors:
        return "it holds no tensor"
    ranges: list[tuple[int, int]] = []
    for name, info in tensors.items():
        try:
            first, last = (int(offset) for offset in info["data_offsets"])
            shape = [int(length) for length in info["shape"]]
            bits = BITS.get(str(info["dtype"]))
        except (KeyError, TypeError, ValueError):
            return f"its entry for tensor {name!r} is incomplete"
        if bits is not None and (min(shape, default=0) < 0 or math.prod(shape) * bits != (last - first) * 8):
            return f"tensor {name!r} takes {last - first} bytes, which its type and shape {shape} do not"
        ranges.append((first, last))
    at = 0
    for first, last in sorted(ranges):
        if first != at or last < first:
            return "its tensors overlap or leave gaps"
        at = last
    if at != room:
        return f"its tensors take {at} bytes, and {room} follow the header: the file is cut off or too long"
    return None
