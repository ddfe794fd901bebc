"""``python -m chart_files``: write what the charts ship that is made from code; ``--check`` only looks."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from . import dashboard, places, rbac, schema, settings, table


def files() -> Iterator[tuple[Path, str]]:
    """Give each file that is made, and what it has to be."""
    values = settings.with_block(places.VALUES.read_text())
    yield places.VALUES, values
    yield places.SCHEMA, schema.render()
    yield places.RBAC, rbac.render()
    yield places.CRD, (places.ROOT / "crds" / "leanmodel.yaml").read_text()
    yield places.DASHBOARD, dashboard.render()
    for readme in places.READMES:
        own = values if readme.parent == places.OPERATOR else (readme.parent / "values.yaml").read_text()
        yield readme, table.with_table(readme.read_text(), own)


def stale() -> list[Path]:
    """Return the files that are not what they have to be."""
    return [path for path, text in files() if not path.exists() or path.read_text() != text]


def main(words: list[str]) -> int:
    """Write or check; the exit code."""
    parser = argparse.ArgumentParser(
        prog="chart_files", description="What the charts ship that is made from code."
    )
    parser.add_argument("--check", action="store_true", help="write nothing; fail if anything would change")
    if parser.parse_args(words).check:
        found = stale()
        for path in found:
            print(
                f"{path.relative_to(places.ROOT)} is not what the code says; run `make charts`",
                file=sys.stderr,
            )
        return 1 if found else 0
    for path, text in files():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
