"""The command ``leanmodel``: arguments in, exit code out."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from importlib import metadata

from leanmodel_api.errors import LeanModelError

EXIT_CODES = """exit codes:
  0  done as declared
  1  something broke; the log that is named says what
  2  the input is at fault (manifest, data, weights, records); nothing was changed
  3  refused before any work: too little memory or disk, or a port that is taken
  4  the large model serves, but the lean one was not admitted (a gate or the promise failed)
  5  the large model serves, but the work on the lean one failed
  130  ended by Ctrl-C; no process is left behind
"""

COMMANDS = (
    "validate",
    "estimate",
    "up",
    "status",
    "report",
    "down",
    "compress",
    "calibrate",
    "evaluate-policy",
    "keys",
)


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands; each command's module adds its own."""
    top = argparse.ArgumentParser(
        prog="leanmodel",
        description="A large model's answers, at a declared quality, for as little money as possible.",
        epilog=EXIT_CODES, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    top.add_argument("--version", action="version", version=f"leanmodel {metadata.version('leanmodel')}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name in COMMANDS:
        module = importlib.import_module(f".commands.{name.replace('-', '_')}", __package__)
        sub = commands.add_parser(name, help=module.HELP, description=module.HELP)
        module.arguments(sub)
        sub.set_defaults(run=module.run)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code; errors for users go to standard error without a traceback."""
    arguments = parser().parse_args(argv)
    try:
        code: int = arguments.run(arguments)
    except LeanModelError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of our output has gone (`| head`); silence the interpreter's own complaint at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code


if __name__ == "__main__":
    sys.exit(main())
