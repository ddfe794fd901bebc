"""leanmodel keys: make, show and revoke the API keys of an endpoint."""

from __future__ import annotations

import json
import re
import sys
from argparse import ArgumentParser, Namespace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from leanmodel_api.base import number
from leanmodel_api.budget import Budget
from leanmodel_api.errors import InputError, Issue
from leanmodel_api.keys import ID_PATTERN, KeyEntry, KeyLimits, issue
from leanmodel_api.router import RouterSettings

from .. import keys
from ..runs import Run, only_run
from ..table import columns

HELP = "make, list and revoke API keys; a key is shown once, and kept as a salted hash"
_COUNT, _USD = "a whole number above 0", 'US dollars above 0, such as "20"'
_OPTIONS = {
    "tenant": ("TENANT", "lower case, digits and dashes, such as team-a"),
    "requestsPerMinute": ("--requests-per-minute", _COUNT), "tokensPerMinute": ("--tokens-per-minute", _COUNT),
    "concurrency": ("--concurrency", _COUNT), "usdPerHour": ("--usd-per-hour", _USD),
    "usdPerDay": ("--usd-per-day", _USD), "limits": ("--usd-per-hour, --usd-per-day", _USD),
}  # fmt: skip
"""By the field of an entry: what the user wrote, and what to write there."""


def arguments(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    create = actions.add_parser("create", help="make a key and print it, once")
    create.add_argument("tenant", metavar="TENANT", help="whose it is, such as team-a")
    _whose(create)
    create.add_argument("--days", type=int, help="days until it expires (default: never)")
    create.add_argument("--requests-per-minute", type=int, metavar="N", help="default: no limit")
    create.add_argument("--tokens-per-minute", type=int, metavar="N", help="default: no limit")
    create.add_argument("--concurrency", type=int, metavar="N", help="requests under way (default: no limit)")
    create.add_argument("--usd-per-hour", metavar="USD", help="budget of an hour (default: no limit)")
    create.add_argument("--usd-per-day", metavar="USD", help="budget of a day (default: no limit)")
    create.add_argument(
        "--when-exceeded", choices=("Reject", "LeanOnly"), default="Reject",
        help="over budget: 429, or the lean model alone (default: Reject)",
    )  # fmt: skip
    show = actions.add_parser("list", help="show keys, limits and what was spent; never the keys themselves")
    _whose(show)
    revoke = actions.add_parser("revoke", help="end a key's validity; the router sees it within a second")
    revoke.add_argument("id", metavar="ID", help="the key's id: its ten digits after lm-")
    _whose(revoke)


def _whose(parser: ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", metavar="NAME", help="the LeanModel; default: the only run")
    parser.add_argument("-n", "--namespace", default="default", help="its namespace (default: default)")
    parser.add_argument(
        "--cluster", action="store_true",
        help="for a cluster: print the Secret for kubectl (list: read it from standard input); needs NAME",
    )  # fmt: skip


def run(arguments: Namespace) -> int:
    """Carry the action out; return 0."""
    if arguments.cluster and arguments.name is None:
        raise InputError(Issue("NAME", "is missing", "name the LeanModel that the keys of a cluster are for"))
    actions = {"create": _create, "list": _list, "revoke": _revoke}
    actions[arguments.action](arguments)
    return 0


def _run(arguments: Namespace) -> Run:
    """Return the run; a named one may be yet to come."""
    if arguments.name is not None:
        return Run.of(arguments.name, arguments.namespace)
    return only_run(None, arguments.namespace)


def _create(arguments: Namespace) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    days = arguments.days
    if days is not None and not 1 <= days <= 36500:
        raise InputError(Issue("--days", f"found {days}", "write from 1 to 36500"))
    try:
        expires = (now + timedelta(days=days)).isoformat() if days is not None else None
        key, entry = issue(arguments.tenant, _limits(arguments), now.isoformat(), expires)
    except ValidationError as error:
        raise InputError([_said(detail) for detail in error.errors()]) from None
    if arguments.cluster:
        print(json.dumps(keys.secret(arguments.name, arguments.namespace, entry)))
        print(f"key, shown this once: {key}", file=sys.stderr)
        print(f"apply what is printed: | {keys.apply_command(entry.id)}", file=sys.stderr)
        return
    run = _run(arguments)
    keys.write(run.keys, entry)
    print(key)
    print(f"{entry.id} is kept in {run.keys} as a hash; the key is not shown again", file=sys.stderr)
    if _is_open(run.router):
        print(
            "note: this endpoint asks for no keys: write spec.serving.router.access: Keys into its manifest",
            file=sys.stderr,
        )


def _limits(arguments: Namespace) -> KeyLimits:
    budget = None
    if arguments.usd_per_hour is not None or arguments.usd_per_day is not None:
        budget = Budget(
            usd_per_hour=arguments.usd_per_hour, usd_per_day=arguments.usd_per_day,
            when_exceeded=arguments.when_exceeded,
        )  # fmt: skip
    return KeyLimits(
        requests_per_minute=arguments.requests_per_minute, tokens_per_minute=arguments.tokens_per_minute,
        concurrency=arguments.concurrency, budget=budget,
    )  # fmt: skip


def _said(detail: ErrorDetails) -> Issue:
    """Translate one pydantic error into the options of the command."""
    field = str(detail["loc"][-1]) if detail["loc"] else ""
    option, advice = next(
        (told for name, told in _OPTIONS.items() if name.lower() == field.replace("_", "").lower()),
        (field, "another value"),
    )
    words = str(detail.get("ctx", {}).get("error", "")) or f"found {detail['input']!r}"[:100]
    return Issue(option, words, f"write {advice}")


def _list(arguments: Namespace) -> None:
    if arguments.cluster:
        found, spent = keys.of_secret(sys.stdin.read()), {}
    else:
        run = _run(arguments)
        found, spent = keys.read(run.keys), keys.spent(run)
    now = datetime.now(UTC)
    rows = [["ID", "TENANT", "CREATED", "EXPIRES", "LIMITS", "SPENT"]]
    for entry in found:
        line = spent.get(entry.id)
        told = f"{line.spent / 1e9:.6f} USD, {line.requests} requests" if line is not None else ""
        expires = entry.expires or "never"
        if not entry.valid_at(now.timestamp()):
            expires += " (expired)"
        rows.append([entry.id, entry.tenant, entry.created, expires, _told(entry), told])
    print("\n".join(columns(rows, indent="")))


def _told(entry: KeyEntry) -> str:
    limits = entry.limits
    parts = [
        f"{limits.requests_per_minute} requests/min" if limits.requests_per_minute else "",
        f"{limits.tokens_per_minute} tokens/min" if limits.tokens_per_minute else "",
        f"{limits.concurrency} at once" if limits.concurrency else "",
    ]
    if limits.budget is not None:
        spans = {"usdPerHour": "hour", "usdPerDay": "day"}
        parts += [f"{number(text):g} USD/{spans[name]}" for name, text in limits.budget.limits()]
        parts.append(limits.budget.when_exceeded)
    return ", ".join(part for part in parts if part) or "none"


def _revoke(arguments: Namespace) -> None:
    if not re.fullmatch(ID_PATTERN, arguments.id):
        raise InputError(
            Issue("ID", f"found {arguments.id!r}"[:100], "write a key's id: the ten digits after lm-")
        )
    if arguments.cluster:
        print(json.dumps(keys.secret(arguments.name, arguments.namespace, None)))
        print(f"apply what is printed: | {keys.apply_command(arguments.id)}", file=sys.stderr)
        return
    run = _run(arguments)
    keys.remove(run.keys, arguments.id)
    print(f"{arguments.id} is revoked")


def _is_open(settings: Path) -> bool:
    """Return whether a router runs that asks for no keys."""
    try:
        return RouterSettings.model_validate_json(settings.read_bytes()).access is None
    except (OSError, ValueError):
        return False
