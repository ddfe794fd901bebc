"""What the processor can do, asked when an engine starts."""

from __future__ import annotations

import shutil
from collections.abc import Set
from pathlib import Path

from .base import Dtype

_FAST_BF16 = {"avx512_bf16", "amx_bf16", "bf16", "sme"}
"""CPU flags with which bfloat16 multiplies are not emulated (x86: AVX512-BF16, AMX; Arm: BF16)."""


def cpu_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> set[str]:
    """Return the processor's feature flags (x86 ``flags``, Arm ``Features``); none where they are not listed."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return set()
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return set(value.split())
    return set()


def cpu_dtype(wanted: Dtype, flags: Set[str]) -> str:
    """Return torch's name of the precision to compute in on a CPU.

    bfloat16 on a processor without the instructions runs many times slower than float32, so Auto takes it only
    where the hardware has it; weights stored in bfloat16 widen to float32 without a loss.
    """
    if wanted != "Auto":
        return wanted.lower()
    return "bfloat16" if _FAST_BF16 & flags else "float32"


def has_cxx_compiler() -> bool:
    """Say whether torch could compile for the CPU here."""
    return any(shutil.which(name) for name in ("g++", "clang++", "c++"))
