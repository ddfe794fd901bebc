"""How often a certify part has been looked at: what searched among many lean models on one part and kept
the best may not promise what the first look could.

Each proof of another lean revision on the same data is a look. The count goes into the certificate, which
divides its risk by it (Bonferroni), and into the report, which says when a fresh part is due.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path


def count_look(folder: Path, data_digest: str, proof: str) -> int:
    """Note that a proof looks at a certify part, and return which look it is (1 is the first).

    Args:
        folder: where the notes are kept, made when missing.
        data_digest: digest of the data set's parts.
        proof: what is proven, so that proving the same again is the same look.
    """
    path = folder / f"{hashlib.sha256(data_digest.encode()).hexdigest()[:24]}.json"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        known = [str(item) for item in json.loads(path.read_text())["proofs"]]
    except (OSError, ValueError, KeyError, TypeError):
        known = []
    if proof not in known:
        known.append(proof)
        fresh = path.with_suffix(f".{os.getpid()}.tmp")
        fresh.write_text(json.dumps({"data": data_digest, "proofs": known}, indent=1) + "\n")
        os.replace(fresh, path)
    return known.index(proof) + 1
