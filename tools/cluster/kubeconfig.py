"""Kubeconfig files: which server, whom to trust, and who asks, all in one file that can be copied."""

from __future__ import annotations

import base64
import json
from pathlib import Path

from .certificates import Pair


def write(path: Path, server: str, authority: Path, client: Pair) -> Path:
    """Writes a kubeconfig, as JSON (which is YAML) with the certificates inside; returns its path."""
    name = "leanmodel"
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": name, "cluster": {"server": server, "certificate-authority-data": _encoded(authority)}}
        ],
        "users": [
            {
                "name": name,
                "user": {
                    "client-certificate-data": _encoded(client.certificate),
                    "client-key-data": _encoded(client.key),
                },
            }
        ],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "current-context": name,
    }
    path.touch(mode=0o600)
    path.write_text(json.dumps(config, indent=1) + "\n")
    return path


def _encoded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
