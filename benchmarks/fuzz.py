"""Five thousand hostile bodies to one router: is any answered 500, does any hang, does its memory stay flat?

Writes docs/results/fuzz.md; the exit code is 1 when a body was answered 5xx or not at all, or when memory grew.
Run: make bench-fuzz
"""

from __future__ import annotations

import argparse
import datetime
import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "doubles"))

from fuzz_run import CLIENTS, Fuzzed, fuzz  # noqa: E402

RESULT = ROOT / "docs" / "results" / "fuzz.md"
WARM = 1000
"""Bodies until memory is looked at: by then each kind has been sent often, and buffers have their size."""
GROWTH = 0.03
"""Share by which memory may be larger after the last body than after the first :data:`WARM`."""
MIB = 2**20


def grown(found: Fuzzed) -> float:
    """Return by which share memory has grown since it was warm."""
    last = max(found.memory)
    return found.memory[last] / found.memory[min(WARM, last)] - 1


def document(found: Fuzzed, bodies: int, seed: int) -> str:
    """Return what was found as a page."""
    kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(found.kinds.items()))
    lines = [
        "# Hostile bodies",
        "",
        f"`make bench-fuzz`: {bodies:,} bodies (seed {seed}) over HTTP to one router process with keys, a cascade and overrides, "
        "before an engine double that answers at once and takes whatever it can make anything of. *changed*: sound requests "
        "(chat, streams, log-probs, tools, schemas, images, raw completions) with places replaced, removed or multiplied; "
        "*torn*: their bytes cut and turned; *nested*: up to 50,000 brackets; *other*: JSON that is no request; *bytes*: "
        "by lot. A third of the requests carries odd headers.",
        "",
        f"{datetime.date.today()}, {os.cpu_count()} cores shared with other work, {CLIENTS} clients, {found.seconds:.0f} s.",
        "",
        "| | |",
        "|---|---|",
        f"| bodies | {kinds} |",
        *(f"| answered {status} | {count:,} |" for status, count in sorted(found.statuses.items())),
        f"| answered 5xx, or not in form, or not at all | {len(found.wrong)} |",
        f"| longest answer | {found.longest:.2f} s |",
        f"| memory before the first body | {found.memory[0] / MIB:.1f} MiB |",
        *(f"| memory after {count:,} | {size / MIB:.1f} MiB |" for count, size in sorted(found.memory.items()) if count),
        "",
        f"Since the first {min(WARM, bodies):,} bodies memory has changed by {grown(found):+.1%}. What it takes before is warm-up, as "
        "far as can be told from outside: connections and their buffers, and an allocator that has then seen the largest bodies. "
        "What may grow after it is the list of conversations pinned to the large model, which ends at 100,000 of 16 bytes "
        "each. The router is a process of its own and its memory is what Linux says is in RAM (VmRSS).",
        "",
        *(f"- {why}" for why in found.wrong[:20]),
    ]  # fmt: skip
    return "\n".join(lines).rstrip() + "\n"


def main() -> int:
    """Run it, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--bodies", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = fuzz(Path(folder), given.bodies, given.seed, look_every=WARM)
    text = document(found, given.bodies, given.seed)
    RESULT.write_text(text, encoding="utf-8")
    print(text)
    return 1 if found.wrong or grown(found) > GROWTH else 0


if __name__ == "__main__":
    sys.exit(main())
