"""Pickles run code when they are loaded, so none is: by its name, and by its content under any other name."""

from __future__ import annotations

import zipfile
from pathlib import Path

ADVICE = (
    "convert the weights to safetensors first, on a machine that may run their code: "
    "`AutoModelForCausalLM.from_pretrained(…).save_pretrained(…)` of transformers writes them"
)

SUFFIXES = frozenset(
    {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".dill", ".npy", ".npz", ".mar", ".pt2",
     ".h5", ".keras", ".nemo", ".msgpack", ".ot"}
)  # fmt: skip
"""Ends of names under which weights travel as pickles, or in containers that may hold one."""

_TAR = 257


def is_name(name: str) -> bool:
    """Return whether a file's name is one that pickled weights travel under."""
    return Path(name).suffix.lower() in SUFFIXES


def fault(path: Path) -> str | None:
    """Return in words why a file's content counts as a pickle, or None.

    Knows protocols 2 and up (opcode PROTO first), torch's zip with ``data.pkl``, numpy's object arrays,
    torch's old tar, and the text protocols 0 and 1 as torch wrote them.
    """
    with open(path, "rb") as handle:
        head = handle.read(512)
    if len(head) >= 2 and head[0] == 0x80 and 2 <= head[1] <= 5:
        return f"is a pickle (protocol {head[1]}), which can run code when it is loaded"
    if head.startswith(b"\x93NUMPY"):
        return "is a numpy file, which may hold a pickle"
    if head.startswith(b"PK\x03\x04"):
        return _zip(path)
    if head[_TAR : _TAR + 5] == b"ustar":
        return "is a tar archive, as old torch files are, which may hold a pickle"
    if head.startswith((b"c__", b"ctorch", b"ccopy_reg", b"cos\n", b"cposix\n", b"(dp", b"(lp", b"(i__")):
        return "is a pickle (text protocol), which can run code when it is loaded"
    return None


def _zip(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            pickled = [name for name in archive.namelist() if name.endswith(".pkl")]
    except (zipfile.BadZipFile, OSError, ValueError):
        pickled = []
    if pickled:
        return f"is a torch archive with a pickle in it ({pickled[0]!r}), which can run code when loaded"
    return "is a zip archive, in which pickles travel"
