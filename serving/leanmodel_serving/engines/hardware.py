"""What the processor can do, asked when an engine starts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Set
from pathlib import Path

from leanmodel_api.eight_bits import weights_alone
from leanmodel_api.serving import Dtype

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


def cpu_dtype(wanted: Dtype, flags: Set[str], packed: bool = False) -> str:
    """Return torch's name of the precision to compute in on a CPU.

    bfloat16 on a processor without the instructions runs many times slower than float32, so Auto takes it only
    where the hardware has it; weights stored in bfloat16 widen to float32 without a loss. Packed weights (W4A16) are
    multiplied in 16 bits alone: vLLM's kernel for the CPU knows no float32.

    Args:
        wanted: as the manifest says.
        flags: the processor's feature flags.
        packed: whether the weights are integers, several in a word.

    Raises:
        ValueError: float32 is asked for with packed weights.
    """
    if packed and wanted == "Float32":
        raise ValueError("vLLM multiplies packed weights (W4A16) on a CPU in 16 bits alone")
    if packed and wanted == "Auto":
        return "bfloat16"
    if wanted != "Auto":
        return wanted.lower()
    return "bfloat16" if _FAST_BF16 & flags else "float32"


def packed_weights(folder: Path) -> bool:
    """Say whether an artifact's weights are integers of 4 bits, several in a word (compressed-tensors, W4A16)."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False  # the engine itself will say what is wrong with it
    quantization = config.get("quantization_config") or {}
    return quantization.get("format") == "pack-quantized" and weights_alone(quantization, 4)


def has_cxx_compiler() -> bool:
    """Say whether torch could compile for the CPU here."""
    return any(shutil.which(name) for name in ("g++", "clang++", "c++"))
