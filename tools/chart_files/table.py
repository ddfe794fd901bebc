"""The table of values in a chart's README, made from values.yaml: what stands above a value explains it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

BEGIN = "<!-- values: begin (written by `make charts` from values.yaml) -->"
END = "<!-- values: end -->"


@dataclass(frozen=True)
class Value:
    """One value: where it stands, its default, and the words above it."""

    path: str
    default: Any
    words: str


def values(text: str) -> list[Value]:
    """Return the leaves of a values.yaml, and the branches that are explained as a whole."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if not isinstance(root, yaml.MappingNode):
        raise ValueError("values.yaml: found no mapping at the top")
    return list(_walk(root, "", text.splitlines()))


def _walk(node: yaml.MappingNode, above: str, lines: list[str]) -> Iterator[Value]:
    for key, value in node.value:
        path = f"{above}{key.value}"
        words = _words(lines, key.start_mark.line)
        # Security contexts, resources and lists are one value each: they are Kubernetes' own types.
        if isinstance(value, yaml.MappingNode) and value.value and not _is_whole(path):
            if words:
                yield Value(path, None, words)
            yield from _walk(value, f"{path}.", lines)
        else:
            default = yaml.safe_load(yaml.serialize(value))
            yield Value(path, json.dumps(default, ensure_ascii=False), words)


def _is_whole(path: str) -> bool:
    return path in ("resources", "podSecurityContext", "securityContext")


def _words(lines: list[str], line: int) -> str:
    """Return the comment right above a line, in one line."""
    found: list[str] = []
    while line > 0 and (match := re.fullmatch(r"\s*# (.+)", lines[line - 1])):
        if match[1].startswith("settings: "):
            break
        found.insert(0, match[1])
        line -= 1
    return " ".join(found)


def render(text: str) -> str:
    """Return the table of a values.yaml, markers included."""
    rows = [BEGIN, "", "| value | default | what |", "|---|---|---|"]
    for value in values(text):
        default = f"`{value.default}`" if value.default is not None else ""
        rows.append(f"| `{value.path}` | {default} | {value.words.replace('|', chr(92) + '|')} |")
    return "\n".join([*rows, "", END])


def with_table(readme: str, text: str) -> str:
    """Return a README with the table of a values.yaml as it has to be.

    Raises:
        ValueError: the markers are gone.
    """
    pattern = re.compile(rf"^{re.escape(BEGIN)}$.*?^{re.escape(END)}$", re.MULTILINE | re.DOTALL)
    if len(pattern.findall(readme)) != 1:
        raise ValueError(f"README.md: found no part between {BEGIN!r} and {END!r}; put both lines back")
    return pattern.sub(lambda _: render(text), readme)
