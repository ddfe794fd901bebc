"""Two routers, one ledger, 10,000 requests, kill -9 of one in the middle: is what is spent what the answers cost?

Half of the requests are streams, two tenants ask, and every cost is a number of nano-dollars that no rounding would
leave alone. Writes docs/results/ledger.md; the exit code is 1 when a nano-dollar is missing or too much.
Run: make bench-ledger
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "doubles"))

from ledger_run import Outcome, run  # noqa: E402

from leanmodel_serving.ledger.books import MODEL  # noqa: E402

RESULT = ROOT / "docs" / "results" / "ledger.md"


def document(found: Outcome, clients: int) -> str:
    """Return what was found as a page."""
    told = sum(one.nano for one in found.answered)
    lines = [
        "# The ledger under a kill",
        "",
        "`make bench-ledger`: two router processes share one ledger, in front of a mock engine whose answers cost odd "
        "numbers of nano-dollars; half of the requests are streams. The engine says up to a milliard tokens, so that each "
        "request can be told by its cost, even of a few that are missing. When half of them are answered, one router gets "
        "`kill -9` and is started again. What it broke off is asked anew, as clients do.",
        "",
        f"{datetime.date.today()}, {os.cpu_count()} cores (shared with other work), {clients} clients, "
        f"{len(found.answered) / found.seconds:.0f} requests/s with the clients and the engine on the same cores.",
        "",
        "| | requests | US dollars |",
        "|---|---|---|",
        f"| answered, as the answers said | {len(found.answered)} | {told / 1e9:.9f} |",
        f"| broken off by the kill (after {found.killed_after} answers) | {len(found.lost)} | |",
        f"| spent, as the ledger says | {found.ledger[MODEL].requests} | {found.ledger[MODEL].spent / 1e9:.9f} |",
    ]
    for number, (account, line) in enumerate(sorted(found.ledger.items())):
        if account != MODEL:
            own = [one.nano for one in found.answered if one.key == account]
            lines += [
                f"| tenant {number}: answered | {len(own)} | {sum(own) / 1e9:.9f} |",
                f"| tenant {number}: spent | {line.requests} | {line.spent / 1e9:.9f} |",
            ]
    extra = found.ledger[MODEL].requests - len(found.answered)
    lines += [
        "",
        "A request is settled before its last byte goes out. One that the kill hits between the two is spent and not "
        f"answered: here {extra}. "
        + ("Everything adds up to the nano-dollar" if not found.wrong else "It does not add up: " + "; ".join(found.wrong))
        + (
            ", for the whole and for each tenant, and nothing stays reserved once the killed process's lease has run out."
            if not found.wrong
            else ""
        ),
        "",
    ]  # fmt: skip
    return "\n".join(lines)


def main() -> int:
    """Run it, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(run(Path(folder), given.requests, given.clients, given.seed))
    text = document(found, given.clients)
    RESULT.write_text(text, encoding="utf-8")
    print(text)
    return 1 if found.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
